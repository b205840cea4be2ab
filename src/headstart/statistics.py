"""How sure a figure is: an interval for every metric.

Images are the sample, or groups of images (a patient, a video) where `groups` says so.

Wilson (1927), for shares of independent images.  It inverts the score test, so it stays
inside [0, 1] and still says something at 0 % and 100 %.

Percentile bootstrap (Efron 1979), for what is not a plain share.  Metrics of class counts
need no images: a resample of N images is one multinomial draw over the cells (true,
predicted) that occur, so 1,000 resamples of 70,000 images take milliseconds.  With groups
the groups are drawn, and their counts added up.

Averages over classes are centred: their resamples are shifted by the value minus their mean
(the bootstrap's estimate of bias, Efron and Tibshirani 1993, ch. 10) and clipped to [0, 1].
Resamples miss small classes and change what is averaged, a bias that the value itself does
not have; 100 classes of two images would otherwise get intervals below their own value.
Always and not on a test, so that the interval does not jump; with large classes the shift
vanishes.  Means over images have no such bias and are left alone.  Where a lump of equal
resamples still leaves the value outside, the nearer end moves to it: low <= value <= high.
A class without a single error adds no spread, here as in every bootstrap.

Influence, for the AUC.  The AUC of class c is the mean over its positives of the placement
among the negatives (the share of negatives below, ties one half), and the mean over its
negatives of the placement among the positives.  The departures of the placements from the AUC
are the images' influences; averaged over the classes they are the influences on the macro
AUC, all classes' covariances included, and their sum of squares / n^2 is its variance.  For
two classes this is DeLong (1988), with his n / (n - 1).  With groups the influences are added
within a group before squaring.  The interval is made on the logit scale, so it stays in (0, 1).

Where the resamples or the influences do not vary, these say nothing.  `Interval.method` names
the replacement: for a share of images Wilson on the images, or on the groups; for an average
over classes that is 0 or 1, and for the AUC, Wilson on the images of the smallest class, or
on the groups that have it.  A loss or another average over classes is no share and gets None.

Rejected: centring on the median (covers no better, and is no bias estimate); Hanley and
McNeil's AUC variance (assumes a distribution); BCa (1,000 more passes for the acceleration, and
no better at these sizes); pooling the folds' scores for one AUC (scores of differently trained
models are not on one scale).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import expit, logit, ndtri
from scipy.stats import rankdata

from headstart.metrics.classification import (
    METRICS,
    MetricSpec,
    check_scored,
    predict,
    scorable_classes,
)
from headstart.metrics.counts import ClassCounts
from headstart.records import Floats, Integers

LEVEL = 0.95
RESAMPLES = 1000
DRAWS_AT_ONCE = 2**20

Groups = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Two ends and how they were found."""

    low: float
    high: float
    method: str

    def __post_init__(self) -> None:
        """Hold the ends in order."""
        assert self.low <= self.high


