"""Figures of each class against the rest, with intervals.

Recall, precision and specificity are shares: Wilson where images are independent.  F1 is a ratio
of sums, and with groups all are: from influences, over the images or groups that the figure is
about.  AUC and AP have influences of their own.

Undefined figures are None: precision of a class that is never predicted, recall of one that
never occurs (`metrics.per_class_table` has scikit-learn's zero there).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from headstart.metrics.classification import check_scored, predict
from headstart.metrics.operating import check_prevalence, operating_points, predictive_intervals
from headstart.metrics.ranking import class_auc, class_average_precision, scorable_classes
from headstart.records import Floats, Integers
from headstart.statistics.influence import (
    effective_counts,
    influence_interval,
    ratio_estimate,
    units_by_class,
)
from headstart.statistics.intervals import (
    LEVEL,
    Estimate,
    Interval,
    normal_quantile,
    student_quantile,
    wilson_on,
)
from headstart.statistics.means import share_estimate
from headstart.statistics.resampling import (
    RESAMPLES,
    Groups,
    draw_units,
    group_codes,
    percentile_interval,
)

MOST_LEVELS = 1000

Bools = npt.NDArray[np.bool_]


def class_estimates(
    probabilities: Floats,
    labels: Integers,
    num_classes: int,
    *,
    groups: Groups | None = None,
    prevalences: Sequence[float] | None = None,
    level: float = LEVEL,
) -> list[dict[str, Estimate]]:
    """Precision, recall, specificity, F1, AUC and AP of each class, with intervals.

    Args:
        probabilities: (N, C).
        labels: (N,) int64.
        num_classes: C.
        groups: (N,) a group an image, or None where images are independent.
        prevalences: C prevalences in the population in question, for 'ppv' and 'npv' as well.
        level: coverage.

    Returns:
        In class order, by name of the figure.
    """
    check_scored(probabilities, labels, num_classes)
    codes = group_codes(groups)
    found = count_estimates(
        labels, predict(probabilities), num_classes,
        groups=codes, prevalences=prevalences, level=level,
    )  # fmt: skip
    scorable = set(scorable_classes(labels, num_classes).tolist())
    for c, figures in enumerate(found):
        for name, of_class in (("auc", class_auc), ("average_precision", class_average_precision)):
            figures[name] = Estimate(value=None, interval=None)
            if c in scorable:
                positive = labels == c
                made = of_class(probabilities[:, c], positive)
                interval = influence_interval(made, positive.astype(np.int64), codes, level)
                figures[name] = Estimate(value=made[0], interval=interval)
    return found


def count_estimates(
    labels: Integers,
    predictions: Integers,
    num_classes: int,
    *,
    groups: Groups | None = None,
    prevalences: Sequence[float] | None = None,
    level: float = LEVEL,
) -> list[dict[str, Estimate]]:
    """The figures of each class that need only labels and predictions; see `class_estimates`."""
    codes = group_codes(groups)
    found = []
    for c in range(num_classes):
        actual, called = labels == c, predictions == c
        figures = {
            "precision": share_of(actual, called, codes, level),
            "recall": share_of(called, actual, codes, level),
            "specificity": share_of(~called, ~actual, codes, level),
            "f1": ratio_estimate(
                2.0 * (actual & called), actual * 1.0 + called, groups=codes, level=level
            ),
        }
        if prevalences is not None:
            figures |= _at_prevalence(actual, called, prevalences[c], codes, level)
        found.append(figures)
    return found


def share_of(held: Bools, asked: Bools, codes: Integers | None, level: float) -> Estimate:
    """Share of the images asked about, both (N,), where something held."""
    own = None if codes is None else codes[asked]
    return share_estimate(held[asked], groups=own, level=level)


def decision_estimates(
    called: Bools,
    labels: Bools,
    *,
    groups: Groups | None = None,
    prevalence: float | None = None,
    level: float = LEVEL,
) -> dict[str, Estimate]:
    """Sensitivity, specificity, PPV, NPV and F1 of a yes-or-no decision, with intervals.

    Args:
        called: (N,) True where an image is called positive.
        labels: (N,) True for positives.
        groups: (N,) or None.
        prevalence: for PPV and NPV there; None keeps that of these images.
        level: coverage.
    """
    no, yes = count_estimates(
        labels.astype(np.int64), called.astype(np.int64), 2, groups=groups, level=level,
        prevalences=None if prevalence is None else (1 - prevalence, prevalence),
    )  # fmt: skip
    return {
        "sensitivity": yes["recall"],
        "specificity": yes["specificity"],
        "ppv": yes["precision"] if prevalence is None else yes["ppv"],
        "npv": no["precision"] if prevalence is None else yes["npv"],
        "f1": yes["f1"],
    }


def sensitivity_estimate(
    scores: Floats,
    labels: Bools,
    specificity: float,
    *,
    groups: Groups | None = None,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Sensitivity at a fixed specificity, the threshold found anew in every resample.

    Args:
        scores: (N,), higher where the class is likelier.
        labels: (N,) True for positives.
        specificity: at least this.
        groups: (N,) or None.
        seed: of the resampling.
        level: coverage.
        resamples: how many.

    Returns:
        A value of None where there are no positives or no negatives.
    """
    if not labels.any() or labels.all():
        return Estimate(value=None, interval=None)
    _, gained, kept = operating_points(scores, labels)
    value = float(gained[kept >= specificity - 1e-12].max())
    codes = group_codes(groups)
    drawn = _resampled_levels(scores, labels, codes, np.random.default_rng(seed), resamples)
    hits, alarms = (np.cumsum(part, axis=1) for part in drawn)
    allowed = alarms <= (1 - specificity + 1e-12) * alarms[:, -1:]
    draws = _share((hits * allowed).max(axis=1), hits[:, -1])
    units = int(units_by_class(labels.astype(np.int64), codes).min())  # of both sides: a threshold
    grouped = codes is not None
    interval = percentile_interval(
        draws, value, level, units=units, method="bootstrap", grouped=grouped
    )
    if interval is None:
        what = f"{units} {'groups' if grouped else 'images'}"
        interval = wilson_on(value, units, what, "all resamples equal", level)
    return Estimate(value=value, interval=interval)


