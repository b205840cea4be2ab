"""Packs: Parquet files that hold the encoded images themselves.

A pack has a column of bytes, or of Hugging Face's pairs of bytes and path, and a column of labels:
words, or numbers whose names stand in the file's header (Hugging Face's features, or 'classes'
joined by commas) or in `classes.json` beside it. The images stay encoded in memory.

Other columns count as in a manifest (`headstart.data.listed.columns`). A split comes from the
column of splits, else from the beginning of the file's name.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.data.boxes import boxes_as_shares
from headstart.data.folders import SPLIT_OF_FOLDER, class_name, printable
from headstart.data.found import Collection, FoundImage
from headstart.data.labels import class_notes, missing_notes
from headstart.data.listed.columns import ChosenColumns, choose_columns
from headstart.data.listed.manifests import split_of_cell
from headstart.data.listed.sheets import (
    feature_names,
    huggingface_names,
    named_label,
    open_parquet,
)
from headstart.errors import DataError

CLASSES_FILE = "classes.json"
IMAGE_COLUMNS = ("image", "img", "picture", "image_bytes", "bytes", "content")
_SPLIT = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True, kw_only=True)
class PackColumn:
    """The column of a pack that holds its images.

    Attributes:
        name: the column's name.
        paired: whether it holds pairs of bytes and path.
    """

    name: str
    paired: bool


@dataclass(frozen=True, kw_only=True)
class Pack:
    """One pack as it was read.

    Attributes:
        images: one a row.
        labels: of these rows, by name, '' where there is none.
        columns: that were read, beside the images.
        grouped_by: the column of groups, '' where there is none.
        tells_splits: whether a row names its split.
        notes: sentences that a run prints.
    """

    images: list[FoundImage]
    labels: list[str]
    columns: tuple[str, ...]
    grouped_by: str
    tells_splits: bool
    notes: tuple[str, ...]


def packs_of(directory: Path) -> list[Path]:
    """The packs of a folder, or of its folder `data`, sorted by name; none where it holds none."""
    for place in (directory, directory / "data"):
        files = sorted(place.glob("*.parquet"))
        if files and all(is_pack(file) for file in files):
            return files
    return []


def is_pack(file: Path) -> bool:
    """Whether a Parquet file holds images, as far as its header tells."""
    try:
        schema = open_parquet(file, f"'{file.name}'").schema_arrow
    except DataError:
        return False
    return image_column(schema) is not None


def read_packs(files: Sequence[Path], subject: str, wanted: dict[str, str]) -> Collection:
    """The images of packs, with labels, splits, groups, sources and boxes.

    Raises:
        DataError: a pack is damaged or has no labels, a row is wrong, or `wanted` cannot be.
    """
    if "root" in wanted:
        raise DataError(
            f"`columns` cannot have a root for {subject}, got 'root={wanted['root']}': a pack "
            "holds its images itself. Leave it out."
        )
    packs = [_read_one(file, subject, wanted) for file in files]
    images = [image for pack in packs for image in pack.images]
    if not images:
        raise DataError(f"{subject} has no row to take. It needs one for each image.")
    splits = {image.split for image in images}
    if any(pack.tells_splits for pack in packs):  # the other rows are learnt from
        images = [replace(image, split=image.split or "train") for image in images]
    elif len(splits) == 1:  # one pack alone is no split
        images = [replace(image, split="") for image in images]
    labels = [label for pack in packs for label in pack.labels if label.strip()]
    notes = [*class_notes(labels), *missing_notes(labels)]
    unlabelled = len(images) - len(labels)
    if unlabelled:
        notes.append(f"{unlabelled:,} images have no label and are left aside.")
    return Collection(
        images=images,
        columns=tuple(dict.fromkeys(name for pack in packs for name in pack.columns)),
        notes=(*notes, *dict.fromkeys(note for pack in packs for note in pack.notes)),
        grouped_by=next((pack.grouped_by for pack in packs if pack.grouped_by), ""),
    )


def image_column(schema: Any) -> PackColumn | None:
    """The column of an Arrow schema that holds images, None where there is none."""
    from pyarrow import types

    found = {}
    for field in schema:
        if types.is_binary(field.type) or types.is_large_binary(field.type):
            found[field.name] = PackColumn(name=field.name, paired=False)
        elif types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            found[field.name] = PackColumn(name=field.name, paired=True)
    preferred = next((found[name] for name in IMAGE_COLUMNS if name in found), None)
    return preferred or (next(iter(found.values())) if len(found) == 1 else None)


def _read_one(file: Path, subject: str, wanted: dict[str, str]) -> Pack:
    """A pack as it was read."""
    place = f"'{file.name}' of {subject}" if file.name not in subject else subject
    opened = open_parquet(file, place)
    schema = opened.schema_arrow
    column = image_column(schema)
    assert column is not None, "is_pack was asked before"
    plain = [field.name for field in schema if _is_plain(field.type)]
    lists = [field.name for field in schema if _is_list(field.type)]
    chosen = choose_columns([*plain, *lists], wanted, place, ("label",))
    _refuse_lists(chosen, lists, place)
    kept = [*plain, *(name for name in lists if name in chosen.box)]
    values = _read_columns(opened, [column.name, *kept], place)
    texts: dict[str, list[str]] = {}
    for name in kept:
        names = [] if name == chosen.label else huggingface_names(schema.metadata, name)
        texts[name] = [named_label(value, names, f"{place}, '{name}'") for value in values[name]]
    names = _names_beside(file) or feature_names(schema.metadata, chosen.label)
    labels = [named_label(value, names, place) for value in values[chosen.label]]
    blobs, paths = _unpaired(values[column.name], column)
    titles = _titles(
        texts[chosen.path] if chosen.path else paths, _split_of_name(file) or file.stem
    )
    cells = [{name: texts[name][row] for name in kept} for row in range(len(blobs))]
    rows = [row for row in range(len(blobs)) if chosen.takes(cells[row])]
    places = [f"Row {row + 1} of {place}" for row in rows]
    images = [
        FoundImage(
            path=titles[row], blob=blobs[row], label=_class_of(labels[row]), cells=cells[row]
        )
        for row in rows
    ]
    told = [bool(chosen.split and image.cells[chosen.split].strip()) for image in images]
    images = _described(images, places, chosen, _split_of_name(file))
    return Pack(
        images=images,
        labels=[labels[row] for row in rows],
        columns=tuple(kept),
        grouped_by=chosen.group,
        tells_splits=any(told),
        notes=chosen.box_notes([image.box for image in images]),
    )


def _refuse_lists(chosen: ChosenColumns, lists: list[str], place: str) -> None:
    """Refuse a column of lists where an image has one value.

    Raises:
        DataError: one such.
    """
    single = (chosen.label, chosen.path, chosen.split, chosen.group, chosen.source, chosen.only)
    wrong = next((name for name in single if name in lists), None)
    if wrong is not None:
        what = "an image has one label here" if wrong == chosen.label else "one value is wanted"
        raise DataError(
            f"{place}: the column '{wrong}' holds lists, and {what}. Name another one by "
            "--columns, as in label=COLUMN, or write one value an image."
        )


def _read_columns(opened: Any, names: list[str], place: str) -> dict[str, list[Any]]:
    import pyarrow

    try:
        table = opened.read(columns=names)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).split("\n", 1)[0].rstrip(".")
        raise DataError(f"{place} is damaged: {reason}. Fetch it again.") from error
    return {name: table.column(name).to_pylist() for name in names}


def _described(
    images: list[FoundImage], places: list[str], chosen: ChosenColumns, split: str
) -> list[FoundImage]:
    """The images with split, group, source and box, as their rows say; `split` else."""
    pairs = list(zip(images, places, strict=True))
    boxes = boxes_as_shares(
        [chosen.box_in(image.cells, place) for image, place in pairs],
        [image.blob or b"" for image in images],
        lambda row: f"{places[row]}, '{images[row].path}'",
        named_relative=chosen.named_relative,
    )
    return [
        replace(
            image,
            split=split_of_cell(image.cells.get(chosen.split, ""), place) or split,
            group=image.cells.get(chosen.group, "").strip(),
            source=image.cells.get(chosen.source, "").strip(),
            box=box,
        )
        for (image, place), box in zip(pairs, boxes, strict=True)
    ]


def _class_of(label: str) -> str:
    return class_name(label) if label.strip() else ""


def _is_plain(kind: Any) -> bool:
    """A column of words or numbers, which may be a label or a group."""
    from pyarrow import types

    textual = [types.is_string(kind), types.is_large_string(kind), types.is_dictionary(kind)]
    return any([*textual, types.is_integer(kind), types.is_floating(kind), types.is_boolean(kind)])


def _is_list(kind: Any) -> bool:
    """A column of lists, such as the four numbers of a box."""
    from pyarrow import types

    return any([types.is_list(kind), types.is_large_list(kind), types.is_fixed_size_list(kind)])


def _unpaired(values: list[Any], column: PackColumn) -> tuple[list[bytes], list[str]]:
    """Bytes and names of the images; a missing image is empty, and is named when it is decoded."""
    if not column.paired:
        return [value or b"" for value in values], [""] * len(values)
    pairs = [value or {} for value in values]
    return [p.get("bytes") or b"" for p in pairs], [p.get("path") or "" for p in pairs]


def _titles(paths: Sequence[str], split: str) -> list[str]:
    """Printable names that begin with the split; numbers where names are missing or repeated."""
    repeated = Counter(paths)
    titles = []
    for row, path in enumerate(paths):
        good = path and repeated[path] == 1
        name = printable(path.replace("\\", "/")) if good else f"{row:06d}"
        titles.append(name if name.split("/", 1)[0] == split else f"{split}/{name}")
    return titles


def _split_of_name(file: Path) -> str:
    """'train' for 'train-00000-of-00002.parquet'; '' where the name begins otherwise."""
    word = _SPLIT.match(file.stem)
    return SPLIT_OF_FOLDER.get(word.group(0).casefold(), "") if word else ""


def _names_beside(file: Path) -> list[str]:
    """Names of the classes 0, 1, ... from `classes.json`: a list, or a list under 'names'."""
    place = file.parent / CLASSES_FILE
    if not place.is_file():
        return []
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        names = content["names"] if isinstance(content, dict) else content
        return [str(name) for name in names]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise DataError(
            f"'{place}' must be a JSON list of class names, or hold one under 'names'. Correct it."
        ) from error
