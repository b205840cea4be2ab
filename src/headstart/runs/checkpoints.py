"""What a killed run need not do again: the fitted folds, as tensors in a safetensors file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch

from headstart.files import make_folder, write_whole
from headstart.heads import ChosenFit

FOLDER = "checkpoints"
FOLDS = "folds.safetensors"
FINAL_PENALTY = "final_penalty"


def save_folds(run: Path, fit: ChosenFit) -> None:
    """Keep every fold's head and the search that chose its penalty."""
    from safetensors.torch import save

    make_folder(run / FOLDER)
    tensors = {}
    for field in fields(ChosenFit):
        value = getattr(fit, field.name)
        if field.name == FINAL_PENALTY:
            value = torch.tensor([value], dtype=torch.float64)
        tensors[field.name] = value.cpu().contiguous()
    write_whole(run / FOLDER / FOLDS, lambda aside: aside.write_bytes(save(tensors)))


def load_folds(run: Path) -> ChosenFit | None:
    """The fitted folds of an interrupted run, None where they are not there or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = run / FOLDER / FOLDS
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        final_penalty = float(tensors.pop(FINAL_PENALTY))
        return ChosenFit(final_penalty=final_penalty, **tensors)
    except (SafetensorError, KeyError, TypeError):
        return None  # the folds are fitted again, to the same figures
