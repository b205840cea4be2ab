"""From a decoded picture to the square that a network takes."""

from __future__ import annotations

import numpy as np
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
