"""A decoder process for strangers' pictures: stricter limits, and the network's square comes back.

    python -m headstart.data.guarded.squares '{"size": 96, ...}'

Requests and answers are those of `headstart.data.guarded.child`. The picture is prepared by the
same function as everywhere, in this process, so that a few kilobytes go back through the pipe and
the pixels of a large picture never leave a process of bounded memory.
What the header tells is judged before any pixel is decoded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial

from PIL import Image, ImageFile

from headstart.data.colour import DecodingError
from headstart.data.decoding import decode_here, open_header
from headstart.data.formats import FACTORIES, format_of, refusal
from headstart.data.guarded.child import serve
from headstart.data.preparing import Order, prepare_picture
from headstart.records import ImageFacts, Preprocessing

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What strangers may send; the rarer parsers are left out."""

MOST_SEGMENTS = 2000
"""Pieces of a file beside its pixels (PNG chunks, JPEG segments, GIF extensions): parsers take a
while for each, and cameras and programs write at most some hundred."""

NICENESS = 5
"""How far computing for strangers yields to answering them: priority of decoders and networks."""

_GIF_HEADER, _GIF_IMAGE, _GIF_EXTENSION = 13, 0x2C, 0x21
_START_OF_SCAN = 0xDA


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """How large a stranger's picture may be.

    Attributes:
        max_pixels: of the picture as stored; three bytes each, and a few more while decoding.
        max_frames: of an animation or a file of several pages; the first is what is looked at.
        formats: a part of `ALLOWED_FORMATS`.
        memory_bytes: address space of one decoder process.
    """

    max_pixels: int = 40_000_000
    max_frames: int = 100
    formats: tuple[str, ...] = ALLOWED_FORMATS
    memory_bytes: int = 1 << 30


def command_for(limits: DecodingLimits, preprocessing: Preprocessing) -> Sequence[str]:
    """The command line of a process with these limits, for `DecoderPool`."""
    settings = {"limits": asdict(limits), "preprocessing": asdict(preprocessing)}
    return (sys.executable, "-P", "-m", "headstart.data.guarded.squares", json.dumps(settings))


def decode_square(
    data: bytes,
    path: str,
    *,
    min_side: int | None = None,
    limits: DecodingLimits,
    preprocessing: Preprocessing,
) -> tuple[Image.Image, ImageFacts]:
    """Decode one picture within limits and resize it to the network's square.

    Args:
        data: the encoded bytes.
        path: a name, which decides nothing but what is told of a wrong ending.
        min_side: not used; the network's square decides.
        limits: what is refused.
        preprocessing: of the network.

    Raises:
        DecodingError: it is beyond a limit or cannot be decoded; its code says which.
    """
    check_limits(data, path, limits)
    order = Order(preprocessing=preprocessing)
    found = prepare_picture(data, path, None, order, decode_here)
    return Image.fromarray(found.pixels[0]), found.facts


def check_limits(data: bytes, path: str, limits: DecodingLimits) -> None:
    """Judge a picture by its header.

    Raises:
        DecodingError: its format, size or number of frames is not accepted.
    """
    problem = refusal(data, path)
    name = format_of(data)
    if problem:
        raise DecodingError(problem, "unsupported_format")
    if name not in limits.formats:
        allowed = ", ".join(limits.formats)
        raise DecodingError(f"{name} is not accepted here; send {allowed}", "unsupported_format")
    if name == "GIF":  # Pillow counts by walking through all of them
        frames, segments = count_gif_blocks(data, limits.max_frames + 1)
        check_frames(frames, limits)
    else:
        segments = COUNTERS.get(name, no_segments)(data)
    if segments > MOST_SEGMENTS:
        raise DecodingError(f"more than {MOST_SEGMENTS:,} pieces beside its pixels")
    image = open_header(data)
    if image.width * image.height > limits.max_pixels:
        raise DecodingError(
            f"too large: {image.width}x{image.height} pixels, "
            f"the limit is {limits.max_pixels:,} pixels",
            "too_many_pixels",
        )
    if name != "GIF":
        check_frames(count_frames(image, limits.max_frames + 1), limits)


def check_frames(count: int, limits: DecodingLimits) -> None:
    """Refuse more frames than may be."""
    if count > limits.max_frames:
        raise DecodingError(
            f"more than {limits.max_frames} frames, which is the limit", "too_many_frames"
        )


def count_frames(image: ImageFile.ImageFile, most: int) -> int:
    """How many frames or pages, as far as `most`; 1 where a damaged file does not tell."""
    try:
        if image.format == "TIFF":  # each page is a step through the file: stop in time
            try:
                image.seek(most - 1)
            except EOFError:
                return most - 1
            return most
        return int(getattr(image, "n_frames", 1))
    except Exception:  # as in decoding: a damaged later frame does not concern the first
        return 1


def no_segments(_: bytes) -> int:
    """0, for formats whose headers have a fixed size or are read by a quick library."""
    return 0


def count_png_chunks(data: bytes) -> int:
    """Chunks that hold no pixels, as far as one more than may be."""
    at, count = 8, 0
    while at + 8 <= len(data) and count <= MOST_SEGMENTS:
        count += data[at + 4 : at + 8] not in (b"IDAT", b"fdAT")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return count


def count_jpeg_segments(data: bytes) -> int:
    """Segments before the first scan, as far as one more than may be."""
    at, count = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF and count <= MOST_SEGMENTS:
        if data[at + 1] == _START_OF_SCAN:
            break
        count += 1
        filled = data[at + 1] == 0xFF
        at += 1 if filled else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return count


COUNTERS: dict[str, Callable[[bytes], int]] = {
    "PNG": count_png_chunks,
    "JPEG": count_jpeg_segments,
}


def count_gif_blocks(data: bytes, most_frames: int) -> tuple[int, int]:
    """Pictures and extensions of a GIF, as far as one of them is too many (GIF89a, 1990)."""
    if len(data) < _GIF_HEADER:
        return 0, 0
    at, frames, extensions = _GIF_HEADER + _colour_table(data[10]), 0, 0
    while at < len(data) and frames < most_frames and extensions <= MOST_SEGMENTS:
        kind = data[at]
        if kind == _GIF_IMAGE and at + 9 < len(data):
            frames += 1
            at += 11 + _colour_table(data[at + 9])
        elif kind == _GIF_EXTENSION:
            extensions += 1
            at += 2
        else:  # the trailer, or damage, which decoding judges
            break
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return frames, extensions


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def main(settings: str) -> None:
    """Serve with the settings of `command_for`."""
    given = json.loads(settings)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    limits = DecodingLimits(
        **{**given["limits"], "formats": tuple(given["limits"]["formats"])},
    )
    known = {field.name for field in fields(Preprocessing)}
    stored = {name: value for name, value in given["preprocessing"].items() if name in known}
    preprocessing = Preprocessing(
        **{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])}
    )
    assert set(limits.formats) <= set(FACTORIES)
    serve(
        partial(decode_square, limits=limits, preprocessing=preprocessing),
        memory_bytes=limits.memory_bytes,
    )


if __name__ == "__main__":
    main(sys.argv[1])
