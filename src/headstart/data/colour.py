"""From any colour mode of Pillow to 8-bit RGB, nothing clipped in silence.

Choices, each fixed because a cached feature depends on it:

- Transparency is composited on white, as a browser shows it.
- 16-bit grey is scaled by its depth, never stretched to its own extremes, so that pictures of one
  detector stay comparable: divided by 257 and rounded (65535 -> 255, 257 k -> k). X-ray and
  microscope files often hold fewer bits than their type, and would come out black: where the
  largest value fits 12 bits the depth is 12, where it fits 8 it is 8, and the clause says so. A
  12-bit TIFF goes by its own header. Integers in 32 bits count as 16-bit ones and are refused
  outside [0, 65535].
- 16-bit colour keeps the high byte, which is what Pillow reads; where nothing but the low half is
  used (it would come out black) the image is refused.
- Floating point is taken for [0, 1], else for [0, 255], and refused outside.
- No ICC conversion: a profile changes the pixels by little and the work by much, and the
  networks were trained without it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.errors import DataError

_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0
_MAX_16_BIT = 65535
_DEPTHS = (8, 12)


class DecodingError(DataError):
    """One image that cannot be decoded; the message is one clause ('not an image').

    Attributes:
        code: a word for programs; other processes and the service pass it on.
    """

    code = "undecodable_image"

    def __init__(self, clause: str, code: str = "") -> None:
        """Keep the clause, and a more exact code where there is one."""
        super().__init__(clause)
        self.code = code or self.code


def to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """An 8-bit RGB image, and how it was reached.

    Args:
        image: a loaded image in any mode.

    Returns:
        The image, and one clause ('L to RGB'), '' where it was 8-bit RGB already.

    Raises:
        DecodingError: the values have no defined place in 8 bits.
    """
    mode = image.mode
    if mode.startswith("I"):
        values, few_bits = _integers_to_8_bit(image)
        return _grey(values), f"{mode} to RGB{few_bits}"
    if mode == "F":
        return _grey(_floats_to_8_bit(np.asarray(image))), "F to RGB"
    if image.has_transparency_data:
        return _flatten(image)
    if mode == "RGB":
        return image, ""
    return image.convert("RGB"), f"{mode} to RGB"


def scale_to_8_bit(values: npt.NDArray[np.integer], maximum: int) -> npt.NDArray[np.uint8]:
    """`values * 255 / maximum`, rounded to the nearest; any shape in, the same shape out."""
    wide = values.astype(np.uint32)  # 65535 * 255 and the half below still fit
    return ((wide * 255 + maximum // 2) // maximum).astype(np.uint8)


def _flatten(image: Image.Image) -> tuple[Image.Image, str]:
    """Composite on white; a wholly opaque image only loses its alpha."""
    note = f"{image.mode} to RGB"
    layered = image.convert("RGBA")
    if layered.getchannel("A").getextrema()[0] == 255:
        return layered.convert("RGB"), "" if image.mode == "RGB" else note
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layered).convert("RGB"), f"{note}, transparency on white"


def depth_of(largest: int, most: int = 16) -> int:
    """The bits that values up to `largest` are taken to have: 8, 12, or all of their type."""
    return next((bits for bits in _DEPTHS if bits < most and largest < 1 << bits), most)


def _integers_to_8_bit(image: Image.Image) -> tuple[npt.NDArray[np.uint8], str]:
    """The values, and a clause where they have fewer bits than their type."""
    values = np.asarray(image)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > _MAX_16_BIT:
        raise DecodingError(
            f"integers from {lowest} to {highest}, beyond 16 bits: save it with 8 or 16 bits"
        )
    tags = getattr(image, "tag_v2", {})  # TIFF alone has them
    stored_bits = tags.get(_TIFF_BITS, (16,))[0] if image.mode.startswith("I;16") else 16
    bits = depth_of(highest, stored_bits) if highest else stored_bits
    maximum = (1 << bits) - 1
    if image.mode.startswith("I;16") and tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = maximum - values  # Pillow inverts 8 bits only
    clause = "" if bits == stored_bits else f", {bits}-bit values in {stored_bits} bits"
    return scale_to_8_bit(values, maximum), clause


def _floats_to_8_bit(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= 0 and highest <= 255):  # NaN fails both
        raise DecodingError(
            f"floating point from {lowest:g} to {highest:g}, "
            "neither in [0, 1] nor in [0, 255]: save it with 8 or 16 bits"
        )
    scale = 255.0 if highest <= 1 else 1.0
    rounded: npt.NDArray[np.uint8] = np.rint(values * scale).astype(np.uint8)
    return rounded


def _grey(values: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(values).convert("RGB")
