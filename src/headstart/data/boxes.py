"""Boxes: the part of a picture that its label speaks of.

A box travels as left, top, right and bottom, shares in [0, 1] of the *upright* picture (after
EXIF rotation), so that it holds at any stored resolution. Manifests may give pixels instead,
counted from the upper left corner as edges: 0 is the left edge, the width the right one.

Pixels or shares? Columns named `rel_...` are shares. Any other box is one of shares where *all*
boxes of the manifest lie within [0, 1] and one of their numbers is no whole number; else pixels.
Shares that were computed leave [0, 1] by a rounding; up to `ROUNDING` they are cut to it. A box of
less than a pixel is refused: it is a share among pixels.

A box is left, top, right, bottom unless its column is named with ':xywh', as in COCO, where it is
left, top, width, height.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from headstart.data.decoding import DecodingError, upright_size
from headstart.errors import DataError, UsageError

Box: TypeAlias = tuple[float, float, float, float]
MOST_THREADS = 16
ROUNDING = 1e-3  # by which a share may lie outside of [0, 1]
# How four numbers are meant: two corners, or the upper left corner and the size.
BOX_FORMS = ("xyxy", "xywh")
_SIDES = ("x1", "y1", "x2", "y2")
# In the order in which they are looked for: shares are told by their name, so they come first.
CORNER_COLUMNS = (
    tuple(f"rel_{side}" for side in _SIDES),
    ("rel_xmin", "rel_ymin", "rel_xmax", "rel_ymax"),
    _SIDES,
    ("xmin", "ymin", "xmax", "ymax"),
)


def crop_to_box(image: Image.Image, box: Box) -> Image.Image:
    """The part of an upright picture inside a box, edges rounded to whole pixels, never empty."""
    left = min(round(box[0] * image.width), image.width - 1)
    top = min(round(box[1] * image.height), image.height - 1)
    right = max(round(box[2] * image.width), left + 1)
    bottom = max(round(box[3] * image.height), top + 1)
    return image.crop((left, top, right, bottom))


def with_margin(box: Box, margin: float) -> Box:
    """The box wider by `margin` of its own width and height on each side, inside the picture."""
    aside, above = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    return (
        max(box[0] - aside, 0.0),
        max(box[1] - above, 0.0),
        min(box[2] + aside, 1.0),
        min(box[3] + above, 1.0),
    )


def check_margin(margin: float) -> None:
    """Refuse a margin that is no share.

    Raises:
        UsageError: it is negative, above 1, or no number.
    """
    if not 0 <= margin <= 1:
        raise UsageError(
            f"`crop_margin` must be between 0 and 1, got {margin}: it is a share of the box's own "
            "width and height. A usual value is 0.1."
        )


def named_box(box: Box) -> str:
    """'box (0.061, 0.287, 0.969, 0.869)'."""
    return "box ({:.3f}, {:.3f}, {:.3f}, {:.3f})".format(*box)


def parse_box(cells: Sequence[str], place: str) -> Box | None:
    """Four numbers from one cell ('x1 y1 x2 y2') or four; None where all are empty.

    Args:
        cells: one cell, or four.
        place: where they stand, for the message.

    Raises:
        DataError: not four finite numbers.
    """
    if not any(cell.strip() for cell in cells):
        return None
    text = cells[0].strip("[]() ").replace(",", " ").replace(";", " ")
    parts = text.split() if len(cells) == 1 else list(cells)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        shown = "', '".join(cells)
        raise DataError(
            f"{place}: the box must be four numbers, left, top, right and bottom, got '{shown}'. "
            "Correct it, or leave it empty to take the whole picture."
        )
    return numbers[0], numbers[1], numbers[2], numbers[3]


def corners_of(box: Box, form: str) -> Box:
    """Left, top, right, bottom of a box that is written in one of `BOX_FORMS`."""
    left, top, third, fourth = box
    return box if form == "xyxy" else (left, top, left + third, top + fourth)


def are_shares(boxes: Sequence[Box], *, named_relative: bool) -> bool:
    """Whether the numbers are shares of the picture rather than pixels; see the module's head."""
    if named_relative:
        return True
    numbers = [number for box in boxes for number in box]
    within = all(-ROUNDING <= number <= 1 + ROUNDING for number in numbers)
    return within and any(number != int(number) for number in numbers)


