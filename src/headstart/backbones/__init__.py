"""Pretrained networks: what there is, where its weights come from, how it is built."""

from headstart.backbones.catalogue import BACKBONES, BackboneSpec, find_backbone
from headstart.backbones.networks import Network, build_network, cut, rebuild_network
from headstart.backbones.stages import stage_modules
from headstart.backbones.weights import WEIGHT_CHOICES, WeightsRecord

__all__ = [
    "BACKBONES",
    "WEIGHT_CHOICES",
    "BackboneSpec",
    "Network",
    "WeightsRecord",
    "build_network",
    "cut",
    "find_backbone",
    "rebuild_network",
    "stage_modules",
]
