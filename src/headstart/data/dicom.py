"""DICOM: from the stored values to 8-bit pixels as a viewer shows them, and groups from headers.

The steps of the standard (PS3.3 C.11): modality (rescale slope and intercept, or its table), then
values of interest (its table, else the first window), then MONOCHROME1 is inverted, so that white
is white. Without a window, unsigned values are scaled by their depth (`headstart.data.colour`) and
signed ones from the least to the greatest of the picture. Of several frames the first is decoded.

Whom a picture shows is nobody's business here: groups are digests of what the header says, and
nothing else of it is kept. A digest hides an identifier from a reader; it does not hide it from
somebody who tries all identifiers there may be.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.colour import DecodingError, depth_of, scale_to_8_bit
from headstart.errors import MissingExtraError
from headstart.records import Bytes8, ImageFacts

CODE_BYTES = 8
SIZE_TAGS = ("Rows", "Columns")
_Values = npt.NDArray[Any]  # as they are stored: integers, rarely floating point


def dicom_pixels(source: bytes, *, max_pixels: int) -> tuple[Bytes8, ImageFacts]:
    """The first frame of a DICOM file.

    Args:
        source: the file.
        max_pixels: a larger picture is refused from its header.

    Returns:
        (H, W) or (H, W, 3) uint8, and facts without path and digest.

    Raises:
        DecodingError: damaged, without a picture, too large, or of an unknown compression.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = _header(source)
        width, height = _size(header)
        if width * height > max_pixels:
            raise DecodingError(
                f"too large: {width}x{height} pixels, the limit is {max_pixels:,} pixels"
            )
        stored = _first_frame(header)
        colours = int(header.get("SamplesPerPixel", 1)) > 1
        pixels, notes = _colour(header, stored) if colours else _grey(header, stored)
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        notes.append(f"first of {frames:,} frames")
    kind = str(header.get("PhotometricInterpretation", ""))
    mode = f"{kind} {header.get('BitsStored', 0)} bits"
    facts = ImageFacts(
        path="", width=width, height=height, format="DICOM", mode=mode, treatment="; ".join(notes)
    )
    return pixels, facts