def wilson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval for a share.

    Args:
        successes: 0 to n; need not be whole, so that a mean of shares can borrow it.
        n: how many were tried, above 0.
        level: coverage, 0 to 1.
    """
    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"`successes` must be between 0 and `n` > 0, got {successes} of {n}.")
    z = _quantile(level)
    share, extra = successes / n, z * z / n
    centre = (share + extra / 2) / (1 + extra)
    half = z * np.sqrt(share * (1 - share) / n + extra / (4 * n)) / (1 + extra)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low=float(low), high=float(high), method="wilson")


def headline_intervals(
    probabilities: Floats,
    labels: Integers,
    num_classes: int,
    *,
    groups: Groups | None = None,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> dict[str, Interval | None]:
    """An interval for every registered metric.

    Args:
        probabilities: (N, C).
        labels: (N,) int64.
        num_classes: C.
        groups: (N,) a group code or name an image, or None where images are independent.
        seed: of the resampling; every metric starts from it anew.
        level: coverage.
        resamples: how many.

    Returns:
        By metric name; None where the metric is None, or where nothing can be said.
    """
    check_scored(probabilities, labels, num_classes)
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1]
    made: dict[str, Interval | None] = {}
    for spec in METRICS:
        value = spec.function(probabilities, labels)
        if value is None:
            made[spec.name] = None
        elif spec.interval == "influence":
            made[spec.name] = auc_interval(probabilities, labels, groups=codes, level=level)
        elif spec.interval == "wilson" and codes is None:
            made[spec.name] = wilson(round(value * len(labels)), len(labels), level)
        else:
            generator = np.random.default_rng(seed)
            draws = _resample(spec, probabilities, labels, codes, generator, resamples)
            made[spec.name] = _percentiles(spec, value, draws, level, codes is not None)
            if made[spec.name] is None:
                made[spec.name] = _without_spread(spec, value, labels, codes, level)
    return made


def bootstrap_counts(
    labels: Integers,
    predictions: Integers,
    num_classes: int,
    *,
    groups: Groups | None = None,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> ClassCounts:
    """Class counts of resampled images or groups, each (resamples, C).

    Args:
        labels: (N,) int64.
        predictions: (N,) int64.
        num_classes: C.
        groups: (N,) or None; then images are drawn.
        generator: source of chance.
        resamples: how many.
    """
    if groups is None:  # equal images are one cell, drawn as often as the multinomial says
        cells, sizes = np.unique(labels * num_classes + predictions, return_counts=True)
        codes = np.arange(len(cells))
        labels, predictions = np.divmod(cells, num_classes)
    else:
        codes, sizes = np.unique(groups, return_inverse=True)[1], None
    rows = np.concatenate([codes[labels == predictions], codes, codes])
    hits = labels[labels == predictions]
    columns = np.concatenate([hits, labels + num_classes, predictions + 2 * num_classes])
    shape = (int(codes.max()) + 1, 3 * num_classes)
    table = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    parts = [(table.T @ drawn.T).T for drawn in _draw_units(shape[0], sizes, generator, resamples)]
    hits, support, predicted = np.split(np.concatenate(parts), 3, axis=1)
    return ClassCounts(hits=hits, support=support, predicted=predicted)


def bootstrap_mean(
    values: Floats,
    *,
    groups: Groups | None = None,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Floats:
    """(resamples,) means of resampled values (N,), or of the values of resampled groups."""
    if groups is None:
        step = max(1, DRAWS_AT_ONCE // len(values))
        sizes = [min(step, resamples - done) for done in range(0, resamples, step)]
        rows = (
            generator.integers(len(values), size=(s, len(values)), dtype=np.int32) for s in sizes
        )
        return np.concatenate([values[chosen].mean(axis=1) for chosen in rows])
    codes = np.unique(groups, return_inverse=True)[1]
    table = np.stack([np.bincount(codes, values), np.bincount(codes)], axis=1)
    drawn = _draw_units(len(table), None, generator, resamples)
    sums, counts = np.concatenate([weights @ table for weights in drawn]).T
    return np.asarray(sums / counts)


def auc_influences(probabilities: Floats, labels: Integers) -> tuple[float, Floats] | None:
    """The macro AUC and each image's influence on it.

    Args:
        probabilities: (N, C) scores.
        labels: (N,) int64.

    Returns:
        The AUC and (N,) influences with mean zero, scaled so that their sum of squares over
        N^2 is the variance; None where no class has both positives and negatives.
    """
    n, num_classes = probabilities.shape
    classes = scorable_classes(labels, num_classes)
    if not len(classes):
        return None
    areas, total = [], np.zeros(n)
    for c in classes:
        positive = labels == c
        ups, downs = _placements(probabilities[positive, c], probabilities[~positive, c])
        areas.append(ups.mean())
        for mask, placed in ((positive, ups), (~positive, downs)):
            count = len(placed)
            unbiased = np.sqrt(count / (count - 1)) if count > 1 else 1.0
            total[mask] += n / count * unbiased * (placed - placed.mean())
    return float(np.mean(areas)), total / len(classes)


def auc_interval(
    probabilities: Floats, labels: Integers, *, groups: Groups | None = None, level: float = LEVEL
) -> Interval | None:
    """Interval of the macro AUC; None where the AUC is."""
    found = auc_influences(probabilities, labels)
    if found is None:
        return None
    value, influences = found
    return _logit_interval(
        value,
        _variance(influences, groups),
        _smallest_class(labels, groups),
        level,
        groups is not None,
    )


def fold_mean_auc(
    probabilities: Floats,
    labels: Integers,
    folds: Integers,
    *,
    groups: Groups | None = None,
    level: float = LEVEL,
) -> tuple[float, Interval] | None:
    """Mean over the folds of each fold's macro AUC, with its interval.

    Folds are disjoint images, so the variances of their AUC add up.  Scores of different folds
    come from different models and are never compared.

    Args:
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
        found = auc_influences(probabilities[rows], labels[rows])
        if found is not None:
            values.append(found[0])
            own = None if groups is None else groups[rows]
            variances.append(_variance(found[1], own))
            smallest.append(_smallest_class(labels[rows], own))
    if not values:
        return None
    value, variance = float(np.mean(values)), sum(variances) / len(values) ** 2
    return value, _logit_interval(value, variance, sum(smallest), level, groups is not None)


def _quantile(level: float) -> float:
    """Normal quantile of a two-sided interval."""
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1, got {level}.")
    return float(ndtri(0.5 + level / 2))


