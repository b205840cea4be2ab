"""The folder of stored features: one file a network and view, and who is using which.

Beside `NAME.sqlite` lies `NAME.lock`. Whoever opens the store shares a lock on it, so that nobody
removes a file that somebody reads or writes: unlinking an open SQLite file would leave its users a
log that the next file of that name takes for its own. The lock goes with the process, however it
ends. The time of `NAME.lock` is the last use. Windows removes no open file, so it needs no lock.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import IO

from headstart.errors import OutputError
from headstart.files import digest_bytes, make_folder, share_lock, storage_errors, take_lock
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

# What the disk or another process is to blame for; any other error of SQLite is a damaged file.
OUTSIDE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
    }
)


def cache_folder() -> Path:
    """`HEADSTART_CACHE`, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
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
            if not share_lock(self._file) or is_current(self._file, self._lock):
                break
            self._file.close()  # its owner removed it while we waited
        self.touch()

    def touch(self) -> None:
        """Note this moment as the last use."""
        with suppress(OSError):
            os.utime(self._lock)

    def release(self) -> None:
        """Give the share back."""
        self._file.close()


def is_current(lock: IO[str], place: Path) -> bool:
    """Whether an open lock is still the one that stands there, and not one removed meanwhile."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), place.stat())
    except FileNotFoundError:
        return False


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
        if not _taken(lock) or not is_current(lock, lock_path(path)):
            return None  # in use, or removed by another who was faster
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


def _taken(lock: IO[str]) -> bool:
    """As `take_lock`; where there are no locks nobody can know that the file is not in use."""
    try:
        return take_lock(lock)
    except OSError:
        return False


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


def make_cache_folder(place: Path) -> None:
    """Make a folder of the cache, closed to other users.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        make_folder(place.parent, private=not place.parent.exists())  # the user's own stays open
        make_folder(place, private=True)
    except OutputError as error:
        reason = getattr(error.__cause__, "strerror", None) or error
        raise OutputError(
            f"Features are kept in '{place}', which cannot be made or written to ({reason}). Set "
            f"{CACHE_VARIABLE} to a folder that can."
        ) from error


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 where the error is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_damage(error: sqlite3.Error, path: Path) -> bool:
    """Whether a damaged file is to blame, rather than the disk or another process."""
    code = primary_code(error)
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHORT_READ:
        return True
    if code == sqlite3.SQLITE_READONLY:  # the header of a file may claim it
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return code not in OUTSIDE
