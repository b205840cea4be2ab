"""Manifests: a file with a row for each image says where it is and what it shows.

Paths are relative to the manifest's own folder. A plain file name that is not there is looked for
in the folders below; it must be there once. Rows without a label stay in the table, unlabelled.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from headstart.data.boxes import Box, boxes_as_shares
from headstart.data.folders import SPLIT_OF_FOLDER, class_name, find_images, printable
from headstart.data.found import Collection, FoundImage
from headstart.data.labels import class_notes, missing_notes
from headstart.data.listed.columns import ChosenColumns, choose_columns
from headstart.data.listed.sheets import Sheet, read_sheet
from headstart.errors import DataError

NAMED_FILES = 3


class FileFinder:
    """Finds the files that a manifest names, below one folder."""

    def __init__(self, root: Path) -> None:
        """Look nothing up yet."""
        self.root = root
        self._below: dict[str, list[str]] | None = None

    def find(self, name: str, split: str = "") -> str:
        """The path of a file relative to the root (or absolute), '' where it is not there.

        Args:
            name: a relative or absolute path, or a plain file name that lies anywhere below.
            split: a file inside a folder of this split wins among several of one name.

        Raises:
            DataError: several files have that plain name.
        """
        slashed = name.replace("\\", "/")
        for spelt in dict.fromkeys((name, slashed)):
            if os.path.isfile(self.root / spelt):  # False for what can be no name at all
                return os.path.normpath(spelt).replace(os.sep, "/")
        if "/" in slashed:
            return ""
        found = self._named(name)
        fitting = [path for path in found if split and split in splits_of(path)] or found
        if len(fitting) > 1:
            shown = "' and '".join(map(printable, fitting[:2]))
            raise DataError(
                f"The file name '{printable(name)}' is there {len(fitting)} times below "
                f"'{printable(str(self.root))}', as in '{shown}'. Write the paths into the "
                "manifest, or name the folder by --columns root=FOLDER."
            )
        return fitting[0] if fitting else ""

    def _named(self, name: str) -> list[str]:
        if self._below is None:
            self._below = defaultdict(list)
            for _, file in find_images(self.root):
                self._below[file.name].append(file.relative_to(self.root).as_posix())
        return self._below.get(name, [])


def splits_of(path: str) -> set[str]:
    """The splits that the folders of a path name: 'cars_train/00001.jpg' names 'train'."""
    words = {folder.casefold() for folder in PurePosixPath(path).parts[:-1]}
    words |= {word.replace("-", "_").rpartition("_")[2] for word in words}
    return {SPLIT_OF_FOLDER[word] for word in words if word in SPLIT_OF_FOLDER}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of a manifest on its way to an image.

    Attributes:
        path: of the file, relative to the root.
        label: as it is written; '' where there is none.
        split: 'train', 'val', 'test' or ''.
        place: 'line 7 of `--data m.csv`', for messages.
        box: left, top, right and bottom, in pixels or shares.
        cells: the whole row.
        group: cell of the group column.
        source: cell of the source column.
    """

    path: str
    label: str
    split: str
    place: str
    box: Box | None = None
    cells: Mapping[str, str]
    group: str = ""
    source: str = ""


def read_manifest(
    file: Path,
    subject: str,
    wanted: Mapping[str, str],
    *,
    needed: Sequence[str] = ("path", "label"),
    split: str = "",
) -> Collection:
    """The images of a manifest.

    Args:
        file: CSV, TSV, Parquet or JSON lines.
        subject: how messages name it.
        wanted: columns by meaning, see `headstart.data.listed.columns`.
        needed: columns that must be there.
        split: of all rows that name none.

    Raises:
        DataError: a column or files are missing, a row is wrong, or there is no row.
    """
    sheet = read_sheet(file, subject)
    chosen = choose_columns(sheet.columns, wanted, subject, needed)
    root = file.parent / chosen.root
    if not root.is_dir():
        raise DataError(
            f"The folder '{printable(str(root))}' of `columns` root={chosen.root} does not exist. "
            "It is relative to the manifest. Correct it."
        )
    entries = _entries(sheet, chosen, root, subject, split)
    if not entries:
        raise DataError(f"{subject} has a header and no row to take. It needs one for each image.")
    prefix = os.path.normpath(chosen.root).replace(os.sep, "/") if chosen.root else ""
    return collect_entries(
        entries,
        root,
        prefix="" if prefix == "." else prefix,
        named_relative=chosen.named_relative,
        columns=sheet.columns,
        grouped_by=chosen.group,
        notes=chosen.box_notes([entry.box for entry in entries]),
    )


