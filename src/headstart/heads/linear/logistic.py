"""Multinomial logistic regression, K problems on one feature matrix fitted as one.

Cross-validation of a penalty is folds x penalties fits of the same rows with other weights.
Fitted one by one they read the features K times with matrices too thin to keep a processor
busy.  Here the coefficients of all K problems lie side by side, so the logits of all of them
are one matrix product (rows, D) x (D, C K), and the gradient is one product back.

Objective of problem k, on the features as they are given:

    sum_i w_ki CE(softmax(W_k x_i + b_k), y_i) / sum_i w_ki  +  penalty_k / 2 ||W_k||^2

with the intercept b not penalised.  With unit weights scikit-learn's C is 1 / (penalty n).

Coordinates.  The fit runs on z = V'(x - mean) / s, one shift, scale and rotation for all K:
mean, s (root mean square per feature) and the orthogonal V from the eigenvectors of the Gram
matrix G, all over the rows weighted by their average weight.  This is an exact
reparametrisation: the shift goes into b, the scale into the penalty (penalty / s^2), and a
rotation leaves ||W|| as it is.  So what a row of weight zero does to V cannot reach the
optimum of a problem, only the way to it.  If D > N, V has N columns that span the centred
rows: there the optimum lies, since its gradient says W = -1/penalty sum_i w_i r_i (x_i - mean).

Why rotate.  Boehning (1992) bounds the Hessian by 1/2 (I - 11'/C) (x) G + penalty I.  In
these coordinates G is diagonal, hence so is the bound, and its inverse costs nothing.  We use
its shape, with the variances of the problem's own rows, and p (1 - p) at the start, where p
is the class share; `minimise` learns the one factor that is left.  The eigenvalues of a
network's features span orders of magnitude, and this brings hundreds of rounds down to tens.

Warm starts.  Near the optimum the diagonal of the Hessian itself is known for the price of one and
a half rounds, p (1 - p) of every row: of five heads on 60,000 x 1,280 the slower four ended after
86 to 128 rounds instead of 101 to 300, all in 19 s instead of 38.

Start.  W = 0 and b = log share of the class.  A class that has no weight has its optimum at
b = -infinity; it starts at a share of a tenth of the tolerance, where its gradient is below
the tolerance, and stays about there: a low probability, and no run-away.

Cost.  4 N D C K operations a round, fewer where problems share weights that are zero on many rows
(`logistic_loss`).  Logits and residuals of a chunk of rows take twice `LOGIT_BYTES`, the memories
of L-BFGS at most `STATE_BYTES`: beyond that (many classes on wide features) the K problems are
fitted in several batches.  On one core of an AMD EPYC, float32,
50 problems, D = 384: 0.2 s for N = 1,400, C = 5; 8 s for N = 60,000, C = 10 (5 to 25 rounds).

Rejected by measurement: logits laid out (rows, K, C), see `LogisticLoss`; twenty or forty pairs of
memory instead of ten (fewer rounds, 208 and 173 against 273 for the slowest of five on 60,000 rows,
but 31 and 35 s against 27; at a tolerance of 1e-10 it would be otherwise); one shift for all K in
place of each problem's own (a fold beside far-off scored rows did not converge).
Rejected by reasoning: warm starts along the penalties (fewer rounds, but they end the batch);
the sum over labels taken out of the gradient as a constant (one pass less, but in float32 a
difference of large numbers); steps by Boehning's bound alone (monotone,
but linear, with a factor near one where classes separate).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headstart.heads.linear.logistic_loss import LogisticLoss, OwnNorm, WeightedRows
from headstart.heads.linear.minimise import MEMORY, Minima, minimise
from headstart.heads.linear.rotation import (
    Basis,
    RotatedFeatures,
    check_features,
    rotate_weighted,
    slices,
    widened,
)

STATE_BYTES = 2**30
CLOSE = 1e-3  # tolerance at and below which the objective, too, must be near its minimum
# So near, as a share of the objective: where a weak penalty lets the training rows be learnt by
# heart the objective is small, and so must be what is left of it; on many rows that cannot be it is
# not, and 1e-6 nats would be hundreds of rounds below what any test part can show.
DECREASE = 3e-4
MAX_ITERATIONS = 500

Start = tuple[Tensor, Tensor]  # coefficients (K, C, D) and intercepts (K, C)


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedWeights:
    """Weights that several problems have in common, as all penalties of a fold do.

    Attributes:
        rows: (G, N) >= 0.
        of: (K,) int64, which of the G each problem has.
    """

    rows: Tensor
    of: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class LogisticFit:
    """K fitted heads.

    Attributes:
        coef: (K, C, D) on the features as given.
        intercept: (K, C), sums to zero over the classes.
        gradient_norm: (K,) largest absolute entry of the gradient at the end, for features
            centred and divided by one scalar to unit mean square over the problem's rows.
        iterations: (K,) int64 passes over the data until the problem left the batch.
        converged: (K,) bool, gradient and objective reached the tolerance.
    """

    coef: Tensor
    intercept: Tensor
    gradient_norm: Tensor
    iterations: Tensor
    converged: Tensor


def fit_logistic(
    features: Tensor | RotatedFeatures,
    labels: Tensor,
    weights: Tensor | SharedWeights,
    penalties: Tensor,
    num_classes: int,
    *,
    tolerance: float = 1e-4,
    max_iterations: int = MAX_ITERATIONS,
    start: Start | None = None,
) -> LogisticFit:
    """Fit K L2-regularised multinomial logistic regressions at once.

    Args:
        features: (N, D), one row an image, float32 or float64, and the fit runs in this
            precision; float16 is fitted in float32. From `rotate_features` where fits share them.
        labels: (N,) int64, 0 to C - 1.
        weights: (K, N) >= 0, zero where the row is not in the problem; or fewer than K rows and
            which one is whose.
        penalties: (K,) > 0, factor of half the squared length of the coefficients.
        num_classes: C, at least 2.
        tolerance: see `LogisticFit.gradient_norm`. At 1e-3 and below the objective must also be
            within 3e-4 of itself of its minimum, as far as direction and steps tell: with a weak
            penalty a small gradient alone can be far from it.
        max_iterations: passes over the data at most.
        start: coefficients (K, C, D) and intercepts (K, C) to begin at, for instance those of
            a smaller sample; None begins at zero. The optimum is the same.

    Returns:
        The K fits; a problem that ran out of iterations says so in `converged`.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, a label or weight
            out of range, a problem without any weight, a penalty that is not positive.
    """
    weights = as_shared(weights)
    raw = features.raw if isinstance(features, RotatedFeatures) else features
    _check(raw, labels, weights, penalties, num_classes)
    given = weights.rows.to(widened(raw[:0]).dtype)
    if isinstance(features, Tensor):
        check_features(features)
        used = (given > 0).any(0)
        if not bool(used.all()):
            features, labels, given = features[used], labels[used], given[:, used]
    shares = given / given.sum(1, keepdim=True, dtype=torch.float64).to(given.dtype)
    if isinstance(features, Tensor):
        features = rotate_weighted(features, shares.mean(0))
    basis, inputs = features.basis, features.inputs
    data = WeightedRows(inputs, labels, shares, num_classes)
    penalties = penalties.to(given.dtype) / basis.scale**2
    row_bytes = (2 * MEMORY + 8) * num_classes * inputs.shape[1] * inputs.element_size()
    parts = []
    for batch in slices(len(penalties), STATE_BYTES // row_bytes):
        loss = LogisticLoss(data, weights.of[batch], penalties[batch])
        near = None if start is None else _in_basis(start, loss, basis, batch)
        parts.append(_minimise_loss(loss, basis, tolerance, max_iterations, near))
    coef = torch.cat([part.position for part in parts]).view(len(penalties), num_classes, -1)
    coef, intercept = coef[..., :-1] @ basis.rotation.T / basis.scale, coef[..., -1]
    intercept = intercept - coef @ basis.mean
    return LogisticFit(
        coef=coef,
        intercept=intercept - intercept.mean(1, keepdim=True),
        gradient_norm=torch.cat([part.norm for part in parts]),
        iterations=torch.cat([part.rounds for part in parts]),
        converged=torch.cat([part.converged for part in parts]),
    )


def as_shared(weights: Tensor | SharedWeights) -> SharedWeights:
    """Weights (K, N) as those that no two problems share."""
    if isinstance(weights, SharedWeights):
        return weights
    return SharedWeights(rows=weights, of=torch.arange(len(weights), device=weights.device))


def _in_basis(start: Start, loss: LogisticLoss, basis: Basis, batch: slice) -> Tensor:
    """(A, P) the coefficients of some problems as points for their centred inputs."""
    coef, intercept = (part[batch].to(loss.means.dtype) for part in start)
    turned = coef @ basis.rotation * basis.scale
    shift = coef @ basis.mean + (turned @ loss.means[..., None])[..., 0]
    return torch.cat([turned, (intercept + shift)[..., None]], dim=2).flatten(1)


def _minimise_loss(
    loss: LogisticLoss, basis: Basis, tolerance: float, max_iterations: int, near: Tensor | None
) -> Minima:
    """Minima of the problems of one batch, in the coordinates of the basis."""
    start, curvature, ridge = loss.first_guess(0.1 * tolerance)
    if near is not None:  # the curvature there is worth what it costs
        start, curvature = near, loss.curvature_at(near, curvature)
    minima = minimise(
        loss.evaluate,
        start,
        curvature=curvature,
        ridge=ridge,
        measure=OwnNorm(loss, basis),
        tolerance=tolerance,
        decrease=DECREASE if tolerance <= CLOSE else math.inf,
        max_iterations=max_iterations,
    )
    return replace(minima, position=loss.shift(minima.position, loss.means).flatten(1))


def predict_logits(features: Tensor, coef: Tensor, intercept: Tensor) -> Tensor:
    """Logits of one head or of K heads.

    Args:
        features: (N, D).
        coef: (C, D), or (K, C, D) for K heads.
        intercept: (C,), or (K, C).

    Returns:
        (N, C), or (K, N, C); softmax over the last axis gives probabilities.
    """
    if coef.ndim == 2:
        return torch.addmm(intercept, features, coef.T)
    stacked = torch.addmm(intercept.flatten(), features, coef.flatten(0, 1).T)
    return stacked.view(len(features), *coef.shape[:2]).transpose(0, 1)


def _check(
    features: Tensor, labels: Tensor, weights: SharedWeights, penalties: Tensor, num_classes: int
) -> None:
    """Raise ValueError for input that has no fit."""
    rows, given, of = len(features), weights.rows, weights.of
    if labels.shape != (rows,) or given.ndim != 2 or given.shape[1] != rows:
        raise ValueError(
            f"`labels` must be ({rows},) and `weights` (K, {rows}) like the features, "
            f"got {tuple(labels.shape)} and {tuple(given.shape)}."
        )
    if of.ndim != 1 or (len(of) and not 0 <= int(of.min()) <= int(of.max()) < len(given)):
        raise ValueError(
            f"`of` must name one of {len(given)} rows of weights for each problem, "
            f"got {of.tolist()}."
        )
    if penalties.shape != of.shape or not bool((penalties > 0).all()):
        raise ValueError(
            f"`penalties` must be {len(of)} positive numbers, one for each problem, "
            f"got {penalties.tolist()}."
        )
    if num_classes < 2 or (rows and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes):
        raise ValueError(f"`labels` must be 0 to C - 1 with C >= 2, got C = {num_classes}.")
    if not bool((torch.isfinite(given) & (given >= 0)).all()):
        raise ValueError("`weights` must be finite and not negative.")
    empty = (given.sum(1) == 0).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(f"`weights` must give every problem a row, got none in problems {empty}.")
