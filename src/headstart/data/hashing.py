"""What identifies a picture and its file: digest, perceptual hash, border, compression, metadata.

The perceptual hash is the pHash of Zauner (2010): grey, 32 x 32 px, two-dimensional cosine
transform, the 8 x 8 lowest frequencies, one bit each for above the median. Mirroring a picture
negates the odd horizontal frequencies, so the hash of the mirrored picture costs nothing more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.records import Bytes8, Floats

SIDE, LOW = 32, 8
FLATTEST = 1.0  # deviation in grey levels, below which the bits of a hash are rounding noise
STRIP = 2  # of 32: the outer sixteenth
CELLS = 8
_DQT, _START_OF_SCAN, _COMMENT = 0xDB, 0xDA, 0xFE
_APPLICATION = range(0xE0, 0xF0)
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = (
    *(b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"iCCP", b"gAMA", b"sRGB", b"cHRM", b"tIME", b"bKGD"),
    b"sBIT",
)


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


def colour_cells(image: Image.Image) -> Bytes8:
    """(8, 8, 3) uint8: the mean colour of each cell of a grid over an RGB picture."""
    return np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BOX))


def jpeg_quantisation(data: bytes) -> float:
    """Mean of a JPEG's first quantisation table, which its quality decides; 0 for others."""
    for marker, start, _ in _jpeg_segments(data):
        if marker == _DQT and start < len(data):
            kind, size = (">u2", 128) if data[start] >> 4 else ("u1", 64)
            table = np.frombuffer(data[start + 1 : start + 1 + size], dtype=kind)
            return float(table.mean()) if len(table) else 0.0
    return 0.0


def metadata_facts(data: bytes) -> tuple[int, int, int]:
    """What a JPEG or PNG says about itself before its pixels; zeros for other formats.

    Returns:
        Bytes of EXIF; bytes of profiles, comments and other metadata; which kinds there are, a bit
        each.
    """
    exif = other = kinds = 0
    segments = _png_metadata(data) if data.startswith(_PNG) else _jpeg_metadata(data)
    for bit, is_exif, size in segments:
        kinds |= 1 << bit
        if is_exif:
            exif += size
        else:
            other += size
    return exif, other, kinds


def _jpeg_metadata(data: bytes) -> Iterator[tuple[int, bool, int]]:
    """Bit, whether it is EXIF, and size of the application and comment segments."""
    for marker, start, size in _jpeg_segments(data):
        if marker in _APPLICATION or marker == _COMMENT:
            yield min(marker & 0xF, 14), data[start : start + 4] == b"Exif", size


def _png_metadata(data: bytes) -> Iterator[tuple[int, bool, int]]:
    """The same of a PNG's optional chunks before its pixels."""
    place = len(_PNG)
    while place + 8 <= len(data) and (kind := data[place + 4 : place + 8]) != b"IDAT":
        size = int.from_bytes(data[place : place + 4], "big")
        if kind == b"eXIf" or kind in _PNG_CHUNKS:
            is_exif = kind == b"eXIf"
            yield 15 if is_exif else _PNG_CHUNKS.index(kind), is_exif, size
        place += 12 + size


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, place and size of the segments of a JPEG before its pixels; none of others."""
    if not data.startswith(b"\xff\xd8"):
        return
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _START_OF_SCAN:
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        yield data[place + 1], place + 4, size - 2
        place += 2 + max(size, 2)
