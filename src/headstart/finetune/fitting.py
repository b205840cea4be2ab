"""Fit one network: from a backbone and a start of the head to a tuned backbone and its head.

    plan -> phases, each a Lightning trainer -> the best epoch's weights -> a network as any other

The network given is never changed: every fit works on a copy of its own, so folds cannot learn
from each other. By default the head starts at the fitted probe (Kumar et al., 2022, "Fine-tuning
can distort pretrained features"). That probe must not have seen the inner rows, or the choice of
the epoch would be made on what was learnt already.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.backbones import Network, network_digest
from headstart.backbones.stages import has_stages, stage_modules
from headstart.errors import UsageError
from headstart.files import digest_bytes
from headstart.finetune.augmentation import Augmenter, draw_seed
from headstart.finetune.averaging import restore
from headstart.finetune.checkpoints import (
    IDENTITY,
    check_identity,
    load_checkpoint,
    save_checkpoint,
)
from headstart.finetune.history import EpochRecord, verdict
from headstart.finetune.images import Frames, TrainingData
from headstart.finetune.objectives import DenseHead, DenseLayers, balanced_weights, fresh_layers
from headstart.finetune.settings import TrainSettings
from headstart.finetune.state import FitState, Task
from headstart.finetune.strategies import STRATEGIES, Plan, trainable_plan
from headstart.heads import head_logits
from headstart.inference import FeatureExtractor
from headstart.metrics import METRICS
from headstart.progress import Progress
from headstart.records import Integers
from headstart.runtime import Execution

CHECKPOINT = "fold-{fold}.ckpt"
HEAD_KEY = 3  # first number of the key that a new head is drawn by


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
    """

    network: Network
    head: DenseLayers
    plan: Plan
    history: tuple[EpochRecord, ...]
    best_epochs: tuple[int, ...]
    best_epoch: int
    seconds: float
    verdict: str


def network_stages(network: Network, settings: TrainSettings) -> dict[str, nn.Module]:
    """The stages of a network; one named 'network' where none are known and none are needed.

    Raises:
        UsageError: the strategy cuts a network whose stages are not known.
    """
    if not has_stages(network.module) and settings.strategy in ("full", "scratch"):
        return {"network": network.module}
    return stage_modules(network.module, network.spec)


def plan_network(network: Network, settings: TrainSettings) -> Plan:
    """What learns when and how fast; for `--dry-run` and summaries.

    Raises:
        UsageError: a choice that this network does not have.
    """
    return trainable_plan(network_stages(network, settings), settings)


def check_strategy(network: Network, settings: TrainSettings) -> None:
    """Refuse a strategy that is not trained by steps, or not from these weights.

    Raises:
        UsageError: the probe, which is fitted elsewhere; 'scratch' from trained weights.
    """
    spec = STRATEGIES.get(settings.strategy)
    if not spec.has_loop:
        raise UsageError(
            f"`strategy` must be one with a training loop here, got '{spec.name}'. "
            "The probe is fitted on features."
        )
    if not spec.wants_weights and network.weights.source != "none":
        raise UsageError(
            f"The strategy '{spec.name}' must start from random weights, got those of "
            f"'{network.weights.source}'. Use --weights none, or --strategy full."
        )


def check_fit(network: Network, data: TrainingData, settings: TrainSettings) -> None:
    """Refuse what could not be trained, before any work.

    Raises:
        UsageError: the probe, which is fitted elsewhere; 'scratch' from trained weights; a metric
            that is not defined for so few classes.
    """
    check_strategy(network, settings)
    if data.num_classes > 1:
        even = np.full((2, data.num_classes), 1 / data.num_classes)
        if METRICS.get(settings.monitored).function(even, np.arange(2, dtype=np.int64)) is None:
            raise UsageError(
                f"`monitor` must be defined for {data.num_classes} classes, got "
                f"'{settings.monitor}'. Use 'loss' or 'accuracy'."
            )


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
    from headstart.finetune.training import run_phases  # loads Lightning

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


