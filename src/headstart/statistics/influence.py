"""Intervals from influences: of areas under curves, and of shares and F1 over groups.

The sum of squares of the images' influences / n^2 is the variance (see `metrics.ranking`).  For
the AUC of two classes this is DeLong (1988).  With groups the influences are added within a
group before squaring; for a ratio of sums that is the linearised variance of cluster samples
(Cochran 1977, ch. 6).  The interval is made on the logit scale, so it stays in (0, 1).
Where there are groups its quantile is Student's, because few groups tell little of their own
spread; benchmarks/interval_coverage.py shows what that is worth.
Influences without spread say nothing: then Wilson on the images that the value is about, of an
area those of the smallest class; or on the groups that have them.

Folds: each fold's value, averaged.  Scores of different folds come from different models, are
not on one scale and are never compared; folds are disjoint images, so their variances add up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, stdtrit

from headstart.metrics.ranking import Influences, auc_influences
from headstart.records import Floats, Integers
from headstart.statistics.intervals import LEVEL, Estimate, Interval, normal_quantile, wilson_on
from headstart.statistics.resampling import Groups, group_codes

FEWEST_UNITS = 3
Bools = npt.NDArray[np.bool_]
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
    return _logit_interval(
        value, spread, smallest, what=smallest_what(smallest, groups is not None),
        freedom=None if groups is None else smallest - 1, fewest=smallest,
        grouped=groups is not None, level=level,
    )  # fmt: skip


def ratio_estimate(
    tops: Floats, bottoms: Floats, *, groups: Groups | None = None, level: float = LEVEL
) -> Estimate:
    """sum(tops) / sum(bottoms), a value in [0, 1], with its interval; of nothing there is none.

    Args:
        tops: (N,) what each image adds to the numerator.
        bottoms: (N,) what it adds to the denominator; an image with 0 is not asked about.
        groups: (N,) or None where images are independent.
        level: coverage.
    """
    about = bottoms > 0
    tops, bottoms = tops[about], bottoms[about]
    if not len(bottoms):
        return Estimate(value=None, interval=None)
    codes = None if groups is None else group_codes(groups[about])
    units = len(bottoms) if codes is None else int(codes.max()) + 1
    value = float(tops.sum() / bottoms.sum())
    influences = (tops - value * bottoms) / bottoms.mean()
    interval = _logit_interval(
        value, _variance(influences, codes), units,
        what=f"{units} {'images' if codes is None else 'groups'}", freedom=units - 1,
        fewest=units, grouped=codes is not None, level=level,
    )  # fmt: skip
    return Estimate(value=value, interval=interval)


def effective_counts(
    held: Bools, asked: Bools, codes: Integers | None, level: float
) -> tuple[float, float]:
    """How many independent images would tell as much of a share: those that held, and all asked.

    Korn and Graubard (1998): share (1 - share) / variance, times (normal / Student's quantile)^2
    where few groups tell of the spread; at most the images, and the groups where all are alike.

    Args:
        held: (N,) True where it did.
        asked: (N,) True where an image counts, at least one.
        codes: (N,) of groups, or None: then the images.
        level: coverage.
    """
    right, n = held[asked].astype(np.float64), int(asked.sum())
    if codes is None:
        return float(right.sum()), n
    own, share = group_codes(codes[asked]), float(right.mean())
    assert own is not None
    units, variance = int(own.max()) + 1, _variance(right - share, own)
    count = float(units)
    if variance > 1e-24 and units > 1:
        quantiles = normal_quantile(level) / stdtrit(units - 1, 0.5 + level / 2)
        count = min(n, share * (1 - share) / variance * float(quantiles) ** 2)
    return share * count, count


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
    units, grouped = sum(smallest), groups is not None
    interval = _logit_interval(
        value, variance, units, what=smallest_what(units, grouped),
        freedom=units - len(values) if grouped else None, fewest=min(smallest),
        grouped=grouped, level=level,
    )  # fmt: skip
    return value, interval


def _variance(influences: Floats, groups: Groups | None) -> float:
    """Variance of a mean of influences, those of a group added up first."""
    n = len(influences)
    codes = group_codes(groups)
    sums = influences if codes is None else np.bincount(codes, influences)
    unbiased = len(sums) / (len(sums) - 1) if codes is not None and len(sums) > 1 else 1.0
    return float((sums**2).sum()) / n**2 * unbiased


def smallest_class(labels: Integers, groups: Groups | None) -> int:
    """Images of the smallest class that is present, or the fewest groups that have a class."""
    if groups is not None:
        codes = np.unique(groups, return_inverse=True)[1]
        labels = np.unique(np.stack([labels, codes]), axis=1)[0]
    support = np.bincount(labels)
    return int(support[support > 0].min())


def _logit_interval(
    value: float,
    variance: float,
    units: int,
    *,
    what: str,
    freedom: int | None,
    fewest: int,
    grouped: bool,
    level: float,
) -> Interval:
    """Interval on the logit scale; Wilson on the units where that knows no more.

    Args:
        value: between 0 and 1.
        variance: of the value.
        units: images or groups that the value hangs on.
        what: they are called.
        freedom: of Student's quantile, at least 1; None takes the normal one.
        fewest: as `units`, in the fold that has the fewest. One has no spread and two have
            hardly any, so the variance lacks a part, and the wider of both intervals is taken.
        grouped: whether groups are the sample.
        level: coverage.
    """
    if variance <= 1e-24 or not 0 < value < 1:
        return wilson_on(value, units, what, "no variance", level)
    quantile = normal_quantile(level)
    if freedom is not None:
        quantile = float(stdtrit(max(freedom, 1), 0.5 + level / 2))
    half = quantile * np.sqrt(variance) / (value * (1 - value))
    low, high = float(expit(logit(value) - half)), float(expit(logit(value) + half))
    if fewest < FEWEST_UNITS:
        wide = wilson_on(value, units, what, "one or two tell no spread", level)
        return Interval(low=min(low, wide.low), high=max(high, wide.high), method=wide.method)
    method = "influence, groups added" if grouped else "influence"
    return Interval(low=low, high=high, method=method)


def smallest_what(smallest: int, grouped: bool) -> str:
    """What stands in for a sample: 'the smallest class's 8 images'."""
    return f"the smallest class's {smallest} {'groups' if grouped else 'images'}"
