"""LogME: how well a linear head could explain the labels, without fitting one.

You, Liu, Wang and Long, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning"
(ICML 2021).  For a class with targets y in {0, 1} and features F (N, D), without intercept:

    w ~ N(0, 1 / alpha),   y | w ~ N(F w, 1 / beta)

    log p(y | F) = N/2 log beta + D/2 log alpha - N/2 log 2 pi
                   - beta/2 ||F m - y||^2 - alpha/2 ||m||^2 - 1/2 log det A
    with A = alpha I + beta F'F and m = beta A^-1 F'y

LogME is the mean over the classes of the largest such evidence over alpha and beta, divided by N.
It ranks networks on the same images; its size means nothing by itself.

The largest one.  The paper goes back and forth between two fixed-point equations.  With
F = U S V', s = S^2, z = U'y and t = alpha / beta the residual and the prior add up to

    Q(t) = ||F m - y||^2 + t ||m||^2 = ||y||^2 - sum z^2 + sum t z^2 / (t + s)

and beta = N / Q(t) is the best beta for this t, which leaves one number to look for:

    log p = -N/2 log(2 pi Q(t) / N) - N/2 + 1/2 sum log(t / (t + s))

A grid over log t that all classes share (one matrix product), then golden section around each
class's best point.  Unlike the fixed point this cannot end in the lesser of two maxima that are
a grid step or more apart, and a class without any signal (t towards infinity) needs no more steps.

Cost: one singular value decomposition of (N, D) in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.records import Floats, Integers

SMALLEST_RATIO, LARGEST_RATIO = 1e-12, 1e6  # of t to the largest s; nothing changes beyond
GRID_POINTS = 200
GOLDEN = (5**0.5 - 1) / 2
GOLDEN_STEPS = 40  # the bracket of two grid steps shrinks below 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """What of features and targets the evidence hangs on, for R = min(N, D) directions.

    Attributes:
        num_rows: N.
        strengths: (R,) squared singular values s.
        parts: (C, R) squared projections z^2 of the targets.
        rests: (C,) squared length of each target outside of the features' span.
    """

    num_rows: int
    strengths: Floats
    parts: Floats
    rests: Floats

    def log_evidence(self, ratios: Floats) -> Floats:
        """(C,) log evidence with t = `ratios` (C,) and the best beta for it."""
        shares = ratios[:, None] / (ratios[:, None] + self.strengths)
        return self._of(self.rests + (self.parts * shares).sum(1), np.log(shares).sum(1))

    def on_grid(self, ratios: Floats) -> Floats:
        """(C, G) log evidence of every class at the same t (G,)."""
        shares = ratios / (ratios + self.strengths[:, None])  # (R, G)
        return self._of(self.rests[:, None] + self.parts @ shares, np.log(shares).sum(0))

    def _of(self, misfit: Floats, log_shares: Floats) -> Floats:
        count = self.num_rows
        found: Floats = -count / 2 * np.log(2 * np.pi * misfit / count) - count / 2 + log_shares / 2
        return found


def logme(features: Floats, labels: Integers, num_classes: int) -> float:
    """Mean over the classes of the largest log evidence, an image; more is better.

    Args:
        features: (N, D), finite.
        labels: (N,) int64; classes without images are passed over.
        num_classes: C.
    """
    present = np.unique(labels)
    targets = np.eye(num_classes)[labels][:, present]
    return float(largest_log_evidence(features, targets).mean() / len(labels))


def largest_log_evidence(features: Floats, targets: Floats) -> Floats:
    """(C,) log p(y | F) of each target at its best alpha and beta.

    Args:
        features: (N, D), finite.
        targets: (N, C), none of them all zero.

    Raises:
        ValueError: shapes that do not belong together, or a target that is all zero.
    """
    if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets) or not len(targets):
        raise ValueError(
            f"`features` and `targets` must be (N, D) and (N, C) with N > 0, got {features.shape} "
            f"and {targets.shape}."
        )
    if not targets.any(axis=0).all():
        raise ValueError("`targets` must have an entry other than zero in every column.")
    spectrum = decompose(features, targets)
    scale = float(spectrum.strengths.max(initial=0.0)) or 1.0
    grid = np.log(np.geomspace(SMALLEST_RATIO * scale, LARGEST_RATIO * scale, GRID_POINTS))
    best = spectrum.on_grid(np.exp(grid)).argmax(1)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, GRID_POINTS - 1)]
    for _ in range(GOLDEN_STEPS):
        width = GOLDEN * (high - low)
        left, right = high - width, low + width
        lower = spectrum.log_evidence(np.exp(left)) > spectrum.log_evidence(np.exp(right))
        low, high = np.where(lower, low, left), np.where(lower, right, high)
    return spectrum.log_evidence(np.exp((low + high) / 2))


def decompose(features: Floats, targets: Floats) -> Spectrum:
    """Features (N, D) and targets (N, C) in the features' own directions."""
    wide = np.asarray(features, dtype=np.float64)
    aims = np.asarray(targets, dtype=np.float64)
    left, values, _ = np.linalg.svd(wide, full_matrices=False)
    parts = (aims.T @ left) ** 2
    lengths = (aims**2).sum(0)
    # Rounding could leave less than nothing outside of the span, or exactly nothing, which has
    # no logarithm where the misfit inside of it vanishes too.
    rests = np.maximum(lengths - parts.sum(1), np.finfo(np.float64).eps * lengths)
    return Spectrum(num_rows=len(wide), strengths=values**2, parts=parts, rests=rests)
