"""From a decoded 8-bit RGB picture to the pixels a network takes."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from headstart.records import Bytes8, Preprocessing

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_pixels(image: Image.Image, preprocessing: Preprocessing) -> Bytes8:
    """Resize the whole picture to the network's square, with antialiasing.

    Args:
        image: mode 'RGB', any size.
        preprocessing: size and interpolation.

    Returns:
        (size, size, 3) uint8.
    """
    size = (preprocessing.size, preprocessing.size)
    if image.size != size:
        image = image.resize(size, RESAMPLING[preprocessing.interpolation])
    return np.asarray(image)


def normalise(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, channels-last in memory, mean 0, deviation 1."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device) * 255
    scale = 1 / (torch.tensor(preprocessing.std, device=pixels.device) * 255)
    return ((pixels.float() - mean) * scale).permute(0, 3, 1, 2)
