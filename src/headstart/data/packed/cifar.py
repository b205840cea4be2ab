"""CIFAR-10: a pack in `$HEADSTART_DATA/cifar10/`, or the archive as published.

The archive (`cifar-10-python.tar.gz`) holds pickles. They are read by an unpickler that knows
NumPy arrays and nothing else, so that a forged archive can run no code.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.packed.downloads import fetch_files, find_file
from headstart.data.tables import load_known_packs
from headstart.errors import DataError
from headstart.records import ImageTable

NAME = "cifar10"
PACKS = ("train.parquet", "test.parquet")
ARCHIVE = "cifar-10-python.tar.gz"
# In the order of the labels in the files, which is the class order as well.
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
SIDE = 32
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def load_cifar10() -> ImageTable:
    """CIFAR-10 with its published split, from a pack, an archive at hand, or a download.

    Raises:
        DataError: it is not at hand, or damaged.
    """
    if all(find_file(NAME, file) is not None for file in PACKS):
        return load_known_packs(NAME, PACKS)
    if find_file(NAME, ARCHIVE) is None:
        fetch_files(NAME, [ARCHIVE])
    archive = find_file(NAME, ARCHIVE)
    assert archive is not None, "it was fetched"
    return read_archive(archive)


def read_archive(archive: Path) -> ImageTable:
    """The table of the published archive.

    Raises:
        DataError: it is damaged.
    """
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    try:
        with tarfile.open(archive) as tar:
            for split, batches in _BATCHES.items():
                parts[split] = [_read_batch(tar, batch) for batch in batches]
        pixels = np.concatenate([_pixels(batch) for split in parts for batch in parts[split]])
        labels = [
            int(label) for split in parts for batch in parts[split] for label in batch["labels"]
        ]
        if len(labels) != len(pixels) or not set(labels) <= set(range(len(CLASSES))):
            raise ValueError("labels and images do not fit")
    except (
        *(OSError, EOFError, zlib.error, tarfile.TarError, pickle.UnpicklingError),
        *(KeyError, TypeError, ValueError, AttributeError, IndexError),
    ) as error:
        raise DataError(f"'{archive}' is damaged: {error}. Fetch it again.") from error
    counts = {split: sum(len(batch["labels"]) for batch in parts[split]) for split in parts}
    return ImageTable(
        name=NAME,
        paths=tuple(f"{split}/{row:05d}" for split in parts for row in range(counts[split])),
        labels=np.array(labels, dtype=np.int64),
        class_names=CLASSES,
        splits=tuple(split for split in parts for _ in range(counts[split])),
        pixels=pixels,
    )


class ArrayUnpickler(pickle.Unpickler):
    """Reads dictionaries, lists, text and NumPy arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """The parts of an array only.

        Raises:
            UnpicklingError: anything else is asked for.
        """
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module, name)


def _read_batch(tar: tarfile.TarFile, batch: str) -> dict[str, Any]:
    member = tar.extractfile(f"cifar-10-batches-py/{batch}")
    if member is None:
        raise KeyError(batch)
    content: dict[str, Any] = ArrayUnpickler(io.BytesIO(member.read()), encoding="latin1").load()
    return content


def _pixels(batch: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(N, 3072) planes of red, green and blue -> (N, 32, 32, 3)."""
    planes = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
