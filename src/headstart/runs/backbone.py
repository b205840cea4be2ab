"""The network that the settings of a run ask for, and the engine of its pass."""

from __future__ import annotations

from headstart.backbones import HeadBlocks, Network, build_network, find_backbone
from headstart.inference import FeatureExtractor, PassWork, choose_engine
from headstart.runs.settings.run import PROBE, RunSettings
from headstart.runtime import Execution


def build_backbone(settings: RunSettings) -> Network:
    """Backbone, weights, size, head blocks and layers as the settings say.

    Raises:
        WeightsError: the weights are not at hand or do not fit.
        UsageError: an image size, blocks or layers that the network cannot take.
    """
    return build_network(
        find_backbone(settings.model),
        weights=settings.weights,
        image_size=settings.image_size,
        seed=settings.seed,
        blocks=HeadBlocks.parse(settings.head_blocks, settings.pool),
        layers=settings.layers,
    )


def make_extractor(
    settings: RunSettings, network: Network, execution: Execution, num_images: int
) -> FeatureExtractor:
    """The network on its device, in the engine that the rule chooses.

    Args:
        settings: may name the engine.
        network: from `build_backbone`.
        execution: device and precision.
        num_images: of the whole data.

    Raises:
        UsageError: an engine that is unknown or that the device does not have.
        MissingExtraError: the engine asked for is not installed.
    """
    work = PassWork(
        architecture=network.spec.architecture,
        image_size=network.preprocessing.size,
        num_images=num_images,
        frozen=settings.strategy == PROBE,
    )
    engine = choose_engine(settings.pass_engine, work, execution)
    return FeatureExtractor(network, execution, engine=engine)


def check_strategy(settings: RunSettings, network: Network, num_classes: int) -> None:
    """Refuse a strategy that the network cannot be trained by, before any image is read.

    Raises:
        UsageError: stages that it does not have, 'scratch' from trained weights, a figure to watch
            that is not defined for so many classes.
    """
    if settings.strategy == PROBE:
        return
    from headstart.finetune import check_training, plan_network
    from headstart.runs.settings.training import train_settings

    chosen = train_settings(settings)
    plan_network(network, chosen)
    check_training(network, chosen, num_classes)
