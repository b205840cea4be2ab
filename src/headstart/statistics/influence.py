"""Intervals from influences, for the areas under ROC and precision-recall curves.

The sum of squares of the images' influences / n^2 is the variance (see `metrics.ranking`).  For
the AUC of two classes this is DeLong (1988).  With groups the influences are added within a
group before squaring.  The interval is made on the logit scale, so it stays in (0, 1).
Influences without spread say nothing: then Wilson on the images of the smallest class, or on
the groups that have it.

Folds: each fold's value, averaged.  Scores of different folds come from different models, are
not on one scale and are never compared; folds are disjoint images, so their variances add up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit, logit

from headstart.metrics.ranking import Influences, auc_influences
from headstart.records import Floats, Integers
from headstart.statistics.intervals import LEVEL, Interval, normal_quantile, wilson_on
from headstart.statistics.resampling import Groups

FEWEST_IN_CLASS = 3
OfScores = Callable[[Floats, Integers], Influences | None]


def auc_interval(
    probabilities: Floats, labels: Integers, *, groups: Groups | None = None, level: float = LEVEL
) -> Interval | None:
    """Interval of the macro AUC; None where the AUC is."""
    return influence_interval(auc_influences(probabilities, labels), labels, groups, level)


def influence_interval(
    found: Influences | None, labels: Integers, groups: Groups | None, level: float = LEVEL
) -> Interval | None:
    """Interval of a value in [0, 1] from its influences; None where there is no value.

    Args:
        found: the value and (N,) influences on it.
        labels: (N,) int64; the smallest class stands in where there is no variance.
        groups: (N,) or None.
        level: coverage.
    """
    if found is None:
        return None
    value, influences = found
    spread, smallest = _variance(influences, groups), smallest_class(labels, groups)
    return _logit_interval(value, spread, smallest, smallest, level, groups is not None)


def fold_mean_auc(
    probabilities: Floats,
    labels: Integers,
    folds: Integers,
    *,
    groups: Groups | None = None,
    level: float = LEVEL,
) -> tuple[float, Interval] | None:
    """Mean over the folds of each fold's macro AUC, with its interval; see `fold_mean`."""
    return fold_mean(auc_influences, probabilities, labels, folds, groups=groups, level=level)


def fold_mean(
    of_scores: OfScores,
    probabilities: Floats,
    labels: Integers,
    folds: Integers,
    *,
    groups: Groups | None = None,
    level: float = LEVEL,
) -> tuple[float, Interval] | None:
    """Mean over the folds of each fold's value, with its interval.

    Args:
        of_scores: (probabilities, labels) to a value and influences, None where undefined.
        probabilities: (N, C), each row from the model that did not see it.
        labels: (N,) int64.
        folds: (N,) the fold in which an image was scored.
        groups: (N,) or None.
        level: coverage.

    Returns:
        Value and interval; None where no fold has a class with positives and negatives.
    """
    values, variances, smallest = [], [], []
    for fold in np.unique(folds):
        rows = folds == fold
        found = of_scores(probabilities[rows], labels[rows])
        if found is not None:
            values.append(found[0])
            own = None if groups is None else groups[rows]
            variances.append(_variance(found[1], own))
            smallest.append(smallest_class(labels[rows], own))
    if not values:
        return None
    value, variance = float(np.mean(values)), sum(variances) / len(values) ** 2
    interval = _logit_interval(
        value, variance, sum(smallest), min(smallest), level, groups is not None
    )
    return value, interval


def _variance(influences: Floats, groups: Groups | None) -> float:
    """Variance of a mean of influences, those of a group added up first."""
    n = len(influences)
    if groups is None:
        return float((influences**2).sum()) / n**2
    codes = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(codes, influences)
    unbiased = len(sums) / (len(sums) - 1) if len(sums) > 1 else 1.0
    return float((sums**2).sum()) / n**2 * unbiased


def smallest_class(labels: Integers, groups: Groups | None) -> int:
    """Images of the smallest class that is present, or the fewest groups that have a class."""
    if groups is not None:
        codes = np.unique(groups, return_inverse=True)[1]
        labels = np.unique(np.stack([labels, codes]), axis=1)[0]
    support = np.bincount(labels)
    return int(support[support > 0].min())


def _logit_interval(
    value: float, variance: float, smallest: int, fewest: int, level: float, grouped: bool
) -> Interval:
    """Interval on the logit scale; Wilson on the smallest class where that knows no more.

    Args:
        value: between 0 and 1.
        variance: of the value.
        smallest: images (groups) of the smallest class, added over folds.
        fewest: of the smallest class of one fold. A class of one has no spread and one of two
            hardly any, so the variance lacks its part, and the wider of both intervals is taken.
        level: coverage.
        grouped: whether groups are the sample.
    """
    what = smallest_what(smallest, grouped)
    if variance <= 1e-24 or not 0 < value < 1:
        return wilson_on(value, smallest, what, "no variance", level)
    half = normal_quantile(level) * np.sqrt(variance) / (value * (1 - value))
    low, high = float(expit(logit(value) - half)), float(expit(logit(value) + half))
    if fewest < FEWEST_IN_CLASS:
        wide = wilson_on(value, smallest, what, "a class of one or two tells no spread", level)
        return Interval(low=min(low, wide.low), high=max(high, wide.high), method=wide.method)
    method = "influence, groups added" if grouped else "influence"
    return Interval(low=low, high=high, method=method)


def smallest_what(smallest: int, grouped: bool) -> str:
    """What stands in for a sample: 'the smallest class's 8 images'."""
    return f"the smallest class's {smallest} {'groups' if grouped else 'images'}"
