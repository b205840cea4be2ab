"""Units: the sets of images that stay on one side of every split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.records import Floats, Integers

Bools = npt.NDArray[np.bool_]
Groups = npt.NDArray[Any]

NONE = -1


def number_units(groups: Groups | Sequence[str]) -> Integers:
    """(N,) codes 0, 1, ... in the order in which units first appear, whatever they are called."""
    values = groups.tolist() if isinstance(groups, np.ndarray) else groups
    codes: dict[object, int] = {}
    return np.array([codes.setdefault(value, len(codes)) for value in values], dtype=np.int64)


def several_units(groups: Groups | None) -> Integers | None:
    """(N,) codes, None where every image is a unit of its own."""
    if groups is None:
        return None
    codes = number_units(groups)
    return codes if len(codes) and codes.max() + 1 < len(codes) else None


def crossing(codes: Integers, is_test: Bools) -> Integers:
    """Test images whose unit has images to learn from as well.

    Args:
        codes: (N,) unit of each image, -1 where it has none.
        is_test: (N,) bool.

    Returns:
        (n,) int64 rows, ascending; the other side of a row r is `(codes == codes[r]) & ~is_test`.
    """
    learnt = np.unique(codes[~is_test & (codes != NONE)])
    return np.flatnonzero(is_test & np.isin(codes, learnt)).astype(np.int64)


def straddling(codes: Integers, fold: Integers) -> Integers:
    """Images whose unit is in several folds.

    Args:
        codes: (N,) unit of each image, -1 where it has none.
        fold: (N,).

    Returns:
        (n,) int64 rows, ascending.
    """
    pairs = np.unique(np.stack([codes, fold]), axis=1)[0]
    units, counts = np.unique(pairs, return_counts=True)
    return np.flatnonzero(np.isin(codes, units[(counts > 1) & (units != NONE)])).astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares:
    """U units by C classes, only the cells that are not zero: there are at most N of E.

    Attributes:
        unit: (E,) ascending.
        label: (E,)
        share: (E,) which part of the class's images the unit holds.
        starts: (U + 1,) cells of unit u are starts[u] to starts[u + 1].
    """

    unit: Integers
    label: Integers
    share: Floats
    starts: Integers

    @classmethod
    def count(cls, labels: Integers, codes: Integers, totals: Integers) -> Shares:
        """Count the images of each unit and class.

        Args:
            labels: (N,).
            codes: (N,) 0 to U - 1.
            totals: (C,) images of each class that make a share of 1.
        """
        width = len(totals)
        cells, counts = np.unique(codes * width + labels, return_counts=True)
        unit, label = cells // width, cells % width
        starts = np.searchsorted(unit, np.arange(int(codes.max()) + 2))
        return cls(unit=unit, label=label, share=counts / totals[label], starts=starts)

    def __len__(self) -> int:
        """U."""
        return len(self.starts) - 1

    def cells(self, unit: int) -> slice:
        """Where the cells of one unit stand."""
        return slice(int(self.starts[unit]), int(self.starts[unit + 1]))

    def by_unit(self, values: Floats) -> Floats:
        """(U,) sums of (E,) values."""
        return np.asarray(np.bincount(self.unit, weights=values, minlength=len(self)), dtype=float)

    def largest_first(self, generator: np.random.Generator) -> Integers:
        """(U,) units in falling order of their shares, equal ones shuffled."""
        order = generator.permutation(len(self))
        return order[np.argsort(-self.by_unit(self.share)[order], kind="stable")]
