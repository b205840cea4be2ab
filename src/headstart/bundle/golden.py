"""The golden picture of a bundle: made by a formula, answered once when the bundle is written.

Whoever is about to answer for others sends it through everything a stranger's picture goes through
(decoding, resizing, network, head, temperature) and compares. Another library, a broken device, a
channel order or a normalisation that is not the bundle's own shows there before anybody gets a
wrong answer. The reference is computed in float32 on the processor, whatever serves later, from
the picture's encoded bytes; both stand in `bundle.json`, under the manifest like all of it.

The picture has edges, gradients and three different channels, and is not square: a swap of
channels or of height and width changes the answer of any network that is not blind.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.backbones import Network
from headstart.bundle.confidence import Confidence
from headstart.data import decode
from headstart.data.preparing import Order, prepare_picture
from headstart.heads import Layers, mean_logits
from headstart.inference import FeatureExtractor
from headstart.runtime import choose_execution

WIDTH, HEIGHT = 120, 88
LARGEST_BYTES = 1 << 20
NAME = "golden.png"
TOLERANCES = {"float32": 0.01, "bfloat16": 0.05, "int8": 0.25}
"""Largest difference of a probability by precision: float32 sums in another order on another
machine, bfloat16 keeps 8 bits, int8 fewer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Golden:
    """A picture and its right answer.

    Attributes:
        picture: encoded bytes.
        probabilities: (C,) float32, in class order.
        origin: where the answer comes from, in words.
    """

    picture: bytes
    probabilities: npt.NDArray[np.float32]
    origin: str


def golden_picture() -> bytes:
    """The picture as PNG, by integer arithmetic: the same pixels everywhere."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    disc = (x - 40) ** 2 + (y - 50) ** 2 < 28**2
    red = np.where(disc, 220, 30 + x)
    green = np.where(disc, 60 + y, 200 - 2 * y)
    blue = np.where((x // 8 + y // 8) % 2 == 0, 40, 160 - x // 2)
    pixels = np.clip(np.stack([red, green, blue], axis=2), 0, 255).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def make_golden(network: Network, layers: Layers, confidence: Confidence) -> dict[str, Any]:
    """The picture and its answer, for `bundle.json`."""
    picture = golden_picture()
    extractor = FeatureExtractor(network, choose_execution("cpu", "float32"))
    order = Order(preprocessing=network.preprocessing, views=confidence.views)
    pixels = prepare_picture(picture, NAME, None, order, decode).pixels
    features = extractor.forward_views(pixels[None])
    answer = confidence.probabilities(mean_logits(features, layers))[0]
    return {
        "picture": base64.b64encode(picture).decode(),
        "probabilities": [float(value) for value in answer],
    }


def read_golden(about: Mapping[str, Any]) -> Golden | None:
    """What `make_golden` wrote; None in bundles from before there was one.

    Raises:
        ValueError, KeyError, TypeError: it is damaged.
    """
    stored = about.get("golden")
    if stored is None:
        return None
    if len(stored["picture"]) > LARGEST_BYTES:
        raise ValueError("the golden picture is too large")
    try:
        picture = base64.b64decode(stored["picture"], validate=True)
    except binascii.Error as error:
        raise ValueError("the golden picture is damaged") from error
    probabilities = np.array(stored["probabilities"], dtype=np.float32)
    if probabilities.shape != (len(about["class_names"]),) or not np.isfinite(probabilities).all():
        raise ValueError("the golden answer does not fit the classes")
    return Golden(picture=picture, probabilities=probabilities, origin="stored in the bundle")


def golden_difference(golden: Golden, probabilities: npt.NDArray[np.floating]) -> float:
    """The largest difference of a probability; infinite where an answer is not finite."""
    difference = np.abs(golden.probabilities - np.asarray(probabilities, dtype=np.float64)).max()
    return float(difference) if np.isfinite(difference) else float("inf")
