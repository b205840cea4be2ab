"""How far confidence is from the share of right answers.

Calibration error compares the confidence (the probability of the answer) with the share of right
answers in bins: ECE = sum_b n_b / N |confidence_b - accuracy_b|.  Even a perfectly calibrated
model has ECE above zero, since shares of few images scatter; `debiased_calibration_error` takes
that off.  With d_b the difference and s_b^2 = a_b (1 - a_b) / (n_b - 1) the variance of the share,
d_b^2 - s_b^2 is an unbiased square (Kumar, Liang and Ma 2019).  |d_b| scatters like a folded
normal, and 2 |d_b| - E|N(d_b, s_b^2)| stands for it (the correction of their software, its
expectation in closed form); of the ECE that is mere chance it takes off about two fifths only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import erf

from headstart.metrics import brier_scores, log_losses, predict
from headstart.records import Floats, Integers
from headstart.statistics import (
    LEVEL,
    RESAMPLES,
    Groups,
    Interval,
    bootstrap_sums,
    percentile_interval,
    wilson,
)

NUM_BINS = 15
MOST_DRAWS = 20_000_000  # of images in all resamples; beyond, resamples are fewer
FEWEST_RESAMPLES = 200

Scheme = Literal["width", "mass"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReliabilityBins:
    """Numbers of a reliability diagram; empty bins are left out.

    Attributes:
        low: (M,) smallest confidence that belongs to the bin.
        high: (M,) largest.
        counts: (M,) images.
        confidence: (M,) mean confidence.
        accuracy: (M,) share of right answers.
        accuracy_low: (M,) lower end of Wilson's interval of it.
        accuracy_high: (M,) upper end.
    """

    low: Floats
    high: Floats
    counts: Integers
    confidence: Floats
    accuracy: Floats
    accuracy_low: Floats
    accuracy_high: Floats


@dataclass(frozen=True, kw_only=True)
class CalibrationFigures:
    """How well probabilities are calibrated.

    Attributes:
        ece: 15 bins of equal width.
        ece_low: lower end of its interval, NaN where there is none.
        ece_high: upper end.
        ece_equal_mass: 15 bins of equally many images.
        ece_debiased: the same, without much of what chance alone would give.
        rms_debiased: root of the mean square over the same bins, without what chance gives.
        classwise_ece: mean over the classes of the error of their own probability.
        log_loss: mean log loss.
        brier: mean Brier score.
        confidence: mean probability of the answer.
        accuracy: share of right answers.
    """

    ece: float
    ece_low: float
    ece_high: float
    ece_equal_mass: float
    ece_debiased: float
    rms_debiased: float
    classwise_ece: float
    log_loss: float
    brier: float
    confidence: float
    accuracy: float


def calibration_figures(
    probabilities: Floats, labels: Integers, *, groups: Groups | None = None, seed: int
) -> CalibrationFigures:
    """Every figure of calibration of (N, C) probabilities; call it before and after."""
    confidence, right = _answers(probabilities, labels)
    ends = calibration_interval(confidence, right, groups=groups, seed=seed)
    return CalibrationFigures(
        ece=calibration_error(confidence, right),
        ece_low=np.nan if ends is None else ends.low,
        ece_high=np.nan if ends is None else ends.high,
        ece_equal_mass=calibration_error(confidence, right, scheme="mass"),
        ece_debiased=debiased_calibration_error(confidence, right),
        rms_debiased=debiased_calibration_error(confidence, right, power=2),
        classwise_ece=classwise_calibration_error(probabilities, labels),
        log_loss=float(log_losses(probabilities, labels).mean()),
        brier=float(brier_scores(probabilities, labels).mean()),
        confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
    )


def calibration_error(
    confidence: Floats, right: Floats, *, num_bins: int = NUM_BINS, scheme: Scheme = "width"
) -> float:
    """ECE (Naeini et al. 2015; Guo et al. 2017): sum_b n_b / N |confidence_b - accuracy_b|.

    Args:
        confidence: (N,) probabilities of what is claimed.
        right: (N,) one where the claim holds, else zero.
        num_bins: how many.
        scheme: 'width' for bins of equal width on [0, 1], 'mass' for equally many images.
    """
    counts, claimed, found = _bin_means(confidence, right, num_bins, scheme)
    return float((counts * np.abs(claimed - found)).sum() / counts.sum())


def debiased_calibration_error(
    confidence: Floats,
    right: Floats,
    *,
    num_bins: int = NUM_BINS,
    scheme: Scheme = "mass",
    power: Literal[1, 2] = 1,
) -> float:
    """ECE with the bias of chance reduced, not below zero (Kumar, Liang and Ma 2019).

    Args:
        confidence: (N,).
        right: (N,) ones and zeros.
        num_bins: how many.
        scheme: bins of equal 'mass', as the reference has them, or 'width'.
        power: 1 for the ECE, 2 for the root of the mean square.
    """
    counts, claimed, found = _bin_means(confidence, right, num_bins, scheme)
    gaps = claimed - found
    # A bin of one image has no variance to estimate; p (1 - p) <= 1 / 4 is the most it can be.
    spreads = np.where(counts > 1, found * (1 - found) / np.maximum(counts - 1, 1), 0.25)
    if power == 2:
        return float(np.sqrt(max(0.0, (counts * (gaps**2 - spreads)).sum() / counts.sum())))
    folded = 2 * np.abs(gaps) - _folded_normal_mean(gaps, np.sqrt(spreads))
    return float(max(0.0, (counts * folded).sum() / counts.sum()))


def classwise_calibration_error(
    probabilities: Floats, labels: Integers, *, num_bins: int = NUM_BINS
) -> float:
    """Mean over the classes of the ECE of the class's own probability (Kull et al. 2019)."""
    errors = [
        calibration_error(column.astype(np.float64), (labels == c).astype(float), num_bins=num_bins)
        for c, column in enumerate(probabilities.T)
    ]
    return float(np.mean(errors))