def collect_entries(
    entries: Sequence[Entry],
    root: Path,
    *,
    prefix: str = "",
    named_relative: bool = False,
    columns: tuple[str, ...] = (),
    grouped_by: str = "",
    notes: Sequence[str] = (),
) -> Collection:
    """Entries as images: boxes as shares, doubles refused, what is odd written down.

    Raises:
        DataError: one image stands there twice, or a box lies outside its picture.
    """
    _check_doubles(entries, root)
    files = [root / entry.path for entry in entries]
    boxes = boxes_as_shares(
        [entry.box for entry in entries],
        files,
        lambda row: f"{entries[row].place}, '{printable(entries[row].path)}'",
        named_relative=named_relative,
    )
    images = [
        FoundImage(
            path=printable(os.path.normpath(os.path.join(prefix, entry.path)).replace(os.sep, "/")),
            file=file,
            label=class_name(entry.label),
            split=entry.split,
            group=entry.group,
            source=entry.source,
            box=box,
            cells=entry.cells,
        )
        for entry, file, box in zip(entries, files, boxes, strict=True)
    ]
    return Collection(
        images=images,
        columns=columns,
        notes=(*_label_notes([entry.label for entry in entries]), *notes),
        grouped_by=grouped_by,
    )


def _label_notes(labels: Sequence[str]) -> list[str]:
    written = [label for label in labels if label]
    notes = [*class_notes(written), *missing_notes(written)]
    unlabelled = len(labels) - len(written)
    if unlabelled:
        rows = "row has" if unlabelled == 1 else "rows have"
        verb = "is" if unlabelled == 1 else "are"
        notes.append(f"{unlabelled:,} {rows} no label and {verb} left aside.")
    return notes


def split_of_cell(text: str, place: str) -> str:
    """'train', 'val', 'test' or '' from a cell, in any case.

    Raises:
        DataError: another word.
    """
    word = text.strip().casefold()
    if word and word not in SPLIT_OF_FOLDER:
        raise DataError(
            f"{place}: the split '{printable(text.strip())}' is neither train, val nor test. "
            "Correct it, or leave the column out by --columns split="
        )
    return SPLIT_OF_FOLDER.get(word, "")


def _entries(
    sheet: Sheet, chosen: ChosenColumns, root: Path, subject: str, split: str
) -> list[Entry]:
    finder = FileFinder(root)
    entries, missing = [], []
    for row, place in zip(sheet.rows, sheet.places, strict=True):
        if not chosen.takes(row):
            continue
        where = f"{place[0].upper()}{place[1:]} of {subject}"
        name = row[chosen.path].strip()
        if not name:
            raise DataError(f"{where} names no image: its '{chosen.path}' is empty. Fill it in.")
        own = split_of_cell(row[chosen.split], where) if chosen.split else ""
        path = finder.find(name, own or split)
        if not path:
            missing.append(name)
            continue
        label = row[chosen.label] if chosen.label else ""
        entries.append(
            Entry(
                path=path,
                label=label if label.strip() else "",
                split=own or split,
                place=where,
                box=chosen.box_in(row, where),
                cells=row,
                group=row[chosen.group].strip() if chosen.group else "",
                source=row[chosen.source].strip() if chosen.source else "",
            )
        )
    refuse_missing(missing, len(missing) + len(entries), subject, root)
    return _with_every_split(entries)


def refuse_missing(missing: Sequence[str], total: int, subject: str, root: Path) -> None:
    """One sentence about files that a manifest names and that are not there.

    Raises:
        DataError: there is at least one.
    """
    if not missing:
        return
    shown = ", ".join(f"'{printable(name)}'" for name in missing[:NAMED_FILES])
    more = f" and {len(missing) - NAMED_FILES} more" if len(missing) > NAMED_FILES else ""
    raise DataError(
        f"{subject} names {len(missing):,} of {total:,} images that are not there: {shown}{more}. "
        f"Paths count from '{printable(str(root))}'; correct them, or name another folder by "
        "--columns root=FOLDER."
    )


def _with_every_split(entries: list[Entry]) -> list[Entry]:
    """Where some rows name a split, the others are learnt from."""
    if not any(entry.split for entry in entries):
        return entries
    return [entry if entry.split else replace(entry, split="train") for entry in entries]


def _check_doubles(entries: Sequence[Entry], root: Path) -> None:
    """The same file twice, with the same box or with none."""
    first: dict[tuple[str, Box | None], Entry] = {}
    doubles = []
    for entry in entries:
        key = os.path.abspath(root / entry.path), entry.box
        if first.setdefault(key, entry) is not entry:
            doubles.append((first[key], entry))
    if doubles:
        earlier, later = doubles[0]
        box = " with the same box" if later.box else ""
        raise DataError(
            f"{later.place} names '{printable(later.path)}'{box} a second time, after "
            f"{earlier.place.split(' of ')[0].lower()} ({len(doubles):,} such rows). "
            "An image has one row; remove the others."
        )
