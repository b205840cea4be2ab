"""`mini`: the network in the box.

A residual network (He et al., 2016, "Deep residual learning") of one basic block a stage, shaped
for small pictures on a CPU: few channels where the map is large, many where it is small, so that
most of its 2.3 million parameters cost little time (0.14 GFLOP a picture of 64 px). Habits of
later work are kept where they cost nothing: average pooling before every convolution but the
stem's that would skip pixels (Zhang, 2019, "Making convolutional networks shift-invariant again";
in shortcuts ResNet-D, He et al., 2019), the last scale of each branch starting at zero (Goyal et
al., 2017), a 3x3 stem instead of 7x7. 2.6 times the operations transfer better to drawings, and
not visibly so elsewhere: docs/benchmarks.md.

Shapes for a 64 px picture: stem 32x32, stage1 32x32, stage2 16x16, stage3 8x8, stage4 4x4. Any
size from 32 px works, because the map is averaged at the end.
"""

from __future__ import annotations

import torch
from torch import nn

# Mean and deviation of the 68,000 pictures it was pretrained on, pixels scaled to [0, 1].
PIXEL_MEAN = (0.4805, 0.4487, 0.3977)
PIXEL_STD = (0.2742, 0.2673, 0.2793)

WIDTHS = (24, 48, 160, 384)
STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")


def conv_norm(channels_in: int, channels_out: int, kernel: int, stride: int) -> list[nn.Module]:
    """A convolution without bias, padded to keep the size, and its batch normalisation."""
    padding = kernel // 2
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out),
    ]


def halved(stride: int) -> list[nn.Module]:
    """Averages of 2x2 where `stride` is 2, nothing where it is 1."""
    return [nn.AvgPool2d(2, ceil_mode=True)] if stride == 2 else []


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: relu(branch(x) + shortcut(x))."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        """Build a block from `channels_in` to `channels_out` channels, `stride` 1 or 2."""
        super().__init__()
        self.branch = nn.Sequential(
            *halved(stride),
            *conv_norm(channels_in, channels_out, 3, 1),
            nn.ReLU(inplace=True),
            *conv_norm(channels_out, channels_out, 3, 1),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                *halved(stride), *conv_norm(channels_in, channels_out, 1, 1)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class MiniNet(nn.Module):
    """The stages of `mini`, then global average pooling; no classifier."""

    num_features = WIDTHS[-1]

    def __init__(self) -> None:
        """Build the network with fresh weights, drawn from torch's global generator."""
        super().__init__()
        channels = WIDTHS[0]
        self.stem = nn.Sequential(*conv_norm(3, channels, 3, 2), nn.ReLU(inplace=True))
        for index, width in enumerate(WIDTHS):
            block = BasicBlock(channels, width, stride=1 if index == 0 else 2)
            self.add_module(f"stage{index + 1}", nn.Sequential(block))
            channels = width
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, BasicBlock):
                last = module.branch[-1]
                assert isinstance(last, nn.BatchNorm2d)
                nn.init.zeros_(last.weight)  # each block starts as its shortcut

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised pixels -> (B, 384, H / 16, W / 16)."""
        for name in STAGES:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised pixels -> (B, 384) pooled features."""
        return self.forward_features(x).mean(dim=(2, 3))
