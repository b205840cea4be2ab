"""Figures with intervals, for out-of-fold and for test predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.metrics import METRICS, confusion_matrix, per_class_table, score
from headstart.records import Integers, Predictions
from headstart.statistics import (
    Interval,
    class_estimates,
    headline_intervals,
    out_of_fold_estimates,
)

POOLED_NOTE = (
    "from out-of-fold predictions; the intervals are conditional on the fitted models and do not "
    "show how much another training set would change them"
)

Figures = dict[str, dict[str, Any]]


def figure(value: float | None, interval: Interval | None) -> dict[str, Any]:
    """One figure as records keep it."""
    if value is None or interval is None:
        return {"value": value, "low": None, "high": None, "method": ""}
    return {
        "value": value,
        "low": interval.low,
        "high": interval.high,
        "method": interval.method,
    }


def evaluate_test(
    predictions: Predictions, *, seed: int, groups: Integers | None = None
) -> dict[str, Any]:
    """Every figure of labelled predictions, with intervals, a class and as a matrix."""
    num_classes = len(predictions.class_names)
    probabilities, labels = predictions.probabilities, predictions.labels
    values = score(probabilities, labels, num_classes)
    intervals = headline_intervals(probabilities, labels, num_classes, groups=groups, seed=seed)
    return {
        "num_images": len(labels),
        "figures": {name: figure(value, intervals[name]) for name, value in values.items()},
        "per_class": by_class(predictions, groups=groups),
        "confusion_matrix": confusion_matrix(labels, predictions.indices, num_classes).tolist(),
    }


def by_class(predictions: Predictions, *, groups: Integers | None) -> list[dict[str, Any]]:
    """Support and figures of every class with their intervals, in class order."""
    table = per_class_table(predictions.probabilities, predictions.labels)
    found = class_estimates(
        predictions.probabilities,
        predictions.labels,
        len(predictions.class_names),
        groups=groups,
    )
    return [
        {
            "class": name,
            **{key: column[row].item() for key, column in table.items()},
            "figures": {key: figure(e.value, e.interval) for key, e in found[row].items()},
        }
        for row, name in enumerate(predictions.class_names)
    ]


def evaluate_folds(
    predictions: Predictions,
    fold: Integers,
    *,
    seed: int,
    groups: Integers | None = None,
) -> dict[str, Any]:
    """Figures of out-of-fold predictions, and each fold's own.

    Args:
        predictions: each image predicted by the fold that did not learn from it.
        fold: (N,) fold of each image.
        seed: of the bootstrap.
        groups: (N,) group codes; resampled whole where given.
    """
    num_classes = len(predictions.class_names)
    probabilities, labels = predictions.probabilities, predictions.labels
    folds = [
        score(probabilities[fold == k], labels[fold == k], num_classes)
        for k in range(int(fold.max()) + 1)
    ]
    estimates = out_of_fold_estimates(
        probabilities, labels, num_classes, fold, groups=groups, seed=seed
    )
    figures = {}
    for name in METRICS.names():
        value, interval = estimates[name].value, estimates[name].interval
        mean, deviation = mean_and_deviation([entry[name] for entry in folds])
        figures[name] = {
            **figure(value, interval),
            "fold_mean": mean,
            "fold_std": deviation,
        }
    return {
        "num_images": len(labels),
        "num_folds": len(folds),
        "note": POOLED_NOTE,
        "figures": figures,
        "folds": folds,
    }


def mean_and_deviation(values: list[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation of what is there."""
    known: npt.NDArray[np.float64] = np.array([v for v in values if v is not None])
    if not len(known):
        return None, None
    return float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else None
