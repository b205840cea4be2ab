"""Intervals from influences: of areas under curves, and of shares and F1 over groups.

The sum of squares of the images' influences / n^2 is the variance (see `metrics.ranking`).  For
the AUC of two classes this is DeLong (1988).  With groups the influences are added within a
group before squaring; for a ratio of sums that is the linearised variance of cluster samples
(Cochran 1977, ch. 6).  The interval is made on the logit scale, so it stays in (0, 1).
For ratios, and wherever there are groups, its quantile is Student's: few units tell little of
their own spread.  An average over classes hangs on all of them, with degrees of freedom after
Satterthwaite (1946), halved, but no fewer than the smallest class alone would have; what they are
worth shows benchmarks/interval_coverage.py.

A class of one or two units has hardly any spread, so the variance lacks its part.  Of one class
against the rest the wider of this interval and Wilson's on the smaller side is taken; to an
average over classes such a class adds the variance that Wilson's interval on its units has.
Influences without spread say nothing: then Wilson on the images that the value is about, of an
area those of the smallest class; or on the groups that have them.

Folds: each fold's value, averaged.  Scores of different folds come from different models, are
not on one scale and are never compared; folds are disjoint images, so their variances add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from headstart.metrics.ranking import Influences, auc_influences
from headstart.records import Floats, Integers
from headstart.statistics.intervals import (
    LEVEL,
    Estimate,
    Interval,
    normal_quantile,
    student_quantile,
    wilson,
    wilson_on,
)
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
        labels: (N,) int64, all that occur take part in the value.
        groups: (N,) or None.
        level: coverage.
    """
    if found is None:
        return None
    value, influences = found
    spread = _spread(value, influences, labels, group_codes(groups), level)
    return _class_interval(value, [spread], groups is not None, level)


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


def effective_counts(held: Bools, asked: Bools, codes: Integers | None) -> tuple[float, float]:
    """How many independent images would tell as much of a share: those that held, and all asked.

    share (1 - share) / variance (Kish 1965); at most the images, and the groups where all are
    alike.

    Args:
        held: (N,) True where it did.
        asked: (N,) True where an image counts, at least one.
        codes: (N,) of groups, or None: then the images.
    """
    right, n = held[asked].astype(np.float64), int(asked.sum())
    own = None if codes is None else group_codes(codes[asked])
    if own is None or int(own.max()) + 1 == n:
        return float(right.sum()), n
    share, variance = float(right.mean()), _variance(right - right.mean(), own)
    count = min(n, share * (1 - share) / variance) if variance > 1e-24 else int(own.max()) + 1
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
    values, spreads = [], []
    codes = group_codes(groups)
    for fold in np.unique(folds):
        rows = folds == fold
        found = of_scores(probabilities[rows], labels[rows])
        if found is not None:
            values.append(found[0])
            own = None if codes is None else codes[rows]
            spreads.append(_spread(*found, labels[rows], own, level))
    if not values:
        return None
    value = float(np.mean(values))
    return value, _class_interval(value, spreads, groups is not None, level)


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """What the images of one test part, or one fold, tell of a value's variance.

    Attributes:
        variance: of the value, as far as influences tell.
        unseen: what Wilson says of classes of one or two units, whose part that lacks.
        by_class: (C,) the part of each class that occurs, as far as they can be told apart.
        units: (C,) images or groups of each.
    """

    variance: float
    unseen: float
    by_class: Floats
    units: Integers


def _spread(
    value: float, influences: Floats, labels: Integers, codes: Integers | None, level: float
) -> Spread:
    """Of (N,) influences on a value; classes of one or two units add what Wilson says of them."""
    units = units_by_class(labels, codes)
    present, own = np.unique(labels, return_inverse=True)
    if codes is None:
        by_class = np.bincount(own, influences**2)
    else:
        cells, place = np.unique(codes * len(present) + own, return_inverse=True)
        by_class = np.bincount(cells % len(present), np.bincount(place, influences) ** 2)
    ends = [wilson(value * n, int(n), level) for n in units[units < FEWEST_UNITS]]
    spreads = np.array([one.high - one.low for one in ends]) / (2 * normal_quantile(level))
    share = len(present) if len(present) > 2 else 1  # of two classes each is the other's rest
    return Spread(
        variance=_variance(influences, codes),
        unseen=float(((spreads / share) ** 2).sum()),
        by_class=by_class / len(labels) ** 2,
        units=units,
    )


def _class_interval(
    value: float, spreads: Sequence[Spread], grouped: bool, level: float
) -> Interval:
    """Interval of the mean of one value a spread, each hanging on its classes."""
    alone = all(len(spread.units) <= 2 for spread in spreads)  # Wilson's own interval then
    variance = sum(one.variance + (0 if alone else one.unseen) for one in spreads)
    variance /= len(spreads) ** 2
    smallest = sum(int(spread.units.min()) for spread in spreads)
    freedom = None
    if grouped:
        parts = np.concatenate([spread.by_class for spread in spreads])
        units = np.concatenate([spread.units for spread in spreads])
        freedom = max(smallest - len(spreads), satterthwaite(parts, units) / 2)
    return _logit_interval(
        value, variance, smallest, what=smallest_what(smallest, grouped), freedom=freedom,
        fewest=min(int(spread.units.min()) for spread in spreads) if alone else FEWEST_UNITS,
        grouped=grouped, level=level,
    )  # fmt: skip


def satterthwaite(variances: Floats, units: Integers) -> float:
    """Degrees of freedom of a sum of independent variances, each told by so many units."""
    bottom = float((variances**2 / np.maximum(units - 1, 1)).sum())
    return float(variances.sum() ** 2 / bottom) if bottom else 0.0


def _variance(influences: Floats, groups: Groups | None) -> float:
    """Variance of a mean of influences, those of a group added up first."""
    n = len(influences)
    codes = group_codes(groups)
    sums = influences if codes is None else np.bincount(codes, influences)
    unbiased = len(sums) / (len(sums) - 1) if codes is not None and len(sums) > 1 else 1.0
    return float((sums**2).sum()) / n**2 * unbiased


def units_by_class(labels: Integers, codes: Integers | None) -> Integers:
    """(C,) images, or groups, that have each class that occurs."""
    if codes is not None:
        count = int(codes.max()) + 1
        labels = np.unique(labels * count + codes) // count
    support = np.bincount(labels)
    return support[support > 0]


def effective_units(labels: Integers, codes: Integers | None) -> int:
    """Images or groups whose mean would be told as well as an average over classes.

    Each class's part is taken to vary with one over its units; see the top of this file.
    """
    units = units_by_class(labels, codes)
    freedom = max(int(units.min()) - 1, satterthwaite(1 / units, units) / 2)
    return 1 + int(freedom)


def _logit_interval(
    value: float,
    variance: float,
    units: int,
    *,
    what: str,
    freedom: float | None,
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
        fewest: as `units`, in the fold that has the fewest; below `FEWEST_UNITS` the wider of both
            intervals is taken.
        grouped: whether groups are the sample.
        level: coverage.
    """
    if variance <= 1e-24 or not 0 < value < 1:
        return wilson_on(value, units, what, "no variance", level)
    quantile = normal_quantile(level) if freedom is None else student_quantile(level, freedom)
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
