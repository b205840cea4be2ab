"""What identifies a decoded picture: digest of its pixels, perceptual hash, border, compression.

The perceptual hash is the pHash of Zauner (2010): grey, 32 x 32 px, two-dimensional cosine
transform, the 8 x 8 lowest frequencies, one bit each for above the median. Mirroring a picture
negates the odd horizontal frequencies, so the hash of the mirrored picture costs nothing more.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.records import Bytes8, Floats

SIDE, LOW = 32, 8
FLATTEST = 1.0  # deviation in grey levels, below which the bits of a hash are rounding noise
STRIP = 2  # of 32: the outer sixteenth
_DQT, _START_OF_SCAN = 0xDB, 0xDA


def cosine_basis() -> Floats:
    """(8, 32) the lowest rows of the type II cosine transform."""
    k, i = np.arange(LOW)[:, None], np.arange(SIDE)[None]
    return np.asarray(2 * np.cos(np.pi * k * (2 * i + 1) / (2 * SIDE)))


_BASIS = cosine_basis()


def pixel_digest(image: Image.Image) -> bytes:
    """16 bytes of BLAKE2b over the size and the RGB pixels: equal for re-encoded twins."""
    state = hashlib.blake2b(f"{image.width}x{image.height} ".encode(), digest_size=16)
    state.update(image.tobytes())
    return state.digest()


def thumbnail(image: Image.Image) -> Bytes8:
    """(32, 32) uint8 grey."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def perceptual_hashes(grey: Bytes8) -> tuple[int, int]:
    """The 64-bit hash of a (32, 32) thumbnail, and that of its mirror image."""
    low = _BASIS @ grey.astype(np.float64) @ _BASIS.T
    mirrored = low.copy()
    mirrored[:, 1::2] *= -1
    return _as_bits(low), _as_bits(mirrored)


def _as_bits(low: Floats) -> int:
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def is_flat(grey: Bytes8) -> bool:
    """Whether the picture is of one colour, so that its hash means nothing."""
    return bool(grey.std() < FLATTEST)


def border_facts(grey: Bytes8) -> npt.NDArray[np.float16]:
    """(12,) mean and deviation of the four outer strips, and the means of the four corners.

    Args:
        grey: (32, 32).
    """
    strips = [grey[:STRIP], grey[-STRIP:], grey[:, :STRIP], grey[:, -STRIP:]]
    corners = [
        part[:, columns] for part in strips[:2] for columns in (slice(STRIP), slice(-STRIP, None))
    ]
    values = [*(s.mean() for s in strips), *(s.std() for s in strips), *(c.mean() for c in corners)]
    return np.array(values, dtype=np.float16)


def jpeg_quantisation(data: bytes) -> float:
    """Mean of a JPEG's first quantisation table, which its quality decides; 0 for others."""
    if not data.startswith(b"\xff\xd8"):
        return 0.0
    place = 2
    while place + 5 <= len(data) and data[place] == 0xFF and data[place + 1] != _START_OF_SCAN:
        if data[place + 1] == _DQT:
            wide = data[place + 4] >> 4
            start = place + 5
            kind = ">u2" if wide else "u1"
            table = np.frombuffer(data[start : start + 64 * (1 + bool(wide))], dtype=kind)
            return float(table.mean()) if len(table) else 0.0
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0.0
