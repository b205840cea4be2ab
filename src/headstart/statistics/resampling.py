"""Expanded percentile bootstrap (Efron 1979, Hesterberg 2015), for what is no ratio of sums.

Percentiles of few units lie too close together: a resample's variance is (n - 1) / n of what it
should be, and the normal quantile behind them is Student's.  So wider percentiles are taken,
those of the level 2 Phi(sqrt(n / (n - 1)) t) - 1.

Metrics of class counts need no images: a resample of N images is one multinomial draw over the
cells (true, predicted) that occur, so 1,000 resamples of 70,000 images take milliseconds.  With
groups the groups are drawn, and their counts added up; groups of one image are such cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import ndtr, stdtrit

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
    """Class counts of resampled images or groups, each (resamples, C); see `bootstrap_several`."""
    (found,) = bootstrap_several(
        labels, [predictions], num_classes,
        groups=groups, generator=generator, resamples=resamples,
    )  # fmt: skip
    return found


def bootstrap_several(
    labels: Integers,
    predictions: Sequence[Integers],
    num_classes: int,
    *,
    groups: Groups | None = None,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> list[ClassCounts]:
    """Class counts of the answers of several models, all on the same resampled images or groups.

    Args:
        labels: (N,) int64.
        predictions: (N,) int64 of each of M models.
        num_classes: C.
        groups: (N,) or None; then images are drawn.
        generator: source of chance.
        resamples: how many.

    Returns:
        M counts, each (resamples, C).
    """
    cells = labels
    for answers in predictions:
        cells = cells * num_classes + answers
    kept, kinds, sizes = _kinds_of_units(cells, group_codes(groups))
    labels, parts = labels[kept], []
    for answers in (each[kept] for each in predictions):
        right = labels == answers
        rows = np.concatenate([kinds[right], kinds, kinds])
        columns = [labels[right], labels + num_classes, answers + 2 * num_classes]
        shape = (len(sizes), 3 * num_classes)
        values = rows, np.concatenate(columns)
        parts.append(sparse.csr_array((np.ones(len(rows)), values), shape=shape))
    table = sparse.hstack(parts).T.tocsr()  # (M x 3C, kinds)
    drawn = draw_units(len(sizes), sizes, generator, resamples)
    draws = np.concatenate([(table @ chosen.T).T for chosen in drawn])
    return [
        ClassCounts(hits=hits, support=support, predicted=predicted)
        for hits, support, predicted in (
            np.split(part, 3, axis=1) for part in np.split(draws, len(parts), axis=1)
        )
    ]


def _kinds_of_units(cells: Integers, codes: Integers | None) -> tuple[Integers, Integers, Integers]:
    """Units with the same counts as one kind: images in the same cell; every larger group alone.

    Args:
        cells: (N,) equal for images that count alike.
        codes: (N,) of groups, or None where each image is a unit.

    Returns:
        The n images that make the kinds up, their kinds (n,), and (K,) how many units are of a
        kind.
    """
    single = np.ones(len(cells), dtype=bool) if codes is None else np.bincount(codes)[codes] == 1
    keys = cells if codes is None else np.where(single, cells, -1 - codes)
    found, first, kinds, sizes = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)  # as they come, so that the order of models draws no others
    places = np.argsort(order)
    kept = np.concatenate([np.flatnonzero(~single), first[found >= 0]])
    return kept, places[kinds[kept]], np.where(found >= 0, sizes, 1)[order]


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
    draws: Floats, value: float, level: float, *, units: int, method: str, grouped: bool
) -> Interval | None:
    """Expanded percentiles of the draws, the nearer end moved so that they hold the value.

    None where the ends are equal, and where no draw is finite.

    Args:
        draws: (resamples,) values, NaN where a resample has none.
        value: of the sample.
        level: coverage.
        units: how many images or groups the value is about; few ones get wider percentiles.
        method: what `Interval.method` says.
        grouped: whether groups were drawn, which it says too.
    """
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return None
    units = max(units, 2)
    tail = float(ndtr(stdtrit(units - 1, 0.5 - level / 2) * np.sqrt(units / (units - 1))))
    low, high = np.quantile(draws, [tail, 1 - tail])
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
        if sizes is not None and sizes.max() > 1:
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
