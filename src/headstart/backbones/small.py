"""SmallCNN: a small convolutional network to learn from scratch.

Four blocks of a 3x3 convolution, batch normalisation, ReLU and 2x2 maximum pooling, as courses
teach them; the map is averaged at the end, so that any size from 32 px works and no dense layer
holds most of the parameters. 241 thousand parameters.

Shapes for a 64 px picture: 32x32x32, 64x16x16, 128x8x8, 128x4x4, 128 features.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

# Maps pixels of [0, 1] onto [-1, 1].
PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.5, 0.5, 0.5)
WIDTHS = (3, 32, 64, 128, 128)


class SmallCNN(nn.Module):
    """The four blocks, then global average pooling; no classifier."""

    num_features = WIDTHS[-1]

    def __init__(self) -> None:
        """Build the network with fresh weights, drawn from torch's global generator."""
        super().__init__()
        for index, (inward, outward) in enumerate(pairwise(WIDTHS)):
            layers = [
                nn.Conv2d(inward, outward, 3, padding=1, bias=False),
                nn.BatchNorm2d(outward),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            self.add_module(f"block{index + 1}", nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al., 2015, for ReLU
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised pixels -> (B, 128) pooled features."""
        for block in self.children():
            x = block(x)
        return x.mean(dim=(2, 3))
