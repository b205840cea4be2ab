"""Which images are shown of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from headstart.data.boxes import Box, crop_to_box
from headstart.data.decoding import DecodingError, decode
from headstart.data.folders import close_names, printable
from headstart.errors import DataError, UsageError
from headstart.records import ImageTable

MOST_SHOWN = 40


def choose_rows(table: ImageTable, num: int, seed: int) -> list[int]:
    """Readable images, one of each class in turn, drawn by the seed.

    Raises:
        UsageError: `num` is out of range.
        DataError: no image can be decoded.
    """
    if not 1 <= num <= MOST_SHOWN:
        raise UsageError(f"`num` must be between 1 and {MOST_SHOWN}, got {num}. Correct --num.")
    order = np.random.default_rng(seed).permutation(len(table))
    by_class = order[np.argsort(table.labels[order], kind="stable")]
    labels = table.labels[by_class]
    turn = np.arange(len(table)) - np.searchsorted(labels, labels)  # how many of its class before
    chosen: list[int] = []
    for row in by_class[np.lexsort((labels, turn))].tolist():
        if _is_readable(table, row):
            chosen.append(row)
        if len(chosen) == num:
            break
    if not chosen:
        raise DataError(f"No image of '{table.name}' can be decoded. Check the files.")
    return chosen


def find_row(table: ImageTable, image: str) -> int:
    """The row of one image, by its name in the data or by its file.

    Raises:
        DataError: there is none, or it cannot be decoded.
    """
    wanted = printable(image)
    row = table.paths.index(wanted) if wanted in table.paths else _row_of_file(table, Path(image))
    if row is None:
        raise DataError(
            f"'{wanted}' is none of the {len(table):,} images of '{table.name}'. "
            f"{close_names(wanted, table.paths)}Name one as the data do, or by its file."
        )
    try:
        decode(table.read(row), table.paths[row])
    except (DecodingError, OSError) as error:
        raise DataError(f"'{table.paths[row]}' cannot be shown: {error}. Name another.") from error
    return row


def cropped(picture: Image.Image, box: Box | None) -> Image.Image:
    """The part inside the box; all of it where there is none."""
    return picture if box is None else crop_to_box(picture, box)


def _row_of_file(table: ImageTable, file: Path) -> int | None:
    if table.files is None or not file.exists():
        return None
    rows = (row for row, own in enumerate(table.files) if own.name == file.name)
    return next((row for row in rows if table.files[row].resolve() == file.resolve()), None)


def _is_readable(table: ImageTable, row: int) -> bool:
    try:
        decode(table.read(row), table.paths[row])
    except (DecodingError, OSError):
        return False
    return True
