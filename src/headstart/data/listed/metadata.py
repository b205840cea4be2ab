"""Metadata files inside a folder of images: Hugging Face's way, and further columns.

`metadata.csv` (.tsv, .jsonl, .parquet) at the top of a folder of class folders gives further
columns: groups for `--group-by`, where images come from, boxes. The class folders stay the labels,
a column of splits is not used, and images without a row are told. Where there is none at the top,
those inside of `train/`, `val/` and `test/` are read, each for its own images.

Where there are no class folders and the file has a column of paths and one of labels (a Hugging
Face image folder, also one such file inside each of `train/` and `test/`), it is the manifest.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from headstart.data.boxes import boxes_as_shares
from headstart.data.folders import SPLIT_OF_FOLDER, printable, subfolders
from headstart.data.found import Collection, FoundImage
from headstart.data.listed.columns import ChosenColumns, choose_columns, existing_column
from headstart.data.listed.manifests import read_manifest, splits_of
from headstart.data.listed.sheets import Sheet, read_sheet
from headstart.errors import DataError, MissingExtraError, UsageError

# What `columns` may say beside class folders.
FURTHER_WORDS = ("path", "group", "source", "box")
METADATA_NAMES = tuple(f"metadata.{ending}" for ending in ("csv", "tsv", "jsonl", "parquet"))


def metadata_file(directory: Path) -> Path | None:
    """The metadata file at the top of a folder, None where there is none."""
    candidates = (directory / name for name in METADATA_NAMES)
    return next((path for path in candidates if path.is_file()), None)


def read_image_folder(
    directory: Path, subject: str, wanted: Mapping[str, str], *, skip: Path | None = None
) -> Collection | None:
    """A Hugging Face image folder; None where the folder is none.

    Raises:
        DataError: it is one, and a row of it is wrong.
    """
    folders = [path for path in subfolders(directory) if skip is None or not path.samefile(skip)]
    split_of = {path: SPLIT_OF_FOLDER.get(path.name.casefold(), "") for path in folders}
    split_of = {path: split for path, split in split_of.items() if not _holds_classes(path, split)}
    classes = len(folders) - sum(bool(split) for split in split_of.values())
    top = metadata_file(directory)
    if top is not None and classes < 2 and _is_manifest(top, wanted):
        collection = read_manifest(top, _named(top, subject), wanted)
        return _split_by_folder(collection)
    parts = [
        (file, split)
        for path, split in split_of.items()
        if split and (file := metadata_file(path)) and _is_manifest(file, wanted)
    ]
    if not any(split == "train" for _, split in parts):
        return None
    return _joined(directory, parts, subject, wanted)


def with_metadata(
    directory: Path, images: list[FoundImage], subject: str, wanted: Mapping[str, str]
) -> Collection:
    """Images of class folders with what the metadata file says of them.

    Raises:
        DataError: `wanted` says what class folders say themselves, or names a column that is not
            there, or a box is wrong.
    """
    file = metadata_file(directory)
    if file is None and not wanted and (parts := _split_sheets(directory, images)):
        return _with_split_sheets(parts, images, subject)
    idle = next((word for word in wanted if word not in FURTHER_WORDS), None)
    if file is not None and idle not in (None, "label"):
        raise DataError(
            f"`columns` knows {', '.join(FURTHER_WORDS)} beside class folders, got '{idle}'. Name "
            f"'{printable(str(file))}' as --data, so that the folders of {subject} do not count."
        )
    if "label" in wanted or (wanted and file is None):
        advice = f"Name '{printable(str(file))}' as --data" if file else "Leave it out"
        raise DataError(
            f"`columns` must go with a manifest; in {subject} the class folders are the labels. "
            f"{advice}."
        )
    if file is None:
        return Collection(images=images)
    named = _named(file, subject)
    try:
        sheet = read_sheet(file, named)
        chosen = choose_columns(sheet.columns, wanted, named, ("path",))
    except (DataError, MissingExtraError) as error:
        if wanted:
            raise
        return Collection(images=images, notes=(f"'{file.name}' is not used: {error}",))
    return _matched(images, sheet, chosen, named)


def _split_sheets(directory: Path, images: list[FoundImage]) -> dict[str, Path]:
    """Metadata files inside of `train/`, `val/` and `test/`, by the folder's name."""
    tops = {image.path.split("/", 1)[0]: "" for image in images if image.split}
    found = {top: metadata_file(directory / top) for top in sorted(tops)}
    return {top: file for top, file in found.items() if file is not None}


