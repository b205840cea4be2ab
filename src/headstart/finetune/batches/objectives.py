"""What training lowers, and what is done to images and labels on a batch for it.

Losses are given an image each and summed by the caller with weights, so that a mean over four
batches of 8 is the mean over 32.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.finetune.batches.augmentation import draw_seed
from headstart.finetune.settings import TrainSettings
from headstart.heads import balancing_factors
from headstart.records import Integers


def soft_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """(B,) labels -> (B, C) target probabilities, a share spread over all classes."""
    hard = functional.one_hot(labels, num_classes).float()
    return hard * (1 - smoothing) + smoothing / num_classes


def image_losses(logits: Tensor, targets: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
    """(B,) focal cross-entropy: -sum_c w_c t_c (1 - p_c)^gamma log p_c.

    Args:
        logits: (B, C).
        targets: (B, C) probabilities.
        weights: (C,) of the classes, or None.
        gamma: 0 gives cross-entropy (Lin et al., 2017).
    """
    logs = logits.float().log_softmax(dim=1)
    terms = targets * logs
    if weights is not None:
        terms = terms * weights
    if gamma:
        terms = terms * (1 - logs.exp()).clamp_min(0) ** gamma
    return -terms.sum(dim=1)


def loss_weights(labels: Integers, num_classes: int) -> Tensor:
    """(C,) N / (present classes x images of the class), so that the mean weight of an image is 1.

    A class without images gets weight 1; only a smoothed target looks it up.
    """
    support = torch.from_numpy(np.bincount(labels, minlength=num_classes)).double()
    factors = balancing_factors(support[None])[0]
    return torch.where(support > 0, factors, 1.0).float()


def mix(
    pixels: Tensor, targets: Tensor, settings: TrainSettings, key: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix of a batch with itself in another order.

    Args:
        pixels: (B, 3, H, W) normalised.
        targets: (B, C).
        settings: their alphas; with both above 0 each batch takes one of them.
        key: numbers of 0 or more that the draw hangs on.

    Returns:
        Mixed pixels and targets.
    """
    if not settings.mixes_images:
        return pixels, targets
    generator = np.random.default_rng(draw_seed(*key))
    cuts = settings.cutmix > 0 and (settings.mixup == 0 or generator.random() < 0.5)
    alpha = settings.cutmix if cuts else settings.mixup
    share = float(generator.beta(alpha, alpha))
    partner = torch.from_numpy(generator.permutation(len(pixels))).to(pixels.device)
    if cuts:
        top, bottom, left, right = cut_box(pixels.shape[2], pixels.shape[3], share, generator)
        mixed = pixels.clone()
        mixed[:, :, top:bottom, left:right] = pixels[partner, :, top:bottom, left:right]
        area = (bottom - top) * (right - left)
        share = 1 - area / (pixels.shape[2] * pixels.shape[3])
    else:
        mixed = share * pixels + (1 - share) * pixels[partner]
    return mixed, share * targets + (1 - share) * targets[partner]


def cut_box(
    height: int, width: int, share: float, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a box of area (1 - share), clipped at the border."""
    side = (1 - share) ** 0.5
    middle_y, middle_x = generator.integers(height), generator.integers(width)
    half_y, half_x = round(height * side / 2), round(width * side / 2)
    return (
        max(int(middle_y) - half_y, 0),
        min(int(middle_y) + half_y, height),
        max(int(middle_x) - half_x, 0),
        min(int(middle_x) + half_x, width),
    )


DenseLayers = tuple[tuple[Tensor, Tensor], ...]


class DenseHead(nn.Module):
    """Dense layers with ReLU between them and dropout before each: features in, logits out."""

    def __init__(self, layers: DenseLayers, dropout: tuple[float, ...]) -> None:
        """Copy the layers.

        Args:
            layers: ((width_out, width_in) weight, (width_out,) bias) in order.
            dropout: a share before each layer; the last holds for further ones.
        """
        super().__init__()
        self.dense = nn.ModuleList()
        self.dropout = [dropout[min(i, len(dropout) - 1)] for i in range(len(layers))]
        for weight, bias in layers:
            dense = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # draws nothing
            dense.weight = nn.Parameter(weight.detach().float().clone())
            dense.bias = nn.Parameter(bias.detach().float().clone())
            self.dense.append(dense)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, C)."""
        for index, (dense, share) in enumerate(zip(self.dense, self.dropout, strict=True)):
            x = torch.relu(x) if index else x
            x = dense(functional.dropout(x, share, self.training))
        return x

    def layers(self) -> DenseLayers:
        """Copies of the layers, on the CPU."""
        return tuple(
            (dense.weight.detach().cpu().clone(), dense.bias.detach().cpu().clone())
            for dense in self.dense
            if isinstance(dense, nn.Linear)
        )


def fresh_layers(
    num_features: int, num_classes: int, hidden: tuple[int, ...], seed: int
) -> DenseLayers:
    """Dense layers as torch initialises them, from a seed."""
    widths = [num_features, *hidden, num_classes]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        dense = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return tuple((layer.weight.detach(), layer.bias.detach()) for layer in dense)
