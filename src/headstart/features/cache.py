"""What the feature store holds, how large it may be, and how it is emptied.

The store has a limit: `HEADSTART_CACHE_SIZE`, else 20 GB, and a tenth of the disk where that is
less. Whoever begins or ends to write removes files above it, whole ones, those first whose last use
is longest ago, and none that a process has open.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import UsageError
from headstart.features.folder import (
    SUFFIX,
    cache_folder,
    features_folder,
    is_damage,
    last_use,
    lock_path,
    remove_leftovers,
    remove_store,
    store_bytes,
    store_files,
)
from headstart.files import share_lock

SIZE_VARIABLE = "HEADSTART_CACHE_SIZE"
DEFAULT_BYTES = 20 * 10**9
LARGEST_DISK_FRACTION = 0.1
UNLIMITED = "unlimited"
LOOKUP_ROWS = 500
POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One file of the store, for `headstart cache`.

    Attributes:
        identity: network, weights, preprocessing, view, engine.
        num_images: rows.
        num_bytes: with its log.
        last_used: seconds since 1970.
        path: the file.
    """

    identity: str
    num_images: int
    num_bytes: int
    last_used: float
    path: Path


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What removing files of the store came to.

    Attributes:
        num_files: files removed.
        num_bytes: bytes freed.
        in_use: files that should have gone, and stay because a process has them open.
        left_bytes: what the store takes now.
    """

    num_files: int
    num_bytes: int
    in_use: tuple[Path, ...]
    left_bytes: int


def parse_size(text: str, what: str) -> float:
    """Bytes of '20GB', '500 MB', '1.5GiB' or a plain number; infinite for 'unlimited'.

    Args:
        text: the size as written.
        what: where it was written, for the message.

    Raises:
        UsageError: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().casefold())
    if found and (found[2] or not found[3]):
        base = 1024.0 if found[3] else 1000.0
        return float(found[1]) * float(base ** POWERS[found[2]])
    if text.strip().casefold() == UNLIMITED:
        return math.inf
    raise UsageError(
        f"{what} must be a size such as 20GB, 500MB or 1.5GiB, or '{UNLIMITED}', got '{text}'."
    )


def limit_bytes(folder: Path | None = None) -> float:
    """How large the store may be.

    Raises:
        UsageError: `HEADSTART_CACHE_SIZE` is no size.
    """
    chosen = os.environ.get(SIZE_VARIABLE)
    if chosen:
        return parse_size(chosen, SIZE_VARIABLE)
    place = folder or cache_folder()
    existing = next((p for p in (place, *place.absolute().parents) if p.exists()), None)
    if existing is None:
        return DEFAULT_BYTES
    return min(DEFAULT_BYTES, LARGEST_DISK_FRACTION * shutil.disk_usage(existing).total)


def describe_bytes(count: float) -> str:
    """'3.1 GB', '12.0 MB', or 'unlimited'."""
    if math.isinf(count):
        return UNLIMITED
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def list_cache(folder: Path | None = None) -> list[CacheEntry]:
    """What the store holds, the last used first; a file that cannot be read says so."""
    entries = []
    for path in store_files(folder):
        used, size = last_use(path), store_bytes(path)
        identity, count = read_summary(path)
        if not path.exists():  # removed meanwhile
            continue
        entries.append(
            CacheEntry(
                identity=identity, num_images=count, num_bytes=size, last_used=used, path=path
            )
        )
    return sorted(entries, key=lambda entry: (-entry.last_used, entry.path))


def read_summary(path: Path) -> tuple[str, int]:
    """Identity and rows of one file, which nobody removes meanwhile; its last use stays."""
    identity, count = "damaged; it will be computed again", 0
    try:
        with opened_aside(path) as connection:
            count = connection.execute("SELECT COUNT(*) FROM features").fetchone()[0]
            identity = connection.execute("SELECT identity FROM about").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if not is_damage(error, path):
            identity = f"cannot be read now: {error}"
    return str(identity), count


def count_stored(path: Path, keys: Sequence[str]) -> int:
    """How many of some images a file has, without any change to it; 0 where it cannot be read.

    Args:
        path: of the file.
        keys: of the images.
    """
    count = 0
    with suppress(sqlite3.DatabaseError), opened_aside(path) as connection:
        for start in range(0, len(keys), LOOKUP_ROWS):
            part = keys[start : start + LOOKUP_ROWS]
            marks = ",".join("?" * len(part))
            asked = f"SELECT COUNT(*) FROM features WHERE digest IN ({marks})"
            count += connection.execute(asked, part).fetchone()[0]
    return count


@contextmanager
def opened_aside(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that makes no file, and under which nobody removes this one."""
    with ExitStack() as stack:
        with suppress(FileNotFoundError):  # of a version that kept no locks
            share_lock(stack.enter_context(lock_path(path).open("r")))
        uri = f"{path.absolute().as_uri()}?mode=rw"
        connection = stack.enter_context(closing(sqlite3.connect(uri, uri=True)))
        connection.text_factory = readable_text
        yield connection


def readable_text(raw: bytes) -> str:
    """Text of a file that may be damaged."""
    return raw.decode(errors="replace")


def trim_cache(
    limit: float | None = None, *, folder: Path | None = None, keep: Path | None = None
) -> Removal:
    """Remove the least recently used files until the store is within a limit.

    Args:
        limit: in bytes; None takes `limit_bytes()`.
        folder: None takes `cache_folder()`.
        keep: a file that stays whatever its size.

    Raises:
        UsageError: `HEADSTART_CACHE_SIZE` is no size.
    """
    most = limit_bytes(folder) if limit is None else limit
    sizes = {path: store_bytes(path) for path in store_files(folder)}
    left, freed, gone, in_use = sum(sizes.values()), 0, 0, []
    for path in sorted(sizes, key=last_use):
        if left <= most:
            break
        if path == keep:
            continue
        removed = remove_store(path)
        if removed is None:
            in_use.append(path)
            continue
        left -= sizes[path]
        freed += removed
        gone += 1
    return Removal(num_files=gone, num_bytes=freed, in_use=tuple(in_use), left_bytes=left)


def clear_cache(folder: Path | None = None) -> Removal:
    """Remove every feature that no process uses, and what a killed training left behind."""
    removal = trim_cache(-1, folder=folder)
    for stray in features_folder(folder).glob("*"):  # logs and locks without their file
        path = features_folder(folder) / f"{stray.name.split('.')[0]}{SUFFIX}"
        if stray.name[0] != "." and not path.exists():
            remove_store(path)
    return Removal(
        num_files=removal.num_files,
        num_bytes=removal.num_bytes + remove_leftovers(folder),
        in_use=removal.in_use,
        left_bytes=removal.left_bytes,
    )
