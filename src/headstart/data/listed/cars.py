"""Stanford Cars as published: `names.csv`, `anno_train.csv`, `anno_test.csv`, and the images.

None of the files has a header. `names.csv` is a class a line, slashes and all; a line of an
`anno` file is image, left, top, right, bottom in pixels, and the number of the class from 1. The
two parts use the same file names (00001.jpg), so an image is looked for in a folder of its part:
`cars_train/00001.jpg` or `car_data/train/CLASS/00001.jpg`.
"""

from __future__ import annotations

import csv
from pathlib import Path

from headstart.data.boxes import parse_box
from headstart.data.found import Collection
from headstart.data.listed.manifests import (
    Entry,
    FileFinder,
    collect_entries,
    refuse_missing,
    splits_of,
)
from headstart.data.listed.sheets import read_text_lines
from headstart.errors import DataError

NAMES = "names.csv"
ANNOTATIONS = {"anno_train.csv": "train", "anno_test.csv": "test"}
CELLS = 6


def holds_cars(directory: Path) -> bool:
    """Whether a folder is laid out like Stanford Cars."""
    annotated = any((directory / name).is_file() for name in ANNOTATIONS)
    return annotated and (directory / NAMES).is_file()


def read_cars(directory: Path, subject: str) -> Collection:
    """The images of Stanford Cars with labels, splits and boxes.

    Raises:
        DataError: a line is wrong, or images are missing.
    """
    names = [line.strip('"') for line in read_text_lines(directory / NAMES, f"'{NAMES}'")]
    entries: list[Entry] = []
    missing: list[str] = []
    finder = FileFinder(directory)
    for file, split in ANNOTATIONS.items():
        if not (directory / file).is_file():
            continue
        lines = read_text_lines(directory / file, f"'{file}'")
        for number, cells in enumerate(csv.reader(lines), start=1):
            place = f"Line {number} of '{file}'"
            label = _class_of(cells, names, place)
            path = finder.find(cells[0], split)
            if not path or split not in splits_of(path):
                missing.append(f"{split}/{cells[0]}")
                continue
            entries.append(
                Entry(
                    path=path,
                    label=label,
                    split=split,
                    place=place,
                    box=parse_box(cells[1:5], place),
                    cells={},
                )
            )
    refuse_missing(missing, len(missing) + len(entries), subject, directory)
    return collect_entries(entries, directory)


def _class_of(cells: list[str], names: list[str], place: str) -> str:
    """The class of one line, after the check that the line is whole."""
    if len(cells) != CELLS:
        raise DataError(
            f"{place} must be image, left, top, right, bottom, class, got {len(cells)} cells. "
            "Correct it."
        )
    text = cells[5].strip()
    if not text.isdecimal() or not 1 <= int(text) <= len(names):
        raise DataError(
            f"{place}: the class must be a number from 1 to {len(names)}, the lines of "
            f"'{NAMES}', got '{text}'. Correct it."
        )
    return names[int(text) - 1]
