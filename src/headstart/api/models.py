"""A finished model: load it, measure it on other pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from headstart.api.naming import folder_or_name
from headstart.bundle import Classifier, load_classifier
from headstart.progress import Progress


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
    **reading: str | None,
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
        **reading: `columns`, names of a manifest's columns where they are unusual; `group_by`,
            a column or regular expression: intervals then resample whole groups;
            `prevalence`, of the positive class, for predictive values there; `ood_data`,
            pictures of other things, to judge on whether they are told to be unknown.

    Returns:
        Figures with intervals under the name of the data.

    Raises:
        UsageError: no model, no labels, or labels the model does not know.
    """
    from headstart.runs.external import evaluate_model

    classifier = load(model, device=device, precision=precision)
    folder = None if out is None else Path(out)
    return evaluate_model(
        classifier,
        folder_or_name(data),
        out=folder,
        seed=seed,
        progress=progress or Progress(),
        **reading,
    )
