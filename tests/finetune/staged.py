"""A tiny network with named stages and batch normalisation, and data it can learn."""

from __future__ import annotations

import numpy as np
import torch
from networks import on_cpu
from torch import nn

from headstart.backbones import BackboneSpec, Network, WeightsRecord, stages
from headstart.backbones.weights import state_digest
from headstart.finetune import TrainingData, TrainSettings
from headstart.records import Preprocessing

SIZE = 16
CLASSES = 3


class StagedNet(nn.Module):
    num_features = 8

    def __init__(self):
        super().__init__()
        widths = (3, 4, 6, 8)
        for i in range(3):
            layers = [nn.Conv2d(widths[i], widths[i + 1], 3, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(widths[i + 1]), nn.ReLU()]
            self.add_module(f"stage{i + 1}", nn.Sequential(*layers))

    def forward(self, x):
        return self.stage3(self.stage2(self.stage1(x))).mean(dim=(2, 3))


def find_stages(module):
    named = {f"stage{i}": module.get_submodule(f"stage{i}") for i in (1, 2, 3)}
    return {**named, "pool": stages.SpatialMean()}


stages.FAMILIES["staged.StagedNet"] = find_stages


def staged_network(seed: int = 0, source: str = "bundled") -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = StagedNet().eval().requires_grad_(False)
    return Network(
        spec=BackboneSpec(name="staged", origin="own", architecture="staged", summary=""),
        module=module,
        num_features=8,
        preprocessing=Preprocessing(size=SIZE),
        weights=WeightsRecord(source=source, origin="", licence=""),
        digest=state_digest(module),
    )


def colourful(count: int = 30, inner: int = 9, seed: int = 0) -> TrainingData:
    """Noise with one channel darkened by the class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    pixels = generator.integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)
    for row, label in enumerate(labels):
        pixels[row, :, :, label] //= 3
    rows = np.arange(count)
    return TrainingData(
        images=torch.from_numpy(pixels),
        labels=labels,
        train_rows=rows[inner:],
        inner_rows=rows[:inner],
        num_classes=CLASSES,
    )


def quick(**changes) -> TrainSettings:
    """Settings of a training of a second."""
    plain = {"strategy": "full", "epochs": (2,), "lr": 1e-2, "batch_size": 8, "patience": 0}
    return TrainSettings(**{**plain, **changes})


EXECUTION = on_cpu()
