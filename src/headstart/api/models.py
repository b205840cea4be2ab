"""A finished model: load it, measure it on other pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.api.naming import folder_or_name
from headstart.bundle import Classifier, load_classifier
from headstart.progress import Progress

if TYPE_CHECKING:
    from headstart.export import ExportResult


def load(path: str | os.PathLike[str], **options: Any) -> Classifier:
    """Load the model of a run or a bundle.

    Args:
        path: folder of a run or of a bundle.
        **options: `device`, `precision`, `expect_digest`, `engine`, as in
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
    engine: str = "torch",
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
        engine: 'torch', 'onnx' or 'onnx-int8', as in `headstart.bundle.load_classifier`.
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

    classifier = load_classifier(model, device=device, precision=precision, engine=engine)
    folder = None if out is None else Path(out)
    return evaluate_model(
        classifier,
        folder_or_name(data),
        out=folder,
        seed=seed,
        progress=progress or Progress(),
        **reading,
    )


def evaluate_pair(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    engines: tuple[str, str] = ("torch", "torch"),
    progress: Progress | None = None,
    **options: str | None,
) -> dict[str, Any]:
    """Measure two finished models on the same labelled pictures, and their paired difference.

    Args:
        first: folder of a run or of a bundle.
        second: the other; it may be the same one with another engine.
        data: labelled pictures in class folders, a manifest, or a built-in name.
        out: folder for the files of both and `comparison.json`, new or empty.
        seed: of resampling and signs.
        engines: of each, as in `headstart.bundle.load_classifier`.
        progress: silent where None.
        **options: `device` and `precision` of PyTorch's engine; `columns` and `group_by`, as in
            `evaluate`.

    Returns:
        What `comparison.json` says: figures of each, differences first minus second.

    Raises:
        UsageError: no model, different classes, no labels, or labels the models do not know.
    """
    from headstart.runs import pairing

    placing = {name: options.pop(name, None) or "auto" for name in ("device", "precision")}
    classifiers = [
        load_classifier(model, engine=engine, **(placing if engine == "torch" else {}))
        for model, engine in zip((first, second), engines, strict=True)
    ]
    names = [os.fspath(model) for model in (first, second)]
    if engines[0] != engines[1]:
        names = [f"{name} ({engine})" for name, engine in zip(names, engines, strict=True)]
    return pairing.evaluate_pair(
        classifiers,
        names,
        folder_or_name(data),
        out=None if out is None else Path(out),
        seed=seed,
        progress=progress or Progress(),
        **options,
    )


def export(
    model: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    int8: bool = False,
    with_resize: bool = False,
    data: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Export a model to ONNX into a new bundle, proved on pictures, or write nothing.

    Args:
        model: folder of a run or of a bundle.
        out: new or empty folder; None takes `export` in the run, else NAME-onnx beside the bundle.
        int8: a quantised file as well, with its cost in accuracy.
        with_resize: a second graph that also resizes, for one picture at a time.
        data: pictures for the proof, labelled where accuracy is to be told; None takes the run's
            test part, or drawn ones where there is none.
        progress: silent where None.

    Returns:
        The folder (`.out`), its files, its digest and the proof (`.parity`).

    Raises:
        UsageError: no model there, a folder that is taken, no pictures for int8.
        ExportError: the network cannot be exported, or the export answers otherwise.
    """
    from headstart.export import ExportSettings, export_bundle

    settings = ExportSettings(
        int8=int8,
        with_resize=with_resize,
        data=None if data is None else folder_or_name(data),
    )
    target = None if out is None else Path(out)
    return export_bundle(Path(model), settings, out=target, progress=progress)
