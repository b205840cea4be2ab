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

Start.  W = 0 and b = log share of the class.  A class that has no weight has its optimum at
b = -infinity; it starts at a share of a tenth of the tolerance, where its gradient is below
the tolerance, and stays about there: a low probability, and no run-away.

Cost.  4 N D C K operations a round.  Logits and residuals of a chunk of rows take twice
`LOGIT_BYTES`, the memories of L-BFGS at most `STATE_BYTES`: beyond that (many classes on wide
features) the K problems are fitted in several batches.  On one core of an AMD EPYC, float32,
50 problems, D = 384: 0.2 s for N = 1,400, C = 5; 8 s for N = 60,000, C = 10 (5 to 25 rounds).

Rejected by measurement: logits laid out (rows, K, C), see `_Loss`; ten pairs of memory instead
of twenty (1,039 rounds against 226 on a separable problem at a tolerance of 1e-10); one shift
for all K in place of each problem's own (a fold beside far-off scored rows did not converge).
Rejected by reasoning: warm starts along the penalties (fewer rounds, but they end the batch);
the sum over labels taken out of the gradient as a constant (one pass less, but in float32 a
difference of large numbers); a gather of each fold's rows (saves the third of the product that
has weight zero, copies the features every round); steps by Boehning's bound alone (monotone,
but linear, with a factor near one where classes separate).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headstart.heads.minimise import MEMORY, Minima, minimise

LOGIT_BYTES = 32 * 2**20
STATE_BYTES = 2**30
GRAM_ROWS = 8192
MAX_ITERATIONS = 500

Start = tuple[Tensor, Tensor]  # coefficients (K, C, D) and intercepts (K, C)


@dataclass(frozen=True, kw_only=True, eq=False)
class Basis:
    """The coordinates z = rotation' (x - mean) / scale."""

    mean: Tensor  # (D,)
    scale: float
    rotation: Tensor  # (D, E), orthonormal columns, E = min(N, D)

    def apply(self, features: Tensor) -> Tensor:
        """(N, D) features to (N, E + 1) coordinates with a last column of ones."""
        made = features.new_ones(len(features), self.rotation.shape[1] + 1)
        for rows in slices(len(features), GRAM_ROWS):
            made[rows, :-1] = (features[rows] - self.mean) @ self.rotation / self.scale
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class RotatedFeatures:
    """Features and the coordinates in which they are fitted, for several fits of the same rows.

    Attributes:
        raw: (N, D) as given.
        basis: the coordinates.
        inputs: (N, E + 1) the features in them, with a last column of ones.
    """

    raw: Tensor
    basis: Basis
    inputs: Tensor


def rotate_features(features: Tensor) -> RotatedFeatures:
    """Find the coordinates once for several fits; finding them costs as much as several rounds.

    Args:
        features: (N, D) float32 or float64, finite.
    """
    return _rotate(features, features.new_full((len(features),), 1 / len(features)))


def _rotate(features: Tensor, shares: Tensor) -> RotatedFeatures:
    """The features in the basis of rows weighted by `shares` (N,)."""
    basis = _find_basis(features, shares)
    return RotatedFeatures(raw=features, basis=basis, inputs=basis.apply(features))


@dataclass(frozen=True, kw_only=True, eq=False)
class LogisticFit:
    """K fitted heads.

    Attributes:
        coef: (K, C, D) on the features as given.
        intercept: (K, C), sums to zero over the classes.
        gradient_norm: (K,) largest absolute entry of the gradient at the end, for features
            centred and divided by one scalar to unit mean square over the problem's rows.
        iterations: (K,) int64 passes over the data until the problem left the batch.
        converged: (K,) bool, `gradient_norm` reached the tolerance.
    """

    coef: Tensor
    intercept: Tensor
    gradient_norm: Tensor
    iterations: Tensor
    converged: Tensor