def make_task(
    network: Network,
    data: TrainingData,
    settings: TrainSettings,
    start_head: DenseLayers | None,
    *,
    execution: Execution,
    progress: Progress,
    fold: int = 0,
) -> Task:
    """Everything a training works on, with a copy of the network of its own.

    Raises:
        UsageError: settings that do not fit the network or the data.
    """
    check_fit(network, data, settings)
    fresh = replace(network, module=copy.deepcopy(network.module))
    stages = network_stages(fresh, settings)
    layers = start_head or fresh_layers(
        network.num_features,
        data.num_classes,
        settings.hidden,
        draw_seed(HEAD_KEY, settings.seed, fold),
    )
    check_head(layers, network, data)
    weights = None
    if settings.class_weights == "balanced":
        found = balanced_weights(data.labels[data.train_rows], data.num_classes)
        weights = found.to(execution.device)
    augmenter = Augmenter(settings.augmentation, settings.seed)
    return Task(
        module=fresh.module,
        stages=stages,
        head=DenseHead(layers, settings.dropout),
        plan=trainable_plan(stages, settings),
        frames=Frames(data.images, network.preprocessing, augmenter, execution, fold),
        data=data,
        settings=settings,
        execution=execution,
        fold=fold,
        class_weights=weights,
        progress=progress,
    )


def check_head(layers: DenseLayers, network: Network, data: TrainingData) -> None:
    """Refuse a head that does not lead from the features to the classes."""
    widths = [layers[0][0].shape[1], *(weight.shape[0] for weight, _ in layers)]
    if (widths[0], widths[-1]) != (network.num_features, data.num_classes):
        raise UsageError(
            f"`start_head` must lead from {network.num_features} features to {data.num_classes} "
            f"classes, got {' -> '.join(str(width) for width in widths)}. Fit it on this network."
        )


def finish_fit(network: Network, task: Task, state: FitState, seconds: float) -> TunedNetwork:
    """The tuned network on the CPU, frozen and in eval mode."""
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
    )


def padded(epochs: Sequence[int], num_phases: int) -> tuple[int, ...]:
    """One number a phase, 0 for those not begun."""
    return tuple([*epochs, *[0] * num_phases][:num_phases])


class Keeper:
    """Writes and reads one fit's checkpoint; does nothing without a path."""

    def __init__(self, path: Path | None, identity: dict[str, str]) -> None:
        """Keep where it lies and what it must agree with."""
        self.path = path
        self.identity = identity
        self.seconds_before = 0.0
        self.begun = time.perf_counter()

    def load(self) -> dict[str, Any] | None:
        """The state of this very training; None where there is none or it is damaged.

        Raises:
            ResumeError: it is of another training.
        """
        state = None if self.path is None else load_checkpoint(self.path)
        if state is not None and self.path is not None:
            check_identity(state, self.identity, self.path)
            self.seconds_before = float(state["seconds"])
        return state

    def save(self, state: FitState, current: Mapping[str, torch.Tensor]) -> None:
        """Write where a fit stands."""
        if self.path is not None:
            plain = state.to_plain(dict(current))
            plain[IDENTITY] = json.dumps(self.identity)
            plain["seconds"] = self.seconds_before + time.perf_counter() - self.begun
            save_checkpoint(self.path, plain)


def describe_fit(
    network: Network,
    data: TrainingData,
    settings: TrainSettings,
    execution: Execution,
    head: DenseLayers,
) -> dict[str, str]:
    """What the result hangs on, by the names that a refused resume shows."""
    rows = [data.labels, data.train_rows, data.inner_rows]
    return {
        "settings": json.dumps(asdict(settings), sort_keys=True),
        "network": network.digest,
        "preprocessing": network.preprocessing.key,
        "rows and labels": digest_bytes(*(np.asarray(part).tobytes() for part in rows)),
        "pictures": pixel_digest(data),
        "start of the head": digest_bytes(*(t.numpy().tobytes() for pair in head for t in pair)),
        "engine": execution.key,
    }


def pixel_digest(data: TrainingData) -> str:
    """Digest of the pictures' shape and of those used, picture by picture to stay small."""
    rows = np.concatenate([data.train_rows, data.inner_rows])
    parts = [digest_bytes(data.images[int(row)].numpy().tobytes()) for row in rows]
    return digest_bytes(str(tuple(data.images.shape)).encode(), "".join(parts).encode())


def median_epochs(fits: Sequence[TunedNetwork]) -> tuple[int, ...]:
    """Epochs a phase for the final fit: the median over folds, half numbers up."""
    table = np.array([fit.best_epochs for fit in fits])
    return tuple(int(n) for n in np.floor(np.median(table, axis=0) + 0.5))


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
        settings: those of the folds.
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
