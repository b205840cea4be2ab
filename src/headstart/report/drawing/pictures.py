"""Thumbnails: small JPEG data URIs of the very pictures a run saw, where they are still at hand.

A picture is shown only if its bytes have the digest that the run wrote down; one that was changed
since would illustrate another run.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from headstart.data import DecodingError, decode, digest_of, load_table
from headstart.data.packed.downloads import at_hand_only
from headstart.errors import UsageError
from headstart.records import ImageTable
from headstart.report.reading import Row

SIDE = 112  # px; shown at 96 and below, so sharp enough on a dense screen
QUALITY = 72
MOST_PICTURES = 400  # a page; about 3 kB each

LEFT_OUT = "The report was asked to show no pictures."
GONE = "The pictures are not at hand any more, so the report shows none."


class Pictures:
    """Thumbnails by the name a picture has in its run; '' for one that cannot be shown."""

    def __init__(self, table: ImageTable | None, digests: dict[str, str], *, note: str) -> None:
        """Remember where the pictures are.

        Args:
            table: the run's images, None where there are none to show.
            digests: of the bytes, by path, as the run found them.
            note: why there are none, '' where there are.
        """
        self.table = table
        self.note = note
        self._digests = digests
        self._rows = {path: i for i, path in enumerate(table.paths)} if table else {}
        self._made: dict[str, str] = {}

    @property
    def at_hand(self) -> bool:
        """Whether there is anything to show."""
        return self.table is not None

    def thumbnail(self, path: str) -> str:
        """A data URI, or '' where the picture is gone, changed, unreadable or one too many."""
        if path not in self._made:
            full = sum(map(bool, self._made.values())) >= MOST_PICTURES
            self._made[path] = "" if full else self.make(path)
        return self._made[path]

    def make(self, path: str, side: int = SIDE) -> str:
        """As `thumbnail`, made anew, in any size and number."""
        row = self._rows.get(path)
        if self.table is None or row is None:
            return ""
        with suppress(OSError, DecodingError):
            source = self.table.read(row)
            known = self._digests.get(path)
            if known and digest_of(source) != known:
                return ""
            picture, _ = decode(source, path, min_side=side)
            return data_uri(cropped(picture, self.table.box_of(row)), side)
        return ""


def cropped(picture: Image.Image, box: tuple[float, float, float, float] | None) -> Image.Image:
    """The part of an upright picture that the run looked at."""
    if box is None:
        return picture
    width, height = picture.size
    left, top, right, bottom = box
    return picture.crop(
        (
            max(0, round(left * width)),
            max(0, round(top * height)),
            min(width, max(round(right * width), round(left * width) + 1)),
            min(height, max(round(bottom * height), round(top * height) + 1)),
        )
    )


def data_uri(picture: Image.Image, side: int = SIDE) -> str:
    """A small JPEG that stands inside the page; tiny pictures are enlarged without blur."""
    width, height = picture.size
    scale = side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    enlarge = scale > 2
    small = picture.resize(size, Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS)
    stream = BytesIO()
    small.save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def find_pictures(settings: dict[str, Any], images: list[Row], *, wanted: bool) -> Pictures:
    """The pictures of a run, or the reason why there are none.

    Args:
        settings: of the run; they name its data.
        images: lines of its `images.csv`.
        wanted: False leaves all pictures out.
    """
    if not wanted:
        return Pictures(None, {}, note=LEFT_OUT)
    digests = {row["path"]: row.get("digest", "") for row in images}
    try:
        with at_hand_only():
            table = load_table(
                settings["data"],
                test_data=settings.get("test_data"),
                columns=settings.get("columns"),
                crop_margin=settings.get("crop_margin") or 0.0,
            )
    except (UsageError, OSError):
        return Pictures(None, {}, note=GONE)
    if images and not set(table.paths) & set(digests):
        return Pictures(None, {}, note=GONE)
    return Pictures(table, digests, note="")


def file_name(path: str) -> str:
    """The last part of a picture's name."""
    return Path(path).name
