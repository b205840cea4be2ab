"""Pages and papers of runs that are finished."""

from __future__ import annotations

import os
from pathlib import Path

from headstart.errors import HeadstartError
from headstart.progress import Progress


def report(
    *runs: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    images: bool = True,
) -> Path:
    """Write the report of one run, of several side by side, of a comparison or a quick choice.

    Args:
        *runs: folders of runs, or the one of a comparison or of a quick choice.
        out: the HTML page; None writes `report.html` into the folder of a single run, and into
            the current folder for several. A single run's model card and CLAIM checklist lie
            beside the page.
        images: False leaves all pictures out, for data that are private.

    Returns:
        Where the page is.

    Raises:
        UsageError: no run there, an unfinished or damaged one.
    """
    from headstart.report import write_report

    place = None if out is None else Path(out)
    return write_report([Path(run) for run in runs], place, with_images=images)


def report_or_tell(folder: Path, progress: Progress, *, images: bool) -> None:
    """Write a run's report; where that fails, tell why and go on."""
    try:
        report(folder, images=images)
    except HeadstartError as error:
        progress.note(f"No report: {error}")


def claim_template(run: str | os.PathLike[str]) -> Path:
    """Write a `claim.yaml` into a run's folder, for its author to fill in."""
    from headstart.report import write_claim_template

    return write_claim_template(Path(run))
