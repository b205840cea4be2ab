"""What a killed run need not do again: the fitted folds, as a digest and safetensors data."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch

from headstart.files import digest_bytes, make_folder, write_whole
from headstart.heads import ChosenFit

FOLDER = "checkpoints"
FOLDS = "folds.bin"
DIGEST_CHARACTERS = 32
FINAL_PENALTY = "final_penalty"


def save_folds(run: Path, fit: ChosenFit) -> None:
    """Keep every fold's head and the search that chose its penalty, with a digest before them."""
    from safetensors.torch import save

    make_folder(run / FOLDER)
    tensors = {}
    for field in fields(ChosenFit):
        value = getattr(fit, field.name)
        if field.name == FINAL_PENALTY:
            value = torch.tensor([value], dtype=torch.float64)
        tensors[field.name] = value.cpu().contiguous()
    data = save(tensors)
    write_whole(
        run / FOLDER / FOLDS, lambda aside: aside.write_bytes(digest_bytes(data).encode() + data)
    )


def load_folds(run: Path) -> ChosenFit | None:
    """The fitted folds of an interrupted run, None where they are not there or damaged."""
    from safetensors.torch import load

    path = run / FOLDER / FOLDS
    if not path.is_file():
        return None
    raw = path.read_bytes()
    digest, data = raw[:DIGEST_CHARACTERS], raw[DIGEST_CHARACTERS:]
    if digest != digest_bytes(data).encode():
        return None  # the folds are fitted again, to the same figures
    tensors = load(data)
    final_penalty = float(tensors.pop(FINAL_PENALTY))
    return ChosenFit(final_penalty=final_penalty, **tensors)