def calibration_interval(
    confidence: Floats,
    right: Floats,
    *,
    num_bins: int = NUM_BINS,
    groups: Groups | None = None,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Centred bootstrap interval of the ECE with bins of equal width; None without spread.

    Resampling adds scatter to the bins and so lifts the ECE; the draws are shifted back by what
    their mean is above the value.

    Args:
        confidence: (N,).
        right: (N,) ones and zeros.
        num_bins: how many.
        groups: (N,) or None; drawn whole where given.
        seed: of the resampling.
        level: coverage.
        resamples: how many at most; with very many images fewer, at least 200.
    """
    resamples = min(resamples, max(FEWEST_RESAMPLES, MOST_DRAWS // len(confidence)))
    bins = _bins(confidence, num_bins, "width")
    table = np.zeros((len(confidence), num_bins))
    table[np.arange(len(bins)), bins] = confidence - right
    table = np.column_stack([table[:, np.unique(bins)], np.ones(len(bins))])
    generator = np.random.default_rng(seed)
    sums = bootstrap_sums(table, groups=groups, generator=generator, resamples=resamples)
    draws = np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]
    value = calibration_error(confidence, right, num_bins=num_bins)
    draws = np.clip(draws + (value - draws.mean()), 0.0, 1.0)
    units = len(confidence) if groups is None else len(np.unique(groups))
    return percentile_interval(
        draws, value, level,
        units=units, method="centred bootstrap", grouped=groups is not None,
    )  # fmt: skip


def reliability_bins(
    confidence: Floats,
    right: Floats,
    *,
    num_bins: int = NUM_BINS,
    scheme: Scheme = "width",
    groups: Groups | None = None,
    level: float = LEVEL,
) -> ReliabilityBins:
    """Numbers of a reliability diagram (DeGroot and Fienberg 1983).

    Args:
        confidence: (N,) probabilities of what is claimed: of the answer, or of one class.
        right: (N,) one where the claim holds, else zero.
        num_bins: how many.
        scheme: 'width' or 'mass'.
        groups: (N,) or None; a bin's interval counts its groups instead of its images, which
            is on the wide side.
        level: coverage of each bin's interval.
    """
    bins = _bins(confidence, num_bins, scheme)
    counts, claimed, found = _bin_means(confidence, right, num_bins, scheme)
    full = np.unique(bins)
    sizes = counts if groups is None else _groups_by_bin(bins, full, groups)
    ends = [wilson(a * n, n, level) for a, n in zip(found, sizes, strict=True)]
    edges = np.arange(num_bins + 1) / num_bins
    if scheme == "mass":
        low = np.array([confidence[bins == b].min() for b in full])
        high = np.array([confidence[bins == b].max() for b in full])
    else:
        low, high = edges[full], edges[full + 1]
    return ReliabilityBins(
        low=low,
        high=high,
        counts=counts.astype(np.int64),
        confidence=claimed,
        accuracy=found,
        accuracy_low=np.array([end.low for end in ends]),
        accuracy_high=np.array([end.high for end in ends]),
    )


def _answers(probabilities: Floats, labels: Integers) -> tuple[Floats, Floats]:
    """(N,) probability of each answer, and one where it is right, else zero."""
    right = np.asarray(predict(probabilities) == labels, dtype=np.float64)
    return np.asarray(probabilities.max(axis=1), dtype=np.float64), right


def _bins(confidence: Floats, num_bins: int, scheme: Scheme) -> Integers:
    """(N,) bin of each image, 0 to num_bins - 1; bins of equal width are open below."""
    if scheme == "width":
        edges = np.arange(1, num_bins) / num_bins
        return np.asarray(np.searchsorted(edges, confidence, side="left"), dtype=np.int64)
    order = np.argsort(confidence, kind="stable")
    bins = np.empty(len(confidence), dtype=np.int64)
    bins[order] = np.arange(len(confidence)) * num_bins // len(confidence)
    # Equal confidences stay together, in the bin of the first of them.
    _, first, place = np.unique(confidence[order], return_index=True, return_inverse=True)
    bins[order] = bins[order][first][place]
    return bins


def _bin_means(
    confidence: Floats, right: Floats, num_bins: int, scheme: Scheme
) -> tuple[Floats, Floats, Floats]:
    """Count, mean confidence and share of right answers of every bin that holds an image."""
    bins = _bins(confidence, num_bins, scheme)
    counts = np.bincount(bins, minlength=num_bins).astype(np.float64)
    claimed = np.bincount(bins, confidence, minlength=num_bins)
    found = np.bincount(bins, right, minlength=num_bins)
    full = counts > 0
    return counts[full], claimed[full] / counts[full], found[full] / counts[full]


def _groups_by_bin(bins: Integers, full: Integers, groups: Groups) -> Floats:
    """How many groups each bin holds."""
    return np.array([len(np.unique(groups[bins == b])) for b in full], dtype=np.float64)


def _folded_normal_mean(mean: Floats, deviation: Floats) -> Floats:
    """E|X| of normal X: s sqrt(2 / pi) exp(-m^2 / 2 s^2) + m erf(m / (s sqrt 2))."""
    scaled = np.divide(mean, deviation, out=np.zeros_like(mean), where=deviation > 0)
    spread = deviation * np.sqrt(2 / np.pi) * np.exp(-(scaled**2) / 2)
    return np.where(deviation > 0, spread + mean * erf(scaled / np.sqrt(2)), np.abs(mean))