def _draw_units(
    units: int, sizes: Integers | None, generator: np.random.Generator, resamples: int
) -> Iterator[Floats]:
    """Chunks (rows, units) of how often each unit was drawn, `resamples` rows in all.

    With `sizes` a unit stands for so many equal images and sum(sizes) images are drawn, else
    `units` units of equal chance.
    """
    for rows in _chunk(resamples, units):
        if sizes is not None:
            drawn = generator.multinomial(int(sizes.sum()), sizes / sizes.sum(), size=rows)
        else:
            chosen = generator.integers(units, size=(rows, units))
            chosen += units * np.arange(rows)[:, None]
            drawn = np.bincount(chosen.ravel(), minlength=rows * units).reshape(rows, units)
        yield drawn.astype(np.float64)


def _chunk(resamples: int, width: int) -> Iterator[int]:
    """Numbers of resamples that add up, each with at most `DRAWS_AT_ONCE` draws of `width`."""
    step = max(1, DRAWS_AT_ONCE // width)
    return (min(step, resamples - done) for done in range(0, resamples, step))


def _resample(
    spec: MetricSpec,
    probabilities: Floats,
    labels: Integers,
    codes: Integers | None,
    generator: np.random.Generator,
    resamples: int,
) -> Floats:
    """(resamples,) values of a metric of counts or of a mean."""
    if spec.from_counts is not None:
        counts = bootstrap_counts(
            labels,
            predict(probabilities),
            probabilities.shape[1],
            groups=codes,
            generator=generator,
            resamples=resamples,
        )
        return spec.from_counts(counts)
    assert spec.per_image is not None
    values = spec.per_image(probabilities, labels)
    return bootstrap_mean(values, groups=codes, generator=generator, resamples=resamples)


def _percentiles(
    spec: MetricSpec, value: float, draws: Floats, level: float, grouped: bool
) -> Interval | None:
    """Percentile interval, centred for averages over classes; None where its ends are equal."""
    if spec.averages_classes:
        draws = np.clip(draws + (value - draws.mean()), 0.0, 1.0)
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    if high - low <= 1e-12 * max(1.0, abs(value)):
        return None
    method = "centred bootstrap" if spec.averages_classes else "bootstrap"
    return Interval(
        low=min(float(low), value),
        high=max(float(high), value),
        method=f"{method} over groups" if grouped else method,
    )


def _without_spread(
    spec: MetricSpec, value: float, labels: Integers, codes: Integers | None, level: float
) -> Interval | None:
    """Wilson where resamples are equal and the value is a share, else None."""
    why, grouped = "all resamples equal", codes is not None
    if spec.averages_classes:
        if value not in (0.0, 1.0):
            return None
        return _wilson_on_smallest(value, _smallest_class(labels, codes), level, grouped, why)
    if not spec.bigger_is_better:
        return None
    units = len(labels) if codes is None else int(codes.max()) + 1
    ends = wilson(value * units, units, level)
    method = f"wilson on {units} {'groups' if grouped else 'images'} ({why})"
    return Interval(low=ends.low, high=ends.high, method=method)


def _wilson_on_smallest(
    value: float, smallest: int, level: float, grouped: bool, why: str
) -> Interval:
    """Wilson as if the value were a share of the smallest class's images or groups."""
    ends = wilson(value * smallest, smallest, level)
    what = "groups" if grouped else "images"
    method = f"wilson on the smallest class's {smallest} {what} ({why})"
    return Interval(low=ends.low, high=ends.high, method=method)


def _placements(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Share of negatives below each positive, and of positives above each negative; ties half."""
    ranks = rankdata(np.concatenate([positives, negatives]))
    count = len(positives)
    ups = (ranks[:count] - rankdata(positives)) / len(negatives)
    downs = 1 - (ranks[count:] - rankdata(negatives)) / count
    return ups, downs


def _variance(influences: Floats, groups: Groups | None) -> float:
    """Variance of a mean of influences, those of a group added up first."""
    n = len(influences)
    if groups is None:
        return float((influences**2).sum()) / n**2
    codes = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(codes, influences)
    unbiased = len(sums) / (len(sums) - 1) if len(sums) > 1 else 1.0
    return float((sums**2).sum()) / n**2 * unbiased


def _smallest_class(labels: Integers, groups: Groups | None) -> int:
    """Images of the smallest class that is present, or the fewest groups that have a class."""
    if groups is not None:
        codes = np.unique(groups, return_inverse=True)[1]
        labels = np.unique(np.stack([labels, codes]), axis=1)[0]
    support = np.bincount(labels)
    return int(support[support > 0].min())


def _logit_interval(
    value: float, variance: float, smallest: int, level: float, grouped: bool
) -> Interval:
    """Interval on the logit scale; Wilson on the smallest class where the variance is zero."""
    if variance <= 1e-24 or not 0 < value < 1:
        return _wilson_on_smallest(value, smallest, level, grouped, "no variance")
    half = _quantile(level) * np.sqrt(variance) / (value * (1 - value))
    low, high = expit(logit(value) - half), expit(logit(value) + half)
    method = "influence, groups added" if grouped else "influence"
    return Interval(low=float(low), high=float(high), method=method)