def fit_logistic(
    features: Tensor | RotatedFeatures,
    labels: Tensor,
    weights: Tensor,
    penalties: Tensor,
    num_classes: int,
    *,
    tolerance: float = 1e-4,
    max_iterations: int = MAX_ITERATIONS,
    start: Start | None = None,
) -> LogisticFit:
    """Fit K L2-regularised multinomial logistic regressions at once.

    Args:
        features: (N, D) float32 or float64, one row an image; the fit runs in this precision.
            From `rotate_features` where several fits share them.
        labels: (N,) int64, 0 to C - 1.
        weights: (K, N) >= 0; zero where the row is not in the problem.
        penalties: (K,) > 0, factor of half the squared length of the coefficients.
        num_classes: C, at least 2.
        tolerance: see `LogisticFit.gradient_norm`.
        max_iterations: passes over the data at most.
        start: coefficients (K, C, D) and intercepts (K, C) to begin at, for instance those of
            a smaller sample; None begins at zero. The optimum is the same.

    Returns:
        The K fits; a problem that ran out of iterations says so in `converged`.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, a label or weight
            out of range, a problem without any weight, a penalty that is not positive.
    """
    raw = features.raw if isinstance(features, RotatedFeatures) else features
    _check(raw, labels, weights, penalties, num_classes)
    weights = weights.to(raw.dtype)
    used = (weights > 0).any(0)
    if isinstance(features, Tensor) and not bool(used.all()):
        features, labels, weights = features[used], labels[used], weights[:, used]
    shares = weights / weights.sum(1, keepdim=True, dtype=torch.float64).to(weights.dtype)
    if isinstance(features, Tensor):
        features = _rotate(features, shares.mean(0))
    basis, inputs = features.basis, features.inputs
    penalties = penalties.to(raw.dtype) / basis.scale**2
    row_bytes = (2 * MEMORY + 8) * num_classes * inputs.shape[1] * inputs.element_size()
    parts = []
    for batch in slices(len(shares), STATE_BYTES // row_bytes):
        loss = _Loss(inputs, labels, shares[batch], penalties[batch], num_classes)
        near = None if start is None else _in_basis(start, loss, basis, batch)
        parts.append(_minimise_loss(loss, basis, tolerance, max_iterations, near))
    coef = torch.cat([part.position for part in parts]).view(len(shares), num_classes, -1)
    coef, intercept = coef[..., :-1] @ basis.rotation.T / basis.scale, coef[..., -1]
    intercept = intercept - coef @ basis.mean
    return LogisticFit(
        coef=coef,
        intercept=intercept - intercept.mean(1, keepdim=True),
        gradient_norm=torch.cat([part.norm for part in parts]),
        iterations=torch.cat([part.rounds for part in parts]),
        converged=torch.cat([part.converged for part in parts]),
    )


def _in_basis(start: Start, loss: _Loss, basis: Basis, batch: slice) -> Tensor:
    """(A, P) the coefficients of some problems as points for their centred inputs."""
    coef, intercept = (part[batch].to(loss.inputs.dtype) for part in start)
    turned = coef @ basis.rotation * basis.scale
    shift = coef @ basis.mean + (turned @ loss.means[..., None])[..., 0]
    return torch.cat([turned, (intercept + shift)[..., None]], dim=2).flatten(1)


def _minimise_loss(
    loss: _Loss, basis: Basis, tolerance: float, max_iterations: int, near: Tensor | None
) -> Minima:
    """Minima of the problems of one batch, in the coordinates of the basis."""
    start, curvature, ridge = _first_guess(loss, 0.1 * tolerance)
    start = start if near is None else near
    minima = minimise(
        loss.evaluate,
        start,
        curvature=curvature,
        ridge=ridge,
        measure=_OwnNorm(loss, basis),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    return replace(minima, position=loss.shift(minima.position, loss.means).flatten(1))


class _OwnNorm:
    """Norms of gradients as each problem would see them with its own rows alone.

    Its own features are (z - m) / r with its mean m and root mean square r, turned back to
    the axes of the features.  So rows of weight zero do not move the stopping rule.
    """

    def __init__(self, loss: _Loss, basis: Basis) -> None:
        """Find the root mean square of every problem."""
        self.rotation = basis.rotation.T
        roots = (loss.variances.sum(1) / len(basis.mean)).sqrt()
        self.roots = torch.where(roots > 0, roots, 1.0)

    def __call__(self, gradient: Tensor, index: Tensor) -> Tensor:
        """(A,) largest absolute entries of gradients (A, P)."""
        blocks = gradient.view(len(index), -1, len(self.rotation) + 1)
        coef, intercept = blocks[..., :-1], blocks[..., -1:]
        own = (coef / self.roots[index, None, None]) @ self.rotation
        return torch.maximum(own.abs().amax((1, 2)), intercept.abs().amax((1, 2)))


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


def slices(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` (at least one) that cover `count` rows."""
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, count, size))


def _check(
    features: Tensor, labels: Tensor, weights: Tensor, penalties: Tensor, num_classes: int
) -> None:
    """Raise ValueError for input that has no fit."""
    rows = len(features)
    if features.ndim != 2 or features.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"`features` must be (N, D) float32 or float64, got {tuple(features.shape)} "
            f"{features.dtype}. Convert them with .float()."
        )
    if labels.shape != (rows,) or weights.ndim != 2 or weights.shape[1] != rows:
        raise ValueError(
            f"`labels` must be ({rows},) and `weights` (K, {rows}) like the features, "
            f"got {tuple(labels.shape)} and {tuple(weights.shape)}."
        )
    if penalties.shape != (len(weights),) or not bool((penalties > 0).all()):
        raise ValueError(
            f"`penalties` must be {len(weights)} positive numbers, one for each row of "
            f"`weights`, got {penalties.tolist()}."
        )
    if num_classes < 2 or (rows and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes):
        raise ValueError(f"`labels` must be 0 to C - 1 with C >= 2, got C = {num_classes}.")
    if not bool(torch.isfinite(features).all()):
        bad = int((~torch.isfinite(features)).any(1).sum())
        raise ValueError(f"`features` must be finite, got {bad} rows with NaN or infinity.")
    if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        raise ValueError("`weights` must be finite and not negative.")
    empty = (weights.sum(1) == 0).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(f"`weights` must give every problem a row, got none in problems {empty}.")


def _find_basis(features: Tensor, shares: Tensor) -> Basis:
    """Mean, scale and eigenvectors of the Gram matrix of rows weighted by `shares` (N,)."""
    mean = (shares.double() @ features.double()).to(features.dtype)
    count, width = features.shape
    span = None
    if width > count:  # the few rows span all that matters
        span = torch.linalg.qr((features - mean).double().T).Q
    size = width if span is None else count
    gram = torch.zeros(size, size, dtype=torch.float64, device=features.device)
    for rows in slices(count, GRAM_ROWS):
        part = features[rows] - mean
        part = part if span is None else (part.double() @ span).to(part.dtype)
        gram += part.T @ (part * shares[rows, None])
    variances, rotation = torch.linalg.eigh(gram)
    rotation = rotation if span is None else span @ rotation
    scale = float((variances.clamp_min(0).sum() / width).sqrt()) or 1.0
    return Basis(
        mean=mean,
        scale=scale,
        rotation=rotation.to(features.dtype),
    )


class _Loss:
    """Value and gradient of the penalised losses, in the coordinates of a `Basis`.

    A point of problem k is (C, E + 1) flattened, the intercept last, for inputs centred by the
    problem's own mean: so intercept and coefficients do not pull at each other.  The inputs
    are shared and stay; the intercept takes up the mean.  Logits are laid out
    (rows, C, K): the softmax then runs along an inner axis of length K, which vectorises,
    where one along C = 10 does not (measured: 0.12 s against 0.38 s for 30 million).
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        shares: Tensor,
        penalties: Tensor,
        num_classes: int,
    ) -> None:
        """Take inputs (N, E + 1), labels (N,), shares (K, N) that sum to one, penalties (K,)."""
        self.inputs = inputs
        self.labels = labels
        self.shares = shares.T.contiguous()  # (N, K)
        self.penalties = penalties
        self.num_classes = num_classes
        self.chunk = LOGIT_BYTES // (num_classes * len(shares) * inputs.element_size())
        self.means = shares @ inputs[:, :-1]  # (K, E)
        self.variances = torch.zeros_like(self.means)
        for rows in slices(len(inputs), GRAM_ROWS):
            self.variances += shares[:, rows] @ inputs[rows, :-1].square()
        smallest = torch.finfo(inputs.dtype).eps * self.variances
        self.variances = torch.maximum(self.variances - self.means.square(), smallest)

    def shift(self, points: Tensor, means: Tensor) -> Tensor:
        """(A, P) points for centred inputs to (A, C, E + 1) points for inputs as they are."""
        blocks = points.view(len(means), self.num_classes, -1).clone()
        blocks[..., -1:] -= blocks[..., :-1] @ means[..., None]
        return blocks

    def evaluate(self, points: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Values (A,) in float64 and gradients (A, P) of the problems `index` at `points`."""
        count = len(index)
        blocks = self.shift(points, self.means[index])
        matrix = blocks.transpose(0, 1).reshape(self.num_classes * count, -1)  # (C A, E + 1)
        value = torch.zeros(count, dtype=torch.float64, device=points.device)
        total = torch.zeros_like(matrix)
        for rows in slices(len(self.inputs), self.chunk):
            shares = self.shares[rows]
            shares = shares if count == shares.shape[1] else shares[:, index]
            inputs = self.inputs[rows]
            loss, residual = self._residuals(inputs @ matrix.T, self.labels[rows], shares)
            value += loss
            total.addmm_(residual.T, inputs)
        gradient = total.view(self.num_classes, count, -1).transpose(0, 1).contiguous()
        gradient[..., :-1] -= gradient[..., -1:] * self.means[index, None]
        penalties = self.penalties[index]
        gradient[..., :-1] += penalties[:, None, None] * blocks[..., :-1]
        value += 0.5 * penalties * blocks[..., :-1].square().sum((1, 2))
        return value, gradient.flatten(1)

    def _residuals(self, logits: Tensor, labels: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted losses (A,) and weighted residuals p - onehot (rows, C A) of some rows."""
        rows = torch.arange(len(labels), device=labels.device)
        cube = logits.view(len(labels), self.num_classes, -1)
        cube = torch.log_softmax(cube, dim=1)
        loss = -(cube[rows, labels] * shares).sum(0, dtype=torch.float64)
        cube.exp_()
        cube[rows, labels] -= 1
        cube *= shares[:, None, :]
        return loss, cube.view(len(labels), -1)


def _first_guess(loss: _Loss, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Start, curvature and ridge, each (K, P): see the header."""
    onehot = torch.nn.functional.one_hot(loss.labels, loss.num_classes).to(loss.shares.dtype)
    share = (loss.shares.T @ onehot).clamp_min(floor)  # (K, C)
    start = share.new_zeros(*share.shape, loss.inputs.shape[1])
    start[..., -1] = share.log() - share.log().mean(1, keepdim=True)
    variances = torch.nn.functional.pad(loss.variances, (0, 1), value=1.0)
    curvature = (share * (1 - share).clamp_min(floor))[..., None] * variances[:, None]
    ridge = loss.penalties[:, None, None].expand_as(start).clone()
    ridge[..., -1] = 0
    return start.flatten(1), curvature.flatten(1), ridge.flatten(1)
