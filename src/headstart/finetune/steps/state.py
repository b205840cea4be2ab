"""What a training works on, and where it stands.

The task does not change; the state does, at the end of every epoch, and all of it is in a
checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headstart.errors import UsageError
from headstart.finetune.batches.images import PLAIN, Frames, TrainingData, channels_innermost
from headstart.finetune.batches.objectives import DenseHead
from headstart.finetune.records.history import EpochRecord, stored
from headstart.finetune.records.profiling import Stopwatch
from headstart.finetune.settings import TrainSettings
from headstart.finetune.steps.auxiliary import AuxiliaryHeads
from headstart.finetune.steps.averaging import Tensors, WeightAverage
from headstart.finetune.steps.schedules import Plateau
from headstart.finetune.strategies import Plan
from headstart.progress import Progress
from headstart.runtime import Execution

CLASSIFIER = "classifier"
AUXILIARY = "auxiliary"


@dataclass(kw_only=True, eq=False)
class Task:
    """One fit: the network in its stages, the data, the plan."""

    module: nn.Module
    stages: dict[str, nn.Module]
    head: DenseHead
    plan: Plan
    frames: Frames
    data: TrainingData
    settings: TrainSettings
    execution: Execution
    fold: int
    class_weights: Tensor | None
    progress: Progress
    auxiliary: AuxiliaryHeads
    stopwatch: Stopwatch

    def __post_init__(self) -> None:
        """Put the network where it is computed."""
        for module in (self.module, self.head, self.auxiliary):
            module.to(self.execution.device)
            if channels_innermost(self.execution):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.settings.spatial_dropout:
            self.check_map()

    @torch.no_grad()
    def check_map(self) -> None:
        """Refuse spatial dropout where no map of channels x height x width is pooled.

        Raises:
            UsageError: such a network.
        """
        *before, _ = self.stages.values()
        x = self.frames(self.data.train_rows[:1], PLAIN)
        for stage in before:
            x = stage(x)
        innermost = getattr(self.module, "output_fmt", "NCHW") != "NCHW"
        if not before or x.ndim != 4 or innermost:
            raise UsageError(
                "`spatial_dropout` must be 0 for a network whose last stage is not known to pool "
                f"a map of channels x height x width, got {self.settings.spatial_dropout}. "
                "Use `dropout`, or a convolutional network."
            )

    def stop_after(self, phase: int) -> int:
        """Epochs that a phase runs, no more than planned."""
        planned = self.plan.phases[phase].epochs
        stop = self.settings.stop_after
        return planned if stop is None else min(stop[phase], planned)

    def changing(self) -> Tensors:
        """The living tensors that some phase may change, by name."""
        always_frozen = set(self.stages)
        learning: set[str] = set()
        for phase in self.plan.phases:
            always_frozen &= set(phase.frozen_stages)
            learning |= set(phase.rates)
        found: Tensors = {f"{CLASSIFIER}.{name}": p for name, p in self.head.named_parameters()}
        for stage, module in self.stages.items():
            if stage not in always_frozen:
                parameters = module.named_parameters(prefix=stage)
                found |= {name: p for name, p in parameters if name in learning}
                found.update(module.named_buffers(prefix=stage))
        for named in (self.auxiliary.named_parameters, self.auxiliary.named_buffers):
            found.update(named(prefix=AUXILIARY))
        return found

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The precision of a forward pass."""
        low = self.execution.dtype == torch.bfloat16
        with torch.autocast(self.execution.device, torch.bfloat16, enabled=low):
            yield


@dataclass(kw_only=True, eq=False)
class FitState:
    """Where a fit stands; all of it is in a checkpoint.

    Attributes:
        phase: the phase that runs, from 0.
        epochs: epochs done in each phase begun.
        history: a record an epoch.
        best_value: of the monitored metric; None before the first score.
        best_epochs: epochs of each phase up to the best.
        best_epoch: the same as one number over all phases.
        best: the changing tensors there.
        bad_epochs: epochs of this phase since the best value of this phase.
        phase_best: best value of this phase.
        plateau: what that schedule remembers.
        average: of the weights.
        optimizer: its state, None at the beginning of a phase.
        finished: whether nothing is left to do.
    """

    phase: int = 0
    epochs: list[int] = field(default_factory=lambda: [0])
    history: list[EpochRecord] = field(default_factory=list)
    best_value: float | None = None
    best_epochs: list[int] = field(default_factory=lambda: [0])
    best_epoch: int = 0
    best: Tensors = field(default_factory=dict)
    bad_epochs: int = 0
    phase_best: float | None = None
    plateau: Plateau = field(default_factory=Plateau)
    average: WeightAverage = field(default_factory=WeightAverage)
    optimizer: dict[str, Any] | None = None
    finished: bool = False

    def to_plain(self, current: Tensors) -> dict[str, Any]:
        """Tensors and plain values only."""
        names = ("phase", "epochs", "best_value", "best_epochs", "best_epoch", "best")
        plain = {name: getattr(self, name) for name in names}
        return plain | {
            "bad_epochs": self.bad_epochs,
            "phase_best": self.phase_best,
            "history": stored(self.history),
            "plateau": [self.plateau.factor, self.plateau.bad_epochs],
            "average": [self.average.values, self.average.count],
            "optimizer": self.optimizer,
            "finished": self.finished,
            "current": current,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> FitState:
        """What `to_plain` gave, without the current tensors."""
        made = dict(plain)
        made["history"] = [EpochRecord(**record) for record in plain["history"]]
        made["plateau"] = Plateau(*plain["plateau"])
        made["average"] = WeightAverage(*plain["average"])
        known = cls.__dataclass_fields__
        return cls(**{name: value for name, value in made.items() if name in known})
