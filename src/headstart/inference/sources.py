"""Where the pictures of a pass come from."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from headstart.data.boxes import Box
from headstart.records import Bytes8


class ImageSource(Protocol):
    """Anything whose images can be read by row; `ImageTable` is one."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the images."""

    def __len__(self) -> int:
        """How many images."""

    def read(self, row: int) -> bytes | Bytes8:
        """Encoded bytes or plain pixels of one image."""

    def box_of(self, row: int) -> Box | None:
        """The part of the upright picture to look at, as shares; None takes all of it."""


class ImageList:
    """Images in the order given: files, encoded bytes, plain pixels, or why one cannot be read."""

    def __init__(
        self, images: Sequence[Path | bytes | Bytes8 | OSError], paths: Sequence[str]
    ) -> None:
        """Keep the images and their names; files are read when they are asked for."""
        self.images = list(images)
        self.paths = tuple(paths)

    def __len__(self) -> int:
        """How many images."""
        return len(self.images)

    def read(self, row: int) -> bytes | Bytes8:
        """The image of this row.

        Raises:
            OSError: it cannot be read.
        """
        image = self.images[row]
        if isinstance(image, OSError):
            raise image
        return read_regular(image) if isinstance(image, Path) else image

    def box_of(self, _row: int) -> Box | None:
        """None: the whole picture."""
        return None


def read_regular(path: Path) -> bytes:
    """The content of a file; a pipe or a device is refused, because reading it may never end.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    if path.exists() and not path.is_dir() and not path.is_file():
        raise OSError(errno.EINVAL, "a pipe, socket or device, not a file")
    return path.read_bytes()
