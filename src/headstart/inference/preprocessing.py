"""From the pixels of pictures to a network's input."""

from __future__ import annotations

import torch

from headstart.data.resizing import resize_pixels
from headstart.records import Preprocessing

__all__ = ["Normalisation", "normalise", "resize_pixels"]


class Normalisation:
    """Mean and scale of a network's input, kept on a device.

    Made anew for every batch they would be copied there each time, which waits for the device.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device | str) -> None:
        """Copy them to the device."""
        self.mean = torch.tensor(preprocessing.mean, device=device) * 255
        self.scale = 1 / (torch.tensor(preprocessing.std, device=device) * 255)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """As `normalise`."""
        return ((pixels.float() - self.mean) * self.scale).permute(0, 3, 1, 2)


def normalise(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, channels-last in memory, mean 0, deviation 1."""
    return Normalisation(preprocessing, pixels.device)(pixels)
