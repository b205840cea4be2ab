"""Two ends and how they were found; Wilson's for a share.

Wilson (1927) inverts the score test, so it stays inside [0, 1] and still says something at 0 %
and 100 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Two ends and how they were found."""

    low: float
    high: float
    method: str

    def __post_init__(self) -> None:
        """Hold the ends in order."""
        assert self.low <= self.high


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: None where it is not defined.
        interval: None where there is no value, or where nothing can be said of it.
    """

    value: float | None
    interval: Interval | None


def wilson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval for a share.

    Args:
        successes: 0 to n; need not be whole, so that a mean of shares can borrow it.
        n: how many were tried, above 0.
        level: coverage, 0 to 1.
    """
    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"`successes` must be between 0 and `n` > 0, got {successes} of {n}.")
    z = normal_quantile(level)
    share, extra = successes / n, z * z / n
    centre = (share + extra / 2) / (1 + extra)
    half = z * np.sqrt(share * (1 - share) / n + extra / (4 * n)) / (1 + extra)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low=float(low), high=float(high), method="wilson")


def wilson_on(value: float, n: int, what: str, why: str, level: float = LEVEL) -> Interval:
    """Wilson as if the value were a share of `n` units, its method saying of what and why."""
    ends = wilson(value * n, n, level)
    return Interval(low=ends.low, high=ends.high, method=f"wilson on {what} ({why})")


def student_quantile(level: float, freedom: float) -> float:
    """Student's quantile of a two-sided interval; with less than one degree of freedom, of one."""
    return float(stdtrit(max(freedom, 1.0), 0.5 + level / 2))


def normal_quantile(level: float) -> float:
    """Normal quantile of a two-sided interval."""
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1, got {level}.")
    return float(ndtri(0.5 + level / 2))
