"""The feature store: one SQLite file a network and view, one row an image.

A row's key is the digest of the image's bytes; the file's name is the digest of everything else
that decides the features: network and weights, preprocessing, decoder version, device, precision
and layout. So a second run, another number of folds or a hundred new images cost only what is new,
and dropping a network frees its file at once.

SQLite in write-ahead mode lets several processes read and write, and survives a killed one. Every
row carries a checksum over itself, its key and the file's identity: a damaged row is computed
again, a damaged file is begun anew. Features of patients' pictures are personal data, so the folder
is private (0700), and the names of the pictures are not kept.

Rows lie in the order of writing, with an index of keys beside them. Sorted by key (`WITHOUT
ROWID`) every batch touches pages everywhere: 4 to 7 times slower to write, and 1.7 times larger at
1,280 features in pages of 4 KiB.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.errors import StorageError
from headstart.features.cache import (
    LOOKUP_ROWS,
    SIZE_VARIABLE,
    describe_bytes,
    limit_bytes,
    readable_text,
    trim_cache,
)
from headstart.features.folder import (
    CACHE_VARIABLE,
    FACTS,
    Claim,
    features_folder,
    is_damage,
    make_cache_folder,
    primary_code,
    remove_store,
    store_bytes,
    store_path,
)
from headstart.files import storage_errors
from headstart.records import ImageFacts

LOCK_TIMEOUT_S = 60.0
RETRY_AFTER_S = 0.02
PAGE_BYTES = 16384

Row = npt.NDArray[np.float16]
Note = Callable[[str], None]


def _say_nothing(_message: str) -> None:
    pass


class FeatureStore:
    """Features of one network and view, by the digest of the image's bytes."""

    def __init__(
        self,
        identity: str,
        num_features: int,
        *,
        folder: Path | None = None,
        note: Note = _say_nothing,
    ) -> None:
        """Open or create the file.

        Args:
            identity: everything but the image that decides the features, readable.
            num_features: D.
            folder: where the files lie; None takes `cache_folder()`.
            note: told in one line when a file is damaged, removed, or above the limit alone.

        Raises:
            OutputError: the folder cannot be written to.
            StorageError: the disk failed.
            UsageError: `HEADSTART_CACHE_SIZE` is no size.
        """
        self.identity = identity
        self.num_features = num_features
        self.path = store_path(identity, folder)
        self._root = folder
        self._note = note
        self._seed = zlib.crc32(identity.encode())
        self._in_reach = True
        self._has_written = False
        self.num_beginnings = 0  # how often a damaged file was left behind, with what was in it
        limit_bytes(folder)
        make_cache_folder(features_folder(folder))
        self._open()

    def _open(self) -> None:
        with storage_errors(self.path):
            self._claim = Claim(self.path)
        try:
            with self._guarded():
                self._connect()
        except sqlite3.DatabaseError:
            self._begin_anew()
        except StorageError:
            self._claim.release()
            raise

    def _connect(self) -> None:
        """Open the file; SQLite does not wait by itself where many change its mode at once."""
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            self.connection = sqlite3.connect(self.path, timeout=LOCK_TIMEOUT_S)
            try:
                self._prepare()
            except sqlite3.OperationalError as error:
                self.connection.close()
                if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_AFTER_S)
            else:
                return

    def _prepare(self) -> None:
        connection = self.connection
        connection.text_factory = readable_text
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a file that is to be made
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cell_size_check = ON")
        tables = "SELECT COUNT(*) FROM sqlite_master WHERE name IN ('features', 'about')"
        if connection.execute(tables).fetchone()[0] == 2:
            return
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS features (digest TEXT PRIMARY KEY, "
                "vector BLOB NOT NULL, facts BLOB NOT NULL, checksum INTEGER NOT NULL)"
            )
            connection.execute("CREATE TABLE IF NOT EXISTS about (identity TEXT PRIMARY KEY)")
            connection.execute("INSERT OR IGNORE INTO about VALUES (?)", (self.identity,))

    def _begin_anew(self) -> None:
        """Remove a damaged file and start an empty one; where others use it, go on without."""
        with suppress(AttributeError, sqlite3.Error):
            self.connection.close()
        self.num_beginnings += 1
        self._claim.release()
        if remove_store(self.path) is None:
            self._in_reach = False
            self._note(
                f"The feature store's file '{self.path}' is damaged, and another process has it "
                "open: what is computed now is not stored."
            )
            return
        self._note(f"The feature store's file '{self.path}' was damaged; it is begun anew.")
        with storage_errors(self.path):
            self._claim = Claim(self.path)
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            raise store_error(self.path, error) from error

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn a full disk into one sentence; let damage pass to the caller."""
        try:
            yield
        except sqlite3.ProgrammingError as error:  # closed, or of another thread: no damage
            raise RuntimeError(f"The feature store is used wrongly: {error}") from error
        except sqlite3.DatabaseError as error:
            if not is_damage(error, self.path):
                raise store_error(self.path, error) from error
            raise

    def get(self, digests: Sequence[str]) -> dict[str, tuple[Row, ImageFacts]]:
        """The entries that are there and whole; a damaged one counts as missing.

        The facts have no path: one content may have several.
        """
        found: dict[str, tuple[Row, ImageFacts]] = {}
        if not self._in_reach:
            return found
        try:
            with self._guarded():
                for start in range(0, len(digests), LOOKUP_ROWS):
                    self._look_up(list(digests[start : start + LOOKUP_ROWS]), found)
        except sqlite3.DatabaseError:
            self._begin_anew()
            self.put((digest, *entry) for digest, entry in found.items())
        return found

    def known(self, digests: Sequence[str]) -> set[str]:
        """Which entries are there; unlike `get`, without a look at whether they are whole."""
        found: set[str] = set()
        if not self._in_reach:
            return found
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

    def _look_up(self, part: list[str], found: dict[str, tuple[Row, ImageFacts]]) -> None:
        marks = ",".join("?" * len(part))
        rows = self.connection.execute(
            f"SELECT digest, vector, facts, checksum FROM features WHERE digest IN ({marks})", part
        )
        for digest, vector, facts, checksum in rows:
            if self._whole(digest, vector, facts, checksum):
                named = zip(FACTS, json.loads(facts.decode()), strict=True)
                record = ImageFacts(path="", **dict(named))
                found[digest] = (np.frombuffer(vector, dtype=np.float16), record)

    def _whole(self, digest: object, vector: object, facts: object, checksum: object) -> bool:
        return (
            isinstance(digest, str)
            and isinstance(vector, bytes)
            and isinstance(facts, bytes)
            and len(vector) == 2 * self.num_features
            and row_checksum(digest, vector, facts, self._seed) == checksum
        )

    def put(self, entries: Iterable[tuple[str, Row, ImageFacts]]) -> None:
        """Write some entries in one transaction; the first ones make room where there is none.

        Raises:
            StorageError: the disk is full or failed; what was written before stays.
        """
        rows = []
        for digest, vector, facts in entries:
            data = vector.tobytes()
            text = json.dumps([getattr(facts, name) for name in FACTS]).encode()
            rows.append((digest, data, text, row_checksum(digest, data, text, self._seed)))
        if not rows or not self._in_reach:
            return
        if not self._has_written:
            self._has_written = True
            self._trim()
        try:
            self._write(rows)
        except sqlite3.DatabaseError:
            self._begin_anew()
            if self._in_reach:
                self._write(rows)

    def _write(self, rows: list[tuple[str, bytes, bytes, int]]) -> None:
        with self._guarded(), self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO features VALUES (?,?,?,?)", rows)

    def _trim(self) -> float:
        """Remove what was not used for longest, as far as needed; returns the bytes left."""
        removal = trim_cache(folder=self._root, keep=self.path)
        if removal.num_files:
            self._note(
                f"The feature store was above its limit of "
                f"{describe_bytes(limit_bytes(self._root))} ({SIZE_VARIABLE}): the "
                f"{removal.num_files} least recently used of its files went, "
                f"{describe_bytes(removal.num_bytes)}."
            )
        return removal.left_bytes

    def close(self) -> None:
        """Close the file, and keep the store within its limit where something was written."""
        if not self._in_reach:
            return
        self.connection.close()
        self._claim.touch()
        try:
            if self._has_written:
                self._check_limit()
        finally:
            self._claim.release()

    def _check_limit(self) -> None:
        left, limit, own = self._trim(), limit_bytes(self._root), store_bytes(self.path)
        if left > limit:
            which = "this network and view" if own > limit else "what is in use now"
            self._note(
                f"The feature store takes {describe_bytes(left)}, above its limit of "
                f"{describe_bytes(limit)}, because of {which}. {SIZE_VARIABLE} raises it."
            )


def row_checksum(digest: str, vector: bytes, facts: bytes, seed: int) -> int:
    """CRC-32 over a whole row, its key and the file's identity (`seed`) included."""
    return zlib.crc32(facts, zlib.crc32(vector, zlib.crc32(digest.encode(), seed)))


def store_error(path: Path, error: sqlite3.Error) -> StorageError:
    """The sentence for a store that cannot be written or read."""
    return StorageError(
        f"The feature store '{path}' failed: {error}. What was stored before is whole; free some "
        f"space or set {CACHE_VARIABLE} to another folder, and go on with --resume."
    )
