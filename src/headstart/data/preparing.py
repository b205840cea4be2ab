"""What becomes of an image before a network sees it: decoded, cut out, resized, fingerprinted.

The same few lines run in a thread and in a decoder process, so both give the same bytes. Of a large
JPEG only as many pixels are decoded as the square of the whole picture needs (`least_side`), twice
its side at least, so that crops of that are no enlargements; a fingerprint is always that of the
whole picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image

from headstart.data.boxes import Box, crop_to_box, named_box
from headstart.data.decoding import decoded_scale
from headstart.data.fingerprints import fingerprint
from headstart.data.resizing import resize_pixels
from headstart.data.views import WHOLE, View, view_pixels
from headstart.records import Bytes8, ImageFacts, Preprocessing

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
