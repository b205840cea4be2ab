"""A learning rate to begin with: one short training at ever higher rates (Smith, 2017).

The rate grows by the same factor a step; the loss falls, then rises where the rate is too high.
Suggested is a tenth of the last rate at which the smoothed loss is about as low as it gets: the
steepest descent, which others suggest, and the lowest loss itself jump about where the head starts
from a fitted probe, because the loss is low and flat at first and one batch is easier than another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from headstart.backbones import Network
from headstart.errors import HeadstartError
from headstart.finetune.batches.images import TrainingData
from headstart.finetune.batches.objectives import DenseLayers
from headstart.finetune.preparing import make_task
from headstart.finetune.settings import TrainSettings
from headstart.finetune.steps.schedules import BASE_RATE
from headstart.finetune.steps.state import FitState
from headstart.progress import Progress
from headstart.runtime import Execution, repeatable

SMOOTHING = 0.8
DIVERGED = 4.0  # times the lowest loss, where that is above the loss of guessing
AS_LOW = 0.02  # share of the losses' range, above which the noise of single batches seldom reaches
SHARE_OF_LAST_LOW = 0.1
CLEAR_FALL = 0.95  # of the first loss


@dataclass(frozen=True, kw_only=True)
class RateSearch:
    """What was found.

    Attributes:
        rates: of the steps taken, ascending.
        losses: smoothed loss before each step.
        suggested: a rate for `TrainSettings.lr`.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float

    @property
    def falls(self) -> bool:
        """Whether the loss fell clearly anywhere; else the suggestion keeps off where it rises."""
        return min(self.losses) < CLEAR_FALL * self.losses[0]


def find_rate(
    network: Network,
    data: TrainingData,
    settings: TrainSettings,
    *,
    execution: Execution,
    start_head: DenseLayers | None = None,
    rates: tuple[float, float] = (1e-7, 1.0),
    num_steps: int = 100,
) -> RateSearch:
    """Train a copy of the network for some steps while the rate grows.

    Args:
        network: stays as it is.
        data: only the training rows are looked at.
        settings: of the last phase, where all that will learn does.
        execution: device and precision.
        start_head: as in `fit_network`.
        rates: the first and the last.
        num_steps: steps between them.

    Raises:
        HeadstartError: the loss is not finite from the first step on.
    """
    from headstart.finetune.steps.freezing import set_modes
    from headstart.finetune.steps.training import PhaseModule

    guessing = math.log(data.num_classes)
    plain = replace(settings, cache="off", accumulate=1, compile=False)
    task = make_task(network, data, plain, start_head, execution=execution, progress=Progress())
    state = FitState(phase=len(task.plan.phases) - 1, epochs=[0] * len(task.plan.phases))
    with repeatable(execution):
        module = PhaseModule(task, state, lambda *_: None, lambda steps=1: None)
        optimizer = module.configure_optimizers()
        bases = [group[BASE_RATE] / settings.lr for group in optimizer.param_groups]
        set_modes(task, module.phase)
        losses: list[float] = []
        grid = np.geomspace(*rates, num_steps)
        batches = [] if not num_steps else module.epoch_rows()
        for step, rate in enumerate(grid):
            if not batches:
                state.epochs[-1] += 1
                batches = module.epoch_rows()
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = float(rate) * base
            optimizer.zero_grad()
            with task.autocast():
                images = module.image_losses(batches.pop(0), step)
            loss = images.mean()
            if not bool(torch.isfinite(loss)):
                break
            losses.append(float(loss.detach()))
            if losses[-1] > DIVERGED * max(min(losses), guessing):
                break
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return suggest(grid[: len(losses)].tolist(), losses)


def suggest(rates: Sequence[float], losses: Sequence[float]) -> RateSearch:
    """The suggestion from the losses of a search.

    Raises:
        HeadstartError: there are none.
    """
    if not losses:
        raise HeadstartError(
            "The search for a learning rate must begin with a finite loss, got none. "
            "Check the pictures and the weights."
        )
    smooth, mean = [], 0.0
    for step, loss in enumerate(losses):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smooth.append(mean / (1 - SMOOTHING ** (step + 1)))  # as Adam corrects its start
    low = min(smooth) + AS_LOW * (max(smooth) - min(smooth))
    last = int(np.flatnonzero(np.array(smooth) <= low)[-1])
    return RateSearch(
        rates=tuple(rates), losses=tuple(smooth), suggested=SHARE_OF_LAST_LOW * rates[last]
    )