def upright_sizes(images: Sequence[Path | bytes]) -> list[tuple[int, int] | None]:
    """Width and height of each picture as it is looked at; None where it cannot be read."""
    with ThreadPoolExecutor(min(MOST_THREADS, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(_size_or_none, images))


def boxes_as_shares(
    boxes: Sequence[Box | None],
    images: Sequence[Path | bytes],
    place_of: Callable[[int], str],
    *,
    named_relative: bool,
) -> list[Box | None]:
    """Boxes as shares of the upright picture; of one that cannot be read the box is left out.

    Args:
        boxes: N boxes as written, None for the whole picture.
        images: N files or encoded images.
        place_of: names row and path in a message, by the number of the row.
        named_relative: whether the columns' names say shares.

    Raises:
        DataError: a box is empty or reaches outside.
    """
    rows = [row for row, box in enumerate(boxes) if box is not None]
    written = [box for box in boxes if box is not None]
    if not rows:
        return list(boxes)
    shares = are_shares(written, named_relative=named_relative)
    sizes: list[tuple[int, int] | None] = [None] * len(rows)
    if not shares:
        sizes = upright_sizes([images[row] for row in rows])
    found: list[Box | None] = [None] * len(boxes)
    for row, box, size in zip(rows, written, sizes, strict=True):
        if shares or size is not None:
            found[row] = to_shares(box, size, place_of(row))
    return found


def to_shares(box: Box, size: tuple[int, int] | None, place: str) -> Box:
    """A box in shares, after the check that it lies inside the picture and is not empty.

    Args:
        box: in pixels where `size` is given, else in shares.
        size: width and height of the upright picture.
        place: row and path, for the message.

    Raises:
        DataError: the box is empty or reaches outside.
    """
    width, height = size or (1, 1)
    if size is None:
        box = cut_to_picture(box)
    left, top, right, bottom = box
    inside = left >= 0 and top >= 0 and right <= width and bottom <= height
    shown = " ".join(f"{number:g}" for number in box)
    if inside and left < right and top < bottom:
        if size is not None and min(right - left, bottom - top) < 1:
            raise DataError(
                f"{place}: the box {shown} is smaller than a pixel of a picture of "
                f"{width}x{height}. Boxes are read as pixels where one number of any is above 1; "
                "write all as pixels, or name the columns rel_x1, rel_y1, rel_x2, rel_y2 for "
                "shares."
            )
        return left / width, top / height, right / width, bottom / height
    limits = f"picture of {width}x{height} pixels" if size else "picture, whose sides count as 1"
    if inside:
        raise DataError(
            f"{place}: the box {shown} is empty in a {limits}. It must be left, top, right, bottom "
            "with left < right and top < bottom. Correct it; --columns box=COLUMN:xywh reads left, "
            "top, width, height."
        )
    raise DataError(f"{place}: the box {shown} reaches outside the {limits}. Correct it.")


def cut_to_picture(box: Box) -> Box:
    """Shares that a rounding has taken out of [0, 1], cut to it; others as they are."""

    def cut(share: float) -> float:
        near = -ROUNDING <= share <= 1 + ROUNDING
        return min(max(share, 0.0), 1.0) if near else share

    return cut(box[0]), cut(box[1]), cut(box[2]), cut(box[3])


def _size_or_none(image: Path | bytes) -> tuple[int, int] | None:
    """A picture that cannot be read is named later, when it is decoded."""
    try:
        return upright_size(image)
    except (DecodingError, OSError):
        return None
