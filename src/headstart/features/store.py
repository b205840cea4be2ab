"""The feature store: one SQLite file a network and view, one row an image.

A row's key is the digest of the image's bytes; the file's name is the digest of everything else
that decides the features: network and weights, preprocessing, decoder version, device, precision
and layout. So a second run, another number of folds or a hundred new images cost only what is new,
and dropping a network frees its file at once.

SQLite in write-ahead mode lets several processes read and write, and survives a killed one. Every
row carries a checksum: a damaged row is computed again, a damaged file is set aside and begun
anew. Features of patients' pictures are personal data, so the folder is private (0700).
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.errors import StorageError
from headstart.files import digest_bytes, make_folder
from headstart.records import ImageFacts

CACHE_VARIABLE = "HEADSTART_CACHE"
LOCK_TIMEOUT_S = 60.0
LOOKUP_ROWS = 500
SUFFIX = ".sqlite"

Row = npt.NDArray[np.float16]


def cache_folder() -> Path:
    """`HEADSTART_CACHE`, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headstart"


def store_path(identity: str, folder: Path | None = None) -> Path:
    """The file of one network and view; it may not be there yet."""
    name = digest_bytes(identity.encode())
    return (folder or cache_folder()) / "features" / f"{name}{SUFFIX}"


class FeatureStore:
    """Features of one network and view, by the digest of the image's bytes."""

    def __init__(self, identity: str, num_features: int, *, folder: Path | None = None) -> None:
        """Open or create the file.

        Args:
            identity: everything but the image that decides the features, readable.
            num_features: D.
            folder: where the files lie; None takes `cache_folder()`.

        Raises:
            OutputError: the folder cannot be written to.
        """
        self.num_features = num_features
        self.folder = (folder or cache_folder()) / "features"
        make_folder(self.folder.parent, private=True)
        make_folder(self.folder, private=True)
        self.path = store_path(identity, folder)
        self.identity = identity
        self._open()

    def _open(self) -> None:
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if is_full_or_locked(error):
                raise store_error(self.path, error) from error
            self._begin_anew()

    def _connect(self) -> None:
        self.connection = sqlite3.connect(self.path, timeout=LOCK_TIMEOUT_S)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        with self.connection:
            self.connection.execute(
                "CREATE TABLE IF NOT EXISTS features (digest TEXT PRIMARY KEY, "
                "vector BLOB NOT NULL, facts TEXT NOT NULL, checksum INTEGER NOT NULL) "
                "WITHOUT ROWID"
            )
            self.connection.execute("CREATE TABLE IF NOT EXISTS about (identity TEXT PRIMARY KEY)")
            self.connection.execute("INSERT OR IGNORE INTO about VALUES (?)", (self.identity,))

    def _begin_anew(self) -> None:
        """Set a damaged file aside and start an empty one."""
        with suppress(AttributeError, sqlite3.Error):
            self.connection.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self._connect()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn a full disk into one sentence; let damage pass to the caller."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if is_full_or_locked(error):
                raise store_error(self.path, error) from error
            raise

    def get(self, digests: Sequence[str]) -> dict[str, tuple[Row, ImageFacts]]:
        """The entries that are there and whole; a damaged one counts as missing."""
        found: dict[str, tuple[Row, ImageFacts]] = {}
        try:
            with self._guarded():
                for start in range(0, len(digests), LOOKUP_ROWS):
                    part = list(digests[start : start + LOOKUP_ROWS])
                    marks = ",".join("?" * len(part))
                    rows = self.connection.execute(
                        "SELECT digest, vector, facts, checksum FROM features "
                        f"WHERE digest IN ({marks})",
                        part,
                    )
                    for digest, vector, facts, checksum in rows:
                        if self._whole(digest, vector, facts, checksum):
                            record = ImageFacts(**json.loads(facts))
                            found[digest] = (np.frombuffer(vector, dtype=np.float16), record)
        except sqlite3.DatabaseError:
            self._begin_anew()
        return found

    def known(self, digests: Sequence[str]) -> set[str]:
        """Which entries are there; unlike `get`, without a look at whether they are whole."""
        found: set[str] = set()
        try:
            with self._guarded():
                for start in range(0, len(digests), LOOKUP_ROWS):
                    part = list(digests[start : start + LOOKUP_ROWS])
                    marks = ",".join("?" * len(part))
                    rows = self.connection.execute(
                        f"SELECT digest FROM features WHERE digest IN ({marks})", part
                    )
                    found.update(digest for (digest,) in rows)
        except sqlite3.DatabaseError:
            self._begin_anew()
            return set()
        return found

    def _whole(self, digest: str, vector: object, facts: object, checksum: object) -> bool:
        return (
            isinstance(vector, bytes)
            and isinstance(facts, str)
            and len(vector) == 2 * self.num_features
            and row_checksum(digest, vector, facts) == checksum
        )

    def put(self, entries: Iterable[tuple[str, Row, ImageFacts]]) -> None:
        """Write some entries in one transaction.

        Raises:
            StorageError: the disk is full or failed; what was written before stays.
        """
        rows = []
        for digest, vector, facts in entries:
            data, text = vector.tobytes(), json.dumps(asdict(facts))
            rows.append((digest, data, text, row_checksum(digest, data, text)))
        try:
            self._write(rows)
        except sqlite3.DatabaseError:
            self._begin_anew()
            self._write(rows)

    def _write(self, rows: list[tuple[str, bytes, str, int]]) -> None:
        with self._guarded(), self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO features VALUES (?,?,?,?)", rows)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


def row_checksum(digest: str, vector: bytes, facts: str) -> int:
    """CRC-32 over a whole row, its key included."""
    return zlib.crc32(facts.encode(), zlib.crc32(vector, zlib.crc32(digest.encode())))


def is_full_or_locked(error: sqlite3.Error) -> bool:
    """Whether the disk or another process is to blame, rather than a damaged file."""
    return isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error)


def store_error(path: Path, error: sqlite3.Error) -> StorageError:
    """The sentence for a store that cannot be written or read."""
    return StorageError(
        f"The feature store '{path}' failed: {error}. What was stored before is whole; free some "
        f"space or set {CACHE_VARIABLE} to another folder, and go on with --resume."
    )


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One file of the store, for `headstart cache`."""

    identity: str
    num_images: int
    num_bytes: int
    path: Path


def list_cache(folder: Path | None = None) -> list[CacheEntry]:
    """What the store holds, by identity; a file that cannot be read says so."""
    entries = []
    for path in sorted(((folder or cache_folder()) / "features").glob(f"*{SUFFIX}")):
        identity, count = "damaged; it will be computed again", 0
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(path)) as connection:
            count = connection.execute("SELECT COUNT(*) FROM features").fetchone()[0]
            identity = connection.execute("SELECT identity FROM about").fetchone()[0]
        size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
        entries.append(CacheEntry(identity=identity, num_images=count, num_bytes=size, path=path))
    return entries


def clear_cache(folder: Path | None = None) -> int:
    """Remove every feature; returns the bytes freed."""
    freed = 0
    for path in ((folder or cache_folder()) / "features").glob(f"*{SUFFIX}*"):
        freed += path.stat().st_size
        path.unlink(missing_ok=True)
    return freed
