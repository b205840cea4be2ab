"""A tiny network for tests: deterministic, quick, of the same shape as a real one."""

from __future__ import annotations

import torch
from torch import nn

from headstart.backbones import BackboneSpec, Network, WeightsRecord
from headstart.backbones.weights import state_digest
from headstart.records import Preprocessing
from headstart.runtime import Execution


class TinyNet(nn.Module):
    num_features = 12

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3)
        )
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return self.body(x).mean(dim=(2, 3))


def tiny_network(seed: int = 0, size: int = 32) -> Network:
    torch.manual_seed(seed)
    module = TinyNet().eval().requires_grad_(False)
    return Network(
        spec=BackboneSpec(name="tiny", origin="own", architecture="tiny", summary=""),
        module=module,
        num_features=12,
        preprocessing=Preprocessing(size=size),
        weights=WeightsRecord(source="none", origin="", licence=""),
        digest=state_digest(module),
    )


def on_cpu(precision: str = "float32") -> Execution:
    return Execution(
        device="cpu",
        precision=precision,
        channels_last=precision == "bfloat16",
        threads=torch.get_num_threads(),
        reason="test",
    )
