"""`--keep DIR`: what was uploaded, for whoever asked to keep it; nothing is kept otherwise.

A file is named by the digest of its bytes and the format found in them, never by its sender, so
that no name leads out of the folder; the folder is private (0700), its files 0600. A file that
cannot be kept costs no answer.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from headstart.data import digest_of
from headstart.data.formats import format_of
from headstart.files import make_folder


class Keeper:
    """A folder of uploads."""

    def __init__(self, folder: str) -> None:
        """Make the folder.

        Raises:
            OutputError: it cannot be written to.
        """
        self.folder = Path(folder)
        make_folder(self.folder, private=True)

    def keep(self, data: bytes) -> None:
        """Store one image; the same bytes are stored once.

        Raises:
            OSError: the disk is full or failed.
        """
        place = self.folder / f"{digest_of(data)}.{format_of(data).lower()}"
        if place.exists():
            return
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(name, place)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
