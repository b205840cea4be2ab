"""Folders named like classes, and the way back where a class cannot be a folder's name.

'T-shirt/top' as a path is a folder inside another one, and the class is lost. So every class gets
a folder that all systems can have, and `conversion.json` at the top says which class a folder
stands for where the two differ. Class folders are read with it, so nothing is lost.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

STATE_FILE = "conversion.json"
COMPLETE = "complete"  # in that file: whether every picture and the sheet are of one call
SHEET = "sheet"  # in that file: the name of the sheet that was written, '' for none
LONGEST_BYTES = 160  # systems allow 255
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
# What reading class folders takes for something else.
_TAKEN = frozenset(
    {"train", "training", "val", "valid", "validation", "test", "testing", "__macosx"}
)


def folder_names(classes: Sequence[str]) -> dict[str, str]:
    """A folder for each class: its own name where any system can have that, else one close to it.

    Names differ by more than case and accents' storage, so that no two become one on a Mac or on
    Windows; the second gets '~2' behind.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for label in classes:
        base = name = _safe(label)
        count = 1
        while _key(name) in taken:
            count += 1
            name = f"{base}~{count}"
        taken.add(_key(name))
        names[label] = name
    return names


def folder_classes(directory: Path) -> dict[str, str]:
    """The classes of the folders inside a directory that a conversion wrote, where they differ.

    Args:
        directory: holds class folders; `conversion.json` lies in it, or above it where it is a
            split. Without one, or with a damaged one, no folder stands for another class.
    """
    for place in (directory, directory.parent):
        try:
            classes = json.loads((place / STATE_FILE).read_text(encoding="utf-8"))["classes"]
            return {str(folder): str(label) for folder, label in classes.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return {}


def _safe(label: str) -> str:
    allowed = _FORBIDDEN.sub("_", label).encode("utf-8", "replace")[:LONGEST_BYTES]
    name = allowed.decode("utf-8", "ignore").strip().rstrip(" .")
    if name.startswith((".", "-", "~")):
        name = f"_{name[1:]}"
    if not name.strip() or name.casefold() in _TAKEN or _RESERVED.fullmatch(name):
        name = f"{name}_"
    return name


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", name).casefold())
