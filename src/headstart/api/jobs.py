"""From pictures to models: one run, or a comparison of many."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart.api.naming import check_names, folder_or_name
from headstart.api.papers import report_or_tell
from headstart.progress import Progress
from headstart.runs import RunSettings

if TYPE_CHECKING:
    from headstart.runs import RunResult
    from headstart.studies import ComparisonResult, ComparisonSettings
    from headstart.studies.quick import QuickResult, QuickSettings


def run(
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    resume: bool = False,
    progress: Progress | None = None,
    images: bool = True,
    **settings: Any,
) -> RunResult:
    """Learn from a folder of labelled pictures: cross-validate, fit, test once, write it down.

    Args:
        data: a folder of class folders, or the name of a built-in data set such as 'digits'.
        out: folder of the run, new or empty.
        resume: go on with an interrupted run in `out`.
        progress: silent where None; `headstart.progress.for_terminal()` shows a bar.
        images: whether the report shows pictures of the data.
        **settings: any other field of `headstart.runs.RunSettings` (`model`, `folds`, `seed`,
            `test_data`, `weights`, `image_size`, ...).

    Returns:
        The figures (`.metrics`), the record (`.record`) and the folder (`.out`).

    Raises:
        UsageError: bad settings or bad data, in one sentence.
        StorageError: the disk is full.
    """
    check_names(settings)
    chosen = RunSettings(data=folder_or_name(data), out=os.fspath(out), **settings)
    return run_and_report(chosen, resume=resume, progress=progress, images=images)


def run_and_report(
    settings: RunSettings,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    images: bool = True,
) -> RunResult:
    """The main job, then its report, model card and checklist in the run's folder.

    A report that cannot be written takes nothing from the run: the reason is told.

    Args:
        settings: what the user decided.
        resume: go on with an interrupted run.
        progress: silent where None.
        images: whether the report shows pictures of the data.

    Raises:
        UsageError: bad settings or bad data.
        StorageError: the disk is full.
    """
    from headstart.runs import run_job

    progress = progress or Progress()
    result = run_job(settings, resume=resume, progress=progress)
    report_or_tell(result.out, progress, images=images)
    return result


def compare(  # noqa: PLR0913 - a command as a function
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    models: Sequence[str] = ("mini",),
    strategies: Sequence[str] = ("probe",),
    vary: Mapping[str, Sequence[Any]] | None = None,
    repeats: int = 3,
    fast: str = "training",
    test_all: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    images: bool = True,
    **settings: Any,
) -> ComparisonResult:
    """Compare backbones and strategies on the same folds; recommend one, then test that one.

    Args:
        data: a folder of class folders, or a built-in name.
        out: folder of the comparison, new or empty; every candidate has its run in it.
        models: names of backbones.
        strategies: names of strategies.
        vary: settings of the model with several values each, such as `{"image_size": [64, 96]}`.
        repeats: cross-validations of a probe.
        fast: 'training' or 'prediction', the time that counts in the recommendation.
        test_all: open the test part for all candidates; re-ranks nothing, and is stamped.
        resume: go on with the comparison in `out`.
        progress: silent where None.
        images: whether the reports show pictures of the data.
        **settings: any other field of `headstart.runs.RunSettings`, the same for all.

    Returns:
        The record (`.record`), the folder (`.out`) and the runs that were tested (`.opened`).

    Raises:
        UsageError: bad settings or data, or weights that are not at hand, before any work.
        StorageError: the disk is full.
    """
    from headstart.studies import ComparisonSettings

    check_names(settings)
    asked = ComparisonSettings(
        out=os.fspath(out),
        settings={"data": folder_or_name(data), **settings},
        models=models,
        strategies=strategies,
        vary=vary or {},
        repeats=repeats,
        fast=fast,
    )
    return compare_and_report(
        asked, test_all=test_all, resume=resume, progress=progress, images=images
    )


def compare_and_report(
    settings: ComparisonSettings,
    *,
    test_all: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    images: bool = True,
) -> ComparisonResult:
    """The comparison and its report, and one of every run whose test part was opened.

    Args:
        settings: what the user decided.
        test_all: open the test part for all candidates.
        resume: go on with an interrupted comparison.
        progress: silent where None.
        images: whether the reports show pictures of the data.

    Raises:
        UsageError: bad settings or data.
        StorageError: the disk is full.
    """
    from headstart.studies import compare_jobs

    progress = progress or Progress()
    result = compare_jobs(settings, test_all=test_all, resume=resume, progress=progress)
    for folder in (*result.opened, result.out):
        report_or_tell(folder, progress, images=images)
    return result


def compare_quick(
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    models: Sequence[str] = ("mini",),
    max_images: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> QuickResult:
    """Which backbone? Try many on a part of the training images; the test part stays closed.

    Args:
        data: a folder of class folders, or a built-in name.
        out: folder of `report.html`, `quick.json`, `quick.csv`, `quick.txt` and `quick.png`, new or
            empty.
        models: names of backbones; those whose weights cannot be had are named and left out.
        max_images: about how many training images to try them on; None takes 1,000, or 10 a class
            where that is more.
        progress: silent where None.
        **settings: fields of `headstart.runs.RunSettings` about data, split and pass (`folds`,
            `seed`, `image_size`, `group_by`, `audit`, ...), the same for all.

    Returns:
        The record (`.record`, with `recommendation` and `table`) and the folder (`.out`).

    Raises:
        UsageError: bad settings or data, or no backbone whose weights can be had.
        StorageError: the disk is full.
    """
    from headstart.studies.quick import QuickSettings

    check_names(settings)
    asked = QuickSettings(
        out=os.fspath(out),
        settings={"data": folder_or_name(data), **settings},
        models=models,
        max_images=max_images,
    )
    return choose_and_report(asked, progress=progress)


def choose_and_report(asked: QuickSettings, *, progress: Progress | None = None) -> QuickResult:
    """The quick choice and its page; raises as `compare_quick`."""
    from headstart.studies.quick import choose_quickly

    progress = progress or Progress()
    result = choose_quickly(asked, progress=progress)
    report_or_tell(result.out, progress, images=False)
    return result
