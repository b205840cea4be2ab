"""`--splits FILE`: parts and folds that a run wrote, or somebody by hand, given back.

A run writes `splits.csv` with cells that a spreadsheet would run as formulas made harmless, so an
image is found by the cell that would be written for it, else by its plain name. A file by hand
needs the columns path and part alone; part is train, val, test, calibration for an image that
thresholds are set on, or unused for one that is to be left aside. Every image must be named: one
that is forgotten is an error, not a smaller set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from headstart.data import printable
from headstart.data.folders import SPLIT_OF_FOLDER, close_names
from headstart.data.listed.sheets import Sheet, read_sheet
from headstart.errors import DataError
from headstart.files import neutral_cell
from headstart.records import ImageTable, Integers

SPLITS = "splits.csv"
UNUSED = "unused"
CALIBRATION = "calibration"
MOST_COMPARED = 5_000  # names that close ones are looked for among
NO_FOLD = 0


@dataclass(frozen=True, kw_only=True)
class Line:
    """What the file says of one image.

    Attributes:
        place: 'line 7'.
        path: the cell as it stands.
        label: the cell as it stands, '' where none is said.
        part: 'train', 'val', 'test', 'calibration' or 'unused'.
        fold: a whole number above 0, `NO_FOLD` where none is said.
    """

    place: str
    path: str
    label: str
    part: str
    fold: int


@dataclass(frozen=True, kw_only=True)
class GivenSplits:
    """The lines of a file.

    Attributes:
        subject: how messages name it.
        lines: one an image.
    """

    subject: str
    lines: tuple[Line, ...]

    def of_rows(self, table: ImageTable) -> tuple[list[Line | None], list[Line]]:
        """The line of each row of the table, and the lines that no row has.

        Raises:
            DataError: two lines of one image contradict each other.
        """
        by_cell: dict[str, list[Line]] = defaultdict(list)
        for line in self.lines:
            by_cell[line.path].append(line)
        rows = _rows_by_cell(table.paths, by_cell)
        found: list[Line | None] = [None] * len(table)
        strangers = []
        for cell, lines in by_cell.items():
            own = rows.get(cell, [])
            if len(lines) != len(own):
                lines = self._single(lines) * len(own)
                strangers += by_cell[cell] if not own else []
            for row, line in zip(own, lines, strict=True):  # names written alike stand in order
                found[row] = line
        return found, strangers

    def _single(self, lines: Sequence[Line]) -> list[Line]:
        """The one line that all of them are.

        Raises:
            DataError: they differ in part or fold.
        """
        first = lines[0]
        for line in lines:
            if (line.part, line.fold) != (first.part, first.fold):
                raise DataError(
                    f"{self.subject} names '{printable(line.path)}' twice and differently, in "
                    f"{first.place} ({first.part}) and {line.place} ({line.part}). Remove one."
                )
        return [first]


def read_splits(file: str | Path) -> GivenSplits:
    """Read a file of parts, or the one of a run's folder.

    Raises:
        DataError: it is not there, damaged, or lacks columns; a part or fold that cannot be.
    """
    path = Path(file) / SPLITS if Path(file).is_dir() else Path(file)
    subject = f"`--splits {printable(str(file))}`"
    sheet = read_sheet(path, subject)
    missing = [name for name in ("path", "part") if name not in sheet.columns]
    if missing:
        raise DataError(
            f"{subject} must have the columns path and part, got {', '.join(sheet.columns)}. "
            f"Add {' and '.join(missing)}; take the {SPLITS} of a run as an example."
        )
    if not sheet.rows:
        raise DataError(f"{subject} names no image. It needs a line for each.")
    return GivenSplits(subject=subject, lines=tuple(_lines(sheet, subject)))


def apply_splits(table: ImageTable, given: GivenSplits, known: ImageTable) -> ImageTable:
    """The table with the file's parts as its splits, without the images that it leaves aside.

    Args:
        table: images to be used.
        given: from `read_splits`.
        known: all images of the data, where `table` is a sample of them.

    Raises:
        DataError: the file is of other data, or says nothing of some images.
    """
    _, strangers = given.of_rows(known)
    if strangers:
        _refuse_strangers(given, strangers, known)
    found, _ = given.of_rows(table)
    forgotten = [table.paths[row] for row, line in enumerate(found) if line is None]
    if forgotten:
        raise DataError(
            f"{given.subject} says nothing of {len(forgotten):,} of {len(table):,} images, as in "
            f"'{printable(forgotten[0])}'. Add a line for each; the part {UNUSED} leaves an image "
            "aside."
        )
    lines = [line for line in found if line is not None]
    _check_labels(table, lines, given.subject)
    parts = tuple(line.part for line in lines)
    _check_parts(parts, given.subject)
    rows = [row for row, part in enumerate(parts) if part != UNUSED]
    kept = replace(table, splits=parts).take(rows)
    if len(rows) == len(table):
        return kept
    aside = f"{len(table) - len(rows):,} images are left aside, as {given.subject} says."
    return replace(kept, notes=(*table.notes, aside))


def given_folds(table: ImageTable, given: GivenSplits) -> tuple[Integers, tuple[str, ...]] | None:
    """Folds of images that are learnt from, None where the file names none.

    Args:
        table: N images that are learnt from, all of them in the file.
        given: from `read_splits`.

    Returns:
        (N,) int64 from 0, and the number of each fold in the file.

    Raises:
        DataError: some images have a fold and some have none, or all have the same.
    """
    lines, _ = given.of_rows(table)
    numbers = np.array([NO_FOLD if line is None else line.fold for line in lines], dtype=np.int64)
    without = np.flatnonzero(numbers == NO_FOLD)
    if len(without) == len(table):
        return None
    if len(without):
        raise DataError(
            f"{given.subject} gives a fold to {len(table) - len(without):,} of {len(table):,} "
            f"images to learn from and none to the others, as '{printable(table.paths[without[0]])}"
            "'. Give one to each, or leave the column empty to have folds drawn."
        )
    names, fold = np.unique(numbers, return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"{given.subject} puts all images to learn from into one fold; cross-validation needs "
            "at least 2. Number the folds, or leave the column empty to have them drawn."
        )
    return fold.astype(np.int64), tuple(str(name) for name in names.tolist())


def _lines(sheet: Sheet, subject: str) -> Iterable[Line]:
    for row, place in zip(sheet.rows, sheet.places, strict=True):
        where = f"{place[0].upper()}{place[1:]} of {subject}"
        yield Line(
            place=place,
            path=row["path"],
            label=row.get("label", ""),
            part=_part(row["part"], where),
            fold=_fold(row.get("fold", ""), where),
        )


def _part(text: str, where: str) -> str:
    word = text.strip().casefold()
    part = word if word in (UNUSED, CALIBRATION) else SPLIT_OF_FOLDER.get(word)
    if part is None:
        raise DataError(
            f"{where}: the part '{printable(text)}' is none of train, val, test, {CALIBRATION} "
            f"and {UNUSED}. Correct it."
        )
    return part


def _fold(text: str, where: str) -> int:
    word = text.strip().removesuffix(".0")  # pandas makes floats where a cell is empty
    if not word:
        return NO_FOLD
    if not (word.isascii() and word.isdecimal()) or int(word) < 1:
        raise DataError(
            f"{where}: the fold '{printable(text)}' is no whole number from 1 on. Correct it."
        )
    return int(word)


def _as_written(text: str) -> str:
    """The cell that a run writes for a text."""
    return str(neutral_cell(text)).encode("utf-8", "backslashreplace").decode("utf-8")


def _rows_by_cell(paths: Sequence[str], cells: Iterable[str]) -> dict[str, list[int]]:
    """Rows of a table by the cell that names them: as a run writes it, else as it is."""
    written: dict[str, list[int]] = defaultdict(list)
    plain = {}
    for row, path in enumerate(paths):
        written[_as_written(path)].append(row)
        plain[path] = row
    found = {cell: written[cell] for cell in cells if cell in written}
    taken = {row for rows in found.values() for row in rows}
    for cell in cells:
        if cell not in found and cell in plain and plain[cell] not in taken:
            found[cell] = [plain[cell]]
    return found


def _check_labels(table: ImageTable, lines: Sequence[Line], subject: str) -> None:
    """Refuse a file that knows the images by other classes."""
    other = [
        row
        for row, line in enumerate(lines)
        if line.label and line.label not in (_as_written(table.label_of(row)), table.label_of(row))
    ]
    if other:
        row = other[0]
        raise DataError(
            f"{subject} gives another label to {len(other):,} of {len(table):,} images than the "
            f"data: '{printable(table.paths[row])}' is '{printable(lines[row].label)}' there and "
            f"'{table.label_of(row)}' here. Take the file of these data, or leave its column "
            "'label' out."
        )


def _check_parts(parts: Sequence[str], subject: str) -> None:
    """Refuse parts with nothing to learn from or to test on."""
    present = set(parts) - {UNUSED, CALIBRATION}
    if not present & {"test", "val"}:
        raise DataError(
            f"{subject} names no test image, so nothing would be left to test on. Name some."
        )
    if len(present) < 2:
        raise DataError(f"{subject} names test images only and none to learn from. Name some.")


def _refuse_strangers(given: GivenSplits, strangers: Sequence[Line], known: ImageTable) -> None:
    """One sentence on images that the file names and the data lack."""
    path = strangers[0].path
    same_name = [other for other in known.paths if _file_name(other) == _file_name(path)]
    hint = close_names(path, (same_name or known.paths)[:MOST_COMPARED])
    if len({line.path for line in strangers}) == len({line.path for line in given.lines}):
        raise DataError(
            f"{given.subject} names none of the {len(known):,} images of '{known.name}': it is of "
            f"other data, or its paths count from another folder, as '{printable(path)}'. "
            f"{hint}Take the file of these data."
        )
    raise DataError(
        f"{given.subject} names {len(strangers):,} images that '{known.name}' lacks, as in "
        f"'{printable(path)}'. {hint}Remove the lines, or bring the images back."
    )


def _file_name(path: str) -> str:
    return PurePosixPath(path).name
