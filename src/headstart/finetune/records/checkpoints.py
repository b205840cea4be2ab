"""Where a training stood at the end of an epoch, written whole or not at all.

A file is a digest and what torch saved; it is read with `weights_only`, so nothing in it can run.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

from headstart.errors import ResumeError
from headstart.files import digest_bytes, make_folder, write_whole

DIGEST_CHARACTERS = 32
IDENTITY = "identity"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain values in the place of the one before.

    Raises:
        StorageError: the disk is full or failed; the checkpoint before stays as it was.
    """
    make_folder(path.parent)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    digest = digest_bytes(data).encode()  # type: ignore[arg-type]

    def fill(aside: Path) -> None:
        with aside.open("wb") as file:
            file.write(digest)
            file.write(data)

    write_whole(path, fill)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state, or None where there is none or it is damaged."""
    if not path.is_file():
        return None
    raw = memoryview(path.read_bytes())
    digest, data = bytes(raw[:DIGEST_CHARACTERS]), raw[DIGEST_CHARACTERS:]
    if digest != digest_bytes(data).encode():  # type: ignore[arg-type]
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


def check_identity(state: dict[str, Any], identity: dict[str, str], path: Path) -> None:
    """Refuse a checkpoint of another training.

    Args:
        state: what was loaded.
        identity: what this training hangs on, by name.
        path: for the message.

    Raises:
        ResumeError: something differs; it is named.
    """
    stored = json.loads(state[IDENTITY])
    differing = [name for name in identity if stored.get(name) != identity[name]]
    if differing:
        raise ResumeError(
            f"The checkpoint '{path}' must be of the same training, got another: "
            f"{', '.join(differing)} differ. Choose another --out or restore them."
        )
