"""Multi-layer heads on cached features, many problems in one call.

Problem k learns the rows where its weight is positive: shuffled anew every epoch, cut into
batches, the last one shorter. Its loss is

    sum over the batch of w_ki CE_i / rows of the batch,    CE with smoothed labels if asked for

where the weights are scaled to a mean of one over the problem's rows, so that Adam sees the same
size of gradient whatever the unit of the weights. Features are centred and divided by their own
deviation over the problem's rows (`standardise`); that map is folded into the first layer of the
answer, so fitted layers take features as they are.

Same figures. Everything random of problem k (start, order, dropout) is drawn from streams of its
own, by `seed` and its number, on the CPU. So K problems at once are K problems alone, up to the
order in which a product sums: 1e-4 of the logits' size after short fits.

Together or one by one. A step moves four arrays of the size of all parameters, and at a batch of
16 that, not arithmetic, is most of the time. While the stack stays in the cache, fitting together
shares the fixed cost of some thirty calls; beyond, one by one is as fast or faster, because the
arrays of one problem still fit. So as many problems go together as `TOGETHER_BYTES` holds, which
for 512 and 64 units on wide features is one or two; measured by `benchmarks/mlp_heads.py`.
Several such stacks go at once, each on its share of the threads (`fit_stacks`), to the same bits:
five problems of 512 and 64 units on 16,000 x 1,280 on two cores took 5.9 s, before 10.4 and 13.4.

Rejected: recorded gradients (torch.autograd); one stack for all problems whatever its size;
gathering a whole epoch beforehand (the features K times in memory, read from there twice).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.errors import DataError, UsageError
from headstart.heads.layers import Layers
from headstart.heads.linear.rotation import num_not_finite
from headstart.heads.multilayer.settings import FitPlan, MlpSettings, check_size
from headstart.heads.multilayer.stacked import ARRAYS, num_parameters, split_layers
from headstart.heads.multilayer.steps import Counter, OnEpoch, Problem, Task, fit_stacks

TOGETHER_BYTES = 2**23
ACCELERATOR_BYTES = 2**31


@dataclass(frozen=True, kw_only=True, eq=False)
class MlpHistory:
    """Figures after each epoch, (K, E) float64; NaN where a problem stopped or has no such rows.

    Attributes:
        train_loss: weighted mean log loss (nats) of the epoch's own steps, dropout on.
        train_accuracy: share of right answers in those steps.
        held_loss: mean log loss of the rows to score, dropout off.
        held_accuracy: their accuracy.
    """

    train_loss: Tensor
    train_accuracy: Tensor
    held_loss: Tensor
    held_accuracy: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class MlpFit:
    """K fitted heads.

    Attributes:
        parameters: (K, P) float32, all weights and biases on standardised features.
        shift: (K, D) float64 what is taken off the features.
        scale: (K, D) float64 what they are then divided by.
        widths: of features, hidden layers and classes.
        history: figures after each epoch.
        best_epoch: (K,) int64, from 1, of the lowest held loss; the last where nothing is held.
        num_epochs: (K,) int64 how many were run.
    """

    parameters: Tensor
    shift: Tensor
    scale: Tensor
    widths: tuple[int, ...]
    history: MlpHistory
    best_epoch: Tensor
    num_epochs: Tensor

    def layers(self, k: int) -> Layers:
        """Weight (out, in) and bias (out,) of each layer of head k, for features as they are."""
        made = [
            (layer.weight[0].double().T, layer.bias[0, 0].double())
            for layer in split_layers(self.parameters[k : k + 1], self.widths)
        ]
        weight, bias = made[0]
        weight = weight / self.scale[k]
        made[0] = (weight, bias - weight @ self.shift[k])
        return tuple((weight.float().contiguous(), bias.float()) for weight, bias in made)


def problems_at_once(widths: Sequence[int], device: str = "cpu") -> int:
    """How many problems of these widths are fitted together, see the module.

    An accelerator waits for its calls, not for memory, so there the stack may be large.
    """
    room = TOGETHER_BYTES if device == "cpu" else ACCELERATOR_BYTES
    return max(1, room // (4 * ARRAYS * num_parameters(widths)))


def fit_mlps(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    num_classes: int,
    settings: MlpSettings,
    *,
    seed: int,
    plan: FitPlan | None = None,
    on_epoch: OnEpoch | None = None,
) -> MlpFit:
    """Fit K multi-layer heads.

    Args:
        features: (N, D) float16 or float32, finite.
        labels: (N,) int64, 0 to C - 1.
        weights: (K, N) >= 0; zero where the row is not in the problem.
        num_classes: C.
        settings: of all K; `choose_epochs` is for `fit_mlp_folds` and not looked at here.
        seed: of everything random.
        plan: what differs between the problems, None for nothing.
        on_epoch: called with epochs done and epochs to do, counted over all problems.

    Returns:
        The heads after their last epoch, or after their best one where the plan says so.

    Raises:
        DataError: features, labels and weights do not fit, or a problem has no row.
        UsageError: a plan that does not fit the problems, a head too large for memory, or
            training that diverged: losses or parameters that are not finite.
    """
    plan = plan or FitPlan()
    check_problems(features, labels, weights, num_classes)
    _check_plan(plan, weights, settings, seed)
    width = features.shape[1]
    check_size((width, *settings.hidden, num_classes), f"on {width} features ")
    task = Task(features, labels, num_classes, settings)
    problems = [Problem(task, row, k, seed, plan) for k, row in enumerate(weights)]
    # Long ones first: of a stack, those that have finished drop out from the end.
    problems.sort(key=lambda problem: -problem.total_steps)
    size = plan.at_once or problems_at_once(task.widths, features.device.type)
    counter = Counter(on_epoch, sum(problem.epochs for problem in problems))
    stacks = [problems[start : start + size] for start in range(0, len(problems), size)]
    fit_stacks(task, stacks, plan, counter)
    problems.sort(key=lambda problem: problem.place)
    return _collect(problems, task.widths)


def check_problems(features: Tensor, labels: Tensor, weights: Tensor, num_classes: int) -> None:
    """Raise DataError for input that no head can be fitted to; shapes as in `fit_mlps`."""
    rows = len(features)
    if features.ndim != 2 or features.dtype not in (torch.float16, torch.float32):
        raise DataError(
            f"`features` must be (N, D) float16 or float32, got {tuple(features.shape)} "
            f"{features.dtype}. Convert them with .float()."
        )
    if labels.shape != (rows,) or weights.ndim != 2 or weights.shape[1] != rows:
        raise DataError(
            f"`labels` must be ({rows},) and `weights` (K, {rows}) like the features, "
            f"got {tuple(labels.shape)} and {tuple(weights.shape)}. Bring them to one length."
        )
    if num_classes < 2 or (rows and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes):
        raise DataError(
            f"`labels` must be 0 to C - 1 with C >= 2, got C = {num_classes}. Correct them."
        )
    bad = num_not_finite(features)
    if bad:
        raise DataError(f"`features` must be finite, got {bad} rows that are not. Leave them out.")
    if not bool(((weights >= 0) & torch.isfinite(weights)).all()):
        raise DataError("`weights` must be finite and not negative. Correct them.")
    empty = (~(weights > 0).any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise DataError(
            f"`weights` must be positive somewhere in every problem, got none in {empty}."
        )


def _check_plan(plan: FitPlan, weights: Tensor, settings: MlpSettings, seed: int) -> None:
    """Raise UsageError for a plan that does not fit the problems."""
    if seed < 0:
        raise UsageError(f"`seed` must be 0 or more, got {seed}. Correct it.")
    for name in ("epochs", "numbers", "score_rows"):
        values = getattr(plan, name)
        if values is not None and len(values) != len(weights):
            raise UsageError(
                f"`{name}` must have one entry for each of {len(weights)} problems, "
                f"got {len(values)}. Correct it."
            )
    for count in plan.epochs or ():
        if not 1 <= count <= settings.epochs:
            raise UsageError(
                f"`epochs` of a problem must be 1 to {settings.epochs}, which the schedule spans, "
                f"got {count}. Correct it."
            )


def _collect(problems: list[Problem], widths: tuple[int, ...]) -> MlpFit:
    """The answers of all problems, in the caller's order."""
    longest = max(len(problem.figures) for problem in problems)
    figures = torch.full((4, len(problems), longest), float("nan"), dtype=torch.float64)
    for k, problem in enumerate(problems):
        figures[:, k, : len(problem.figures)] = torch.tensor(problem.figures).double().T
    return MlpFit(
        parameters=torch.stack([problem.parameters for problem in problems]),
        shift=torch.stack([problem.shift for problem in problems]).double(),
        scale=torch.stack([problem.scale for problem in problems]).double(),
        widths=widths,
        history=MlpHistory(
            train_loss=figures[0],
            train_accuracy=figures[1],
            held_loss=figures[2],
            held_accuracy=figures[3],
        ),
        best_epoch=torch.tensor([problem.best_epoch for problem in problems]),
        num_epochs=torch.tensor([len(problem.figures) for problem in problems]),
    )
