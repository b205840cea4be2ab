"""Figures of each class against the rest, with intervals.

Recall, precision and specificity are shares: Wilson where images are independent.  F1 is none,
and with groups nothing is: bootstrap of the class counts, over groups.  A resample without a
denominator says nothing of a share and is left out.  Where the resamples do not vary, Wilson on
the images, or groups, that the figure is about.  AUC and AP have influences.

Undefined figures are None: precision of a class that is never predicted, recall of one that
never occurs (`metrics.per_class_table` has scikit-learn's zero there).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from headstart.metrics import counts as by_counts
from headstart.metrics.classification import check_scored, predict
from headstart.metrics.counts import ClassCounts, count_classes
from headstart.metrics.operating import (
    check_prevalence,
    operating_points,
    predictive_intervals,
    predictive_values,
)
from headstart.metrics.ranking import class_auc, class_average_precision, scorable_classes
from headstart.records import Floats, Integers
from headstart.statistics.influence import influence_interval
from headstart.statistics.intervals import LEVEL, Estimate, Interval, wilson, wilson_on
from headstart.statistics.resampling import (
    RESAMPLES,
    Groups,
    bootstrap_counts,
    draw_units,
    group_codes,
    percentile_interval,
)

MOST_LEVELS = 1000

Bools = npt.NDArray[np.bool_]
Parts = tuple[npt.NDArray[Any], npt.NDArray[Any]]

# Numerator and denominator of every figure that is made of counts, each (..., C).
RATIOS: dict[str, Callable[[ClassCounts], Parts]] = {
    "precision": lambda counts: (counts.hits, counts.predicted),
    "recall": lambda counts: (counts.hits, counts.support),
    "specificity": lambda counts: _rejected(counts),
    "f1": lambda counts: (2 * counts.hits, counts.support + counts.predicted),
}


def class_estimates(
    probabilities: Floats,
    labels: Integers,
    num_classes: int,
    *,
    groups: Groups | None = None,
    prevalences: Sequence[float] | None = None,
    seed: int,
    level: float = LEVEL,
) -> list[dict[str, Estimate]]:
    """Precision, recall, specificity, F1, AUC and AP of each class, with intervals.

    Args:
        probabilities: (N, C).
        labels: (N,) int64.
        num_classes: C.
        groups: (N,) a group an image, or None where images are independent.
        prevalences: C prevalences in the population in question, for 'ppv' and 'npv' as well.
        seed: of the resampling.
        level: coverage.

    Returns:
        In class order, by name of the figure.
    """
    check_scored(probabilities, labels, num_classes)
    codes = group_codes(groups)
    found = count_estimates(
        labels, predict(probabilities), num_classes, groups=codes, prevalences=prevalences,
        seed=seed, level=level,
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
    seed: int,
    level: float = LEVEL,
) -> list[dict[str, Estimate]]:
    """The figures of each class that need only labels and predictions; see `class_estimates`."""
    codes = group_codes(groups)
    counts = count_classes(labels, predictions, num_classes)
    draws = bootstrap_counts(
        labels, predictions, num_classes, groups=codes, generator=np.random.default_rng(seed)
    )
    found: list[dict[str, Estimate]] = [{} for _ in range(num_classes)]
    for name, ratio in RATIOS.items():
        plain = name != "f1" and codes is None
        tops, bottoms = ratio(counts)
        resampled = _share(*ratio(draws))
        for c, figures in enumerate(found):
            units = (
                int(bottoms[c])
                if codes is None
                else _groups_in(name, c, labels, predictions, codes)
            )
            figures[name] = _estimate(
                float(tops[c]), float(bottoms[c]), None if plain else resampled[:, c],
                units, codes is not None, level,
            )  # fmt: skip
    for c, prevalence in enumerate(prevalences or ()):
        found[c] |= _at_prevalence(counts, draws, c, prevalence, codes is not None, level)
    return found


def decision_estimates(
    called: Bools,
    labels: Bools,
    *,
    groups: Groups | None = None,
    prevalence: float | None = None,
    seed: int,
    level: float = LEVEL,
) -> dict[str, Estimate]:
    """Sensitivity, specificity, PPV, NPV and F1 of a yes-or-no decision, with intervals.

    Args:
        called: (N,) True where an image is called positive.
        labels: (N,) True for positives.
        groups: (N,) or None.
        prevalence: for PPV and NPV there; None keeps that of these images.
        seed: of the resampling.
        level: coverage.
    """
    no, yes = count_estimates(
        labels.astype(np.int64), called.astype(np.int64), 2, groups=groups, seed=seed, level=level,
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
    units = int(labels.sum()) if codes is None else len(np.unique(codes[labels]))
    return Estimate(value=value, interval=_resampled(draws, value, units, codes is not None, level))


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


def _rejected(counts: ClassCounts) -> Parts:
    """Other classes' images that are not predicted as the class, and how many others there are."""
    negatives, wrong = by_counts.others(counts)
    return negatives - wrong, negatives


