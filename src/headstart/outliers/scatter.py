"""Sums over rows of which every fit is made: counts, sums and products, by class.

Those of disjoint rows add up, so that a fold's training part is all rows less the fold, and a
class is left out by taking its own sums off. One sweep over the rows then serves all fits of a
cross-fit, where each fit had swept over its rows many times to find their components.

Products are float64: what is taken off is nearly all of what there was, and the smallest component
that is kept may have a 1e-10th of the variance of the largest.

Width. Few rows of more features than rows lie in a space of as many dimensions as there are rows,
and their sums are taken there: the coordinates are orthonormal, so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from headstart.records import Floats, Integers

CHUNK = 2048
LARGEST_EXACT = 1536  # columns whose covariance is decomposed exactly
EXTRA_DIRECTIONS, TURNS = 32, 8  # of the subspace iteration beyond that
SMALLEST_SHARE = 1e-10  # of the largest variance, that a component has to have

Doubles = npt.NDArray[np.float64]


def unit_length(features: Floats) -> Doubles:
    """(N, D) float64 rows of length one; rows of zeros stay."""
    rows = features.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    rows /= np.where(lengths == 0, 1.0, lengths)
    return rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """(N, D) rows in W coordinates around a point, made chunk by chunk.

    Attributes:
        values: (N, D) of any length, or as they are to be taken.
        origin: (D,) near the rows, so that differences keep their digits.
        span: (D, W) orthonormal columns; None where the coordinates are those of the values.
        unit: whether rows are brought to length one.
    """

    values: Floats
    origin: Doubles
    span: Doubles | None = None
    unit: bool = True

    @classmethod
    def of_length_one(cls, features: Floats) -> Rows:
        """Features (N, D) brought to length one; few of them in N coordinates."""
        origin = unit_length(features[:CHUNK]).mean(axis=0)
        span = None
        if len(features) < min(features.shape[1], LARGEST_EXACT):
            span = np.linalg.qr((unit_length(features) - origin).T)[0]
        return cls(values=features, origin=origin, span=span)

    def in_features(self, directions: Doubles) -> Doubles:
        """Directions (W, r), or one (W,), as those of the values."""
        return directions if self.span is None else np.asarray(self.span @ directions)

    def in_coordinates(self, directions: Doubles) -> Doubles:
        """Directions (D, r) as (W, r): no row has a part beside these."""
        return directions if self.span is None else np.asarray(self.span.T @ directions)

    def along(self, directions: Doubles) -> Rows:
        """The same in the coordinates along (W, r) directions, in memory."""
        made = np.concatenate([part @ directions for _, part in self.chunks()])
        return Rows(values=made, origin=np.zeros(made.shape[1]), unit=False)

    @property
    def width(self) -> int:
        """W."""
        return int((self.values if self.span is None else self.span).shape[1])

    def chunks(self) -> Iterator[tuple[slice, Doubles]]:
        """Consecutive rows and their (B, W) coordinates."""
        for begin in range(0, len(self.values), CHUNK):
            rows = slice(begin, begin + CHUNK)
            part = self.values[rows]
            found = (unit_length(part) if self.unit else part) - self.origin
            yield rows, found if self.span is None else found @ self.span


@dataclass(frozen=True, kw_only=True, eq=False)
class Scatter:
    """What some rows add up to.

    Attributes:
        counts: (C,) rows of each class.
        sums: (C, W) of them.
        products: (W, W) sum of x x^T over all of them.
    """

    counts: Integers
    sums: Doubles
    products: Doubles

    @classmethod
    def nothing(cls, num_classes: int, width: int) -> Scatter:
        """Of no rows."""
        return cls(
            counts=np.zeros(num_classes, dtype=np.int64),
            sums=np.zeros((num_classes, width)),
            products=np.zeros((width, width)),
        )

    def take(self, rows: Doubles, labels: Integers) -> None:
        """Add rows (B, W) with labels (B,) in place."""
        order = np.argsort(labels, kind="stable")
        rows = rows[order]
        present, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
        self.counts[present] += sizes
        self.sums[present] += np.add.reduceat(rows, starts, axis=0)
        np.add(self.products, rows.T @ rows, out=self.products)

    def __add__(self, other: Scatter) -> Scatter:
        """Of the rows of both."""
        return Scatter(
            counts=self.counts + other.counts,
            sums=self.sums + other.sums,
            products=self.products + other.products,
        )

    def __sub__(self, other: Scatter) -> Scatter:
        """Of the rows that the other lacks."""
        return Scatter(
            counts=self.counts - other.counts,
            sums=self.sums - other.sums,
            products=self.products - other.products,
        )

    @property
    def mean(self) -> Doubles:
        """(W,) of all rows."""
        return np.asarray(self.sums.sum(axis=0) / self.counts.sum())

    @property
    def means(self) -> Doubles:
        """(C, W) of the classes, zero where a class has no rows."""
        return np.asarray(self.sums / np.maximum(self.counts, 1)[:, None])

    def covariance(self) -> Doubles:
        """(W, W) of the rows about their mean, divided by their number."""
        return np.asarray(self.products / self.counts.sum() - np.outer(self.mean, self.mean))

    def within(self, directions: Doubles) -> Doubles:
        """(r, r) covariance of the rows along (W, r) directions, each about its class's mean."""
        sums = self.sums @ directions
        between = sums.T @ (sums / np.maximum(self.counts, 1)[:, None])
        return np.asarray((directions.T @ self.products @ directions - between) / self.counts.sum())


