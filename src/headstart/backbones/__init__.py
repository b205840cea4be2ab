"""Pretrained networks: what there is, where its weights come from, how it is built."""

from headstart.backbones.blocks import BLOCKS, BLOCKS_STAGE, POOLS, HeadBlocks
from headstart.backbones.catalogue import BACKBONES, BackboneSpec, find_backbone
from headstart.backbones.layered import AUTO, check_layers
from headstart.backbones.networks import (
    Network,
    build_network,
    cut,
    keep_last_layers,
    network_digest,
    rebuild_network,
)
from headstart.backbones.stages import stage_modules
from headstart.backbones.weights import WEIGHT_CHOICES, WeightsRecord

__all__ = [
    "AUTO",
    "BACKBONES",
    "BLOCKS",
    "BLOCKS_STAGE",
    "POOLS",
    "WEIGHT_CHOICES",
    "BackboneSpec",
    "HeadBlocks",
    "Network",
    "WeightsRecord",
    "build_network",
    "check_layers",
    "cut",
    "find_backbone",
    "keep_last_layers",
    "network_digest",
    "rebuild_network",
    "stage_modules",
]
