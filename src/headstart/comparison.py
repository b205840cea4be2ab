"""Is one model better than another, or only luckier? Paired on the same images and folds.

All tests are two-sided and use differences image by image, so that what is hard for both
counts for neither.  With groups (a patient, a video) the groups are the sample.

The sign-flip test needs no distribution: were the models equal, each group's difference would as
well have the other sign.  For right or wrong on independent images it is McNemar's exact test.

The corrected resampled t-test (Nadeau and Bengio 2003) sets the variance of K resampled
figures to (1 / K + n_test / n_train) s^2, because the training parts overlap.  It is a
heuristic: no unbiased estimate of that variance exists (Bengio and Grandvalet 2004).

Intervals and tests on one set of predictions are conditional on the fitted models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, stdtr, stdtrit  # scipy.stats would take a second to load

from headstart.records import Floats
from headstart.statistics import (
    LEVEL,
    RESAMPLES,
    Estimate,
    Groups,
    Interval,
    bootstrap_mean,
    group_codes,
    percentile_interval,
)

HEURISTIC = "corrected resampled t, a heuristic"
FLIPS = 9999
EXACT_UNITS = 12  # 2^12 sign patterns are enumerated, more are sampled
CHUNK = 2**20


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference, first minus second, and how sure it is.

    Attributes:
        difference: mean of the first minus mean of the second.
        interval: of the difference; None where it cannot be told.
        p_value: two-sided, of no difference; NaN where differences have no spread.
        method: which test.
    """

    difference: float
    interval: Interval | None
    p_value: float
    method: str


def corrected_resampled_t(
    differences: Floats, *, test_fraction: float, level: float = LEVEL
) -> Comparison:
    """Nadeau and Bengio's t-test of K paired differences of (repeated) cross-validation.

    t = mean / sqrt((1 / K + f / (1 - f)) s^2) with K - 1 degrees of freedom.  A heuristic.

    Args:
        differences: (K,) figure of the first minus the second, a fold and repetition each.
        test_fraction: f, share of the images that a fold scores: 1 / folds.
        level: coverage of the interval.
    """
    count = len(differences)
    if count < 2 or not 0 < test_fraction < 1:
        raise ValueError(
            "A resampled t-test needs at least 2 differences and a test fraction between 0 and 1, "
            f"got {count} and {test_fraction}."
        )
    mean = float(differences.mean())
    ratio = test_fraction / (1 - test_fraction)
    error = float(np.sqrt((1 / count + ratio) * differences.var(ddof=1)))
    if error <= 1e-15:
        p_value = 1.0 if abs(mean) <= 1e-15 else float("nan")
        return Comparison(difference=mean, interval=None, p_value=p_value, method=HEURISTIC)
    half = float(stdtrit(count - 1, 0.5 + level / 2)) * error
    return Comparison(
        difference=mean,
        interval=Interval(low=mean - half, high=mean + half, method=HEURISTIC),
        p_value=float(2 * stdtr(count - 1, -abs(mean) / error)),
        method=HEURISTIC,
    )


