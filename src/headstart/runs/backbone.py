"""The network that the settings of a run ask for."""

from __future__ import annotations

from headstart.backbones import HeadBlocks, Network, build_network, find_backbone
from headstart.runs.settings import RunSettings


def build_backbone(settings: RunSettings) -> Network:
    """Backbone, weights, size and head blocks as the settings say.

    Raises:
        WeightsError: the weights are not at hand or do not fit.
        UsageError: an image size or blocks that the network cannot take.
    """
    return build_network(
        find_backbone(settings.model),
        weights=settings.weights,
        image_size=settings.image_size,
        seed=settings.seed,
        blocks=HeadBlocks.parse(settings.head_blocks, settings.pool),
    )
