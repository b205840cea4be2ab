"""From what a source was found to hold to an `ImageTable`: order, classes, groups, checks."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from headstart.data.boxes import with_margin
from headstart.data.dicom import header_codes, is_keyword
from headstart.data.folders import close_names
from headstart.data.found import Collection, FoundImage
from headstart.data.listed.columns import group_hint
from headstart.data.listed.grouping import check_groups, find_groups
from headstart.data.packed.downloads import advice, find_file
from headstart.data.packed.packs import read_packs
from headstart.errors import DataError
from headstart.records import UNLABELLED, ImageTable

_SPLIT_ORDER = {"": 0, "train": 0, "val": 1, "test": 2}
_WHOLE = (np.nan,) * 4


def learnable_table(
    name: str,
    collection: Collection,
    subject: str,
    *,
    group_by: str | None = None,
    crop_margin: float = 0.0,
) -> ImageTable:
    """A collection as a table to learn from.

    Raises:
        DataError: fewer than two classes, a class that training lacks, images without a group.
    """
    images = [image for image in collection.images if image.label]
    _check_learnable(images, subject)
    class_names = tuple(sorted({image.label for image in images}))
    images, group_notes = with_groups(collection, subject, group_by)
    notes = [*collection.notes, *group_notes]
    if group_by is None and not collection.grouped_by and any(image.cells for image in images):
        notes += group_hint(collection.columns)
    if crop_margin and not any(image.box for image in images):
        notes.append("No image has a box, so the crop margin changes nothing.")
    table = assemble_table(name, images, class_names, crop_margin=crop_margin)
    return replace(table, notes=tuple(notes))


def assemble_table(
    name: str,
    images: Sequence[FoundImage],
    class_names: Sequence[str],
    *,
    crop_margin: float = 0.0,
    in_order: bool = False,
) -> ImageTable:
    """Found images as a table, nothing checked but that all are files or all are in memory.

    Args:
        name: of the data.
        images: what was found.
        class_names: the class order.
        crop_margin: added to each box, a share of its sides.
        in_order: keep the order given, instead of train, val, test and path.

    Raises:
        DataError: files and packs are mixed.
    """
    if not in_order:
        images = sorted(images, key=_place)
    index = {label: position for position, label in enumerate(class_names)}
    in_memory = {image.file is None for image in images}
    if len(in_memory) > 1:
        raise DataError(
            "The training and the test images must both be files or both be packs. "
            "Unpack one of them, or make both packs."
        )
    files = tuple(image.file for image in images if image.file is not None)
    return ImageTable(
        name=name,
        paths=_unique([image.path for image in images]),
        labels=np.array([index.get(image.label, UNLABELLED) for image in images], dtype=np.int64),
        class_names=tuple(class_names),
        splits=tuple(image.split for image in images),
        groups=_text_column([image.group for image in images]),
        sources=_text_column([image.source for image in images]),
        files=None if True in in_memory else files,
        blobs=tuple(image.blob or b"" for image in images) if True in in_memory else None,
        boxes=_box_column(images, crop_margin),
    )


def grouped_table(table: ImageTable, group_by: str | None) -> ImageTable:
    """A built-in table with groups by a regular expression on its paths.

    Raises:
        DataError: an image has no group, or all have the same.
    """
    if group_by is None:
        return table
    needed = (table.labels != UNLABELLED).tolist()
    groups, notes = find_groups(table.paths, [{}] * len(table), (), group_by, needed=needed)
    return replace(table, groups=groups, notes=(*table.notes, *notes))


def load_known_packs(name: str, files: Sequence[str]) -> ImageTable:
    """A built-in data set that is a pack in `$HEADSTART_DATA/NAME/`.

    Raises:
        DataError: files are missing or damaged.
    """
    found = [find_file(name, file) for file in files]
    missing = [file for file, path in zip(files, found, strict=True) if path is None]
    if missing:
        raise DataError(advice(name, missing, "they are not published for download"))
    paths = [path for path in found if path is not None]
    return learnable_table(name, read_packs(paths, f"'{name}'", {}), f"'{name}'")


def _place(image: FoundImage) -> tuple[int, str, tuple[float, ...]]:
    return _SPLIT_ORDER[image.split], image.path, image.box or ()


def _check_learnable(images: Sequence[FoundImage], subject: str) -> None:
    """At least two classes to learn, and no other class to be tested on."""
    if not images:
        raise DataError(f"{subject} holds no image with a label. Fill in the label column.")
    learnt = {image.label for image in images if image.split not in ("val", "test")}
    if not learnt:
        raise DataError(
            f"{subject} holds no training images: all labelled rows are of the val or test split. "
            "Name some of them train, or leave the column out by --columns split="
        )
    strangers = [image for image in images if image.label not in learnt]
    if strangers:
        label, split = strangers[0].label, strangers[0].split
        raise DataError(
            f"The {split} split of {subject} holds the class '{label}', which the training images "
            f"lack. {close_names(label, sorted(learnt))}Add training images of it, or remove it "
            f"from the {split} split."
        )
    if len(learnt) == 1:
        raise DataError(
            f"{subject} holds one class only, '{min(learnt)}'; a classifier needs at least two. "
            "Add images of another class."
        )


def with_groups(
    collection: Collection, subject: str, group_by: str | None, *, split: bool = True
) -> tuple[list[FoundImage], tuple[str, ...]]:
    """The images with their groups, by `group_by` or by the manifest's own column, and notes.

    Where nothing gives groups and a picture stands in several rows, each with a box of its own, the
    picture is the group: its parts share light, background and hand, and must not be split.

    Args:
        collection: images with cells and columns.
        subject: the data, in messages.
        group_by: column, regular expression or entry of a DICOM header.
        split: whether groups must come apart, as in `check_groups`.

    Raises:
        DataError: an image has no group, or all have the same.
    """
    images = collection.images
    paths = [image.path for image in images]
    needed = [bool(image.label) for image in images]
    if group_by is not None and _is_header_entry(group_by, collection):
        own = header_codes([image.file or image.blob for image in images], group_by)
        fault = f"have no '{group_by}' in a DICOM header"
        groups, notes = check_groups(
            paths, own, f"`--group-by {group_by}`", fault, needed=needed, split=split
        )
    elif group_by is not None:
        cells = [image.cells for image in images]
        groups, notes = find_groups(
            paths, cells, collection.columns, group_by, needed=needed, split=split
        )
    elif collection.grouped_by:
        column = f"The column '{collection.grouped_by}' of {subject}"
        own = [image.group for image in images]
        groups, notes = check_groups(
            paths, own, column, "have an empty cell", needed=needed, split=split
        )
    else:
        return _grouped_by_picture(images)
    pairs = zip(images, groups, strict=True)
    notes += _torn_notes(images, groups)
    return [replace(image, group=group) for image, group in pairs], notes


def _grouped_by_picture(images: list[FoundImage]) -> tuple[list[FoundImage], tuple[str, ...]]:
    """The pictures as groups where one stands in several rows, else the images as they are."""
    several = _rows_of_pictures(images)
    if not several:
        return images, ()
    groups = [image.path for image in images]
    for rows in several:
        for row in rows:
            groups[row] = images[rows[0]].path
    pictures = "picture stands" if len(several) == 1 else "pictures stand"
    first = images[several[0][0]].path
    note = (
        f"{len(several):,} {pictures} in several rows with boxes of their own ('{first}' is the "
        "first). The rows of one picture stay together: the picture is their group."
    )
    pairs = zip(images, groups, strict=True)
    return [replace(image, group=group) for image, group in pairs], (note,)


def _torn_notes(images: Sequence[FoundImage], groups: Sequence[str]) -> tuple[str, ...]:
    """A sentence about pictures whose rows are of different groups."""
    several = _rows_of_pictures(images)
    torn = [rows for rows in several if len({groups[row] for row in rows}) > 1]
    if not torn:
        return ()
    pictures = "picture stands" if len(torn) == 1 else "pictures stand"
    return (
        f"{len(torn):,} {pictures} in rows of different groups ('{images[torn[0][0]].path}' is the "
        "first), so that parts of one picture may be learnt from and tested on. Give the rows of a "
        "picture one group.",
    )


def _rows_of_pictures(images: Sequence[FoundImage]) -> list[list[int]]:
    """The rows of each picture that stands in several labelled rows, as boxes alone allow."""
    if not any(image.box for image in images):
        return []
    rows: dict[str | bytes, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        if image.label and (image.file or image.blob):
            rows[os.path.realpath(image.file) if image.file else image.blob or b""].append(row)
    return [found for found in rows.values() if len(found) > 1]


def _is_header_entry(group_by: str, collection: Collection) -> bool:
    """Whether groups come from DICOM headers: no column is named so, and some files are DICOM."""
    if group_by.casefold() in {name.casefold() for name in collection.columns}:
        return False
    return is_keyword(group_by, [image.path for image in collection.images])


def _text_column(values: list[str]) -> tuple[str, ...] | None:
    return tuple(values) if any(values) else None


def _box_column(images: Sequence[FoundImage], margin: float) -> npt.NDArray[np.float64] | None:
    """(N, 4) shares with the margin, NaN where there is no box; None without any box."""
    if not any(image.box for image in images):
        return None
    boxes = [with_margin(image.box, margin) if image.box else _WHOLE for image in images]
    return np.array(boxes, dtype=np.float64)


def _unique(paths: list[str]) -> tuple[str, ...]:
    """Names as they are; one that came out like an earlier one gets '~2', '~3', ... behind."""
    taken = set(paths)
    seen: set[str] = set()
    unique = []
    for path in paths:
        name, count = path, 1
        while name in seen or (count > 1 and name in taken):
            count += 1
            name = f"{path}~{count}"
        seen.add(name)
        unique.append(name)
    return tuple(unique)
