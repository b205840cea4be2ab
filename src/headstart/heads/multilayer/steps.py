"""The steps of a stack of multi-layer heads: rows, masks and figures of every problem.

A stack goes in lockstep, one batch of every problem a step, whatever the length of its epochs; a
problem that has made all its steps drops out. A batch is never larger than its problem; where
problems of a stack differ in that, the smaller batches are filled up with rows that weigh nothing.
Steps are taken in chunks whose rows are gathered
and standardised beforehand, small enough for the cache; no chunk goes past an epoch's end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from headstart.errors import UsageError
from headstart.heads.linear.rotation import slices
from headstart.heads.multilayer.settings import FitPlan, MlpSettings
from headstart.heads.multilayer.stacked import StackedNetworks, draw_masks, draw_parameters

CHUNK_BYTES = 2**21
MOST_AT_ONCE = 4  # stacks; more would wait for the interpreter
SCORE_ROWS = 4096
# A feature that hardly varies would be blown up; deviations below this share of their root mean
# square over the features count as that share.
SMALLEST_DEVIATION = 0.01

OnEpoch = Callable[[int, int], None]


class DivergedError(UsageError):
    """Training left the finite numbers."""


class StoppedError(Exception):
    """Somebody else's stack has failed, or the user has left."""


class Counter:
    """Counts epochs over all problems for the caller; several stacks may count at once."""

    def __init__(self, on_epoch: OnEpoch | None, total: int) -> None:
        """Start at none done of `total`."""
        self.on_epoch, self.total, self.done = on_epoch, total, 0
        self.stopped = False
        self._lock = threading.Lock()

    def step(self) -> None:
        """One more is done."""
        with self._lock:
            self.done += 1
            if self.on_epoch is not None:
                self.on_epoch(self.done, self.total)

    def check(self) -> None:
        """Raise StoppedError where the others have ended."""
        if self.stopped:
            raise StoppedError


class Task:
    """What all problems share."""

    def __init__(
        self, features: Tensor, labels: Tensor, num_classes: int, settings: MlpSettings
    ) -> None:
        """Prepare the targets (C, C), a row a label, smoothed where asked for."""
        self.features = features
        self.labels = labels
        self.settings = settings
        self.widths = (features.shape[1], *settings.hidden, num_classes)
        smoothing = settings.label_smoothing
        targets = torch.eye(num_classes, device=features.device) * (1 - smoothing)
        self.targets = targets + smoothing / num_classes


