"""Which column of a manifest means what.

    path      path, file, file_name, filename, image, image_path
    label     label, class, class_name, target, category
    group     group                (others, such as patient_id, only when they are asked for)
    split     split, set, partition
    source    source, site, hospital, origin
    box       rel_x1 rel_y1 rel_x2 rel_y2, rel_xmin ..., x1 y1 x2 y2, xmin ymin xmax ymax, box, bbox

The first name of a line that the manifest has is taken, without regard to case. `columns` says
otherwise: 'label=finding,path=file'; an empty name ('box=') leaves a column out. A box is left,
top, right, bottom; 'box=bbox:xywh' is one of left, top, width, height. Two more words belong
there: `root=FOLDER`, to which the paths are relative (itself relative to the manifest), and
`only=COLUMN`, which takes the rows where that column is neither empty nor 0, no or false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headstart.data.boxes import BOX_FORMS, CORNER_COLUMNS, Box, corners_of, parse_box
from headstart.data.folders import close_names
from headstart.errors import DataError, UsageError

ALIASES = {
    "path": ("path", "file", "file_name", "filename", "image", "image_path"),
    "label": ("label", "class", "class_name", "target", "category"),
    "group": ("group",),
    "split": ("split", "set", "partition"),
    "source": ("source", "site", "hospital", "origin"),
}
BOX_COLUMNS = ("box", "bbox")
# Columns that often name groups; a note points to them.
GROUP_HINTS = ("patient_id", "patient", "subject", "subject_id", "group_id", "video", "video_id")
WORDS = (*ALIASES, "box", "root", "only")
_NO = frozenset({"", "0", "no", "false", "n", "f"})


def _is_no(text: str) -> bool:
    """Whether a cell says no; pandas writes 0.0 where a column of numbers has a gap."""
    try:
        return float(text) == 0
    except ValueError:
        return text in _NO


@dataclass(frozen=True, kw_only=True)
class ChosenColumns:
    """The columns of one manifest by meaning; '' where there is none.

    Attributes:
        path: names of the image files.
        label: classes.
        group: groups.
        split: 'train', 'val', 'test'.
        source: where an image comes from.
        box: one column or four; none where images are taken whole.
        box_form: one of `headstart.data.boxes.BOX_FORMS`, '' where nothing says it.
        root: folder of the paths, relative to the manifest.
        only: rows are taken where this column says yes.
    """

    path: str = ""
    label: str = ""
    group: str = ""
    split: str = ""
    source: str = ""
    box: tuple[str, ...] = ()
    box_form: str = ""
    root: str = ""
    only: str = ""

    def takes(self, row: Mapping[str, str]) -> bool:
        """Whether `only` lets a row in."""
        return not self.only or not _is_no(row[self.only].strip().casefold())

    @property
    def named_relative(self) -> bool:
        """Whether the names of the box's columns say that it is in shares."""
        return bool(self.box) and self.box[0].casefold().startswith("rel_")

    def box_in(self, row: Mapping[str, str], place: str) -> Box | None:
        """Left, top, right and bottom as one row writes them; None for the whole picture.

        Raises:
            DataError: there are not four finite numbers.
        """
        box = parse_box([row.get(name, "") for name in self.box], place) if self.box else None
        return box and corners_of(box, self.box_form or "xyxy")

    def box_notes(self, boxes: Sequence[Box | None]) -> tuple[str, ...]:
        """How the boxes of one column are read, where nothing says it: four numbers tell not."""
        if len(self.box) != 1 or self.box_form or not any(boxes):
            return ()
        (name,) = self.box
        return (
            f"The boxes of the column '{name}' are read as left, top, right, bottom (x1 y1 x2 y2); "
            f"if they are left, top, width, height, say --columns box={name}:xywh.",
        )