def _with_split_sheets(
    parts: Mapping[str, Path], images: list[FoundImage], subject: str
) -> Collection:
    """As `with_metadata`, where each split's folder has a file of its own."""
    made = list(images)
    columns: dict[str, None] = {}
    notes: dict[str, None] = {}
    grouped_by = ""
    for top, file in parts.items():
        rows = [row for row, image in enumerate(images) if image.path.startswith(f"{top}/")]
        inner = [replace(images[row], path=images[row].path[len(top) + 1 :]) for row in rows]
        part = with_metadata(file.parent, inner, f"'{top}' of {subject}", {})
        for row, image in zip(rows, part.images, strict=True):
            made[row] = replace(image, path=images[row].path)
        columns.update(dict.fromkeys(part.columns))
        notes.update(dict.fromkeys(part.notes))
        grouped_by = grouped_by or part.grouped_by
    return Collection(
        images=made, columns=tuple(columns), notes=tuple(notes), grouped_by=grouped_by
    )


def _matched(
    images: list[FoundImage], sheet: Sheet, chosen: ChosenColumns, subject: str
) -> Collection:
    """Each image with its row, matched by the path relative to the folder."""
    rows: dict[str, int] = {}
    twice: dict[str, tuple[int, int]] = {}
    used = [name for name in (chosen.group, chosen.source, *chosen.box) if name]
    for place, cells in enumerate(sheet.rows):
        first = rows.setdefault(_key(cells[chosen.path]), place)
        if any(cells[name] != sheet.rows[first][name] for name in used):
            twice[_key(cells[chosen.path])] = first, place
    numbers = [rows.get(_key(image.path)) for image in images]
    doubled = next((image for image in images if _key(image.path) in twice), None)
    if doubled is not None:
        both = " and ".join(sheet.places[n] for n in twice[_key(doubled.path)])
        raise DataError(
            f"{subject} says two things of '{doubled.path}' ({both}). Correct it, or name the "
            "file itself as --data, where a picture may have several boxes."
        )
    matched = []
    for image, number in zip(images, numbers, strict=True):
        row = {} if number is None else sheet.rows[number]
        matched.append(
            replace(
                image,
                cells=row,
                group=row.get(chosen.group, "").strip(),
                source=row.get(chosen.source, "").strip(),
            )
        )
    if chosen.box:
        places = [
            "" if n is None else f"{sheet.places[n].capitalize()} of {subject}" for n in numbers
        ]
        matched = _boxed(matched, places, chosen)
    if all(number is None for number in numbers):
        return Collection(
            images=matched, columns=sheet.columns, notes=(_unused(images, sheet, chosen),)
        )
    notes = (
        *chosen.box_notes([image.box for image in matched]),
        *_unmatched_notes(numbers, sheet, used),
        *_label_notes(matched, sheet, chosen),
    )
    if chosen.split and not any(image.split for image in images):
        notes += (
            f"The column '{chosen.split}' of '{sheet.file.name}' is not used: beside class folders "
            f"splits are folders too. Name '{printable(str(sheet.file))}' as --data to use it.",
        )
    return Collection(images=matched, columns=sheet.columns, notes=notes, grouped_by=chosen.group)


def _unmatched_notes(numbers: list[int | None], sheet: Sheet, used: list[str]) -> tuple[str, ...]:
    """How many images no row names, where the rows say something that is used."""
    without = sum(number is None for number in numbers)
    if not without or not used:
        return ()
    idle = len(sheet.rows) - len({number for number in numbers if number is not None})
    shown = ", ".join(f"'{name}'" for name in used)
    return (
        f"'{sheet.file.name}' has no row for {without:,} of {len(numbers):,} images, whose {shown} "
        f"stay empty; {idle:,} of its rows name no image. Paths are compared letter by letter.",
    )


def _label_notes(images: list[FoundImage], sheet: Sheet, chosen: ChosenColumns) -> tuple[str, ...]:
    """A word where the file has labels that are not the folders'."""
    if not chosen.label:
        return ()
    pairs = {(i.label, i.cells[chosen.label].strip()) for i in images if i.cells}
    pairs = {(folder, label) for folder, label in pairs if label}
    folders, labels = ({pair[side] for pair in pairs} for side in (0, 1))
    if len(pairs) == len(folders) == len(labels):
        return ()
    return (
        f"What is learnt are the {len({i.label for i in images})} folders, not the {len(labels)} "
        f"labels in the column '{chosen.label}' of '{sheet.file.name}'; to learn those: --data "
        f"{printable(str(sheet.file))}.",
    )


