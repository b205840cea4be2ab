"""What becomes of an image before a network sees it: decoded, cut out, resized, fingerprinted.

The same few lines run in a thread and in a decoder process, so both give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image

from headstart.data.boxes import Box, crop_to_box, named_box
from headstart.data.fingerprints import fingerprint
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
    """

    preprocessing: Preprocessing
    fingerprint: bool = False
    views: tuple[View, ...] = (WHOLE,)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedPicture:
    """One picture as a network takes it.

    Attributes:
        facts: what decoding found.
        pixels: (V, size, size, 3) uint8, a square a view.
        record: its fingerprint, b"" where none was wanted.
    """

    facts: ImageFacts
    pixels: Bytes8
    record: bytes = b""


def prepare_picture(
    source: bytes | Bytes8, path: str, box: Box | None, order: Order, decode: Decode
) -> PreparedPicture:
    """Decode one image by the given decoder and do what is wanted.

    Raises:
        DecodingError: the image cannot be decoded.
    """
    image, facts = decode(source, path)
    if box is not None:
        image = crop_to_box(image, box)
        notes = [facts.treatment, f"cropped to {named_box(box)}"]
        facts = replace(facts, treatment="; ".join(filter(None, notes)))
    return PreparedPicture(
        facts=facts,
        pixels=view_pixels(image, facts.digest, order.views, order.preprocessing),
        record=fingerprint(image, source) if order.fingerprint else b"",
    )
