"""Files that appear whole, folders that one process owns, digests.

A finished file is written beside its place, flushed to the disk and renamed, so that a reader or
a crash sees the old one or the new one and nothing between.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from headstart.errors import OutputError, StorageError

LOCK_NAME = ".lock"
HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)  # of a lock of others
# A spreadsheet runs a cell that starts with one of these (OWASP, "CSV injection").
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a failing disk into one clear sentence.

    Raises:
        StorageError: the disk is full or failed while `path` was written.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        if error.errno in (errno.EISDIR, errno.ENOTDIR):
            raise OutputError(
                f"'{path}' cannot be written as a file: {error.strerror}. Name a file that is no "
                "folder, in a folder."
            ) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                f"The disk is full: '{path}' could not be written. What was finished before is "
                "whole; free some space and run the same command again (a run: with --resume)."
            ) from error
        raise StorageError(
            f"'{path}' could not be written: {error.strerror or error}. "
            "Check the disk and its permissions."
        ) from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, sync it, and rename it to `path`.

    Raises:
        StorageError: the disk is full or failed; `path` is as it was.
    """
    with storage_errors(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-", suffix=path.suffix)
        os.close(handle)
        aside = Path(name)
        try:
            write(aside)
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
            aside.chmod(0o666 & ~current_umask())
            aside.replace(path)
            sync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def current_umask() -> int:
    """This process's umask, which only setting it tells."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole."""
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write indented JSON whole; NaN and infinities become null, as JSON knows neither."""
    text = json.dumps(without_nan(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def without_nan(value: Any) -> Any:
    """The same nest of lists and dictionaries with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def neutral_cell(value: object) -> object:
    """Put an apostrophe before text that a spreadsheet would run as a formula.

    Text that would be one but for its own apostrophes gets another, so that two texts never become
    the same cell. A carriage return is written as a backslash and an r: inside a cell it would end
    the line.
    """
    if not isinstance(value, str):
        return value
    mark = "'" if value.lstrip("'").startswith(FORMULA_STARTS) else ""
    return mark + value.replace("\r", "\\r")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a UTF-8 CSV file whole, formula cells neutralised, numbers as they are."""

    def fill(aside: Path) -> None:
        with aside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([neutral_cell(name) for name in header])
            writer.writerows([neutral_cell(value) for value in row] for row in rows)

    write_whole(path, fill)


def digest_bytes(*parts: bytes) -> str:
    """32 hexadecimal characters of BLAKE2b over the parts, each with its length before it."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, what `sha256sum` prints."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path, *, private: bool = False) -> None:
    """Make a folder and its parents; a private one is closed to other users (0700), if it was not.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
        if private and path.stat().st_mode & 0o077:
            path.chmod(0o700)
        handle, probe = tempfile.mkstemp(dir=path, prefix=".probe-")
        os.close(handle)
        os.unlink(probe)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"The disk is full: nothing can be written to '{path}'. Free some space."
            ) from error
        raise OutputError(
            f"The folder '{path}' cannot be written to: {error.strerror}. "
            "Choose another one or change its permissions."
        ) from error


def check_vacant(folder: Path, record: str, what: str, *, resume: bool) -> None:
    """Refuse to write into a folder that holds something else.

    Args:
        folder: need not be there.
        record: name of the file that tells whose folder it is.
        what: what such a file stands for, in a word.
        resume: whether what it stands for may be there.

    Raises:
        OutputError: it is a file, holds such a record already, or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"`--out` must be a folder, '{folder}' is a file. Choose another --out.")
    if (folder / record).exists():
        if not resume:
            raise OutputError(
                f"The folder '{folder}' holds a {what} already. Choose another --out, or go on "
                "with it by --resume."
            )
    elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise OutputError(
            f"The folder '{folder}' holds other files and no {what}. Choose a new or empty --out."
        )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own `folder` while the block runs; the lock goes with the process, however it ends.

    Raises:
        OutputError: another process owns it.
    """
    in_use = OutputError(
        f"The folder '{folder}' is in use by another Headstart process. "
        "Wait for it or choose another --out."
    )
    try:
        file = (folder / LOCK_NAME).open("a+")
    except FileNotFoundError as error:  # its owner was refused and took it away just now
        raise in_use from error
    except OSError as error:
        raise OutputError(
            f"'{folder / LOCK_NAME}' cannot be opened: {error.strerror}. Choose another --out, or "
            "change its permissions."
        ) from error
    with file:
        try:
            owned = take_lock(file)
        except OSError as error:
            raise OutputError(
                f"The disk of '{folder}' knows no locks ({error.strerror}), so two runs could "
                "write into one folder. Choose an --out on another disk."
            ) from error
        if not owned:
            raise in_use
        yield


def take_lock(file: IO[str]) -> bool:
    """Lock an open file without waiting; False where somebody else holds it.

    Raises:
        OSError: the system or the disk knows no such locks.
    """
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD:
            raise
        return False
    return True


def share_lock(file: IO[str]) -> bool:
    """Lock an open file beside others who share it, and wait while one owner has it alone.

    False where the system or the disk knows no such locks.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH)
    except (ImportError, OSError):
        return False
    return True
