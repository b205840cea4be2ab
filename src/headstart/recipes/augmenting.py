"""How pictures are varied while `mini` is pretrained: on the device where they lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from headstart.backbones.mini import PIXEL_MEAN, PIXEL_STD


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How strongly the pictures are varied.

    Attributes:
        min_area_fraction: a crop shows at least this part of the picture.
        colour_strength: brightness, contrast and saturation change by at most this.
        grey_fraction: part of the pictures that lose all colour.
        cutmix_fraction: part of the batches in which a rectangle of each picture is another's.
        mixup_fraction: part of the batches in which each picture is a weighted mean with another.
    """

    min_area_fraction: float = 0.25
    colour_strength: float = 0.3
    grey_fraction: float = 0.1
    cutmix_fraction: float = 0.0
    mixup_fraction: float = 0.0


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Uint8 pixels (B, 3, H, W) -> float32, zero mean and unit deviation a channel."""
    mean = torch.tensor(PIXEL_MEAN, device=pixels.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(PIXEL_STD, device=pixels.device).view(1, 3, 1, 1) * 255
    return (pixels.float() - mean) / std


def augment(
    x: torch.Tensor, size: int, variation: Variation, generator: torch.Generator
) -> torch.Tensor:
    """Crop, flip and resize by one affine sampling, then vary brightness, contrast, colour.

    Args:
        x: (B, 3, 64, 64) normalised pixels.
        size: resolution of the result in px.
        variation: strengths.
        generator: source of every random number, on the device of `x`.

    Returns:
        (B, 3, size, size) float32.
    """
    count = len(x)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(count, device=x.device).uniform_(low, high, generator=generator)

    area = uniform(variation.min_area_fraction, 1.0)
    ratio = torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3, device=x.device)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2] = uniform(-1, 1) * (1 - width)
    theta[:, 1, 2] = uniform(-1, 1) * (1 - height)
    grid = functional.affine_grid(theta, [count, 3, size, size], align_corners=False)
    x = functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)

    strength = variation.colour_strength
    grey = x.mean(dim=1, keepdim=True)
    saturation = uniform(1 - strength, 1 + strength)
    saturation[uniform(0, 1) < variation.grey_fraction] = 0
    x = torch.lerp(grey, x, saturation.view(-1, 1, 1, 1))
    contrast = uniform(1 - strength, 1 + strength).view(-1, 1, 1, 1)
    return x * contrast + uniform(-strength, strength).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Mixed:
    """A batch in which each picture may be made of two.

    Attributes:
        x: (B, 3, H, W) pixels.
        first: (B,) label of each picture.
        second: (B,) label of what was mixed into it.
        share: weight of the first label, 1 where nothing was mixed.
    """

    x: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    share: float

    def loss(self, logits: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Mean cross-entropy of (B, K) logits to both labels, as they were weighted."""
        first = functional.cross_entropy(logits, self.first, label_smoothing=smoothing)
        if self.share == 1:
            return first
        second = functional.cross_entropy(logits, self.second, label_smoothing=smoothing)
        return self.share * first + (1 - self.share) * second


def mix(
    x: torch.Tensor, labels: torch.Tensor, variation: Variation, numbers: np.random.Generator
) -> Mixed:
    """CutMix (Yun et al., 2019) or MixUp (Zhang et al., 2018, Beta(0.2, 0.2)) on some batches.

    Args:
        x: (B, 3, H, W) pixels.
        labels: (B,) their labels.
        variation: on which part of the batches.
        numbers: source of every random number.

    Returns:
        The batch; `x` itself is left as it is.
    """
    choice = numbers.uniform()
    cut = choice < variation.cutmix_fraction
    if not cut and choice >= variation.cutmix_fraction + variation.mixup_fraction:
        return Mixed(x, labels, labels, 1.0)
    order = torch.from_numpy(numbers.permutation(len(x))).to(x.device)
    if not cut:
        share = float(numbers.beta(0.2, 0.2))
        return Mixed(torch.lerp(x[order], x, share), labels, labels[order], share)
    height, width = x.shape[2:]
    edge = math.sqrt(numbers.uniform())
    tall, wide = round(height * edge), round(width * edge)
    top, left = numbers.integers(0, height - tall + 1), numbers.integers(0, width - wide + 1)
    area = (slice(None), slice(None), slice(top, top + tall), slice(left, left + wide))
    pasted = x.clone()
    pasted[area] = x[order][area]
    return Mixed(pasted, labels, labels[order], 1 - tall * wide / (height * width))
