"""Views of a picture: the whole of it, its mirror image, random parts of it.

A view is decided by its own name, the run's seed and the picture's digest alone: not by the run,
the fold, the other views or the order in which pictures come. So a view that was computed once can
be stored for good, and four crops after two cost two.

The mirrored view is the network's square of the whole picture with left and right changed. It is
mirrored behind the resize, so that whoever has the square only (the service, an ONNX graph) makes
the very same one. A crop is cut out of the decoded picture and then resized, so that it shows more
than the square does. Its area is a share of the picture between `SMALLEST_AREA` and 1, its width
and height, as shares of the picture's, differ by a factor within `RATIOS`: what the `crop` step of
fine-tuning takes by default. The numbers come from SHA-256 and not from a generator: another
version of a library cannot draw others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from headstart.data.boxes import Box, crop_to_box
from headstart.data.resizing import resize_pixels
from headstart.errors import UsageError
from headstart.records import Bytes8, Preprocessing

FLIP, CROPS = "flip", "crops"  # what users type
MOST_CROPS = 64
SMALLEST_AREA = 0.6
RATIOS = (0.8, 1.25)
CROP_RULE = 1  # of `View.box`; another rule needs another number, because views are stored


@dataclass(frozen=True)
class View:
    """One view of every picture.

    Attributes:
        kind: 'whole', 'mirrored' or 'crop'.
        number: of a crop, from 1 on; 0 for others.
        seed: of a crop; 0 for others.
    """

    kind: str = "whole"
    number: int = 0
    seed: int = 0

    @property
    def key(self) -> str:
        """Everything but the picture that decides the view, for the store's identity."""
        if self.kind != "crop":
            return self.kind
        return f"crop {self.number} of seed {self.seed}, rule {CROP_RULE}"

    def box(self, digest: str) -> Box | None:
        """The part of a picture that a crop shows, as shares of it; None for other views.

        Args:
            digest: of the picture's bytes.
        """
        if self.kind != "crop":
            return None
        drawn = hashlib.sha256(f"{digest} {self.key}".encode()).digest()
        shares = [int.from_bytes(drawn[8 * i : 8 * i + 8]) / 2**64 for i in range(4)]
        area = SMALLEST_AREA + (1 - SMALLEST_AREA) * shares[0]
        low, high = (math.log(ratio) for ratio in RATIOS)
        ratio = math.exp(low + (high - low) * shares[1])
        width, height = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
        left, top = shares[2] * (1 - width), shares[3] * (1 - height)
        return left, top, min(1.0, left + width), min(1.0, top + height)


WHOLE, MIRRORED = View(), View("mirrored")


def parse_views(text: str | None, seed: int) -> tuple[View, ...]:
    """'flip,crops:4' -> five views beside the whole picture; () for None.

    Args:
        text: what a user typed.
        seed: of the crops.

    Raises:
        UsageError: another word, a number of crops that cannot be, or a word twice.
    """
    found: list[View] = []
    for part in () if text is None else text.casefold().split(","):
        name, colon, count = (piece.strip() for piece in part.partition(":"))
        if name == FLIP and not colon:
            more = [MIRRORED]
        elif name == CROPS and count.isdecimal() and 1 <= int(count[:9]) <= MOST_CROPS:
            more = [View("crop", number + 1, seed) for number in range(int(count))]
        else:
            raise UsageError(
                f"`views` must be a list of {FLIP} and {CROPS}:1 to {CROPS}:{MOST_CROPS}, as in "
                f"'flip,crops:4', got '{part}'. Correct --views, or leave it out."
            )
        if more[0] in found:
            raise UsageError(f"`views` names '{name}' twice in '{text}'. Correct --views.")
        found += more
    return tuple(found)


def check_tta(text: str | None) -> str | None:
    """'flip', or None where nothing is averaged.

    Raises:
        UsageError: another word.
    """
    if text is None or text.strip().casefold() == FLIP:
        return None if text is None else FLIP
    hint = " Crops are for --views only." if CROPS in text.casefold() else ""
    raise UsageError(
        f"`tta` must be {FLIP}: answers are averaged over the whole picture and its mirror image, "
        f"got '{text}'.{hint} Correct --tta, or leave it out."
    )


def in_words(views: Sequence[View]) -> str:
    """'whole, mirrored, 4 crops'."""
    crops = sum(view.kind == "crop" for view in views)
    words = [view.kind for view in views if view.kind != "crop"]
    return ", ".join(words + [f"{crops} crop{'s' * (crops > 1)}"] * (crops > 0))


def view_pixels(
    image: Image.Image, digest: str, views: Sequence[View], preprocessing: Preprocessing
) -> Bytes8:
    """(V, size, size, 3) uint8 pixels of some views.

    Args:
        image: the decoded picture, mode 'RGB'.
        digest: of its bytes.
        views: V of them.
        preprocessing: size and interpolation.
    """
    whole: Bytes8 | None = None
    made = []
    for view in views:
        box = view.box(digest)
        if box is not None:
            made.append(resize_pixels(crop_to_box(image, box), preprocessing))
            continue
        whole = resize_pixels(image, preprocessing) if whole is None else whole
        made.append(mirrored(whole) if view == MIRRORED else whole)
    return np.stack(made)


def mirrored(pixels: Bytes8) -> Bytes8:
    """(..., H, W, 3) pixels with left and right changed."""
    return pixels[..., ::-1, :]