def dicom_size(source: bytes) -> tuple[int, int]:
    """Width and height, from the header alone.

    Raises:
        DecodingError: damaged or without a picture.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _size(_header(source, only=SIZE_TAGS))


def window(
    values: npt.NDArray[np.floating], centre: float, width: float, function: str = "LINEAR"
) -> Bytes8:
    """Values of interest to 0..255 (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: any shape, after the modality's rescaling.
        centre: of the window.
        width: of the window; at least 1 for 'LINEAR', above 0 otherwise.
        function: 'LINEAR', 'LINEAR_EXACT' or 'SIGMOID'.
    """
    if function == "SIGMOID":
        shares = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -80, 80)))
    elif function == "LINEAR_EXACT":
        shares = (values - centre) / width + 0.5
    else:
        shares = (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
    rounded: Bytes8 = np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
    return rounded


def is_keyword(word: str, paths: Sequence[str]) -> bool:
    """Whether `--group-by` names an entry of DICOM headers, where there are such files.

    Raises:
        MissingExtraError: it may, and pydicom is not installed.
    """
    if not word.isidentifier() or not any(_is_named_dicom(path) for path in paths):
        return False
    try:
        from pydicom.datadict import tag_for_keyword
    except ImportError as error:
        raise MissingExtraError(
            f"`--group-by {word}` needs pydicom to read the headers of DICOM files. "
            "Install it: pip install 'headstart[dicom]'"
        ) from error
    return tag_for_keyword(word) is not None


def header_codes(sources: Sequence[Path | bytes | None], keyword: str) -> list[str]:
    """What each header says under a keyword, as a digest; '' where it says nothing.

    Args:
        sources: N files.
        keyword: 'PatientID', 'StudyInstanceUID', ...
    """
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for source in sources:
            try:
                header = _header(source if source is not None else b"", only=(keyword,))
                text = str(header.get(keyword) or "").strip()
            except (DecodingError, OSError):
                text = ""
            found.append(_code(keyword, text) if text else "")
    return found


def _code(keyword: str, text: str) -> str:
    digest = hashlib.blake2b(f"{keyword}={text}".encode(), digest_size=CODE_BYTES)
    return digest.hexdigest()


def _is_named_dicom(path: str) -> bool:
    return path.lower().endswith((".dcm", ".dicom"))


def _header(source: Path | bytes, only: Sequence[str] | None = None) -> Any:
    """The data set; with `only`, those entries and no pixels."""
    import pydicom

    place = BytesIO(source) if isinstance(source, bytes) else source
    try:
        return pydicom.dcmread(
            place,
            stop_before_pixels=only is not None,
            specific_tags=None if only is None else list(only),
        )
    except OSError:
        raise
    except Exception as error:  # damaged bytes break the parser in every way there is
        raise DecodingError("truncated or damaged DICOM file") from error


def _size(header: Any) -> tuple[int, int]:
    try:
        width, height = int(header.Columns), int(header.Rows)
    except (AttributeError, TypeError, ValueError) as error:
        raise DecodingError("a DICOM file without a picture") from error
    if width < 1 or height < 1:
        raise DecodingError(f"no pixels: {width}x{height}")
    return width, height


def _first_frame(header: Any) -> _Values:
    from pydicom.pixels.utils import pixel_array

    if "PixelData" not in header:
        raise DecodingError("a DICOM file without a picture")
    try:
        values: _Values = pixel_array(header, index=0)
    except MemoryError:
        raise
    except Exception as error:
        syntax = getattr(header.file_meta, "TransferSyntaxUID", None)
        if syntax is not None and syntax.is_compressed and "missing dependencies" in str(error):
            raise DecodingError(
                f"a DICOM file compressed by '{syntax.name}', which needs a package more: "
                "pip install 'pylibjpeg[all]'"
            ) from error
        raise DecodingError("truncated or damaged DICOM file") from error
    return values


def _grey(header: Any, stored: _Values) -> tuple[Bytes8, list[str]]:
    """One value a pixel: rescaled, windowed, MONOCHROME1 inverted; and what was done."""
    from pydicom.pixels.processing import apply_modality_lut

    kind = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if kind == "PALETTE COLOR":
        return _palette(header, stored)
    notes = []
    values = np.asarray(apply_modality_lut(stored, header))
    if np.array_equal(values, stored):
        values = stored  # slope 1 and intercept 0 make floats of it, which say nothing of the depth
    else:
        notes.append("rescaled as its header says")
    pixels, how = _values_of_interest(header, values)
    notes.append(how)
    if kind == "MONOCHROME1":
        pixels = 255 - pixels
        notes.append("MONOCHROME1 inverted")
    return pixels, [note for note in notes if note]


def _values_of_interest(header: Any, values: _Values) -> tuple[Bytes8, str]:
    """By the header's table, else its first window, else the depth or the picture's extremes."""
    from pydicom.pixels.processing import apply_voi

    if header.get("VOILUTSequence"):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        shown = np.asarray(apply_voi(values.astype(np.int64), header, index=0))
        return scale_to_8_bit(shown, (1 << bits) - 1), "table of its header"
    centre, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if centre is not None and width is not None and width > 0:
        function = str(header.get("VOILUTFunction") or "LINEAR")
        wide = values.astype(np.float64)
        return window(wide, centre, width, function), f"window {centre:g} / {width:g}"
    lowest, highest = float(values.min()), float(values.max())
    if lowest >= 0 and values.dtype.kind == "u":
        bits = depth_of(int(highest), max(int(header.get("BitsStored", 16)), 1))
        return scale_to_8_bit(values, (1 << bits) - 1), f"no window, {bits} bits to 8"
    spread = max(highest - lowest, 1e-12)
    shares = (values.astype(np.float64) - lowest) / spread
    return np.rint(shares * 255).astype(np.uint8), f"no window, {lowest:g} to {highest:g}"


def _palette(header: Any, stored: _Values) -> tuple[Bytes8, list[str]]:
    from pydicom.pixels.processing import apply_color_lut

    coloured = np.asarray(apply_color_lut(stored, header))[..., :3]
    if coloured.dtype != np.uint8:
        coloured = (coloured >> 8).astype(np.uint8)
    return coloured, ["palette to RGB"]


def _colour(header: Any, stored: _Values) -> tuple[Bytes8, list[str]]:
    """(H, W, 3) values, already RGB, to 8 bits."""
    pixels: npt.NDArray[Any] = np.asarray(stored)[..., :3]
    bits = int(header.get("BitsStored", 8))
    if pixels.dtype == np.uint8 and bits == 8:
        return pixels, []
    return scale_to_8_bit(pixels, (1 << bits) - 1), [f"{bits}-bit colour to 8 bit"]


def _first(value: Any) -> float | None:
    """The first of several numbers, None where there is none."""
    if value is None or value == "":
        return None
    several = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    numbers = [float(number) for number in several]
    return numbers[0] if numbers else None