def parse_columns(columns: str | Mapping[str, str] | None) -> dict[str, str]:
    """'label=finding,path=file' as a dictionary.

    Raises:
        UsageError: another form, or a word that means nothing.
    """
    if columns is None:
        return {}
    if isinstance(columns, Mapping):
        wanted = dict(columns)
    else:
        pairs = [entry.partition("=") for entry in columns.split(",") if entry.strip()]
        if any(not sign for _, sign, _ in pairs):
            raise UsageError(
                f"`columns` must be MEANING=COLUMN, joined by commas, got '{columns}'. An example: "
                "label=finding,group=patient_id,path=file"
            )
        words = [word.strip().casefold() for word, _, _ in pairs]
        twice = next((word for word in words if words.count(word) > 1), None)
        if twice is not None:
            raise UsageError(
                f"`columns` says '{twice}' {words.count(twice)} times, got '{columns}'. Name one "
                "column for each meaning."
            )
        wanted = {word.strip().casefold(): name.strip() for word, _, name in pairs}
    unknown = next((word for word in wanted if word not in WORDS), None)
    if unknown is not None:
        raise UsageError(
            f"`columns` knows no '{unknown}'. {close_names(unknown, WORDS)}"
            f"Known are {', '.join(WORDS)}."
        )
    return wanted


def choose_columns(
    names: Sequence[str], wanted: Mapping[str, str], subject: str, needed: Sequence[str]
) -> ChosenColumns:
    """Find the columns of a manifest.

    Args:
        names: its header.
        wanted: as `parse_columns` gives it.
        subject: how messages name the manifest.
        needed: meanings that must be there, of 'path' and 'label'.

    Raises:
        DataError: a needed column is missing, or `wanted` names one that is not there.
    """
    by_key = {name.casefold(): name for name in names}
    chosen: dict[str, str] = {}
    for word, aliases in ALIASES.items():
        if word in wanted:
            chosen[word] = wanted[word] and existing_column(wanted[word], names, subject)
        else:
            chosen[word] = next((by_key[alias] for alias in aliases if alias in by_key), "")
    for word in needed:
        if not chosen[word]:
            shown = ", ".join(f"'{name}'" for name in names)
            raise DataError(
                f"{subject} has no {word} column: its columns are {shown}. Name one '{word}', or "
                f"say which one it is by --columns {word}=COLUMN."
            )
    only = wanted.get("only", "")
    box, box_form = _box_columns(by_key, wanted, names, subject)
    return ChosenColumns(
        **chosen,
        box=box,
        box_form=box_form,
        root=wanted.get("root", ""),
        only=only and existing_column(only, names, subject),
    )


def existing_column(name: str, names: Sequence[str], subject: str) -> str:
    """The column of that name, exactly or without regard to case.

    Raises:
        DataError: there is none; the message offers the close ones.
    """
    if name in names:
        return name
    by_key = {column.casefold(): column for column in names}
    if name.casefold() in by_key:
        return by_key[name.casefold()]
    shown = ", ".join(f"'{column}'" for column in names)
    raise DataError(
        f"{subject} has no column '{name}'. {close_names(name, names)}Its columns are {shown}."
    )


def group_hint(names: Sequence[str]) -> tuple[str, ...]:
    """A sentence about a column that may name groups, where there is one."""
    found = next((name for name in names if name.casefold() in GROUP_HINTS), None)
    if found is None:
        return ()
    return (f"The column '{found}' may name groups; --group-by {found} keeps them together.",)


def _box_columns(
    by_key: Mapping[str, str], wanted: Mapping[str, str], names: Sequence[str], subject: str
) -> tuple[tuple[str, ...], str]:
    """One column or four, and the form of the box where `wanted` says it."""
    if "box" in wanted:
        asked, form = _without_form(wanted["box"], names)
        several = [asked] if asked in names else asked.split()
        if len(several) not in (0, 1, 4):
            raise DataError(
                f"`columns` must name one column or four for the box, got '{asked}'. Separate the "
                "four by spaces: left, top, right, bottom."
            )
        return tuple(existing_column(name, names, subject) for name in several), form
    for corners in CORNER_COLUMNS:
        if all(corner in by_key for corner in corners):
            return tuple(by_key[corner] for corner in corners), ""
    return next(((by_key[name],) for name in BOX_COLUMNS if name in by_key), ()), ""


def _without_form(asked: str, names: Sequence[str]) -> tuple[str, str]:
    """'bbox' and 'xywh' of 'bbox:xywh'; a column of just that name comes first."""
    column, colon, form = asked.rpartition(":")
    if not colon or asked in names:
        return asked, ""
    if form.strip().casefold() not in BOX_FORMS:
        raise DataError(
            f"`columns` must give the form of a box as one of {', '.join(BOX_FORMS)}, got "
            f"'{form}'. Write box=COLUMN:xywh for left, top, width, height."
        )
    return column.strip(), form.strip().casefold()