class Problem:
    """Rows, random streams, standardisation and figures of one problem."""

    def __init__(self, task: Task, weights: Tensor, place: int, seed: int, plan: FitPlan) -> None:
        """Draw the start of the problem at `place` among its fellows, weights (N,)."""
        self.task = task
        self.place = place
        number = place if plan.numbers is None else plan.numbers[place]
        start, self.order, self.dropout = (
            np.random.default_rng([seed, number, purpose]) for purpose in range(3)
        )
        chosen = weights > 0
        self.rows = chosen.nonzero()[:, 0].cpu().numpy()
        self.weights = (weights / weights[chosen].double().mean()).float()  # (N,)
        self.batch_size = min(task.settings.batch_size, len(self.rows))
        self.steps = -(-len(self.rows) // self.batch_size)  # an epoch
        self.epochs = task.settings.epochs if plan.epochs is None else int(plan.epochs[place])
        self.total_steps = self.epochs * self.steps
        held = None if plan.score_rows is None else plan.score_rows[place].nonzero()[:, 0]
        self.held = held if held is not None and len(held) else None
        self.shift, self.scale = _standardisation(task, weights)
        self.parameters = draw_parameters(task.widths, start)
        self.figures: list[tuple[float, float, float, float]] = []
        self.best_epoch, self.best_loss = 0, float("inf")
        self.best_parameters: Tensor | None = None
        self.shuffle()

    def shuffle(self) -> None:
        """A new order of the rows, filled up to whole batches with -1, and empty sums."""
        padded = np.full(self.steps * self.batch_size, -1)
        padded[: len(self.rows)] = self.order.permutation(self.rows)
        self.batches = padded.reshape(self.steps, self.batch_size)
        self.sums = np.zeros(3)  # weighted loss, weight, right answers

    def finish_epoch(self, parameters: Tensor, keep_best: bool) -> None:
        """Write down the figures of an epoch; `parameters` (P,) are those after it.

        Raises:
            UsageError: a loss or a parameter is not finite.
        """
        loss, weight, right = self.sums
        held = (float("nan"),) * 2 if self.held is None else self._score(parameters)
        self.figures.append((loss / weight, right / len(self.rows), *held))
        followed = [loss] if self.held is None else [loss, held[0]]
        if not (np.isfinite(followed).all() and bool(torch.isfinite(parameters).all())):
            self._refuse_divergence()
        # Without held rows the last epoch is the best.
        if self.held is None or held[0] < self.best_loss:
            self.best_epoch, self.best_loss = len(self.figures), held[0]
            if keep_best and self.held is not None:
                self.best_parameters = parameters.clone()
        self.shuffle()

    def _refuse_divergence(self) -> None:
        """Tell the epoch, just written down, and the rate that was too much."""
        settings = self.task.settings
        remedy = "lr or weight_decay" if settings.weight_decay else "lr"
        raise DivergedError(
            "Training diverged: losses and weights of the mlp head must stay finite, and did not "
            f"after epoch {len(self.figures)} of {settings.epochs} at `lr` {settings.lr:g}. "
            f"Lower {remedy}."
        )

    def _score(self, parameters: Tensor) -> tuple[float, float]:
        """Mean log loss and accuracy on the held rows, dropout off."""
        assert self.held is not None
        network = StackedNetworks(parameters[None], self.task.widths, 0.0)
        loss, right = 0.0, 0
        for part in slices(len(self.held), SCORE_ROWS):
            rows = self.held[part]
            inputs = self.task.features[rows].float().sub_(self.shift).div_(self.scale)
            logits = inputs.new_empty(1, len(rows), self.task.widths[-1])
            network.forward(inputs[None], None, logits)
            labels = self.task.labels[rows]
            loss += float(
                torch.nn.functional.cross_entropy(logits[0].double(), labels, reduction="sum")
            )
            right += int((logits[0].argmax(1) == labels).sum())
        return loss / len(self.held), right / len(self.held)


def _standardisation(task: Task, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (D,) float32 of the weighted rows, 0 and 1 where not wanted."""
    width = task.widths[0]
    if not task.settings.standardise:
        return weights.new_zeros(width).float(), weights.new_ones(width).float()
    shares = weights.double() / weights.double().sum()
    rows = (shares > 0).nonzero()[:, 0]
    sums = torch.zeros(2, width, dtype=torch.float64, device=weights.device)
    origin = task.features[rows[:SCORE_ROWS]].double().mean(0)  # near the mean: digits are kept
    for part in slices(len(rows), SCORE_ROWS):
        chosen = rows[part]
        away = task.features[chosen].double() - origin
        sums[0] += shares[chosen] @ away
        sums[1] += shares[chosen] @ away.square()
    variance = (sums[1] - sums[0].square()).clamp_min(0)
    smallest = SMALLEST_DEVIATION * variance.mean().sqrt()
    scale = variance.sqrt().clamp_min(float(smallest) or 1.0)
    return (origin + sums[0]).float(), scale.float()


def fit_stacks(task: Task, stacks: list[list[Problem]], plan: FitPlan, counter: Counter) -> None:
    """Fit some stacks, several at once on the processor, each on its share of the threads.

    At a small batch a step is too short to be cut in two: two stacks on a thread each take 0.8 of
    the time of one after the other on both.
    """
    threads = torch.get_num_threads()
    workers = min(len(stacks), threads, MOST_AT_ONCE) if task.features.device.type == "cpu" else 1
    if workers < 2:
        for stack in stacks:
            fit_together(task, stack, plan, counter)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="heads")
    torch.set_num_threads(threads // workers)  # a thread takes this up when it first computes
    try:
        fits = [pool.submit(fit_together, task, stack, plan, counter) for stack in stacks]
        for fit in fits:  # in their order, so that of several failures always the same is told
            fit.result()
    finally:
        counter.stopped = True
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


@torch.no_grad()
def fit_together(task: Task, problems: list[Problem], plan: FitPlan, counter: Counter) -> None:
    """Fit some problems, long ones first, as one stack; each gets its parameters."""
    device = task.features.device
    parameters = torch.stack([problem.parameters for problem in problems]).to(device)
    stack = StackedNetworks(parameters, task.widths, task.settings.weight_decay)
    chunk = Chunk(task, stack, problems)
    step = 0
    while stack.active:
        counter.check()
        active = problems[: stack.active]
        to_epoch_end = min(problem.steps - step % problem.steps for problem in active)
        count = min(to_epoch_end, chunk.max_steps)
        chunk.run(step, count)
        step += count
        for k, problem in enumerate(active):
            if step % problem.steps == 0:
                problem.finish_epoch(parameters[k], plan.keep_best)
                counter.step()
        stack.narrow(sum(problem.total_steps > step for problem in active))
    for k, problem in enumerate(problems):
        kept = problem.best_parameters
        problem.parameters = parameters[k].clone() if kept is None else kept


class Chunk:
    """Some steps of a stack whose rows, targets and masks are gathered beforehand."""

    def __init__(self, task: Task, stack: StackedNetworks, problems: list[Problem]) -> None:
        """Find how many steps fit a chunk."""
        self.task, self.stack, self.problems = task, stack, problems
        self.shift = torch.stack([problem.shift for problem in problems])[:, None]
        self.inverse_scale = 1 / torch.stack([problem.scale for problem in problems])[:, None]
        self.batch_size = max(problem.batch_size for problem in problems)
        step_numbers = self.batch_size * (sum(task.widths) + 3 * task.widths[-1])
        self.max_steps = max(1, CHUNK_BYTES // (4 * step_numbers * len(problems)))

    def run(self, first: int, count: int) -> None:
        """Take `count` steps of every active problem, none of which ends an epoch before."""
        active, stack = self.problems[: self.stack.active], self.stack
        inputs, targets, factors, weights, labels = self._gather(active, first, count)
        masks = self._draw_masks(active, count)
        logits = torch.empty_like(targets)
        settings = self.task.settings
        for s in range(count):
            dropped = None if masks is None else [layer[s] for layer in masks]
            entering = stack.forward(inputs[s], dropped, logits[s])
            residual = logits[s].softmax(-1).sub_(targets[s]).mul_(factors[s])
            stack.backward(entering, dropped, residual)
            stack.update([settings.rate_at(first + s, problem.steps) for problem in active])
        losses = (logits.log_softmax(-1) * targets).sum(-1).double().mul_(-weights)
        right = (logits.argmax(-1) == labels) & (weights > 0)
        sums = torch.stack([losses, weights.double(), right.double()]).sum((1, 3)).cpu().numpy()
        for k, problem in enumerate(active):
            problem.sums += sums[:, k]

    def _gather(
        self, active: list[Problem], first: int, count: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Inputs (S, A, B, D), targets (S, A, B, C), factors of the loss (S, A, B, 1).

        Then the weights (S, A, B), zero where a batch is filled up, and labels (S, A, B).
        """
        task = self.task
        starts = [first % problem.steps for problem in active]
        picked = np.full((count, len(active), self.batch_size), -1)
        for k, (problem, start) in enumerate(zip(active, starts, strict=True)):
            picked[:, k, : problem.batch_size] = problem.batches[start : start + count]
        rows = torch.from_numpy(picked).to(task.features.device)
        real = rows >= 0
        rows = rows.clamp_min(0)
        inputs = task.features[rows].float().sub_(self.shift[: len(active)])
        inputs.mul_(self.inverse_scale[: len(active)])
        weights = torch.stack([p.weights[rows[:, k]] for k, p in enumerate(active)], 1) * real
        factors = (weights / real.sum(-1, keepdim=True))[..., None]
        labels = task.labels[rows]
        return inputs, task.targets[labels], factors, weights, labels

    def _draw_masks(self, active: list[Problem], count: int) -> list[Tensor] | None:
        """(S, A, B, H) a hidden layer; None without dropout."""
        settings = self.task.settings
        hidden = settings.hidden
        if not settings.dropout or not hidden:
            return None
        masks = [
            np.zeros((count, len(active), self.batch_size, width), np.float32) for width in hidden
        ]
        for k, problem in enumerate(active):
            # By its own size, so that its fellows do not show.
            size = problem.batch_size
            drawn = draw_masks(problem.dropout, count, size * sum(hidden), settings.dropout)
            ends = [size * end for end in accumulate(hidden, initial=0)]
            for mask, (start, end) in zip(masks, pairwise(ends), strict=True):
                mask[:, k, :size] = drawn[:, start:end].reshape(count, size, -1)
        return [torch.from_numpy(mask).to(self.task.features.device) for mask in masks]
