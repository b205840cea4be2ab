"""The one way from the bytes of a file to 8-bit RGB pixels.

Training, prediction, the service and the page all come through `decode`, so that an image has
the same pixels everywhere. What was done to it stands in `ImageFacts.treatment`; what cannot be
decoded raises `DecodingError` with one clause, and nothing is ever replaced by a blank.

The header is read first and its size checked, then the pixels are decoded, brought to RGB
(`headstart.data.colour`) and turned upright. Of a file with several frames the first is taken.

Where: training data are decoded in processes that can be killed (`headstart.data.guarded`), by
`decode_apart` or by `headstart.inference`. `decode` is for a few pictures, as predictions and
figures have them: JPEG, PNG, WebP and plain BMP of ordinary size at once, in the calling thread
(their decoders are the most attacked and best mended there are, and the header bounds their time
and memory); other formats, more than `THREAD_PIXELS`, a BMP that is packed, a JPEG of very many
scans in such a process too. Safe to call from several threads.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin

from headstart.data.colour import DecodingError, to_rgb
from headstart.data.dicom import dicom_pixels, dicom_size
from headstart.data.formats import FACTORIES, WEAK_FORMATS, format_of, misnamed, refusal
from headstart.errors import UsageError
from headstart.records import ImageFacts

__all__ = [
    "DECODER_VERSION",
    "MAX_PIXELS",
    "DecodingError",
    "check_whole_files",
    "decode",
    "decode_apart",
    "decode_here",
    "decoded_scale",
    "digest_of",
    "is_picture",
    "open_header",
    "pixels_facts",
    "upright_size",
]

DECODER_VERSION = 4
"""Part of every cache key: raised whenever the same bytes give other pixels."""

MAX_PIXELS = 180_000_000
"""A larger image is refused from its header; 180 megapixels are 540 MB as RGB."""

THREAD_PIXELS = 40_000_000
"""A larger image is decoded in a process of its own, whose memory is bounded."""

THREAD_FORMATS = frozenset({"JPEG", "PNG", "WEBP", "BMP"})
_MOST_SCANS = 64  # cameras and encoders write ten; each costs a walk over the whole picture
_DARKEST = 16  # the high byte of a 12-bit value stays below
_SCAN = b"\xff\xda"
_HEADER_BYTES = 4096  # enough to tell every format
MOST_CHUNKS = 100_000  # of a PNG, until its pixels are decoded to look behind them
_DRAFT_FORMATS = ("JPEG", "MPO")
_DRAFT_SCALES = (8, 4, 2)  # what a JPEG decoder computes for less than the full size
# Where a PNG may tell its orientation beside the chunk that is made for it: ImageMagick's profiles
# and XMP.
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_EXIF_KEYWORDS, _KEYWORD_BYTES = (b"raw profile type", b"xml:com.adobe.xmp"), 20
_ORIENTATION_TAG = 274
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIDEWAYS = frozenset({5, 6, 7, 8})  # width and height change places; Pillow does it for TIFF


def decode(
    source: bytes | npt.NDArray[np.uint8], path: str, *, min_side: int | None = None
) -> tuple[Image.Image, ImageFacts]:
    """Decode one image to upright 8-bit RGB.

    Args:
        source: the encoded bytes, or (H, W) or (H, W, 3) uint8 pixels.
        path: the image's name, for the facts and to notice a wrong extension.
        min_side: where given, a JPEG may be decoded at 1/2, 1/4 or 1/8, as long as its shorter
            side keeps twice this many pixels, enough for an antialiased resize afterwards.

    Returns:
        The RGB image, and what was found out; its size is the stored one in every case.

    Raises:
        DecodingError: the image cannot be decoded; the message is one clause.
        UsageError: Pillow was told to accept truncated files.
    """
    if not isinstance(source, bytes):
        return _from_pixels(source, path)
    check_whole_files()
    problem = refusal(source, path)
    if problem:
        raise DecodingError(problem)
    if format_of(source) in THREAD_FORMATS:
        image = open_header(source)
        _check_size(image.size)
        if not _is_risky(image, source):
            return _decode_opened(image, source, path, min_side)
    from headstart.data.guarded.pool import shared_pool  # it needs this module itself

    return shared_pool().decode(source, path, min_side)


def decode_apart(source: bytes | npt.NDArray[np.uint8], path: str) -> Image.Image:
    """The picture that `decode` gives; an encoded one is decoded in a process in every case.

    Raises:
        DecodingError: the image cannot be decoded.
        UsageError: Pillow was told to accept truncated files.
    """
    if not isinstance(source, bytes):
        return decode(source, path)[0]
    check_whole_files()
    from headstart.data.guarded.pool import shared_pool  # it needs this module itself

    return shared_pool().decode(source, path)[0]


def check_whole_files() -> None:
    """Refuse to decode where Pillow was told to accept half an image.

    Raises:
        UsageError: it was.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UsageError(
            "`PIL.ImageFile.LOAD_TRUNCATED_IMAGES` must be False, got True: half an image would "
            "pass for a whole one. Set it back to False."
        )


