"""Percentile bootstrap (Efron 1979), for what is not a plain share.

Metrics of class counts need no images: a resample of N images is one multinomial draw over the
cells (true, predicted) that occur, so 1,000 resamples of 70,000 images take milliseconds.  With
groups the groups are drawn, and their counts added up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from headstart.metrics.counts import ClassCounts
from headstart.records import Floats, Integers
from headstart.statistics.intervals import Interval

RESAMPLES = 1000
DRAWS_AT_ONCE = 2**20

Groups = npt.NDArray[Any]


def group_codes(groups: Groups | None) -> Integers | None:
    """(N,) 0 to the number of groups - 1, or None where there are none."""
    if groups is None:
        return None
    return np.asarray(np.unique(groups, return_inverse=True)[1], dtype=np.int64)


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
    parts = [(table.T @ drawn.T).T for drawn in draw_units(shape[0], sizes, generator, resamples)]
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
    drawn = draw_units(len(table), None, generator, resamples)
    sums, counts = np.concatenate([weights @ table for weights in drawn]).T
    return np.asarray(sums / counts)


def bootstrap_sums(
    table: Floats,
    *,
    groups: Groups | None = None,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Floats:
    """(resamples, M) column sums of resampled rows of (N, M), or of the rows of drawn groups."""
    codes = group_codes(groups)
    if codes is not None:
        rows = sparse.csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))))
        table = np.asarray(rows @ table)
    drawn = draw_units(len(table), None, generator, resamples)
    return np.concatenate([weights @ table for weights in drawn])


def percentile_interval(
    draws: Floats, value: float, level: float, *, method: str, grouped: bool
) -> Interval | None:
    """Percentiles of the draws, the nearer end moved so that they hold the value.

    None where the ends are equal, and where no draw is finite.
    """
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return None
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    if high - low <= 1e-12 * max(1.0, abs(value)):
        return None
    return Interval(
        low=min(float(low), value),
        high=max(float(high), value),
        method=f"{method} over groups" if grouped else method,
    )


def draw_units(
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