def paired_bootstrap(
    first: Floats,
    second: Floats,
    *,
    groups: Groups | None = None,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Mean difference with the bootstrap interval of images, or of groups drawn whole.

    Args:
        first: (N,) one value an image, such as right (1) or wrong (0).
        second: (N,) of the other model, same images in the same order.
        groups: (N,) or None.
        seed: of the resampling.
        level: coverage.
        resamples: how many.

    Returns:
        Without an interval where the models differ on no image, or all alike.
    """
    differences = _differences(first, second)
    value = float(differences.mean())
    draws = bootstrap_mean(
        differences, groups=groups, generator=np.random.default_rng(seed), resamples=resamples
    )
    units = len(differences) if groups is None else len(np.unique(groups))
    interval = percentile_interval(
        draws, value, level, units=units, method="paired bootstrap", grouped=groups is not None
    )
    return Estimate(value=value, interval=interval)


def sign_flip_test(
    first: Floats, second: Floats, *, groups: Groups | None = None, seed: int, flips: int = FLIPS
) -> float:
    """Two-sided p of the sum of differences under random signs of images or groups.

    Exact where differences without groups are only -1, 0 and 1 (then it is McNemar's), or at
    most 12 units differ; else (1 + extreme) / (1 + flips) of sampled signs (Phipson and Smyth
    2010).

    Args:
        first: (N,) one value an image.
        second: (N,) of the other model.
        groups: (N,) or None; the differences of a group are added and flipped together.
        seed: of the signs.
        flips: how many are sampled.
    """
    differences = _differences(first, second)
    codes = group_codes(groups)
    sums = differences if codes is None else np.bincount(codes, differences)
    sums = sums[np.abs(sums) > 1e-12]
    if not len(sums):
        return 1.0
    if (np.abs(sums) == 1).all():
        return _binomial_p(int((sums > 0).sum()), len(sums))
    observed = abs(sums.sum()) - 1e-9
    if len(sums) <= EXACT_UNITS:
        patterns = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float((np.abs((1 - 2 * patterns) @ sums) >= observed).mean())
    generator, extreme, done = np.random.default_rng(seed), 0, 0
    step = max(1, CHUNK // len(sums))
    while done < flips:
        rows = min(step, flips - done)
        signs = 1 - 2 * generator.integers(2, size=(rows, len(sums)), dtype=np.int8)
        extreme += int((np.abs(signs @ sums) >= observed).sum())
        done += rows
    return (1 + extreme) / (1 + flips)


def mcnemar_exact(first_right: Floats, second_right: Floats) -> float:
    """McNemar's exact p: of the images that one model alone gets right, a fair coin decides.

    For independent images only.
    """
    differences = _differences(first_right, second_right)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return _binomial_p(wins, wins + losses)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: the chance of any false alarm.

    adjusted_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), p sorted rising.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return [float(p) for p in adjusted]


def pareto_front(seconds: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """Indices of those that nobody beats in one without losing in the other, fastest first.

    Of several alike in both the first stands for all.
    """
    order = sorted(range(len(seconds)), key=lambda i: (seconds[i], -accuracies[i], i))
    front: list[int] = []
    for i in order:
        if not front or accuracies[i] > accuracies[front[-1]]:
            front.append(i)
    return front


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """One way to classify, tried on the same training images as the others.

    Attributes:
        name: what users call it.
        right: (N,) one where its out-of-fold answer is right, else zero; or the mean of that
            over the repetitions of the cross-validation.
        seconds: what it costs, in the sense in which it is to be fast.
    """

    name: str
    right: Floats
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.right.mean())


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The choice, from training data alone.

    Attributes:
        chosen: index of the recommended candidate.
        best: index of the most accurate one.
        within_noise: indices whose difference to the best may be chance, the best included.
        differences: each candidate's accuracy minus the best's, with its interval.
        p_values: sign-flip tests against the best, Holm's adjustment over them; the best's is 1.
        reason: one sentence.
    """

    chosen: int
    best: int
    within_noise: tuple[int, ...]
    differences: tuple[Estimate, ...]
    p_values: tuple[float, ...]
    reason: str


def recommend(
    candidates: Sequence[Candidate], *, groups: Groups | None = None, seed: int
) -> Recommendation:
    """The fastest within noise of the most accurate.

    Within noise is a candidate whose paired bootstrap interval of (its accuracy - the best's)
    includes 0, or whose sign-flip test has p > 0.05: where few images or groups differ, the
    interval is too short.  Of several equally fast the more accurate one is
    taken, then the first.  Neither is adjusted for having picked the best of many: within noise
    means 'not told apart', not 'equal', and few images make many candidates alike.

    Args:
        candidates: at least one, on the same N images.
        groups: (N,) or None.
        seed: of resampling and signs.
    """
    if not candidates:
        raise ValueError("`candidates` must hold at least one.")
    best = max(range(len(candidates)), key=lambda i: (candidates[i].accuracy, -i))
    top = candidates[best].right
    differences = [paired_bootstrap(c.right, top, groups=groups, seed=seed) for c in candidates]
    raw = [sign_flip_test(c.right, top, groups=groups, seed=seed) for c in candidates]
    noise = [
        i for i, found in enumerate(differences) if raw[i] > 1 - LEVEL or _includes_zero(found)
    ]
    chosen = min(noise, key=lambda i: (candidates[i].seconds, -candidates[i].accuracy, i))
    others = [i for i in range(len(candidates)) if i != best]
    p_values = dict(zip(others, holm([raw[i] for i in others]), strict=True))
    return Recommendation(
        chosen=chosen,
        best=best,
        within_noise=tuple(noise),
        differences=tuple(differences),
        p_values=tuple(p_values.get(i, 1.0) for i in range(len(candidates))),
        reason=_reason(candidates, chosen, best, differences[chosen], len(noise)),
    )


def _reason(
    candidates: Sequence[Candidate], chosen: int, best: int, difference: Estimate, num_noise: int
) -> str:
    """Why this one, in one sentence."""
    one, top = candidates[chosen], candidates[best]
    if len(candidates) == 1:
        return f"'{one.name}' is the only candidate."
    if chosen == best:
        if num_noise == 1:
            return f"'{one.name}' is the most accurate, and no other is within noise of it."
        return (
            f"'{one.name}' is the most accurate, and the fastest of the {num_noise} within noise "
            "of that."
        )
    faster = top.seconds / one.seconds if one.seconds > 0 else float("inf")
    assert difference.value is not None
    told = f"{100 * difference.value:+.1f} points"
    if difference.interval is not None:
        ends = difference.interval
        told += f" [{100 * ends.low:+.1f}, {100 * ends.high:+.1f}]"
    return (
        f"'{one.name}' is within noise of the most accurate, '{top.name}' ({told}), and "
        f"{faster:.1f} times faster."
    )


def _includes_zero(found: Estimate) -> bool:
    """Whether a difference may be none."""
    return found.interval is not None and found.interval.low <= 0 <= found.interval.high


def _differences(first: Floats, second: Floats) -> Floats:
    """(N,) first - second; ValueError where they are not of the same images."""
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(
            "Paired values must be (N,) of the same images with N > 0, got "
            f"{first.shape} and {second.shape}."
        )
    return np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)


def _binomial_p(wins: int, trials: int) -> float:
    """Two-sided p of a fair coin; 1 without a trial."""
    return min(1.0, float(2 * bdtr(min(wins, trials - wins), trials, 0.5))) if trials else 1.0