def decode_here(
    source: bytes, path: str, *, min_side: int | None = None
) -> tuple[Image.Image, ImageFacts]:
    """As `decode`, whatever the risk: for processes that may be killed.

    Raises:
        DecodingError: the image cannot be decoded.
    """
    problem = refusal(source, path)
    if problem:
        raise DecodingError(problem)
    if format_of(source) == "DICOM":
        return _from_dicom(source, path)
    image = open_header(source)
    _check_size(image.size)
    return _decode_opened(image, source, path, min_side)


def _is_risky(image: ImageFile.ImageFile, source: bytes) -> bool:
    """Whether time or memory may be out of proportion to what the header tells."""
    if image.width * image.height > THREAD_PIXELS:
        return True
    if image.format == "BMP":
        return any(tile.codec_name != "raw" for tile in image.tile)
    return bool(image.info.get("progressive")) and source.count(_SCAN) > _MOST_SCANS


def _decode_opened(
    image: ImageFile.ImageFile, source: bytes, path: str, min_side: int | None
) -> tuple[Image.Image, ImageFacts]:
    """The picture and the facts of an image whose header was read."""
    frames = _count_frames(image)
    stored = _stored_size(image)
    if min_side is not None:
        _draft(image, min_side)
    mode, wide = image.mode, _has_16_bit_colour(image)
    upright, colour, turned = _load_upright(image)
    if wide:
        _check_depth(upright)
    notes = [
        misnamed(image.format or "", path),
        "16-bit colour to 8 bit" if wide else "",
        colour,
        turned,
        f"first of {frames:,} frames" if frames > 1 else "",
    ]
    facts = ImageFacts(
        path=path,
        digest=digest_of(source),
        width=stored[0],
        height=stored[1],
        format=image.format or "",
        mode=mode,
        treatment="; ".join(filter(None, notes)),
    )
    upright.info = {}  # an orientation left behind would be applied a second time
    return upright, facts


def upright_size(source: bytes | Path) -> tuple[int, int]:
    """Width and height of the picture that `decode` would give, read from the header alone.

    Raises:
        DecodingError: no image of an allowed format, as far as its header tells.
        OSError: the file cannot be read.
    """
    with _opened(source) as stream:
        beginning = stream.read(_HEADER_BYTES)
        problem = refusal(beginning, source.name if isinstance(source, Path) else "")
        if problem:
            raise DecodingError(problem)
        stream.seek(0)
        if format_of(beginning) == "DICOM":
            return dicom_size(stream.read())
        image = _open_stream(stream, format_of(beginning))
        _check_size(image.size)
        if image.format == "PNG" and "exif" not in image.info and not _has_exif_chunk(stream):
            return image.size  # Pillow would decode all pixels to look behind them
        try:
            # Pillow turns the size of a TIFF by its tag, and not by what its XMP says.
            by_tag = image.format == "TIFF" and _ORIENTATION_TAG in image.tag_v2  # type: ignore[attr-defined]
            turned = not by_tag and _orientation(image) in _SIDEWAYS
        except OSError as error:
            raise DecodingError(_damage(image.format or "", error)) from error
        return image.size[::-1] if turned else image.size


def _has_exif_chunk(png: BinaryIO) -> bool:
    """Whether a PNG tells its orientation anywhere; only the heads of its chunks are read."""
    png.seek(8)
    for _ in range(MOST_CHUNKS):
        head = png.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return False
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            return True
        if head[4:] in _TEXT_CHUNKS:
            keyword = png.read(min(length, _KEYWORD_BYTES))
            if keyword.lower().startswith(_EXIF_KEYWORDS):
                return True
            length -= len(keyword)
        png.seek(length + 4, 1)
    return True


def _opened(source: bytes | Path) -> BinaryIO:
    return source.open("rb") if isinstance(source, Path) else BytesIO(source)


def _from_dicom(source: bytes, path: str) -> tuple[Image.Image, ImageFacts]:
    pixels, facts = dicom_pixels(source, max_pixels=MAX_PIXELS)
    image = Image.fromarray(pixels).convert("RGB")
    wrong = misnamed("DICOM", path)
    treatment = "; ".join(filter(None, [wrong, facts.treatment]))
    return image, replace(facts, path=path, digest=digest_of(source), treatment=treatment)


def digest_of(source: bytes | npt.NDArray[np.uint8]) -> str:
    """BLAKE2b of the encoded bytes, or of shape, type and pixels; 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(source, bytes):
        digest.update(source)
    else:
        digest.update(f"{source.shape} {source.dtype.str}".encode())
        digest.update(np.ascontiguousarray(source).tobytes())
    return digest.hexdigest()


def is_picture(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether an array is (H, W) or (H, W, 3) uint8 with a pixel at least."""
    shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    return pixels.dtype == np.uint8 and shaped and pixels.size > 0


