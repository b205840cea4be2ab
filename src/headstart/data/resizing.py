"""From a decoded 8-bit RGB picture to the square a network takes; needs no torch."""

from __future__ import annotations

import numpy as np
from PIL import Image

from headstart.records import Bytes8, Preprocessing

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_picture(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resize the whole picture to the network's square, with antialiasing.

    Args:
        image: mode 'RGB', any size.
        preprocessing: size and interpolation.
    """
    size = (preprocessing.size, preprocessing.size)
    if image.size == size:
        return image
    return image.resize(size, RESAMPLING[preprocessing.interpolation])


def resize_pixels(image: Image.Image, preprocessing: Preprocessing) -> Bytes8:
    """(size, size, 3) uint8 pixels of the whole picture, as `resize_picture` makes them."""
    return np.asarray(resize_picture(image, preprocessing))
