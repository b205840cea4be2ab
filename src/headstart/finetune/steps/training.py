"""One phase as Lightning sees it, its state ours.

Lightning moves the batches' gradients, accumulation, clipping and precision. What must survive a
kill is kept here and not in its callbacks: which parameters learn, the best weights, patience,
averages and rates. Everything random of a step hangs on (seed, fold, phase, epoch, step), so the
state of no generator has to be stored. Loading this module loads Lightning.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.errors import HeadstartError
from headstart.finetune.batches.activations import (
    ActivationCache,
    cache_keys,
    fill_cache,
    in_16_bits,
)
from headstart.finetune.batches.augmentation import draw_seed
from headstart.finetune.batches.images import PLAIN, epoch_batches
from headstart.finetune.batches.objectives import image_losses, mix, soft_targets
from headstart.finetune.records.history import EpochRecord
from headstart.finetune.records.profiling import (
    BACKWARD,
    CACHE_FILL,
    CACHE_READ,
    CHECKPOINT,
    FORWARD,
    FROZEN,
    INNER,
    OPTIMIZER,
)
from headstart.finetune.steps.averaging import Tensors, snapshot
from headstart.finetune.steps.freezing import sees_same_pictures, set_learning, set_modes
from headstart.finetune.steps.schedules import (
    build_optimizer,
    parameter_groups,
    rate_factor,
    set_rates,
)
from headstart.finetune.steps.state import FitState, Task
from headstart.finetune.strategies import Phase
from headstart.metrics import METRICS, score
from headstart.progress import Advance
from headstart.records import Integers

EVALUATION_BATCH = 64
# First numbers of the keys of what is drawn, so that no two draws share one.
STEP_KEY, MIX_KEY = 1, 2


Keep = Callable[[FitState, Tensors], None]


class PhaseModule(lightning.LightningModule):
    """One phase as Lightning sees it."""

    def __init__(self, task: Task, state: FitState, keep: Keep, advance: Advance) -> None:
        """Set which parameters learn; the freeze-point cache is filled by `fill`.

        Args:
            task: the fit.
            state: where it stands; changed at the end of every epoch.
            keep: writes a checkpoint.
            advance: told of every image.
        """
        super().__init__()
        self.task, self.state, self.keep, self.advance = task, state, keep, advance
        self.phase: Phase = task.plan.phases[state.phase]
        self.held = nn.ModuleList([task.module, task.head, task.auxiliary])
        self.span = task.stopwatch.span
        set_learning(task, self.phase)
        frozen = self.phase.frozen_stages
        if task.settings.spatial_dropout:  # acts between the last stage and those before it
            frozen = tuple(name for name in frozen if name != list(task.stages)[-1])
        self.prefix = [task.stages[name] for name in frozen]
        self.suffix = [m for name, m in task.stages.items() if name not in frozen]
        # Frozen stages that see the same pictures again give what can be kept in 16 bits.
        self.rounds = bool(self.prefix) and sees_same_pictures(task)
        low = task.execution.dtype == torch.bfloat16
        self.sixteen = torch.bfloat16 if low else torch.float16
        self.cache: ActivationCache | None = None
        self.run: Callable[[Tensor], Tensor] = self.learning_part
        if task.settings.compile:
            self.run = torch.compile(self.learning_part)
        size = task.settings.batch_size
        num_batches = max(len(task.data.train_rows) // size, 1)
        if len(task.data.train_rows) > size and len(task.data.train_rows) % size > 1:
            num_batches += 1
        self.num_batches = num_batches
        self.batches: list[Integers] = []
        self.times_drawn: Counter[int] = Counter()  # of each row, in this epoch
        self.loss_sum, self.hit_sum = 0.0, 0
        self.steps_an_epoch = -(-num_batches // task.settings.accumulate)

    def fill(self) -> None:
        """Fill the freeze-point cache, where it pays."""
        settings, data = self.task.settings, self.task.data
        if not self.rounds or settings.cache == "off":
            return
        views = settings.views if self.task.frames.augmenter else 0
        with self.span(CACHE_FILL):
            self.cache = fill_cache(
                self.task.frames,
                self.frozen_part,
                cache_keys(data.train_rows, data.inner_rows, views),
                dtype=self.sixteen,
                most_bytes=settings.cache_bytes,
                progress=self.task.progress,
            )

    @torch.no_grad()
    def frozen_part(self, x: Tensor) -> Tensor:
        """The frozen stages, in eval mode."""
        with self.span(FROZEN), self.task.autocast():
            for stage in self.prefix:
                x = stage.eval()(x)
        return x

    def learning_part(self, x: Tensor) -> Tensor:
        """The other stages and the head: (B, ...) -> (B, C)."""
        share = self.task.settings.spatial_dropout
        for stage in self.suffix:
            if share and stage is self.suffix[-1]:
                x = functional.dropout2d(x, share, self.task.head.training)
            x = stage(x)
        logits: Tensor = self.task.head(x)
        return logits

    def inputs(self, rows: Integers, view: int | Integers) -> Tensor:
        """What the learning part gets for these rows."""
        device = self.task.execution.device
        if self.cache is not None:
            with self.span(CACHE_READ):
                return self.cache.read(rows, view).to(device)
        x = self.task.frames(rows, view)
        if self.rounds:
            x = in_16_bits(self.frozen_part(x), self.sixteen)
        return x

    @property
    def epoch(self) -> int:
        """Epochs of this phase that are done."""
        return self.state.epochs[self.state.phase]

    @property
    def total_epoch(self) -> int:
        """Epochs of all phases that are done."""
        return sum(self.state.epochs)

    def train_dataloader(self) -> Sequence[int]:
        """Numbers of batches; a step looks up its own rows."""
        return range(self.num_batches)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """A new optimizer a phase, with its state where the phase goes on."""
        learning = [
            (parameter, self.phase.rates[name])
            for stage, module in self.task.stages.items()
            for name, parameter in module.named_parameters(prefix=stage)
            if name in self.phase.rates
        ]
        heads = [*self.task.head.parameters(), *self.task.auxiliary.parameters()]
        learning += [(p, self.phase.head_rate) for p in heads]
        settings = self.task.settings
        optimizer = build_optimizer(parameter_groups(learning, settings), settings)
        if self.state.optimizer is not None:
            optimizer.load_state_dict(self.state.optimizer)
        return optimizer

    def on_train_epoch_start(self) -> None:
        """Choose the epoch's order; only what learns is in training mode."""
        self.begun = time.perf_counter(), time.process_time()
        self.batches = self.epoch_rows()
        assert len(self.batches) == self.num_batches
        set_modes(self.task, self.phase)
        self.loss_sum, self.hit_sum = 0.0, 0

    def epoch_rows(self) -> list[Integers]:
        """The batches of this epoch, none of them learnt from yet."""
        settings, data = self.task.settings, self.task.data
        self.times_drawn.clear()
        balanced = settings.sampling == "balanced"
        return epoch_batches(
            data.train_rows,
            settings.batch_size,
            seed=settings.seed,
            fold=self.task.fold,
            epoch=self.total_epoch,
            balanced=data.labels[data.train_rows] if balanced else None,
        )

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        """The rate of this step."""
        del batch
        settings = self.task.settings
        step = self.epoch * self.steps_an_epoch + batch_idx // settings.accumulate
        total = self.phase.epochs * self.steps_an_epoch
        factor = rate_factor(settings, step, total, self.steps_an_epoch)
        set_rates(self.trainer.optimizers[0], factor * self.state.plateau.factor)

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """The loss of one batch, weighed so that accumulated batches make one mean."""
        settings = self.task.settings
        losses = self.image_losses(self.batches[batch_idx], batch_idx)
        self.loss_sum += finite(float(losses.detach().sum()), self.phase)
        self.advance(len(losses))
        first = batch_idx // settings.accumulate * settings.accumulate
        together = self.batches[first : first + settings.accumulate]
        # Lightning divides by `accumulate`, also where the last step has fewer batches.
        return losses.sum() * settings.accumulate / sum(len(part) for part in together)

    def image_losses(self, rows: Integers, step: int) -> Tensor:
        """(B,) losses of some rows in the step of that number of this epoch."""
        settings, task = self.task.settings, self.task
        key = (settings.seed, task.fold, self.state.phase, self.epoch, step)
        labels = torch.from_numpy(task.data.labels[rows]).to(task.execution.device)
        targets = soft_targets(labels, task.data.num_classes, settings.label_smoothing)
        x = self.inputs(rows, self.train_views(rows))
        if settings.mixes_images:
            x, targets = mix(x, targets, settings, (MIX_KEY, *key))
        if self.prefix and not self.rounds:
            x = self.frozen_part(x)
        torch.manual_seed(draw_seed(STEP_KEY, *key))  # of dropout

        def loss(logits: Tensor) -> Tensor:
            return image_losses(logits, targets, task.class_weights, settings.focal_gamma)

        with self.span(FORWARD):
            logits = self.run(x).float()
            self.hit_sum += int((logits.detach().argmax(1) == targets.argmax(1)).sum())
            return loss(logits) + task.auxiliary.added_loss(loss)

    def train_views(self, rows: Integers) -> int | Integers:
        """Which view of these pictures this epoch learns from.

        A picture that balanced sampling draws again gets another view: one that no epoch begins
        with, or the next of those that are replayed.
        """
        if not self.task.frames.augmenter:
            return PLAIN
        views, numbers = self.task.settings.views, []
        step = 1 if views else sum(phase.epochs for phase in self.task.plan.phases)
        for row in rows.tolist():
            numbers.append(self.total_epoch + step * self.times_drawn[row])
            self.times_drawn[row] += 1
        found = np.array(numbers, dtype=np.int64)
        return found % views if views else found

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step, and one of the moving average; Lightning computes the gradients inside it."""
        with self.span(OPTIMIZER):
            super().optimizer_step(*args, **kwargs)
            settings = self.task.settings
            if settings.average == "ema":
                self.state.average.update_exponential(self.task.changing(), settings.ema_decay)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The gradients of a batch."""
        with self.span(BACKWARD):
            super().backward(loss, *args, **kwargs)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Shorten the gradients; in bfloat16 Lightning would refuse to for a fused optimizer."""
        if gradient_clip_val:
            learning = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(learning, gradient_clip_val)

    def on_train_epoch_end(self) -> None:
        """Score the inner part, choose, write a checkpoint, end the phase where it is time."""
        state, task = self.state, self.task
        state.epochs[state.phase] += 1
        self.average_epoch()
        count = sum(len(rows) for rows in self.batches)
        inner = self.evaluate_inner()
        optimizer = self.trainer.optimizers[0]
        record = EpochRecord(
            epoch=self.total_epoch,
            phase=self.phase.name,
            train_loss=self.loss_sum / count,
            train_accuracy=self.hit_sum / count,
            inner=inner,
            rate=max(group["lr"] for group in optimizer.param_groups),
            seconds=time.perf_counter() - self.begun[0],
            cpu_seconds=time.process_time() - self.begun[1],
        )
        state.history.append(record)
        self.choose(record)
        state.optimizer = optimizer.state_dict()
        with self.span(CHECKPOINT):
            self.keep(state, snapshot(task.changing()))
        if self.is_over():
            self.trainer.should_stop = True

    def average_epoch(self) -> None:
        """One epoch of SWA, late in the last phase."""
        settings, state = self.task.settings, self.state
        last = state.phase == len(self.task.plan.phases) - 1
        late = self.epoch > settings.swa_fraction * self.phase.epochs
        if settings.average == "swa" and last and late:
            state.average.update_equal(self.task.changing())

    def is_over(self) -> bool:
        """Whether the phase has run its epochs, or has not improved for too long."""
        settings = self.task.settings
        impatient = 0 < settings.patience <= self.state.bad_epochs
        return self.epoch >= self.task.stop_after(self.state.phase) or impatient

    def choose(self, record: EpochRecord) -> None:
        """Keep the best weights; without an inner part the last are the best."""
        state, settings = self.state, self.task.settings
        value = record.inner.get(settings.monitored)
        sign = 1.0 if METRICS.get(settings.monitored).bigger_is_better else -1.0
        if value is None:
            assert record.train_loss is not None
            value, sign = record.train_loss, -1.0
        in_phase = state.phase_best is None or sign * value > sign * state.phase_best
        overall = state.best_value is None or sign * value > sign * state.best_value
        if in_phase:
            state.phase_best = value
        if settings.schedule == "plateau":
            if settings.drop_after is None:
                state.plateau.update(in_phase, settings)
            elif self.epoch in settings.drop_after[state.phase]:
                state.plateau.drop(settings)
        if len(self.task.data.inner_rows):
            state.bad_epochs = 0 if in_phase else state.bad_epochs + 1
        else:  # nothing to choose by: the last epoch is the one
            overall = True
        if overall:
            state.best_value, state.best_epoch = value, self.total_epoch
            state.best_epochs = list(state.epochs)
            if len(self.task.data.inner_rows):
                keep_best(self.task, state)

    def evaluate_inner(self) -> dict[str, float | None]:
        """The registered metrics of the inner part by the averaged weights, where there are any."""
        data = self.task.data
        if not len(data.inner_rows):
            return {}
        with self.span(INNER), self.state.average.in_place(self.task.changing()):
            logits = self.inner_logits()
        finite(float(logits.abs().max()), self.phase)
        probabilities = torch.softmax(logits.double(), dim=1).numpy()
        return score(probabilities, data.labels[data.inner_rows], data.num_classes)

    @torch.no_grad()
    def inner_logits(self) -> Tensor:
        """(N_inner, C) float32 on the CPU."""
        for module in (*self.task.stages.values(), self.task.head, self.task.auxiliary):
            module.eval()
        rows = self.task.data.inner_rows
        found = []
        with self.task.autocast():
            for start in range(0, len(rows), EVALUATION_BATCH):
                x = self.inputs(rows[start : start + EVALUATION_BATCH], PLAIN)
                if self.prefix and not self.rounds:
                    x = self.frozen_part(x)
                found.append(self.learning_part(x).float().cpu())
        return torch.cat(found)


def keep_best(task: Task, state: FitState) -> None:
    """Remember the weights as they are, or their average where there is one."""
    with state.average.in_place(task.changing()):
        state.best = snapshot(task.changing())


def finite(value: float, phase: Phase) -> float:
    """The value, where it is a number.

    Raises:
        HeadstartError: the training has diverged.
    """
    if not math.isfinite(value):
        raise HeadstartError(
            f"The training must stay finite, in phase '{phase.name}' the loss became {value}. "
            f"Lower the learning rate (the classifier's is {phase.head_rate:.2g}) or clip."
        )
    return value