def pixels_facts(pixels: npt.NDArray[np.uint8], path: str) -> ImageFacts:
    """What `decode` finds out about a picture that is an array."""
    grey = pixels.ndim == 2
    return ImageFacts(
        path=path,
        digest=digest_of(pixels),
        width=pixels.shape[1],
        height=pixels.shape[0],
        format="pixels",
        mode="L" if grey else "RGB",
        treatment="L to RGB" if grey else "",
    )


def _from_pixels(pixels: npt.NDArray[np.uint8], path: str) -> tuple[Image.Image, ImageFacts]:
    if not is_picture(pixels):
        raise DecodingError(
            f"an array of shape {pixels.shape} and type {pixels.dtype}, "
            "not (H, W) or (H, W, 3) uint8"
        )
    stored = Image.fromarray(np.ascontiguousarray(pixels))
    _check_size(stored.size)
    return to_rgb(stored)[0], pixels_facts(pixels, path)


def open_header(data: bytes) -> ImageFile.ImageFile:
    """The image with its header read and no pixel decoded.

    Raises:
        DecodingError: the header is damaged, or larger than any picture.
    """
    return _open_stream(BytesIO(data), format_of(data))


def _open_stream(stream: BinaryIO, name: str) -> ImageFile.ImageFile:
    try:
        return FACTORIES[name](stream, "")
    except Image.DecompressionBombError as error:
        clause = f"too large: the limit is {MAX_PIXELS:,} pixels"
        raise DecodingError(clause, "too_many_pixels") from error
    except Exception as error:  # damaged bytes break the parsers in every way there is
        clause = "not an image" if name in WEAK_FORMATS else _damage(name, error)
        raise DecodingError(clause) from error


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise DecodingError(f"no pixels: {width}x{height}")
    if width * height > MAX_PIXELS:
        raise DecodingError(
            f"too large: {width}x{height} pixels, the limit is {MAX_PIXELS:,} pixels",
            "too_many_pixels",
        )


def _load_upright(image: ImageFile.ImageFile) -> tuple[Image.Image, str, str]:
    """Decode the pixels; returns the RGB image, the colour clause and the rotation clause."""
    try:
        before = _orientation(image)
        image.load()
        after = _orientation(image)  # TIFF is turned while loading, and then says 1
        rgb, colour = to_rgb(image)
    except DecodingError:
        raise
    except MemoryError as error:
        clause = f"too large for the memory: {image.width}x{image.height}"
        raise DecodingError(clause, "too_large_for_memory") from error
    except Exception as error:
        raise DecodingError(_damage(image.format or "", error)) from error
    method = _UPRIGHT.get(after)
    upright = rgb if method is None else rgb.transpose(method)
    told = before if before in _UPRIGHT else after
    return upright, colour, f"rotated by EXIF {told}" if told in _UPRIGHT else ""


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except OSError:  # PNG may have to load its pixels to find it: the pixels are damaged
        raise
    except Exception:  # EXIF written by a careless program must not cost the image
        return 1
    return value if isinstance(value, int) else 1


def decoded_scale(facts: ImageFacts, min_side: int | None) -> int:
    """By what `decode` divides the sides of this image: 1, 2, 4 or 8; the facts say what it is."""
    if min_side is None or facts.format not in _DRAFT_FORMATS:
        return 1
    return _draft_scale((facts.width, facts.height), min_side)


def _draft_scale(size: tuple[int, int], min_side: int) -> int:
    """The largest that keeps twice `min_side`."""
    fitting = (s for s in _DRAFT_SCALES if min(size) // s >= 2 * max(min_side, 1))
    return next(fitting, 1)


def _draft(image: ImageFile.ImageFile, min_side: int) -> None:
    """Have a JPEG decoded at the smallest size that is large enough."""
    scale = _draft_scale(image.size, min_side)
    if scale > 1 and isinstance(image, JpegImagePlugin.JpegImageFile):
        image.draft(None, (image.width // scale, image.height // scale))


def _stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Width and height before any rotation; Pillow swaps those of a turned TIFF at once."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(_TIFF_WIDTH, image.width), tags.get(_TIFF_HEIGHT, image.height)


def _has_16_bit_colour(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow drops the low byte of every colour value while reading."""
    if image.mode.startswith("I"):
        return False
    return any(";16" in str(tile.args) for tile in image.tile)


def _check_depth(image: Image.Image) -> None:
    """Refuse 16-bit colour of 12-bit values, of which the high byte keeps next to nothing."""
    brightest = max(high for _, high in image.getextrema())  # type: ignore[misc]
    if 0 < brightest < _DARKEST:
        raise DecodingError(
            "16-bit colour of 12-bit values, which would come out black: save it with 8 bits"
        )


def _count_frames(image: ImageFile.ImageFile) -> int:
    """How many frames, as far as they can be counted; the first is the present one after that."""
    try:
        count = int(getattr(image, "n_frames", 1))
    except Exception:  # a damaged later frame does not concern the first
        count = 1
    if image.tell():
        image.seek(0)
    return count


def _damage(name: str, error: Exception) -> str:
    kind = "truncated" if "truncated" in str(error).lower() else "truncated or damaged"
    return f"{kind} {name} file"
