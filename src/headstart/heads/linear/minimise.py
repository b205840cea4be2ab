"""Minimise K smooth convex functions at once: batched L-BFGS with a structured first guess.

One round is one call of `evaluate`, which returns value and gradient of every function that
is still active; so a round costs one pass over the data however many functions there are.
Each function is its own problem all the same: it has its own direction, step, memory of
pairs and stopping time, kept apart by masks, and it leaves the batch when it has converged.

Direction.  The two-loop recursion (Nocedal 1980) with the last `MEMORY` pairs s, y.  The
matrix it starts from is not a multiple of the identity but (a * curvature + ridge)^-1, where
`curvature` is the diagonal that the caller knows in shape but not in size (the data) and
`ridge` the part that it knows exactly (the penalty).  The one unknown follows from the last
pair, <s, y> = a <s, curvature s> + <s, ridge s>, and is kept within `SCALE_BOUNDS`.

Step.  One is tried first.  A step is taken if it meets Armijo's condition, or, near the
minimum where the decrease drowns in rounding, Hager and Zhang's approximate Wolfe condition
(2005), which asks the slope instead of the value.  Otherwise the minimum of the parabola
through value, slope and trial value, kept within a tenth and a half of the step, is tried in
the next round.  After `MAX_RETRIES` refusals the memory is dropped; if that does not help
either, the function stops where it is and is reported as not converged.

Rejected: scipy's L-BFGS-B in a loop over K (K passes instead of one, and float64 only);
torch.optim.LBFGS on the sum (one step length and one memory for all: the worst problem
dictates); full Newton ((C D)^2 numbers a problem).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

MEMORY = 10
MAX_RETRIES = 12
ARMIJO = 1e-3
SCALE_BOUNDS = (1e-2, 4.0)
NEW_GAIN = 0.75  # weight of the last step in the mean of gains
STALLED = 0.1  # of `decrease`, a mean gain that says that there is no more to come

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Measure = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Minima:
    """What `minimise` found.

    Attributes:
        position: (K, P) the best point of each function.
        norm: (K,) its gradient as `measure` sees it.
        rounds: (K,) int64 evaluations it took.
        converged: (K,) bool, norm at or below the tolerance and value near the minimum.
    """

    position: Tensor
    norm: Tensor
    rounds: Tensor
    converged: Tensor


@dataclass(kw_only=True, eq=False)
class _Active:
    """State of the A functions still in the batch; every tensor has A rows."""

    index: Tensor  # which of the K functions
    position: Tensor  # (A, P)
    value: Tensor
    gradient: Tensor  # (A, P)
    direction: Tensor  # (A, P)
    slope: Tensor  # <gradient, direction>
    step: Tensor
    retries: Tensor
    curvature: Tensor  # (A, P)
    ridge: Tensor  # (A, P)
    scale: Tensor
    moves: Tensor  # (A, MEMORY, P) ring of s
    changes: Tensor  # (A, MEMORY, P) ring of y
    inverse_products: Tensor  # (A, MEMORY) 1 / <s, y>
    count: Tensor  # pairs written so far
    gain: Tensor  # running mean of what the last steps gained

    def keep(self, mask: Tensor) -> _Active:
        """The functions where `mask` is true."""
        return _Active(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})


def minimise(
    evaluate: Evaluate,
    start: Tensor,
    *,
    curvature: Tensor,
    ridge: Tensor,
    measure: Measure,
    tolerance: float,
    decrease: float,
    max_iterations: int,
) -> Minima:
    """Minimise K convex functions of P variables each.

    Args:
        evaluate: takes points (A, P) and the indices (A,) of their functions, returns values
            (A,) and gradients (A, P).
        start: (K, P) first points.
        curvature: (K, P) >= 0, diagonal of the Hessian known up to one factor a function.
        ridge: (K, P) >= 0, diagonal of the Hessian known exactly, added to it.
        measure: takes gradients (A, P) and indices (A,), returns the norms (A,) that are held
            against `tolerance`.
        tolerance: a function has converged when its norm is at or below this,
        decrease: and what it can still fall by, as far as direction and last gains tell, is at
            most this share of its value; `tolerance` squared is let pass, because a value whose
            infimum is 0 has no share that would do.
        max_iterations: rounds at most.

    Returns:
        The last accepted points; look at `converged`.
    """
    norm = start.new_full((len(start),), torch.inf)
    rounds = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    minima = Minima(position=start.clone(), norm=norm, rounds=rounds, converged=norm < 0)
    active = _begin(evaluate, start, curvature, ridge)
    for number in range(1, max_iterations + 1):
        norm = measure(active.gradient, active.index)
        converged = (norm <= tolerance) & _is_low(active, decrease, tolerance**2)
        done = converged | (active.retries > 2 * MAX_RETRIES)
        minima.position[active.index] = active.position
        minima.norm[active.index] = norm
        minima.rounds[active.index] = number
        minima.converged[active.index] = converged
        if done.all() or number == max_iterations:
            break
        if done.any():
            active = active.keep(~done)
        _round(evaluate, active)
    return minima


def _begin(evaluate: Evaluate, start: Tensor, curvature: Tensor, ridge: Tensor) -> _Active:
    """The state after the first evaluation, with empty memories."""
    count, width = start.shape
    index = torch.arange(count, device=start.device)
    value, gradient = evaluate(start, index)
    active = _Active(
        index=index,
        position=start,
        value=value,
        gradient=gradient,
        direction=torch.zeros_like(start),
        slope=start.new_zeros(count),
        step=start.new_ones(count),
        retries=torch.zeros_like(index),
        curvature=curvature,
        ridge=ridge,
        scale=start.new_ones(count),
        moves=start.new_zeros(count, MEMORY, width),
        changes=start.new_zeros(count, MEMORY, width),
        inverse_products=start.new_zeros(count, MEMORY),
        count=torch.zeros_like(index),
        gain=start.new_ones(count),
    )
    _aim(active, torch.ones_like(index, dtype=torch.bool))
    return active


def _round(evaluate: Evaluate, active: _Active) -> None:
    """Try one step of every active function; take it, or shorten it for the next round."""
    trial = torch.addcmul(active.position, active.step[:, None], active.direction)
    value, gradient = evaluate(trial, active.index)
    taken = _is_good_step(active, value, (gradient * active.direction).sum(1))
    _remember(active, trial - active.position, gradient - active.gradient, taken)
    shorter = _shorten(active, value)
    gained = (1 - NEW_GAIN) * active.gain + NEW_GAIN * (active.value - value).clamp_min(0)
    active.gain = torch.where(taken, gained, active.gain)
    active.position = torch.where(taken[:, None], trial, active.position)
    active.gradient = torch.where(taken[:, None], gradient, active.gradient)
    active.value = torch.where(taken, value, active.value)
    active.retries = torch.where(taken, 0, active.retries + 1)
    forget = active.retries == MAX_RETRIES
    active.count = torch.where(forget, 0, active.count)
    active.step = torch.where(taken | forget, 1.0, shorter)
    _aim(active, taken | forget)


def _is_low(active: _Active, decrease: float, floor: float) -> Tensor:
    """(A,) bool: a share `decrease` of the value above the minimum at most, or no more comes.

    -slope / 2 is what a step would gain if the direction's matrix were the inverse Hessian; before
    the memory is full it is not, and a warm start would end at once (2 % above the minimum on
    60,000 rows).  Along hardly curved directions rounding of the gradient alone can keep it above
    any bound.
    """
    tiny = torch.finfo(active.value.dtype).tiny  # times infinity it is a bound, 0 would be none
    bound = decrease * active.value.abs().clamp_min(tiny) + floor
    told = (active.count >= MEMORY) | torch.isinf(bound)
    return (told & (-active.slope / 2 <= bound)) | (active.gain <= STALLED * bound)


def _is_good_step(active: _Active, value: Tensor, slope: Tensor) -> Tensor:
    """(A,) bool: Armijo, or approximate Wolfe where values differ by no more than rounding."""
    armijo = value <= active.value + ARMIJO * active.step * active.slope
    slack = 32 * torch.finfo(active.position.dtype).eps * (1 + active.value.abs())
    flat = (value <= active.value + slack) & (slope <= (2 * ARMIJO - 1) * active.slope)
    return torch.isfinite(value) & (armijo | flat)


def _shorten(active: _Active, value: Tensor) -> Tensor:
    """(A,) minimum of the parabola through what was tried, within [0.1, 0.5] of the step."""
    excess = value - active.value - active.step * active.slope
    ratio = -active.step * active.slope / (2 * excess)
    ratio = torch.nan_to_num(ratio, nan=0.1).clamp(0.1, 0.5)
    return (active.step * ratio).to(active.step.dtype)


def _remember(active: _Active, move: Tensor, change: Tensor, taken: Tensor) -> None:
    """Write the pair of every taken step with safely positive curvature, and rescale."""
    product = (move * change).sum(1)
    eps = torch.finfo(move.dtype).eps
    good = taken & (product > eps * move.norm(dim=1) * change.norm(dim=1))
    rows = good.nonzero()[:, 0]
    slot = active.count[rows] % MEMORY
    active.moves[rows, slot] = move[rows]
    active.changes[rows, slot] = change[rows]
    active.inverse_products[rows, slot] = 1 / product[rows]
    active.count[rows] += 1
    squared = move[rows].square()
    known = (active.ridge[rows] * squared).sum(1)
    shaped = (active.curvature[rows] * squared).sum(1)
    scale = (product[rows] - known) / shaped.clamp_min(torch.finfo(move.dtype).tiny)
    active.scale[rows] = scale.clamp(*SCALE_BOUNDS)


def _aim(active: _Active, fresh: Tensor) -> None:
    """Set direction and slope where `fresh`, by the two-loop recursion."""
    rows = torch.arange(len(active.index), device=fresh.device)
    pairs = int(active.count.max().clamp_max(MEMORY)) if len(rows) else 0
    vector = active.gradient.clone()
    factors = []
    for back in range(1, pairs + 1):  # newest first
        slot = (active.count - back) % MEMORY
        known = (active.count >= back) * active.inverse_products[rows, slot]
        factor = known * (active.moves[rows, slot] * vector).sum(1)
        vector = torch.addcmul(vector, factor[:, None], active.changes[rows, slot], value=-1)
        factors.append((slot, known, factor))
    vector = vector / (active.scale[:, None] * active.curvature + active.ridge)
    for slot, known, factor in reversed(factors):
        correction = factor - known * (active.changes[rows, slot] * vector).sum(1)
        vector = torch.addcmul(vector, correction[:, None], active.moves[rows, slot])
    active.direction = torch.where(fresh[:, None], -vector, active.direction)
    active.slope = (active.gradient * active.direction).sum(1)
