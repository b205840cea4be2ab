"""Packs: Parquet files that hold the encoded images themselves.

A pack has a column of bytes, or of Hugging Face's pairs of bytes and path, and a column of labels:
words, or numbers whose names stand in the file's header (Hugging Face's features, or 'classes'
joined by commas) or in `classes.json` beside it. The images stay encoded in memory.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.data.folders import SPLIT_OF_FOLDER, class_name, printable
from headstart.data.found import Collection, FoundImage
from headstart.data.labels import class_notes
from headstart.data.listed.columns import choose_columns
from headstart.data.listed.sheets import cell_text, feature_names, named_label, open_parquet
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
    """The images of packs; a name that begins with train, val or test names the split.

    Raises:
        DataError: a pack is damaged or has no labels.
    """
    images: list[FoundImage] = []
    raw: set[str] = set()
    columns: dict[str, None] = {}
    grouped_by = ""
    for file in files:
        found, labels, names, grouped_by = _read_one(file, subject, wanted)
        images += found
        raw |= labels
        columns.update(dict.fromkeys(names))
    if len({image.split for image in images}) == 1:  # one pack alone is no split
        images = [replace(image, split="") for image in images]
    unlabelled = sum(not image.label for image in images)
    notes = [*class_notes(raw)]
    if unlabelled:
        notes.append(f"{unlabelled:,} images have no label and are left aside.")
    return Collection(
        images=images, columns=tuple(columns), notes=tuple(notes), grouped_by=grouped_by
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


def _read_one(
    file: Path, subject: str, wanted: dict[str, str]
) -> tuple[list[FoundImage], set[str], list[str], str]:
    """Images, raw labels, names of the columns, and the column of the groups."""
    import pyarrow

    place = f"'{file.name}' of {subject}" if file.name not in subject else subject
    opened = open_parquet(file, place)
    column = image_column(opened.schema_arrow)
    assert column is not None, "is_pack was asked before"
    kept = [field.name for field in opened.schema_arrow if _is_plain(field.type)]
    chosen = choose_columns(kept, wanted, place, ("label",))
    try:
        table = opened.read(columns=[column.name, *kept])
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).split("\n", 1)[0].rstrip(".")
        raise DataError(f"{place} is damaged: {reason}. Fetch it again.") from error
    names = _names_beside(file) or feature_names(opened.schema_arrow.metadata, chosen.label)
    texts = {name: list(map(cell_text, table.column(name).to_pylist())) for name in kept}
    blobs, paths = _unpaired(table.column(column.name).to_pylist(), column)
    if chosen.path:
        paths = texts[chosen.path]
    labels = [named_label(text, names, place) for text in texts[chosen.label]]
    split = _split_of_name(file)
    titles = _titles(paths, split or file.stem)
    images = [
        FoundImage(
            path=titles[row],
            blob=blobs[row],
            label=class_name(labels[row]) if labels[row].strip() else "",
            split=split,
            group=texts[chosen.group][row] if chosen.group else "",
            source=texts[chosen.source][row] if chosen.source else "",
            cells={name: texts[name][row] for name in kept},
        )
        for row in range(table.num_rows)
    ]
    return images, {label for label in labels if label.strip()}, kept, chosen.group


def _is_plain(kind: Any) -> bool:
    """A column of words or numbers, which may be a label or a group."""
    from pyarrow import types

    textual = [types.is_string(kind), types.is_large_string(kind), types.is_dictionary(kind)]
    return any([*textual, types.is_integer(kind), types.is_floating(kind), types.is_boolean(kind)])


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
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(
            f"'{place}' must be a JSON list of class names, or hold one under 'names'. Correct it."
        ) from error
