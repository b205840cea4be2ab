"""Whether the images of a finished run still hold what they held when it read them."""

from __future__ import annotations

import csv
from pathlib import Path

from headstart.data import digest_of
from headstart.errors import ResumeError
from headstart.files import neutral_cell
from headstart.progress import Progress
from headstart.records import ImageTable
from headstart.runs.files.outputs import IMAGES

MOST_NAMED = 3


def check_contents(folder: Path, table: ImageTable, progress: Progress) -> None:
    """Refuse to answer for images whose bytes are others than those that a run learnt from.

    Every file is read once, as at the beginning of a run. Images that could not be read then are
    not compared.

    Args:
        folder: of a run, whose `images.csv` holds the digests; without that file nothing is said.
        table: the images now, of the same names.
        progress: gets a step an image.

    Raises:
        ResumeError: contents differ, or images are gone; the message names the first.
    """
    stored = stored_digests(folder)
    changed, gone = [], []
    with progress.phase("Comparing contents", len(table)) as advance:
        for row, path in enumerate(table.paths):
            before = stored.get(str(neutral_cell(path)), "")
            if before:
                try:
                    if digest_of(table.read(row)) != before:
                        changed.append(path)
                except OSError:
                    gone.append(path)
            advance()
    if not changed and not gone:
        return
    told = [
        f"{len(paths):,} of its {len(table):,} images {what} ({_listed(paths)})"
        for paths, what in ((changed, "hold something else now"), (gone, "cannot be read any more"))
        if paths
    ]
    raise ResumeError(
        f"The run in '{folder}' is finished, but {' and '.join(told)}, so its figures are not "
        "those of these data. Restore them, or choose another --out."
    )


def stored_digests(folder: Path) -> dict[str, str]:
    """The digest of every image that a run read, by its name in `images.csv`; none without it."""
    try:
        with (folder / IMAGES).open(newline="", encoding="utf-8") as file:
            return {row["path"]: row["digest"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError):
        return {}


def _listed(paths: list[str]) -> str:
    shown = ", ".join(f"'{path}'" for path in paths[:MOST_NAMED])
    more = len(paths) - MOST_NAMED
    return f"{shown} and {more:,} more" if more > 0 else shown