def _resampled_levels(
    scores: Floats,
    labels: Bools,
    codes: Integers | None,
    generator: np.random.Generator,
    resamples: int,
) -> tuple[Floats, Floats]:
    """(resamples, L) positives and negatives of resampled images at each level of the score.

    Levels fall from the highest score; beyond 1,000 distinct scores neighbours share one.
    """
    levels = np.unique(-scores, return_inverse=True)[1]
    count = min(int(levels.max()) + 1, MOST_LEVELS)
    levels = levels * count // (int(levels.max()) + 1)
    columns = levels + count * ~labels
    if codes is None:  # equal images are one unit, drawn as often as the multinomial says
        units, sizes = np.unique(columns, return_counts=True)
        rows, columns = np.arange(len(units)), units
    else:
        rows, sizes = codes, None
    shape = (int(rows.max()) + 1, 2 * count)
    table = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    parts = [(table.T @ drawn.T).T for drawn in draw_units(shape[0], sizes, generator, resamples)]
    positives, negatives = np.split(np.concatenate(parts), 2, axis=1)
    return positives, negatives


def _share(tops: npt.NDArray[Any], bottoms: npt.NDArray[Any]) -> Floats:
    """Numerators / denominators, NaN where the denominator is zero."""
    empty = np.full(np.broadcast_shapes(tops.shape, bottoms.shape), np.nan)
    return np.asarray(np.divide(tops, bottoms, out=empty, where=bottoms != 0))


def _at_prevalence(
    actual: Bools, called: Bools, prevalence: float, codes: Integers | None, level: float
) -> dict[str, Estimate]:
    """PPV and NPV of a class with logit intervals; of groups, of as many images as they tell."""
    check_prevalence(prevalence)
    if actual.all() or not actual.any():
        return dict.fromkeys(("ppv", "npv"), Estimate(value=None, interval=None))
    hits, positives = effective_counts(called, actual, codes)
    rejected, negatives = effective_counts(~called, ~actual, codes)
    quantile = normal_quantile(level)
    if codes is not None:
        fewest = int(units_by_class(actual.astype(np.int64), codes).min())
        quantile = student_quantile(level, fewest - 1)
    made = predictive_intervals(hits, positives, rejected, negatives, prevalence, quantile)
    method = "logit" if codes is None else "logit, groups as so many images"
    return {
        name: Estimate(
            value=None if np.isnan(part.value) else part.value,
            interval=Interval(low=part.low, high=part.high, method=method),
        )
        for name, part in zip(("ppv", "npv"), made, strict=True)
    }
