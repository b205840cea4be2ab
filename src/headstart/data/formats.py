"""What a file is, told from its first bytes, never from its name.

Only the formats of `FACTORIES`, and DICOM by `headstart.data.dicom`, are opened. Everything else
that people keep among pictures is recognised well enough to be named ('a HEIC image: convert it to
JPEG or PNG'), because "not an image" would leave them puzzled. The plugin of the recognised format
is called directly rather than through `Image.open`, whose size check warns through a filter that
threads share.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import BinaryIO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)


def _open_avif(stream: BinaryIO, _name: str) -> ImageFile.ImageFile:
    from PIL import AvifImagePlugin

    return AvifImagePlugin.AvifImageFile(stream)


FACTORIES: dict[str, Callable[[BinaryIO, str], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
if "avif" in features.modules and features.check("avif"):
    FACTORIES["AVIF"] = _open_avif

# Two letters that may as well begin a text: a failure to open means 'not an image'.
WEAK_FORMATS = frozenset({"BMP", "PPM"})

FORMAT_OF_SUFFIX = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    **dict.fromkeys((".png", ".apng"), "PNG"),
    ".webp": "WEBP",
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    ".gif": "GIF",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), "PPM"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
}
# Camera RAW mostly is TIFF inside, and its first picture a thumbnail: told by the name alone.
RAW_SUFFIXES = frozenset(
    {".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"}
)
FOREIGN_SUFFIXES = RAW_SUFFIXES | {
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx"),
    *(".eps", ".psd", ".svg", ".ico", ".tga"),
}
IMAGE_SUFFIXES = frozenset(FORMAT_OF_SUFFIX) | FOREIGN_SUFFIXES

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
    *((b"P" + kind, "PPM") for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"f")),
)
INSTALL_DICOM = "pip install 'headstart[dicom]' to read it"
_CONVERT = "convert it to JPEG or PNG"
_FOREIGN_MAGIC = (
    (b"\xff\x0a", f"a JPEG XL image: {_CONVERT}"),
    (b"\x00\x00\x00\x0cJXL ", f"a JPEG XL image: {_CONVERT}"),
    (b"\x00\x00\x00\x0cjP  ", f"a JPEG 2000 image: {_CONVERT}"),
    (b"\xff\x4f\xff\x51", f"a JPEG 2000 image: {_CONVERT}"),
    (b"%!PS", f"an EPS or PostScript file: {_CONVERT}"),
    (b"\xc5\xd0\xd3\xc6", f"an EPS or PostScript file: {_CONVERT}"),
    (b"%PDF", "a PDF file: convert its pages to JPEG or PNG"),
    (b"8BPS", f"a Photoshop file: {_CONVERT}"),
    (b"\x00\x00\x01\x00", f"an icon file: {_CONVERT}"),
    (b"FUJIFILMCCD-RAW", f"a camera RAW image: {_CONVERT}"),
)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"heif", b"mif1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})


@cache
def has_pydicom() -> bool:
    """Whether DICOM files can be read."""
    return find_spec("pydicom") is not None


def format_of(data: bytes) -> str:
    """The allowed format that these bytes begin like ('JPEG'), '' for none."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if _AVIF_BRANDS & _brands(data):
        return "AVIF"
    if data[128:132] == b"DICM":
        return "DICOM"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), "")


def refusal(data: bytes, path: str) -> str:
    """One clause why this is not opened at all, '' for a file of an allowed format."""
    if not data:
        return "empty file"
    if PurePosixPath(path).suffix.lower() in RAW_SUFFIXES:
        return f"a camera RAW image: {_CONVERT}"
    name = format_of(data)
    if name in FACTORIES:
        return ""
    if name == "DICOM":
        return "" if has_pydicom() else f"a DICOM file: {INSTALL_DICOM}"
    if name:
        return f"an {name} image, which this build of Pillow cannot read: {_CONVERT}"
    if _HEIF_BRANDS & _brands(data):
        return f"a HEIC image: {_CONVERT}"
    if b"<svg" in data[:1024].lower():
        return f"an SVG drawing: {_CONVERT}"
    return next(
        (clause for magic, clause in _FOREIGN_MAGIC if data.startswith(magic)), "not an image"
    )


def misnamed(found: str, path: str) -> str:
    """'PNG named .jpg' where the name promises another format, '' otherwise."""
    suffix = PurePosixPath(path).suffix.lower()
    promised = FORMAT_OF_SUFFIX.get(suffix)
    if promised is None and suffix not in FOREIGN_SUFFIXES:
        return ""
    actual = "JPEG" if found == "MPO" else found
    return "" if actual == promised else f"{actual} named {suffix}"


def _brands(data: bytes) -> frozenset[bytes]:
    """The brands of an ISO media file (HEIF, AVIF), its major one first; none otherwise."""
    if data[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(data[:4], "big"), 128)
    compatible = (data[start : start + 4] for start in range(16, end, 4))
    return frozenset({data[8:12], *compatible})