def scatter_by(
    rows: Rows, labels: Integers, cells: Integers, num_cells: int, num_classes: int
) -> list[Scatter]:
    """Sums of the rows of every cell, in one sweep.

    Args:
        rows: N rows.
        labels: (N,) 0 to C - 1.
        cells: (N,) 0 to `num_cells` - 1, which cell a row belongs to; below 0 to none.
        num_cells: how many.
        num_classes: C.
    """
    found = [Scatter.nothing(num_classes, rows.width) for _ in range(num_cells)]
    for part, values in rows.chunks():
        for cell in np.unique(cells[part][cells[part] >= 0]):
            mine = cells[part] == cell
            found[cell].take(values[mine], labels[part][mine])
    return found


def principal_components(covariance: Doubles, count: int) -> Doubles:
    """(W, r) directions of most variance, r at most `count` and the rank.

    Beyond `LARGEST_EXACT` columns by subspace iteration (Halko, Martinsson and Tropp 2011) from a
    fixed start; at eight turns it keeps all but some 5e-5 of the variance where eigenvalues fall
    like 1 / i, and more where they fall faster.
    """
    width = len(covariance)
    count = min(count, width)
    if width <= LARGEST_EXACT:
        # LAPACK's reduction is not faster on many threads: they wait for each other, all awake.
        with threadpool_limits(1, user_api="blas"):
            values, vectors = eigh(covariance, subset_by_index=(width - count, width - 1))
    else:
        directions = np.random.default_rng(0).normal(size=(width, count + EXTRA_DIRECTIONS))
        for _ in range(TURNS + 1):
            directions = np.linalg.qr(covariance @ directions)[0]
        values, turn = np.linalg.eigh(directions.T @ covariance @ directions)
        values, vectors = values[-count:], (directions @ turn)[:, -count:]
    kept = np.flatnonzero(values > SMALLEST_SHARE * max(values[-1], 1e-300))[::-1]
    return np.asarray(vectors[:, kept])


def shrunk(covariance: Doubles, fourth: float, count: int) -> Doubles:
    """(r, r) covariance of centred rows z, shrunk towards a multiple of the identity.

    Ledoit and Wolf (2004): S turns into (1 - a) S + a m I, where m is the mean of the diagonal and
    a = min(b, d) / d with d = ||S - m I||^2 and b = (mean of ||z||^4 - ||S||^2) / n.

    Args:
        covariance: (r, r) S, the mean of z z^T.
        fourth: sum of ||z||^4 over the rows.
        count: n rows.
    """
    size = len(covariance)
    middle = np.trace(covariance) / size
    square = (covariance**2).sum()
    spread = square - size * middle**2
    noise = min((fourth / count - square) / count, spread)
    amount = noise / spread if spread > 0 else 0.0
    return np.asarray((1 - amount) * covariance + amount * middle * np.eye(size))
