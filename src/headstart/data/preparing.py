"""What becomes of an image before a network sees it: decoded, cut out, resized, fingerprinted.

The same few lines run in a thread and in a decoder process, so both give the same bytes. Of a large
JPEG only as many pixels are decoded as the square of the whole picture needs (`least_side`), twice
its side at least, so that crops of that are no enlargements; a fingerprint is always that of the
whole picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from headstart.data.boxes import Box, crop_to_box, named_box
from headstart.data.decoding import decoded_scale, is_picture, pixels_facts
from headstart.data.fingerprints import fingerprint
from headstart.data.resizing import resize_alike, resize_pixels
from headstart.data.views import WHOLE, View, view_pixels
from headstart.records import Bytes8, ImageFacts, Preprocessing

SMALL_PIXELS = 1 << 16  # of a picture that is resized together with others

Decode = Callable[..., tuple[Image.Image, ImageFacts]]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is wanted of every picture of a task.

    Attributes:
        preprocessing: of the network that will see it.
        fingerprint: whether its fingerprint is wanted too.
        views: V of them, each a square of its own.
        second: of another network that will see it as well.
    """

    preprocessing: Preprocessing
    fingerprint: bool = False
    views: tuple[View, ...] = (WHOLE,)
    second: Preprocessing | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedPicture:
    """One picture as a network takes it.

    Attributes:
        facts: what decoding found.
        pixels: (V, size, size, 3) uint8, a square a view.
        record: its fingerprint, b"" where none was wanted.
        second: (size, size, 3) uint8 for the other network, None where there is none.
    """

    facts: ImageFacts
    pixels: Bytes8
    record: bytes = b""
    second: Bytes8 | None = None


def prepare_picture(
    source: bytes | Bytes8, path: str, box: Box | None, order: Order, decode: Decode
) -> PreparedPicture:
    """Decode one image by the given decoder and do what is wanted.

    Raises:
        DecodingError: the image cannot be decoded.
    """
    least = least_side(order.preprocessing, box)
    upright, facts = decode(source, path, min_side=least)
    decoded = {decoded_scale(facts, least): upright}

    def seen(least: int | None) -> Image.Image:
        """The picture as a reader of it alone would have it decoded."""
        scale = decoded_scale(facts, least)
        if scale not in decoded:
            decoded[scale] = decode(source, path, min_side=least)[0]
        return decoded[scale] if box is None else crop_to_box(decoded[scale], box)

    if box is not None:
        notes = [facts.treatment, f"cropped to {named_box(box)}"]
        facts = replace(facts, treatment="; ".join(filter(None, notes)))
    second = order.second
    return PreparedPicture(
        facts=facts,
        pixels=view_pixels(seen(least), facts.digest, order.views, order.preprocessing),
        record=fingerprint(seen(None), source) if order.fingerprint else b"",
        second=None if second is None else resize_pixels(seen(least_side(second, box)), second),
    )


def goes_together(pixels: Bytes8, box: Box | None, order: Order) -> bool:
    """Whether a picture is small and square, and nothing but the network's square is wanted."""
    if box is not None or order.fingerprint or order.second is not None:
        return False
    if not is_picture(pixels) or order.views != (WHOLE,):
        return False
    height, width = int(pixels.shape[0]), int(pixels.shape[1])
    return height == width and height * width <= SMALL_PIXELS


def prepare_together(
    pictures: Sequence[tuple[Bytes8, str]], preprocessing: Preprocessing
) -> list[PreparedPicture]:
    """As `prepare_picture` of each, in a few calls for all of one shape.

    Args:
        pictures: pixels and names of pictures that `goes_together` says yes to.
        preprocessing: of the network.
    """
    squares: dict[int, Bytes8] = {}
    of_shape: dict[tuple[int, ...], list[int]] = {}
    for place, (pixels, _) in enumerate(pictures):
        of_shape.setdefault(pixels.shape, []).append(place)
    for places in of_shape.values():
        stacked = np.stack([pictures[place][0] for place in places])
        squares.update(zip(places, resize_alike(stacked, preprocessing), strict=True))
    return [
        PreparedPicture(facts=pixels_facts(pixels, path), pixels=squares[place][None])
        for place, (pixels, path) in enumerate(pictures)
    ]


def least_side(preprocessing: Preprocessing, box: Box | None) -> int:
    """What the shorter side of a picture must keep, in px, for the network's square.

    Args:
        preprocessing: of the network.
        box: the part of the picture that becomes the square.
    """
    if box is None:
        return preprocessing.size
    left, top, right, bottom = box
    return math.ceil(preprocessing.size / max(min(right - left, bottom - top), 1e-6))


def square_pixels(
    source: bytes | Bytes8, path: str, box: Box | None, preprocessing: Preprocessing, decode: Decode
) -> Bytes8:
    """(size, size, 3) uint8 of one image, as a network takes it.

    Raises:
        DecodingError: the image cannot be decoded.
    """
    order = Order(preprocessing=preprocessing)
    whole: Bytes8 = prepare_picture(source, path, box, order, decode).pixels[0]
    return whole
