"""What stays on one side of every split, and whether a given split keeps to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError
from headstart.records import ImageTable, Integers
from headstart.splitting import crossing, straddling

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """What stays on one side of a split and is drawn whole for intervals and tests.

    Attributes:
        codes: (N,) unit of each image.
        word: what messages call one.
    """

    codes: Integers
    word: str

    def take(self, rows: Integers) -> Units:
        """The units of some images."""
        return replace(self, codes=self.codes[rows])

    def drawn(self, rows: Integers) -> Integers | None:
        """(n,) units of some images; None where each of these is by itself."""
        codes = self.codes[rows]
        return codes if len(np.unique(codes)) < len(codes) else None


def codes_of(units: Units | None) -> Integers | None:
    """(N,) codes, None where every image is by itself."""
    return None if units is None else units.codes


def count_leaks(
    table: ImageTable,
    is_test: Bools,
    units: Units | None,
    origin: str,
    *,
    allowed: bool,
    part: str = "test",
) -> int:
    """How many images of a given part share a unit with images to learn from.

    Args:
        table: N images.
        is_test: (N,) those of the part.
        units: what stays on one side.
        origin: of the part.
        allowed: count them instead of refusing.
        part: what it is for, 'test' or 'calibration'.

    Raises:
        DataError: there are some and they are not allowed.
    """
    if units is None:
        return 0
    rows = crossing(units.codes, is_test)
    if len(rows) and not allowed:
        first = rows[0]
        twin = int(np.flatnonzero((units.codes == units.codes[first]) & ~is_test)[0])
        raise DataError(
            f"{len(rows):,} of {int(is_test.sum()):,} {part} images ({origin}) belong together "
            f"with images to learn from (a group, duplicates), as '{table.paths[first]}' with "
            f"'{table.paths[twin]}': the {part} would reward memory. Move or remove one side, or "
            "take it as it is by --allow-leaks, which every figure will be marked with."
        )
    return len(rows)


def count_straddling(
    learnt: ImageTable, fold: Integers, units: Units | None, subject: str, *, allowed: bool
) -> int:
    """How many images share a unit with an image of another fold.

    Raises:
        DataError: there are some and they are not allowed.
    """
    if units is None:
        return 0
    rows = straddling(units.codes, fold)
    if len(rows) and not allowed:
        first = rows[0]
        own = units.codes == units.codes[first]
        twin = int(np.flatnonzero(own & (fold != fold[first]))[0])
        raise DataError(
            f"{subject} part {len(rows):,} of {len(learnt):,} images from others that they belong "
            f"together with (a group, duplicates), as '{learnt.paths[first]}' from "
            f"'{learnt.paths[twin]}'. Remove one side, take --folds 5, or take it as it is by "
            "--allow-leaks, which every figure will be marked with."
        )
    return len(rows)
