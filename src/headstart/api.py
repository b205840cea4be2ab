"""The Python side of the main job: the words of the command line as functions."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from headstart.bundle import Classifier, load_classifier
from headstart.errors import UsageError
from headstart.progress import Progress
from headstart.runs import RunResult, RunSettings, run_job


def run(
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    resume: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> RunResult:
    """Learn from a folder of labelled pictures: cross-validate, fit, test once, write it down.

    Args:
        data: a folder of class folders, or the name of a built-in data set such as 'digits'.
        out: folder of the run, new or empty.
        resume: go on with an interrupted run in `out`.
        progress: silent where None; `headstart.progress.for_terminal()` shows a bar.
        **settings: any other field of `headstart.runs.RunSettings` (`model`, `folds`, `seed`,
            `test_data`, `weights`, `image_size`, ...).

    Returns:
        The figures (`.metrics`), the record (`.record`) and the folder (`.out`).

    Raises:
        UsageError: bad settings or bad data, in one sentence.
        StorageError: the disk is full.
    """
    known = {field.name for field in dataclasses.fields(RunSettings)}
    for name in settings:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise UsageError(f"`{name}` is no setting of a run. Settings are {listed}.")
    chosen = RunSettings(data=folder_or_name(data), out=os.fspath(out), **settings)
    return run_job(chosen, resume=resume, progress=progress)


def folder_or_name(data: str | os.PathLike[str]) -> str:
    """Data as the command line would name them; a `Path` always means a folder."""
    return os.path.abspath(data) if isinstance(data, os.PathLike) else data


def load(path: str | os.PathLike[str], **options: Any) -> Classifier:
    """Load the model of a run or a bundle.

    Args:
        path: folder of a run or of a bundle.
        **options: `device`, `precision`, `expect_digest`, as in
            `headstart.bundle.load_classifier`.

    Returns:
        A classifier; `.predict(images)` takes paths, folders, PIL images and arrays.

    Raises:
        BundleError: it is missing, damaged, or newer than this version.
    """
    return load_classifier(Path(path), **options)


def evaluate(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a finished model on labelled pictures it was not made with.

    Args:
        model: folder of a run or of a bundle.
        data: labelled pictures in class folders, or a built-in name (its test part).
        out: folder for predictions, report and confusion matrix, new or empty.
        seed: of the bootstrap intervals.
        device: 'auto', 'cpu', 'cuda' or 'mps'.
        precision: 'auto', 'bfloat16' or 'float32'.
        progress: silent where None.

    Returns:
        Figures with intervals under the name of the data.

    Raises:
        UsageError: no model, no labels, or labels the model does not know.
    """
    from headstart.runs.external import evaluate_model

    classifier = load(model, device=device, precision=precision)
    folder = None if out is None else Path(out)
    return evaluate_model(
        classifier, folder_or_name(data), out=folder, seed=seed, progress=progress or Progress()
    )


def list_backbones(contains: str | None = None) -> list[dict[str, Any]]:
    """The catalogue, or every network whose name contains a word, timm's included."""
    from headstart.backbones.survey import survey_backbones

    return survey_backbones(contains)


def examine() -> dict[str, dict[str, object]]:
    """What `headstart doctor` prints: versions, device, weights, data, folders."""
    from headstart.survey import examine_installation

    return examine_installation()
