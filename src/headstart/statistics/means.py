"""Shares and means of images with their intervals, images independent or in groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headstart.records import Floats
from headstart.statistics.influence import ratio_estimate
from headstart.statistics.intervals import LEVEL, Estimate, wilson
from headstart.statistics.resampling import (
    RESAMPLES,
    Groups,
    bootstrap_mean,
    group_codes,
    percentile_interval,
)

NOTHING = Estimate(value=None, interval=None)


def share_estimate(
    right: npt.NDArray[np.bool_], *, groups: Groups | None = None, level: float = LEVEL
) -> Estimate:
    """Share of True: Wilson of images, or from the influences of groups; of nothing there is none.

    Groups of one image each are images.

    Args:
        right: (N,) one answer an image.
        groups: (N,) or None where images are independent.
        level: coverage.
    """
    if not len(right):
        return NOTHING
    if groups is None or len(np.unique(groups)) == len(groups):
        count = int(right.sum())
        return Estimate(value=count / len(right), interval=wilson(count, len(right), level))
    return ratio_estimate(right.astype(np.float64), np.ones(len(right)), groups=groups, level=level)


def mean_estimate(
    values: Floats,
    *,
    groups: Groups | None = None,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Mean with the bootstrap of images or groups; no interval without spread.

    Args:
        values: (N,) one value an image.
        groups: (N,) or None; drawn whole where given.
        seed: of the resampling.
        level: coverage.
        resamples: how many.
    """
    if not len(values):
        return NOTHING
    value, codes = float(values.mean()), group_codes(groups)
    generator = np.random.default_rng(seed)
    draws = bootstrap_mean(values, groups=codes, generator=generator, resamples=resamples)
    grouped = codes is not None
    units = len(values) if codes is None else int(codes.max()) + 1
    interval = percentile_interval(
        draws, value, level, units=units, method="bootstrap", grouped=grouped
    )
    return Estimate(value=value, interval=interval)