def _share(tops: npt.NDArray[Any], bottoms: npt.NDArray[Any]) -> Floats:
    """Numerators / denominators, NaN where the denominator is zero."""
    empty = np.full(np.broadcast_shapes(tops.shape, bottoms.shape), np.nan)
    return np.asarray(np.divide(tops, bottoms, out=empty, where=bottoms != 0))


def _groups_in(name: str, c: int, labels: Integers, predictions: Integers, codes: Integers) -> int:
    """How many groups a figure of class c is about."""
    about = {
        "precision": predictions == c,
        "recall": labels == c,
        "specificity": labels != c,
        "f1": (labels == c) | (predictions == c),
    }[name]
    return len(np.unique(codes[about]))


def _estimate(
    top: float, bottom: float, draws: Floats | None, units: int, grouped: bool, level: float
) -> Estimate:
    """A ratio of counts: Wilson without draws, else their percentiles."""
    if not bottom:
        return Estimate(value=None, interval=None)
    value = top / bottom
    if draws is None:
        return Estimate(value=value, interval=wilson(top, bottom, level))
    return Estimate(value=value, interval=_resampled(draws, value, units, grouped, level))


def _resampled(draws: Floats, value: float, units: int, grouped: bool, level: float) -> Interval:
    """Percentiles, or Wilson on the units where all resamples are equal."""
    found = percentile_interval(draws, value, level, method="bootstrap", grouped=grouped)
    if found is not None:
        return found
    what = f"{units} {'groups' if grouped else 'images'}"
    return wilson_on(value, units, what, "all resamples equal", level)


def _at_prevalence(
    counts: ClassCounts, draws: ClassCounts, c: int, prevalence: float, grouped: bool, level: float
) -> dict[str, Estimate]:
    """PPV and NPV of class c: logit intervals of independent images, else resampled groups."""
    check_prevalence(prevalence)
    hits, positives = (int(part[c]) for part in (counts.hits, counts.support))
    rejected, negatives = (int(part[c]) for part in _rejected(counts))
    if not positives or not negatives:
        return dict.fromkeys(("ppv", "npv"), Estimate(value=None, interval=None))
    made = predictive_intervals(hits, positives, rejected, negatives, prevalence, level)
    if not grouped:
        return {
            name: Estimate(
                value=None if np.isnan(part.value) else part.value,
                interval=Interval(low=part.low, high=part.high, method="logit"),
            )
            for name, part in zip(("ppv", "npv"), made, strict=True)
        }
    se = _share(draws.hits, draws.support)[:, c]
    sp = _share(*_rejected(draws))[:, c]
    both = np.array([predictive_values(a, b, prevalence) for a, b in zip(se, sp, strict=True)])
    found = {}
    for name, part, column in zip(("ppv", "npv"), made, both.T, strict=True):
        interval = None
        if not np.isnan(part.value):
            interval = percentile_interval(
                column, part.value, level, method="bootstrap", grouped=True
            )
        value = None if np.isnan(part.value) else part.value
        found[name] = Estimate(value=value, interval=interval)
    return found
