"""LeNet-5: the classic convolutional network for handwritten digits.

LeCun, Bottou, Bengio, Haffner, 1998, "Gradient-based learning applied to document recognition",
in the form that courses teach: full connections between the maps of the second convolution, tanh
without its scale, plain average pooling; three colour channels instead of one. The dense layer of
120 is the paper's third convolution, whose 5x5 kernel covers the whole map.

Shapes: input 32x32, conv1 6x28x28 pooled to 14x14, conv2 16x10x10 pooled to 5x5, 120, 84. The
84 features are the backbone; the output layer is the head that is fitted to them.
"""

from __future__ import annotations

import torch
from torch import nn

# Maps pixels of [0, 1] onto [-1, 1], where tanh is steep.
PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.5, 0.5, 0.5)


class LeNet5(nn.Module):
    """The layers of LeNet-5 up to its 84 features; no classifier. Takes 32 px only."""

    num_features = 84

    def __init__(self) -> None:
        """Build the network with fresh weights, drawn from torch's global generator."""
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2))
        self.dense1 = nn.Sequential(nn.Flatten(), nn.Linear(16 * 5 * 5, 120), nn.Tanh())
        self.dense2 = nn.Sequential(nn.Linear(120, 84), nn.Tanh())
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)  # Glorot and Bengio, 2010, for tanh
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, 32, 32) normalised pixels -> (B, 84) features."""
        features: torch.Tensor = self.dense2(self.dense1(self.conv2(self.conv1(x))))
        return features
