"""The fingerprint of a picture: one fixed record of bytes of what identifies it and its file."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data.hashing import (
    CELLS,
    border_facts,
    colour_cells,
    is_flat,
    jpeg_quantisation,
    metadata_facts,
    perceptual_hashes,
    pixel_digest,
    thumbnail,
)
from headstart.records import Bytes8

FINGERPRINT_VERSION = 2

RECORD = np.dtype(
    [
        ("pixels", "V16"),
        ("hash", "<u8"),
        ("mirrored", "<u8"),
        ("num_bytes", "<i8"),
        ("quantisation", "<f4"),
        ("flat", "u1"),
        ("present", "u1"),
        ("border", "<f2", (12,)),
        ("cells", "u1", (CELLS, CELLS, 3)),
        ("metadata", "<u4", (3,)),
    ]
)
Record = npt.NDArray[Any]


def fingerprint(image: Image.Image, source: bytes | Bytes8) -> bytes:
    """The record of one decoded picture, as bytes.

    Args:
        image: upright 8-bit RGB.
        source: what it was decoded from.
    """
    grey = thumbnail(image)
    record = np.zeros(1, dtype=RECORD)
    record["pixels"] = np.void(pixel_digest(image))
    record["present"] = 1
    record["hash"], record["mirrored"] = perceptual_hashes(grey)
    record["flat"] = is_flat(grey)
    record["border"] = border_facts(grey)
    record["cells"] = colour_cells(image)
    if isinstance(source, bytes):
        record["num_bytes"] = len(source)
        record["quantisation"] = jpeg_quantisation(source)
        record["metadata"] = metadata_facts(source)
    return record.tobytes()
