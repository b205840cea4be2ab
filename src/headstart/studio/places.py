"""What there is to show: runs, bundles and comparisons below a folder. Nothing heavy is loaded.

A run is a folder with `run.json`, a bundle one with `bundle.json`, a comparison one with
`comparison.json` and the runs of its candidates inside.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import UsageError

DEFAULT = "runs"
MODEL_FOLDER, MANIFEST = "model", "manifest.json"  # as the bundle's room calls them
RUN, BUNDLE, COMPARISON = "run", "bundle", "comparison"
MARKS = {RUN: "run.json", BUNDLE: "bundle.json", COMPARISON: "comparison.json"}
DEEPEST = 3  # folders below the place
MOST_ENTRIES = 2000  # of a folder; the page's documentation says so
HOW = "Make a run first: headstart run --data DIR --out {place}/NAME"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One folder that can be shown.

    Attributes:
        kind: 'run', 'bundle' or 'comparison'.
        folder: where it lies.
        name: its path below the place, or its own name.
    """

    kind: str
    folder: Path
    name: str


def default_place() -> Path:
    """`runs/` where there is one, else the current folder."""
    return Path(DEFAULT) if Path(DEFAULT).is_dir() else Path()


def kind_of(folder: Path) -> str:
    """'run', 'bundle' or 'comparison', '' for any other folder."""
    return next((kind for kind, mark in MARKS.items() if (folder / mark).is_file()), "")


def find_entries(place: Path) -> tuple[Entry, ...]:
    """Everything below a folder, by name; the folder itself where it is a run or a bundle."""
    kind = kind_of(place)
    if kind in (RUN, BUNDLE):
        return (Entry(kind=kind, folder=place, name=place.resolve().name),)
    found = sorted(_walk(place, place, DEEPEST), key=lambda entry: entry.name)
    if kind == COMPARISON:
        found.insert(0, Entry(kind=kind, folder=place, name=place.resolve().name))
    return tuple(found)


def _walk(folder: Path, place: Path, depth: int) -> Iterator[Entry]:
    """Entries below a folder; a run's own bundle belongs to the run."""
    try:
        inside = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return
    for path in inside[:MOST_ENTRIES]:
        below = Path(path)
        if below.name.startswith("."):
            continue
        kind = kind_of(below)
        if kind:
            yield Entry(kind=kind, folder=below, name=below.relative_to(place).as_posix())
        if kind not in (RUN, BUNDLE) and depth > 1:
            yield from _walk(below, place, depth - 1)


def newest(entries: Sequence[Entry]) -> str:
    """Name of the entry whose model was written last; of the first where none has a model."""
    written = []
    for entry in entries:
        folder = entry.folder if entry.kind == BUNDLE else entry.folder / MODEL_FOLDER
        with contextlib.suppress(OSError):
            written.append(((folder / MANIFEST).stat().st_mtime_ns, entry.name))
    return max(written)[1] if written else next((entry.name for entry in entries), "")


def check_place(place: Path) -> tuple[Entry, ...]:
    """What there is to show.

    Raises:
        UsageError: no such folder, or nothing to show in it.
    """
    if not place.is_dir():
        what = "is a file" if place.exists() else "does not exist"
        raise UsageError(
            f"'{place}' {what}. Name the folder of a run, of a bundle, or one that holds runs."
        )
    entries = find_entries(place)
    if not entries:
        raise UsageError(
            f"The folder '{place}' holds no run and no bundle. {HOW.format(place=place)}"
        )
    return entries