def _unused(images: list[FoundImage], sheet: Sheet, chosen: ChosenColumns) -> str:
    """The sentence for a file whose rows name no image, with what was meant perhaps."""
    sentence = f"'{sheet.file.name}' is not used: none of its rows names one of the images."
    roots = _roots(images, sheet, chosen) if chosen.label else []
    if not roots:
        return sentence
    folders = len({image.label for image in images})
    return (
        f"{sentence} What is learnt are the {folders} folders, not the labels in its column "
        f"'{chosen.label}'; did you mean --data {printable(str(sheet.file))} --columns "
        f"{' or '.join(roots)}?"
    )


def _roots(images: list[FoundImage], sheet: Sheet, chosen: ChosenColumns) -> list[str]:
    """'root=FOLDER', for each folder below which all files lie that the rows name."""
    names_in: dict[str, set[str]] = {}
    for image in images:
        folder, _, rest = _key(image.path).partition("/")
        names_in.setdefault(folder, set()).update((rest, rest.rpartition("/")[2]))
    found = []
    for folder, names in sorted(names_in.items()):
        if {_key(row[chosen.path]) for row in sheet.rows} <= names:
            found.append(f"root={folder}")
            continue
        if folder.casefold() not in {name.casefold() for name in sheet.columns}:
            continue
        only = replace(chosen, only=existing_column(folder, sheet.columns, sheet.file.name))
        taken = {_key(row[chosen.path]) for row in sheet.rows if only.takes(row)}
        if taken and taken <= names:
            found.append(f"root={folder},only={only.only}")
    return found


def _boxed(images: list[FoundImage], places: list[str], chosen: ChosenColumns) -> list[FoundImage]:
    """The images with boxes as shares."""
    pairs = zip(images, places, strict=True)
    boxes = boxes_as_shares(
        [chosen.box_in(image.cells, place) for image, place in pairs],
        [image.file or b"" for image in images],
        lambda row: f"{places[row]}, '{images[row].path}'",
        named_relative=chosen.named_relative,
    )
    return [replace(image, box=box) for image, box in zip(images, boxes, strict=True)]


def _joined(
    directory: Path, parts: list[tuple[Path, str]], subject: str, wanted: Mapping[str, str]
) -> Collection:
    """One collection of the manifests inside `train/`, `val/` and `test/`."""
    images: list[FoundImage] = []
    columns: dict[str, None] = {}
    notes: dict[str, None] = {}
    grouped_by = ""
    for file, split in parts:
        part = read_manifest(file, _named(file, subject), wanted, split=split)
        prefix = printable(file.parent.relative_to(directory).as_posix())
        images += [replace(image, path=f"{prefix}/{image.path}") for image in part.images]
        columns.update(dict.fromkeys(part.columns))
        notes.update(dict.fromkeys(part.notes))
        grouped_by = grouped_by or part.grouped_by
    return Collection(
        images=images, columns=tuple(columns), notes=tuple(notes), grouped_by=grouped_by
    )


def _split_by_folder(collection: Collection) -> Collection:
    """The split that the first folder of every path names, where no row names one."""
    tops = [image.path.split("/", 1)[0].casefold() for image in collection.images]
    found = [SPLIT_OF_FOLDER.get(top, "") for top in tops]
    told = any(image.split for image in collection.images)
    if told or not all(found) or "train" not in found or len(set(found)) < 2:
        return collection
    pairs = zip(collection.images, found, strict=True)
    images = [replace(image, split=split) for image, split in pairs]
    return replace(collection, images=images)


def _holds_classes(folder: Path, split: str) -> bool:
    """Whether a split's folder holds class folders."""
    return bool(split) and len(subfolders(folder)) > 1


def _is_manifest(file: Path, wanted: Mapping[str, str]) -> bool:
    """Whether a metadata file has both paths and labels; one that cannot be read has neither."""
    try:
        sheet = read_sheet(file, f"'{file.name}'")
        choose_columns(sheet.columns, wanted, f"'{file.name}'", ("path", "label"))
    except (UsageError, MissingExtraError):
        return False
    return True


def _named(file: Path, subject: str) -> str:
    """How messages name a metadata file: by its folder where that is a split."""
    inside = f"{file.parent.name}/" if splits_of(f"{file.parent.name}/x") else ""
    return f"'{printable(inside)}{file.name}' of {subject}"


def _key(path: str) -> str:
    """A path as it is compared: normalised in every sense, printable."""
    plain = os.path.normpath(path.strip().replace("\\", "/")).replace(os.sep, "/")
    return unicodedata.normalize("NFC", printable(plain))
