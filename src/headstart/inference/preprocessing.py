"""From the pixels of pictures to a network's input."""

from __future__ import annotations

import torch

from headstart.data.resizing import resize_pixels
from headstart.records import Preprocessing

__all__ = ["normalise", "resize_pixels"]


def normalise(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, channels-last in memory, mean 0, deviation 1."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device) * 255
    scale = 1 / (torch.tensor(preprocessing.std, device=pixels.device) * 255)
    return ((pixels.float() - mean) * scale).permute(0, 3, 1, 2)
