"""From folders of runs to files: `report.html`, and for a single run its papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.errors import UsageError
from headstart.files import make_folder, write_text
from headstart.report.drawing.pictures import find_pictures
from headstart.report.judging.alarms import find_alarms
from headstart.report.judging.facts import looks_medical
from headstart.report.page import render_page, view_of
from headstart.report.papers.answers import read_answers, write_template
from headstart.report.papers.card import write_papers
from headstart.report.papers.claim import claim_items, item_titles
from headstart.report.reading import StoredRun, read_stored_run
from headstart.report.several.quick import is_quick, read_quick
from headstart.report.several.study import is_comparison, read_comparison

PAGE = "report.html"


def write_report(
    runs: Sequence[Path], out: Path | None = None, *, with_images: bool = True
) -> Path:
    """Write the report of one run, of several side by side, of a comparison or a quick choice.

    The report of a single run comes with `model_card.md`, `claim.md` and `claim.csv` beside it;
    answers of the author are read from `claim.yaml` in the run's folder.

    Args:
        runs: folders of finished runs, in the order of the page; or the one of a comparison
            or of a quick choice.
        out: the page; None writes `report.html` into the folder of a single run, and into the
            current folder for several.
        with_images: False leaves all pictures out, for data that are private.

    Returns:
        Where the page is.

    Raises:
        UsageError: no run there, an unfinished or damaged one, or a page that cannot be.
        StorageError: the disk is full.
    """
    if not runs:
        raise UsageError("`runs` must name at least one folder of a run, got none.")
    for folder in map(Path, runs):
        compared, quick = is_comparison(folder), is_quick(folder)
        if (compared or quick) and len(runs) > 1:
            kind = "comparison" if compared else "quick choice"
            rest = "Report it alone, or name the runs in it." if compared else "Report it alone."
            raise UsageError(f"'{folder}' is a {kind} and has a page of its own. {rest}")
        if compared:
            return write_comparison(folder, out, with_images=with_images)
        if quick:
            return write_quick(folder, out)
    stored = [read_stored_run(Path(folder)) for folder in runs]
    page = place_of(stored, None if out is None else Path(out))
    views = [
        view(run, label, page if len(stored) == 1 else None, with_images=with_images)
        for run, label in zip(stored, labels_of(stored), strict=True)
    ]
    write_text(page, render_page(views))
    return page


def write_comparison(folder: Path, out: Path | None, *, with_images: bool) -> Path:
    """Write the page of a comparison, with the runs below that were opened.

    Args:
        folder: of the comparison.
        out: the page; None writes `report.html` into the folder.
        with_images: False leaves all pictures out.

    Raises:
        UsageError: it has not come to its choice, is damaged, or the page cannot be.
    """
    compared = read_comparison(folder)
    stored = [read_stored_run(place) for place in compared.opened]
    page = folder / PAGE if out is None else named_page(Path(out))
    views = [view(run, run.folder.name, None, with_images=with_images) for run in stored]
    write_text(page, render_page(views, compared))
    return page


def write_quick(folder: Path, out: Path | None) -> Path:
    """Write the page of a quick choice of a backbone.

    Args:
        folder: of the choice.
        out: the page; None writes `report.html` into the folder.

    Raises:
        UsageError: it is damaged, or the page cannot be.
    """
    page = folder / PAGE if out is None else named_page(Path(out))
    write_text(page, render_page([], choice=read_quick(folder)))
    return page


def place_of(runs: Sequence[StoredRun], out: Path | None) -> Path:
    """Where the page goes; its folder is made.

    Raises:
        UsageError: it is a folder, or has another ending than .html.
    """
    if out is None:
        return (runs[0].folder if len(runs) == 1 else Path()) / PAGE
    return named_page(out)


def named_page(out: Path) -> Path:
    """The page that was named; its folder is made.

    Raises:
        UsageError: it is a folder, or has another ending than .html.
    """
    if out.is_dir() or out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"`--out` must be an HTML file, got '{out}'. Name a file such as 'report.html'."
        )
    make_folder(out.parent)
    return out


def labels_of(runs: Sequence[StoredRun]) -> list[str]:
    """Short names that tell the runs apart: the folders', numbered where two are alike."""
    names = [run.folder.resolve().name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})"
        for i, name in enumerate(names)
    ]


def view(run: StoredRun, label: str, page: Path | None, *, with_images: bool) -> dict[str, Any]:
    """What the page shows of a run; its papers are written where `page` is given."""
    answers = read_answers(run.folder)
    alarms = find_alarms(run, medical=looks_medical(run, answers))
    items = claim_items(run, answers, alarms)
    if page is not None:
        write_papers(run, page.parent, answers=answers, alarms=alarms, items=items)
    return view_of(
        run,
        label,
        pictures=find_pictures(run.settings, run.images, wanted=with_images),
        answers=answers,
        alarms=alarms,
        items=items,
    )


def write_claim_template(run: Path) -> Path:
    """Write a `claim.yaml` into a run's folder, for its author to fill in.

    Raises:
        UsageError: it is no finished run, or has one already.
    """
    return write_template(read_stored_run(Path(run)).folder, item_titles())
