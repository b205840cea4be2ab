"""The folder of stored features: one file a network and view, and who is using which.

Beside `NAME.sqlite` lies `NAME.lock`. Whoever opens the store shares a lock on it, so that nobody
removes a file that somebody reads or writes: unlinking an open SQLite file would leave its users a
log that the next file of that name takes for its own. The lock goes with the process, however it
ends. The time of `NAME.lock` is the last use. Windows removes no open file, so it needs no lock.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import IO

from headstart.files import digest_bytes, share_lock, storage_errors, take_lock
from headstart.records import ImageFacts

CACHE_VARIABLE = "HEADSTART_CACHE"
SUFFIX = ".sqlite"
LOCK_SUFFIX = ".lock"
LOG_SUFFIXES = ("-wal", "-shm")
# What is kept of an image beside its features. The path is not: it may name a patient.
FACTS = tuple(field.name for field in fields(ImageFacts) if field.name != "path")
# Another format has files of another name; those of the old one are the least recently used.
FORMAT = "rows 2: " + ", ".join(FACTS)
LEFTOVER_AFTER_S = 3600.0  # where scratch files have names, a younger one may be in use


def cache_folder() -> Path:
    """`HEADSTART_CACHE`, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headstart"


def features_folder(folder: Path | None = None) -> Path:
    """Where the store's files lie; None takes `cache_folder()`."""
    return (folder or cache_folder()) / "features"


def store_path(identity: str, folder: Path | None = None) -> Path:
    """The file of one network and view; it may not be there yet."""
    name = digest_bytes(identity.encode(), FORMAT.encode())
    return features_folder(folder) / f"{name}{SUFFIX}"


def store_files(folder: Path | None = None) -> list[Path]:
    """Every file of the store, without its companions."""
    return sorted(features_folder(folder).glob(f"*{SUFFIX}"))


def lock_path(path: Path) -> Path:
    """The lock that stands for a file of the store."""
    return path.with_suffix(LOCK_SUFFIX)


class Claim:
    """A share in one file of the store: while it is held, nobody removes the file."""

    def __init__(self, path: Path) -> None:
        """Take a share, after whoever is removing the file has done so.

        Args:
            path: the store's file; it need not be there.

        Raises:
            OSError: the folder cannot be written to.
        """
        self._lock = lock_path(path)
        while True:
            self._file: IO[str] = self._lock.open("a+")
            if not share_lock(self._file) or self._is_current():
                break
            self._file.close()  # its owner removed it while we waited
        self.touch()

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._lock.stat())
        except FileNotFoundError:
            return False

    def touch(self) -> None:
        """Note this moment as the last use."""
        with suppress(OSError):
            os.utime(self._lock)

    def release(self) -> None:
        """Give the share back."""
        self._file.close()


def last_use(path: Path) -> float:
    """When a store's file was last opened or closed, in seconds since 1970."""
    for place in (lock_path(path), path):
        with suppress(FileNotFoundError):
            return place.stat().st_mtime
    return 0.0


def store_bytes(path: Path) -> int:
    """What a store's file and its log take."""
    total = 0
    for suffix in ("", *LOG_SUFFIXES):
        with suppress(FileNotFoundError):
            total += Path(f"{path}{suffix}").stat().st_size
    return total


def remove_store(path: Path) -> int | None:
    """Remove a file of the store with its companions, unless somebody uses it.

    Returns:
        The bytes freed; None where it is in use and stays.
    """
    with storage_errors(path), lock_path(path).open("a+") as lock:
        if not take_lock(lock):
            return None
        freed = store_bytes(path)
        try:
            path.unlink(missing_ok=True)
        except PermissionError:
            if os.name == "nt":  # somebody has it open
                return None
            raise
        for suffix in LOG_SUFFIXES:
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        with suppress(PermissionError):  # Windows keeps the lock, which is empty
            lock_path(path).unlink(missing_ok=True)
    return freed


def remove_leftovers(folder: Path | None = None) -> int:
    """Remove scratch files that a killed process left; returns the bytes freed."""
    freed = 0
    for path in ((folder or cache_folder()) / "scratch").glob("*"):
        with suppress(OSError):
            found = path.stat()
            if time.time() - found.st_mtime > LEFTOVER_AFTER_S:
                path.unlink()
                freed += found.st_size
    return freed
