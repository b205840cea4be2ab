"""Fit one network: from a backbone and a start of the head to a tuned backbone and its head.

    plan -> phases, each a Lightning trainer -> the best epoch's weights -> a network as any other

The network given is never changed: every fit works on a copy of its own, so folds cannot learn
from each other. By default the head starts at the fitted probe (Kumar et al., 2022, "Fine-tuning
can distort pretrained features"). That probe must not have seen the inner rows, or the choice of
the epoch would be made on what was learnt already.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from headstart.backbones import Network, network_digest
from headstart.errors import UsageError
from headstart.finetune.batches.images import TrainingData
from headstart.finetune.batches.objectives import DenseLayers
from headstart.finetune.preparing import make_task, plan_network
from headstart.finetune.records.history import EpochRecord, verdict
from headstart.finetune.records.keeping import Keeper, describe_fit
from headstart.finetune.records.profiling import Span
from headstart.finetune.settings import TrainSettings
from headstart.finetune.steps.averaging import restore
from headstart.finetune.steps.state import FitState, Task
from headstart.finetune.strategies import Plan
from headstart.heads import head_logits
from headstart.inference import FeatureExtractor
from headstart.progress import Progress
from headstart.records import Integers
from headstart.runtime import Execution

CHECKPOINT = "fold-{fold}.ckpt"


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedNetwork:
    """What a fit leaves.

    Attributes:
        network: the tuned backbone, frozen again, to be used, stored and exported as any other.
        head: ((width, width_in) weight, (width,) bias) of each dense layer, ReLU between them.
        plan: what learnt when.
        history: an `EpochRecord` an epoch, the start first where there was an inner part.
        best_epochs: epochs of each phase up to the best one.
        best_epoch: the same over all phases; 0 is the start.
        seconds: wall time of the fit, what a killed run did before included.
        verdict: a sentence on over- or underfitting.
        profile: exclusive seconds of the parts of the training, as far as this process did it.
    """

    network: Network
    head: DenseLayers
    plan: Plan
    history: tuple[EpochRecord, ...]
    best_epochs: tuple[int, ...]
    best_epoch: int
    seconds: float
    verdict: str
    profile: Mapping[str, Span] = field(default_factory=dict)


def fit_network(
    network: Network,
    data: TrainingData,
    settings: TrainSettings,
    *,
    execution: Execution,
    start_head: DenseLayers | None = None,
    checkpoint_dir: Path | None = None,
    progress: Progress | None = None,
    fold: int = 0,
) -> TunedNetwork:
    """Train a copy of a network, or go on where a checkpoint stands.

    Args:
        network: stays as it is.
        data: pictures, labels, rows.
        settings: how.
        execution: device and precision.
        start_head: dense layers to begin with, fitted without the inner rows; None draws new
            ones of `settings.hidden`.
        checkpoint_dir: where an epoch is kept; an unfinished fit there is gone on with, a finished
            one is read. None keeps nothing.
        progress: silent where None.
        fold: part of every random draw and of the checkpoint's name; 0 for the final fit, folds
            from 1.

    Raises:
        UsageError: settings that do not fit the network or the data.
        ResumeError: the checkpoint is of another training.
        StorageError: the disk is full; the checkpoint before stays whole.
    """
    from headstart.finetune.steps.loop import run_phases  # loads Lightning

    begun = time.perf_counter()
    task = make_task(
        network,
        data,
        settings,
        start_head,
        execution=execution,
        progress=progress or Progress(),
        fold=fold,
    )
    keeper = Keeper(None, {})
    if checkpoint_dir is not None:
        identity = describe_fit(network, data, settings, execution, task.head.layers())
        keeper = Keeper(checkpoint_dir / CHECKPOINT.format(fold=fold), identity)
    state = FitState()
    kept = keeper.load()
    if kept is not None:
        state = FitState.from_plain(kept)
        restore(task.changing(), state.best if state.finished else kept["current"])
    if not state.finished:
        run_phases(task, state, keeper.save)
    return finish_fit(network, task, state, keeper.seconds_before + time.perf_counter() - begun)


def finish_fit(network: Network, task: Task, state: FitState, seconds: float) -> TunedNetwork:
    """The tuned network on the CPU, frozen and in eval mode."""
    task.auxiliary.detach_from_network()
    module = task.module.cpu()
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    module.eval().requires_grad_(False)
    tuned = replace(
        network,
        module=module,
        digest=network_digest(network.spec, module, network.blocks),
    )
    history = tuple(state.history)
    return TunedNetwork(
        network=tuned,
        head=task.head.layers(),
        plan=task.plan,
        history=history,
        best_epochs=padded(state.best_epochs, len(task.plan.phases)),
        best_epoch=state.best_epoch,
        seconds=seconds,
        verdict=verdict(history, state.best_epoch),
        profile=task.stopwatch.spans,
    )


def padded(epochs: Sequence[int], num_phases: int) -> tuple[int, ...]:
    """One number a phase, 0 for those not begun."""
    return tuple([*epochs, *[0] * num_phases][:num_phases])


def median_epochs(fits: Sequence[TunedNetwork]) -> tuple[int, ...]:
    """Epochs a phase for the final fit: the median over folds, half numbers up."""
    table = np.array([fit.best_epochs for fit in fits])
    return tuple(int(n) for n in np.floor(np.median(table, axis=0) + 0.5))


def median_drops(fits: Sequence[TunedNetwork]) -> tuple[tuple[int, ...], ...]:
    """Epochs of each phase after which 'plateau' drops the rate in the final fit.

    Without an inner part that fit has nothing honest to watch, so it repeats the folds: by the
    median number of drops that they had seen by then, half numbers up. A fold that has stopped
    drops no more.
    """
    phases = fits[0].plan.phases
    counts = [[drops_by_epoch(fit, phase.name) for fit in fits] for phase in phases]
    found = []
    for of_phase in counts:
        length = max(len(drops) for drops in of_phase)
        table = [drops + drops[-1:] * (length - len(drops)) or [0] * length for drops in of_phase]
        medians = np.floor(np.median(table, axis=0) + 0.5) if length else np.zeros(0)
        found.append(tuple(int(epoch) for epoch in np.flatnonzero(np.diff(medians)) + 1))
    return tuple(found)


def drops_by_epoch(fit: TunedNetwork, phase: str) -> list[int]:
    """How often the rate had dropped when each epoch of a phase ended."""
    rates = [record.rate for record in fit.history if record.phase == phase]
    dropped = [before > after for before, after in pairwise(rates)]
    return [0, *np.cumsum(dropped, dtype=int).tolist()] if rates else []


def refit(
    network: Network,
    data: TrainingData,
    settings: TrainSettings,
    *,
    epochs: tuple[int, ...],
    execution: Execution,
    start_head: DenseLayers | None = None,
    checkpoint_dir: Path | None = None,
    progress: Progress | None = None,
) -> TunedNetwork:
    """Fit on all training rows for a given number of epochs a phase, rates as planned before.

    Args:
        network: stays as it is.
        data: without inner rows.
        settings: those of the folds; 'plateau' needs `drop_after`, see `median_drops`.
        epochs: from `median_epochs`.
        execution: device and precision.
        start_head: as in `fit_network`, fitted on all training rows.
        checkpoint_dir: as in `fit_network`.
        progress: silent where None.

    Raises:
        UsageError: the number of phases is another.
    """
    num_phases = len(plan_network(network, settings).phases)
    if len(epochs) != num_phases:
        raise UsageError(
            f"`epochs` must be one number for each of {num_phases} phases, got {epochs}. "
            "Take the median of folds with the same settings."
        )
    return fit_network(
        network,
        replace(data, inner_rows=np.empty(0, dtype=np.int64)),
        replace(settings, stop_after=epochs),
        execution=execution,
        start_head=start_head,
        checkpoint_dir=checkpoint_dir,
        progress=progress,
    )


def predict_logits(
    tuned: TunedNetwork, images: torch.Tensor, rows: Integers, *, execution: Execution
) -> npt.NDArray[np.float64]:
    """(N, C) logits of some rows, by the one forward path that prediction uses.

    Args:
        tuned: a fitted network.
        images: (N, S, S, 3) uint8.
        rows: which of them.
        execution: device and precision.
    """
    extractor = FeatureExtractor(tuned.network, execution)
    logits = [np.empty((0, tuned.head[-1][0].shape[0]))]
    for start in range(0, len(rows), extractor.batch_size):
        part = torch.from_numpy(np.asarray(rows[start : start + extractor.batch_size]))
        logits.append(head_logits(extractor.forward(images[part]), tuned.head))
    return np.concatenate(logits)
