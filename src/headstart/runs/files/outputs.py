"""The files of a run, each written whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from headstart.audit.writing import IMAGES as IMAGES
from headstart.errors import UsageError, quoted
from headstart.files import read_json, write_csv, write_json, write_text, write_whole
from headstart.metrics import METRICS, text_report
from headstart.plots import confusion_matrix_figure, save_png
from headstart.records import ImageTable, Predictions, Split
from headstart.runs.files.predictions import write_predictions as write_predictions

SPLITS = "splits.csv"
CV_RESULTS = "cv_results.csv"
HISTORY = "history.csv"
METRICS_FILE = "metrics.json"
PREDICTIONS = "predictions.csv"
OUT_OF_FOLD = "out_of_fold_predictions.csv"
REPORT = "classification_report.txt"
CONFUSION = "confusion_matrix.png"
CURVES = "curves.png"
SUMMARY = "summary.txt"
TRAINS = "trains.png"
LEARNING_CURVE = "learning_curve.png"
TENSORBOARD = "tensorboard"
LEAKS_ALLOWED = "LEAKS ALLOWED (--allow-leaks)"


def write_splits(
    folder: Path, table: ImageTable, split: Split, everything: ImageTable | None = None
) -> None:
    """`splits.csv`: part and fold of every image; those that cannot be read are 'unused'.

    Args:
        folder: of the run.
        table: the images that are used.
        split: of that table.
        everything: these and the unreadable ones; None where all are used.
    """
    part: dict[int, tuple[str, object]] = {int(row): ("test", "") for row in split.test}
    part.update({int(row): ("calibration", "") for row in split.calibration})
    part.update(
        {
            int(row): ("train", int(fold) + 1)
            for row, fold in zip(split.train, split.fold, strict=True)
        }
    )
    groups = table.groups or ("",) * len(table)
    sources = table.sources or ("",) * len(table)
    rows: list[list[object]] = [
        [table.paths[row], table.label_of(row), groups[row], sources[row], *part[row]]
        for row in sorted(part)
    ]
    used, everything = set(table.paths), everything or table
    rows.extend(
        [path, everything.label_of(row), "", "", "unused", ""]
        for row, path in enumerate(everything.paths)
        if path not in used
    )
    write_csv(folder / SPLITS, ["path", "label", "group", "source", "part", "fold"], rows)


def write_cv_results(
    folder: Path, figures: dict[str, Any], columns: Mapping[str, Sequence[object]]
) -> None:
    """`cv_results.csv`: a line a fold, then mean and standard deviation.

    Args:
        folder: of the run.
        figures: from `evaluate_folds`.
        columns: F values each, of what else there is to say of a fold.
    """
    names = METRICS.names()
    rows: list[list[object]] = [
        [fold + 1, *(values[fold] for values in columns.values()), *(entry[n] for n in names)]
        for fold, entry in enumerate(figures["folds"])
    ]
    rows.extend(
        [word, *[""] * len(columns), *(figures["figures"][n][f"fold_{word}"] for n in names)]
        for word in ("mean", "std")
    )
    blanks = [["" if cell is None else cell for cell in row] for row in rows]
    write_csv(folder / CV_RESULTS, ["fold", *columns, *names], blanks)


def write_history(folder: Path, history: tuple[list[str], list[list[object]]]) -> None:
    """`history.csv`: header and rows of how the folds came to their choices."""
    write_csv(folder / HISTORY, *history)


def write_figure(path: Path, figure: Figure) -> None:
    """A figure as PNG, whole."""
    write_whole(path, lambda aside: save_png(figure, aside, dpi=150))


def write_test_files(
    folder: Path, predictions: Predictions, metrics: dict[str, Any], leaks: Sequence[str] = ()
) -> None:
    """Everything that shows how the test part came out.

    Args:
        folder: of the run.
        predictions: of the test images.
        metrics: with the entry 'test'.
        leaks: what was allowed to stand on both sides; it heads the report and marks the figure.
    """
    write_predictions(folder / PREDICTIONS, predictions)
    report = text_report(predictions.probabilities, predictions.labels, predictions.class_names)
    stamp = "".join(f"{LEAKS_ALLOWED}: {message}\n" for message in leaks)
    write_text(folder / REPORT, f"{stamp}\n{report}" if stamp else report)
    test = metrics["test"]
    accuracy = test["figures"]["accuracy"]["value"]
    figure = confusion_matrix_figure(
        np.array(test["confusion_matrix"]),
        predictions.class_names,
        f"{test['num_images']} test images, accuracy {accuracy:.3f}"
        + (f"\n{LEAKS_ALLOWED}" if leaks else ""),
    )
    write_figure(folder / CONFUSION, figure)


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """`metrics.json`: every figure with its interval."""
    write_json(folder / METRICS_FILE, metrics)


def read_metrics(folder: Path) -> dict[str, Any]:
    """The figures that a run wrote.

    Raises:
        UsageError: they are missing or damaged.
    """
    try:
        metrics = read_json(folder / METRICS_FILE)
    except (OSError, ValueError):
        metrics = None
    whole = isinstance(metrics, dict) and all(
        isinstance(metrics.get(part), dict) and isinstance(metrics[part].get("figures"), dict)
        for part in ("cross_validation", "test")
    )
    if not whole:
        raise UsageError(
            f"The figures of '{folder}' are missing or damaged ({METRICS_FILE}). "
            f"Write them again: headstart run --resume --out {quoted(folder)}"
        )
    found: dict[str, Any] = metrics
    return found


def write_tensorboard(
    folder: Path, scalars: Sequence[tuple[str, float, int]], metrics: dict[str, Any]
) -> None:
    """`tensorboard/`: what was tried by step, the figures as scalars; older ones go."""
    from torch.utils.tensorboard.writer import SummaryWriter

    place = folder / TENSORBOARD
    for old in place.glob("events.*"):
        old.unlink()
    with SummaryWriter(str(place)) as writer:
        for name, value, step in scalars:
            writer.add_scalar(name, value, step)
        for part in ("cross_validation", "test"):
            for name, figure in metrics[part]["figures"].items():
                if figure["value"] is not None:
                    writer.add_scalar(f"{part}/{name}", figure["value"], 0)
