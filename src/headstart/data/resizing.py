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


def resize_alike(pictures: Bytes8, preprocessing: Preprocessing) -> Bytes8:
    """Square pictures at once, each to the bit as `resize_pixels` makes it alone.

    Pillow resizes rows first, rounds, and then columns. So the rows of pictures that lie below each
    other can be done in one call and, side by side, their columns in a second; small pictures cost
    calls rather than arithmetic, and calls of many threads wait for each other. Of tall pictures
    Pillow may do the columns first, so only square ones are taken.

    Args:
        pictures: (N, H, H) grey or (N, H, H, 3) uint8.
        preprocessing: size and interpolation.

    Returns:
        (N, size, size, 3) uint8.
    """
    count, height, width, *channels = pictures.shape
    side, resampling = preprocessing.size, RESAMPLING[preprocessing.interpolation]
    below = Image.fromarray(pictures.reshape(count * height, width, *channels))
    rows = np.asarray(below.resize((side, count * height), resampling))
    beside = rows.reshape(count, height, side, *channels).swapaxes(0, 1)  # (H, N, size, ...)
    joined = Image.fromarray(beside.reshape(height, count * side, *channels))
    columns = np.asarray(joined.resize((count * side, side), resampling))
    squares = columns.reshape(side, count, side, *channels).swapaxes(0, 1)
    found = np.empty((count, side, side, 3), dtype=np.uint8)
    for channel in range(3):  # of grey, three plain copies: a broadcast takes eight times as long
        found[..., channel] = squares[..., channel] if channels else squares
    return found
