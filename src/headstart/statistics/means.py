"""Shares and means of images with their intervals, images independent or in groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headstart.records import Floats
from headstart.statistics.intervals import LEVEL, Estimate, wilson, wilson_on
from headstart.statistics.resampling import (
    RESAMPLES,
    Groups,
    bootstrap_mean,
    group_codes,
    percentile_interval,
)

NOTHING = Estimate(value=None, interval=None)


def share_estimate(
    right: npt.NDArray[np.bool_],
    *,
    groups: Groups | None = None,
    seed: int,
    level: float = LEVEL,
) -> Estimate:
    """Share of True: Wilson of images, or the bootstrap over groups.

    Groups that are all alike have Wilson on their number; without images there is no value.

    Args:
        right: (N,) one answer an image.
        groups: (N,) or None where images are independent.
        seed: of the resampling.
        level: coverage.
    """
    if not len(right):
        return NOTHING
    if groups is None:
        count = int(right.sum())
        return Estimate(value=count / len(right), interval=wilson(count, len(right), level))
    found = mean_estimate(right.astype(np.float64), groups=groups, seed=seed, level=level)
    if found.interval is not None:
        return found
    assert found.value is not None
    units = len(np.unique(groups))
    instead = wilson_on(found.value, units, f"{units} groups", "all resamples equal", level)
    return Estimate(value=found.value, interval=instead)


def mean_estimate(
    values: Floats,
    *,
    groups: Groups | None = None,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Mean with the percentile bootstrap of images or groups; no interval without spread.

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
    interval = percentile_interval(draws, value, level, method="bootstrap", grouped=grouped)
    return Estimate(value=value, interval=interval)
