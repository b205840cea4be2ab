"""The penalty of a head, chosen inside the training data of every fold.

Scale.  A penalty means something only for features of known size.  Here problem k sees
(x - mean_k) / s_k with the mean of its own training rows and one scalar, the root mean square
of its own centred training rows over all features.  Nothing of this is computed on the
features: the shift only moves the unpenalised intercept, and with one scalar a problem
penalty ||s W||^2 = (penalty s^2) ||W||^2, so `fit_logistic` on the raw features with
penalty_k s_k^2 is the same problem, and its coefficients are already those for raw features.
One scalar and not one a feature, because the ratios between the features of a network carry
information, and a feature that is zero on nearly all rows would be blown up to unit size.

Choice, per fold.  The training part is held out in J parts, one by one: a share of it (J = 1), or
J inner folds.  All folds x inner parts x penalties are fitted at once on the training part less
the held-out one, roughly, and scored on it by log loss, of which the mean over the inner parts
counts.  Each fold's best penalty and its two neighbours are its contenders: they go on together to
a closer fit and are scored again.  The winner of each fold is fitted on the whole training part,
all folds at once, beginning at the mean of its inner fits.  The penalty multiplies a mean loss, so
it carries over from the smaller part to the larger.  The scored rows have no weight anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.heads.inner import InnerRows
from headstart.heads.linear.logistic import (
    MAX_ITERATIONS,
    LogisticFit,
    SharedWeights,
    Start,
    as_shared,
    fit_logistic,
    predict_logits,
)
from headstart.heads.linear.rotation import RotatedFeatures, rotate_features, slices, widened

WEAKEST, STRONGEST = 1e-5, 1.0
# Tolerances (see `fit_logistic`): of the first look at all candidates, of the closer look at the
# best and their neighbours, of the heads that answer. Only these end near the optimum: the weakest
# penalties lose on all but the largest data and take most rounds (docs/experiments.md).
LOOK_TOLERANCE = 1e-2
SEARCH_TOLERANCE = 2e-3
FIT_TOLERANCE = 1e-3
ROWS = 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class ChosenFit:
    """Heads of all folds, each with the penalty that its inner rows chose.

    Attributes:
        coef: (F, C, D) on raw features.
        intercept: (F, C).
        penalty: (F,) the chosen ones.
        penalties: (P,) the candidates.
        inner_log_loss: (F, P) mean natural log loss of held-out rows, mean over inner parts.
        inner_accuracy: (F, P) their accuracy.
        final_penalty: the contender with the lowest mean inner log loss over the folds.
        iterations: (F,) passes over the data of the second fit.
        converged: (F,) bool of the second fit.
        contender: (F, P) bool, the candidates that were fitted closely.
        inner_iterations: (F, J, P) passes over the data of the inner fits, both looks together.
        inner_converged: (F, J, P) bool, at the tolerance of their last look.
    """

    coef: Tensor
    intercept: Tensor
    penalty: Tensor
    penalties: Tensor
    inner_log_loss: Tensor
    inner_accuracy: Tensor
    final_penalty: float
    iterations: Tensor
    converged: Tensor
    contender: Tensor
    inner_iterations: Tensor
    inner_converged: Tensor


def penalty_path(num: int = 10) -> Tensor:
    """(num,) float64 candidates from `WEAKEST` to `STRONGEST`, evenly spaced in the logarithm."""
    if num < 1:
        raise ValueError(f"`num` must be at least 1, got {num}.")
    if num == 1:
        return torch.tensor([(WEAKEST * STRONGEST) ** 0.5], dtype=torch.float64)
    low, high = (torch.tensor(end, dtype=torch.float64).log10() for end in (WEAKEST, STRONGEST))
    return torch.logspace(float(low), float(high), num, dtype=torch.float64)


def fit_scaled_logistic(
    features: Tensor | RotatedFeatures,
    labels: Tensor,
    weights: Tensor | SharedWeights,
    penalties: Tensor,
    num_classes: int,
    *,
    tolerance: float = FIT_TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
    start: Start | None = None,
) -> LogisticFit:
    """`fit_logistic` with penalties that mean the same whatever the size of the features.

    Args:
        features: (N, D), raw, or from `rotate_features`.
        labels: (N,) int64.
        weights: as in `fit_logistic`; mean and scale of a problem are those of its weighted rows.
        penalties: (K,) > 0, for features of mean square one.
        num_classes: C.
        tolerance: as in `fit_logistic`.
        max_iterations: as in `fit_logistic`.
        start: as in `fit_logistic`.

    Returns:
        Coefficients for the raw features.
    """
    raw = features.raw if isinstance(features, RotatedFeatures) else features
    weights = as_shared(weights)
    squares = mean_squares(raw, weights.rows)[weights.of]
    scaled = penalties.to(raw.device).double() * squares
    return fit_logistic(
        features,
        labels,
        weights,
        scaled,
        num_classes,
        tolerance=tolerance,
        max_iterations=max_iterations,
        start=start,
    )


def mean_squares(features: Tensor, weights: Tensor) -> Tensor:
    """(K,) float64 mean square of the entries of each problem's centred rows; 1 where it is 0.

    Args:
        features: (N, D).
        weights: (K, N), which rows are whose.
    """
    weights = weights.to(widened(features[:0]).dtype)
    total = weights.sum(1, dtype=torch.float64)
    # Near every mean: the differences below then keep their digits.
    origin = widened(features[:ROWS]).mean(0)
    sums = torch.zeros(len(weights), features.shape[1], dtype=torch.float64, device=origin.device)
    squares = torch.zeros_like(total)
    for rows in slices(len(features), ROWS):
        away, own = widened(features[rows]) - origin, weights[:, rows]
        sums += (own @ away).double()
        squares += own.double() @ away.square().sum(1).double()
    means = sums / total[:, None]
    squares = (squares / total - means.square().sum(1)) / features.shape[1]
    return torch.where(squares > 0, squares, 1.0)


def fit_with_chosen_penalty(
    features: Tensor | RotatedFeatures,
    labels: Tensor,
    train_weights: Tensor,
    inner_held_out: Tensor | InnerRows,
    penalties: Tensor,
    num_classes: int,
    *,
    tolerance: float = FIT_TOLERANCE,
    tolerances: tuple[float, float] = (LOOK_TOLERANCE, SEARCH_TOLERANCE),
) -> ChosenFit:
    """Choose each fold's penalty on its inner rows and fit the fold with it.

    Args:
        features: (N, D) raw, float16, float32 or float64, or from `rotate_features`.
        labels: (N,) int64.
        train_weights: (F, N) >= 0, zero on the rows that the fold is scored on.
        inner_held_out: (F, N) bool, rows of the fold's training part that choose; or (F, J, N)
            for J parts that choose together, each held out from fits of its own; `InnerRows`
            where rows are views of images.
        penalties: (P,) candidates, see `penalty_path`.
        num_classes: C.
        tolerance: as in `fit_logistic`, of the folds' heads.
        tolerances: the same, of the first and the closer look, which only rank penalties.

    Raises:
        ValueError: a fold without inner rows, or with one outside its training part.
    """
    if isinstance(features, Tensor):
        features = rotate_features(features)
    found = search_penalties(
        features,
        labels,
        train_weights,
        inner_held_out,
        penalties,
        num_classes,
        tolerances=(max(tolerances[0], tolerance), max(tolerances[1], tolerance)),
    )
    winners = found.winners
    fit = fit_scaled_logistic(
        features,
        labels,
        train_weights,
        found.penalties[winners],
        num_classes,
        tolerance=tolerance,
        start=found.heads_of(winners),  # of the same fold: nothing scored is in it
    )
    return ChosenFit(
        coef=fit.coef,
        intercept=fit.intercept,
        penalty=found.penalties[winners],
        penalties=found.penalties,
        inner_log_loss=found.log_loss,
        inner_accuracy=found.accuracy,
        final_penalty=float(found.penalties[found.mean_log_loss.argmin()]),
        iterations=fit.iterations,
        converged=fit.converged,
        contender=found.contender,
        inner_iterations=found.iterations,
        inner_converged=found.converged,
    )


def _check_inner(train_weights: Tensor, held_out: Tensor) -> None:
    """Raise ValueError where inner rows (F, J, N) are none, or none of the fold's own."""
    num_folds, rows = train_weights.shape
    if held_out.shape != (num_folds, held_out.shape[1], rows) or held_out.dtype != torch.bool:
        raise ValueError(
            f"`inner_held_out` must be bool {(num_folds, rows)} like `train_weights`, or "
            f"{(num_folds, 'J', rows)}, got {held_out.dtype} {tuple(held_out.shape)}."
        )
    outside = held_out & (train_weights == 0)[:, None]
    if bool(outside.any()):
        raise ValueError("`inner_held_out` must lie inside the training part of its fold.")
    empty = (~held_out.any(2)).any(1).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(
            f"`inner_held_out` must hold out a row in every fold, got none in {empty}."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PenaltySearch:
    """What the inner fits of F folds x J parts x P penalties found."""

    penalties: Tensor  # (P,)
    log_loss: Tensor  # (F, P), mean over the parts
    accuracy: Tensor  # (F, P)
    contender: Tensor  # (F, P) bool
    look: LogisticFit  # of everything, roughly; by fold, then part, then penalty
    closer: LogisticFit  # of the contenders, by fold, then part, then penalty
    iterations: Tensor  # (F, J, P)
    converged: Tensor  # (F, J, P)

    @property
    def winners(self) -> Tensor:
        """(F,) the best contender of each fold."""
        return self.log_loss.masked_fill(~self.contender, torch.inf).argmin(1)

    @property
    def mean_log_loss(self) -> Tensor:
        """(P,) mean over the folds, infinite where no fold has a contender."""
        return self.log_loss.mean(0).masked_fill(~self.contender.any(0), torch.inf)

    def heads_of(self, winners: Tensor) -> Start:
        """Coefficients and intercepts of one contender (F,) a fold, means over its parts."""
        num_parts = self.converged.shape[1]
        fitted = self.contender[:, None].expand(-1, num_parts, -1)
        place = fitted.flatten().cumsum(0).view(fitted.shape) - 1
        at = place.gather(2, winners[:, None, None].expand(-1, num_parts, 1))[..., 0]
        return self.closer.coef[at].mean(1), self.closer.intercept[at].mean(1)


def search_penalties(
    features: RotatedFeatures,
    labels: Tensor,
    train_weights: Tensor,
    inner_held_out: Tensor | InnerRows,
    penalties: Tensor,
    num_classes: int,
    *,
    tolerances: tuple[float, float],
    start: Start | None = None,
) -> PenaltySearch:
    """A rough look at everything, then a closer one at each fold's contenders.

    Args:
        features: (N, D), rotated.
        labels: as in `fit_with_chosen_penalty`, and so the next four.
        train_weights: (F, N).
        inner_held_out: (F, N) or (F, J, N).
        penalties: (P,).
        num_classes: C.
        tolerances: of the two looks.
        start: where the first begins, as `PenaltySearch.look` lies; None at zero.

    Raises:
        ValueError: a fold without inner rows, or with one outside its training part.
    """
    inner = InnerRows.of(inner_held_out).in_parts()
    _check_inner(train_weights, inner.chooses)
    weights, chooses = train_weights[:, None] * ~inner.left_out, inner.chooses  # (F, J, N)
    penalties = penalties.to(features.raw.device)
    shape = (*chooses.shape[:2], len(penalties))
    rows, parts = weights.flatten(0, 1), chooses.flatten(0, 1)  # (F J, N)
    of = torch.arange(len(rows), device=penalties.device).repeat_interleave(len(penalties))
    candidates = penalties.repeat(len(rows))
    data = (features, labels)
    look = fit_scaled_logistic(
        *data,
        SharedWeights(rows=rows, of=of),
        candidates,
        num_classes,
        tolerance=tolerances[0],
        start=start,
    )
    log_loss, accuracy = _score_inner(features.raw, labels, look, parts, of)
    contender = _contenders(log_loss.view(shape).mean(1))
    close = contender[:, None].expand(shape).flatten()
    closer = fit_scaled_logistic(
        *data,
        SharedWeights(rows=rows, of=of[close]),
        candidates[close],
        num_classes,
        tolerance=tolerances[1],
        start=(look.coef[close], look.intercept[close]),
    )
    log_loss[close], accuracy[close] = _score_inner(features.raw, labels, closer, parts, of[close])
    iterations, converged = look.iterations, look.converged
    iterations[close] += closer.iterations
    converged[close] = closer.converged
    return PenaltySearch(
        penalties=penalties,
        log_loss=log_loss.view(shape).mean(1),
        accuracy=accuracy.view(shape).mean(1),
        contender=contender,
        look=look,
        closer=closer,
        iterations=iterations.view(shape),
        converged=converged.view(shape),
    )


def _contenders(log_loss: Tensor) -> Tensor:
    """(F, P) bool, each fold's best and its two neighbours; other folds have no say in it."""
    positions = torch.arange(log_loss.shape[1], device=log_loss.device)
    return (positions - log_loss.argmin(1, keepdim=True)).abs() <= 1


def _score_inner(
    features: Tensor, labels: Tensor, fit: LogisticFit, parts: Tensor, of: Tensor
) -> tuple[Tensor, Tensor]:
    """Log losses and accuracies (K,) of K heads, each on its own held-out part of (G, N)."""
    log_loss = torch.zeros(len(of), dtype=torch.float64, device=features.device)
    accuracy = torch.zeros_like(log_loss)
    for number, part in enumerate(parts):
        heads, rows = of == number, part.nonzero()[:, 0]
        log_loss[heads], accuracy[heads] = _score_heads(
            features, labels, rows, fit.coef[heads], fit.intercept[heads]
        )
    return log_loss, accuracy


def _score_heads(
    features: Tensor, labels: Tensor, rows: Tensor, coef: Tensor, intercept: Tensor
) -> tuple[Tensor, Tensor]:
    """(P,) mean log loss in float64 and (P,) accuracy of P heads on some rows."""
    log_loss = torch.zeros(len(coef), dtype=torch.float64, device=features.device)
    correct = torch.zeros_like(log_loss)
    for part in slices(len(rows), ROWS):
        chosen = rows[part]
        targets = labels[chosen]
        logits = predict_logits(widened(features[chosen]), coef, intercept)  # (P, rows, C)
        picked = targets.expand(len(coef), -1)[..., None]
        log_loss -= logits.log_softmax(-1).gather(-1, picked).double().sum((1, 2))
        correct += (logits.argmax(-1) == targets).sum(1)
    return log_loss / len(rows), correct / len(rows)
