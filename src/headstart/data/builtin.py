"""Data sets known by name: `digits` always at hand, the others from `$HEADSTART_DATA/NAME/`.

The two MNISTs are idx files as published, packed or not: four bytes of magic (0, 0, 8 for unsigned
bytes, number of axes), each axis as a big-endian 32-bit integer, then the values. CIFAR-10 and
Tiny-ImageNet are packs (`headstart.data.packed`); CIFAR-10 may be the published archive as well.
What is missing is downloaded where that is possible (`headstart.data.packed.downloads`).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.data.packed.cifar import load_cifar10
from headstart.data.packed.downloads import fetch_files, find_file
from headstart.data.tables import load_known_packs
from headstart.errors import DataError
from headstart.records import ImageTable
from headstart.registry import Registry

DIGITS = tuple("0123456789")
# In the order of the labels in the files, which is not the class order.
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_IDX_NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set known by name.

    Attributes:
        name: what users type.
        summary: one line: what is in it.
        licence: the terms of the images, in short.
        files: files that it needs in `$HEADSTART_DATA/NAME/`; none for what is always at hand.
        load: reads it; raises `DataError` where files are missing or damaged.
    """

    name: str
    summary: str
    licence: str
    files: tuple[str, ...] = ()
    load: Callable[[], ImageTable]


DATASETS = Registry[DatasetSpec]("data set")


def load_digits() -> ImageTable:
    """The 1,797 handwritten digits of scikit-learn, 8x8, values 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits as load_bunch

    bunch = load_bunch()
    count = len(bunch.target)
    return ImageTable(
        name="digits",
        paths=tuple(f"digits/{row:04d}" for row in range(count)),
        labels=bunch.target.astype(np.int64),
        class_names=DIGITS,
        splits=("",) * count,
        pixels=np.rint(bunch.images * (255 / 16)).astype(np.uint8),
    )


def load_idx(name: str, published_names: Sequence[str]) -> ImageTable:
    """A data set of four idx files with its published split.

    Args:
        name: the folder inside `$HEADSTART_DATA`.
        published_names: what the labels 0, 1, ... in the files stand for.

    Raises:
        DataError: files are missing or damaged.
    """
    files = _find_idx_files(name)
    class_names = tuple(sorted(published_names))
    position = np.array([class_names.index(label) for label in published_names], dtype=np.int64)
    pixels, labels, paths, splits = [], [], [], []
    for split, (images_name, labels_name) in _IDX_NAMES.items():
        images = _read_idx(files[images_name], num_axes=3)
        published = _read_idx(files[labels_name], num_axes=1)
        _check_labels(files[labels_name], published, len(images), len(class_names))
        pixels.append(images)
        labels.append(position[published])
        paths += [f"{split}/{row:05d}" for row in range(len(images))]
        splits += [split] * len(images)
    if pixels[0].shape[1:] != pixels[1].shape[1:]:
        raise DataError(
            f"'{files['t10k-images-idx3-ubyte']}' is damaged: its images are of another size than "
            "the training images. Fetch it again."
        )
    return ImageTable(
        name=name,
        paths=tuple(paths),
        labels=np.concatenate(labels),
        class_names=class_names,
        splits=tuple(splits),
        pixels=np.concatenate(pixels),
    )


def _find_idx_files(name: str) -> dict[str, Path]:
    """Each published file name to the file there is, packed or not, downloaded where missing."""
    wanted = [file for pair in _IDX_NAMES.values() for file in pair]
    missing = [f"{file}.gz" for file in wanted if find_file(name, file, f"{file}.gz") is None]
    fetch_files(name, missing)
    found = {file: find_file(name, file, f"{file}.gz") for file in wanted}
    return {file: path for file, path in found.items() if path is not None}


def _read_idx(path: Path, *, num_axes: int) -> npt.NDArray[np.uint8]:
    """The values of one idx file of unsigned bytes."""
    try:
        packed = path.read_bytes()
        content = gzip.decompress(packed) if path.suffix == ".gz" else packed
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    start = 4 + 4 * num_axes
    if len(content) < start or content[:4] != bytes((0, 0, 8, num_axes)):
        raise _damaged(path, f"it does not begin like an idx file with {num_axes} axes")
    shape = struct.unpack(f">{num_axes}I", content[4:start])
    if len(content) - start != math.prod(shape):
        size = "x".join(map(str, shape))
        raise _damaged(path, f"it promises {size} values and holds {len(content) - start}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _check_labels(
    path: Path, labels: npt.NDArray[np.uint8], num_images: int, num_classes: int
) -> None:
    if len(labels) != num_images:
        raise _damaged(path, f"it holds {len(labels)} labels for {num_images} images")
    if len(labels) and int(labels.max()) >= num_classes:
        raise _damaged(path, f"it holds the label {int(labels.max())} of {num_classes} classes")


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"'{path}' is damaged: {reason}. Fetch it again.")


DATASETS.register(
    DatasetSpec(
        name="digits",
        summary="1,797 handwritten digits, 8x8 grey, from scikit-learn",
        licence="CC BY 4.0",
        load=load_digits,
    )
)
for _name, _summary, _licence, _classes in (
    ("mnist", "70,000 handwritten digits, 28x28 grey", "CC BY-SA 3.0", DIGITS),
    ("fashion-mnist", "70,000 pictures of clothes, 28x28 grey", "MIT", FASHION),
):
    DATASETS.register(
        DatasetSpec(
            name=_name,
            summary=_summary,
            licence=_licence,
            files=tuple(f"{file}.gz" for pair in _IDX_NAMES.values() for file in pair),
            load=partial(load_idx, _name, _classes),
        )
    )
DATASETS.register(
    DatasetSpec(
        name="cifar10",
        summary="60,000 photos of animals and vehicles, 32x32",
        licence="not stated by its authors",
        files=("train.parquet", "test.parquet"),
        load=load_cifar10,
    )
)
DATASETS.register(
    DatasetSpec(
        name="tiny-imagenet",
        summary="photos of 200 classes of ImageNet, 64x64",
        licence="ImageNet terms: non-commercial research",
        files=("train.parquet", "val.parquet", "classes.json"),
        load=partial(load_known_packs, "tiny-imagenet", ("train.parquet", "val.parquet")),
    )
)
