"""Which column of a manifest means what.

    path      path, file, file_name, filename, image, image_path
    label     label, class, class_name, target, category
    group     group                (others, such as patient_id, only when they are asked for)
    split     split, set, partition
    source    source, site, hospital, origin
    box       rel_x1 rel_y1 rel_x2 rel_y2, rel_xmin ..., x1 y1 x2 y2, xmin ymin xmax ymax, box, bbox

The first name of a line that the manifest has is taken, without regard to case. `columns` says
otherwise: 'label=finding,path=file'; an empty name ('box=') leaves a column out. Two more words
belong there: `root=FOLDER`, to which the paths are relative (itself relative to the manifest), and
`only=COLUMN`, which takes the rows where that column is neither empty nor 0, no or false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headstart.data.boxes import CORNER_COLUMNS
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
        root: folder of the paths, relative to the manifest.
        only: rows are taken where this column says yes.
    """

    path: str = ""
    label: str = ""
    group: str = ""
    split: str = ""
    source: str = ""
    box: tuple[str, ...] = ()
    root: str = ""
    only: str = ""

    def takes(self, row: Mapping[str, str]) -> bool:
        """Whether `only` lets a row in."""
        return not self.only or row[self.only].strip().casefold() not in _NO


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
    return ChosenColumns(
        **chosen,
        box=_box_columns(by_key, wanted, names, subject),
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
) -> tuple[str, ...]:
    if "box" in wanted:
        asked = wanted["box"]
        several = [asked] if asked in names else asked.split()
        if len(several) not in (0, 1, 4):
            raise DataError(
                f"`columns` must name one column or four for the box, got '{asked}'. Separate the "
                "four by spaces: left, top, right, bottom."
            )
        return tuple(existing_column(name, names, subject) for name in several)
    for corners in CORNER_COLUMNS:
        if all(corner in by_key for corner in corners):
            return tuple(by_key[corner] for corner in corners)
    return next(((by_key[name],) for name in BOX_COLUMNS if name in by_key), ())
