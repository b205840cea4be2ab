"""What a killed run need not do again, as tensors behind a digest; no pickle."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from headstart.files import digest_bytes, make_folder, write_whole

FOLDER = "checkpoints"
DIGEST_CHARACTERS = 32
META = "json"

State = dict[str, torch.Tensor]


def save_state(run: Path, name: str, tensors: State, chosen: dict[str, object]) -> None:
    """Keep tensors and what was chosen in `checkpoints/NAME`, whole, with a digest before them.

    Args:
        run: folder of the run.
        name: of the file.
        tensors: by name.
        chosen: anything JSON knows.
    """
    from safetensors.torch import save

    make_folder(run / FOLDER)
    held = {key: value.cpu().contiguous() for key, value in tensors.items()}
    data = save(held, metadata={META: json.dumps(chosen)})
    digest = digest_bytes(data).encode()
    write_whole(run / FOLDER / name, lambda aside: aside.write_bytes(digest + data))


def load_state(run: Path, name: str) -> tuple[State, dict[str, object]] | None:
    """What `save_state` kept; None where it is not there or damaged, so that it is made again."""
    from safetensors.torch import load

    path = run / FOLDER / name
    if not path.is_file():
        return None
    raw = path.read_bytes()
    digest, data = raw[:DIGEST_CHARACTERS], raw[DIGEST_CHARACTERS:]
    if digest != digest_bytes(data).encode():
        return None
    length = int.from_bytes(data[:8], "little")  # the head of a safetensors file
    chosen = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][META])
    return load(data), chosen
