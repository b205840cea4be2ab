"""Before the first step: which settings go with which network, and all that a fit works on."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
from torch import nn

from headstart.backbones import Network
from headstart.backbones.stages import has_stages, stage_modules
from headstart.errors import UsageError
from headstart.finetune.batches.augmentation import Augmenter, draw_seed
from headstart.finetune.batches.images import Frames, TrainingData
from headstart.finetune.batches.objectives import DenseHead, DenseLayers, fresh_layers, loss_weights
from headstart.finetune.records.profiling import Stopwatch
from headstart.finetune.settings import TrainSettings
from headstart.finetune.steps.auxiliary import (
    AuxiliaryHeads,
    auxiliary_places,
    auxiliary_weight,
    plain_body,
)
from headstart.finetune.steps.state import Task
from headstart.finetune.strategies import STRATEGIES, Plan, trainable_plan
from headstart.metrics import METRICS
from headstart.progress import Progress
from headstart.runtime import Execution

HEAD_KEY, AUXILIARY_KEY = 3, 5  # first numbers of the keys that new heads are drawn by


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


def check_fit(
    network: Network, data: TrainingData, settings: TrainSettings, execution: Execution
) -> None:
    """Refuse what could not be trained, before any work.

    Raises:
        UsageError: the probe, which is fitted elsewhere; 'scratch' from trained weights; a metric
            that is not defined for so few classes; compilation without a compiler.
    """
    check_training(network, settings, data.num_classes)
    held = data.labels[data.inner_rows]
    even = np.full((len(held), data.num_classes), 1 / data.num_classes)
    if len(held) and METRICS.get(settings.monitored).function(even, held) is None:
        raise UsageError(
            f"`monitor` must be defined for the {len(held)} images that choose the epoch, of "
            f"{len(np.unique(held))} of {data.num_classes} classes, got '{settings.monitor}'. "
            "Use 'loss' or 'accuracy'."
        )
    if settings.compile and execution.device == "cpu":
        check_compiler()


def check_training(network: Network, settings: TrainSettings, num_classes: int) -> None:
    """Refuse what could not be trained, as far as no data are needed to tell.

    Raises:
        UsageError: the probe, which is fitted elsewhere; 'scratch' from trained weights; a metric
            that is not defined for so few classes.
    """
    check_strategy(network, settings)
    Augmenter(settings.augmentation, 0)  # refuses amounts that cannot be
    if num_classes > 1:
        even = np.full((2, num_classes), 1 / num_classes)
        if METRICS.get(settings.monitored).function(even, np.arange(2, dtype=np.int64)) is None:
            raise UsageError(
                f"`monitor` must be defined for {num_classes} classes, got "
                f"'{settings.monitor}'. Use 'loss' or 'accuracy'."
            )


def check_compiler() -> None:
    """Refuse compilation where torch finds no C++ compiler to do it with.

    Raises:
        UsageError: there is none.
    """
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise UsageError(
            "`compile` must be left out on this machine: torch finds no C++ compiler. Install g++ "
            "or clang, or name one by CXX."
        ) from error


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
    check_fit(network, data, settings, execution)
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
        found = loss_weights(data.labels[data.train_rows], data.num_classes)
        weights = found.to(execution.device)
    augmenter = Augmenter(settings.augmentation, settings.seed)
    stopwatch = Stopwatch(wait_for_gpu=settings.profile)
    weight = auxiliary_weight(network, settings)
    return Task(
        module=fresh.module,
        stages=stages,
        head=DenseHead(layers, settings.dropout),
        plan=trainable_plan(stages, settings),
        frames=Frames(data.images, network.preprocessing, augmenter, execution, fold, stopwatch),
        data=data,
        settings=settings,
        execution=execution,
        fold=fold,
        class_weights=weights,
        progress=progress,
        auxiliary=AuxiliaryHeads(
            auxiliary_places(network) if weight else {},
            plain_body(fresh.module),
            data.num_classes,
            weight,
            draw_seed(AUXILIARY_KEY, settings.seed, fold),
        ),
        stopwatch=stopwatch,
    )


def check_head(layers: DenseLayers, network: Network, data: TrainingData) -> None:
    """Refuse a head that does not lead from the features to the classes."""
    widths = [layers[0][0].shape[1], *(weight.shape[0] for weight, _ in layers)]
    if (widths[0], widths[-1]) != (network.num_features, data.num_classes):
        raise UsageError(
            f"`start_head` must lead from {network.num_features} features to {data.num_classes} "
            f"classes, got {' -> '.join(str(width) for width in widths)}. Fit it on this network."
        )
