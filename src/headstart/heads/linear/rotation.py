"""The coordinates in which logistic heads are fitted, and the rows of a feature matrix in chunks.

z = V'(x - mean) / s, with the eigenvectors V of the Gram matrix; why is told in `logistic`.

Memory.  Features may come in 16 bits and stay so: every chunk of rows is widened as it is read.
The coordinates take 4 bytes a number, or 8 for float64, and are read by chunks of rows too, one
after the other: both may lie in a mapped file (`torch.from_file`, `numpy.memmap`), of which the
system keeps in memory what there is room for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

GRAM_ROWS = 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class Basis:
    """The coordinates z = rotation' (x - mean) / scale."""

    mean: Tensor  # (D,)
    scale: float
    rotation: Tensor  # (D, E), orthonormal columns, E = min(N, D)

    def apply(self, features: Tensor, into: Tensor | None = None) -> Tensor:
        """(N, D) features to (N, E + 1) coordinates with a last column of ones."""
        shape = (len(features), self.rotation.shape[1] + 1)
        made = self.rotation.new_empty(shape) if into is None else into
        for rows in slices(len(features), GRAM_ROWS):
            part = widened(features[rows]) - self.mean
            made[rows, :-1] = part @ self.rotation / self.scale
        made[:, -1] = 1
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class RotatedFeatures:
    """Features and the coordinates in which they are fitted, for several fits of the same rows.

    Attributes:
        raw: (N, D) as given.
        basis: the coordinates.
        inputs: (N, E + 1) the features in them, with a last column of ones.
    """

    raw: Tensor
    basis: Basis
    inputs: Tensor


def rotate_features(features: Tensor, *, into: Tensor | None = None) -> RotatedFeatures:
    """Find the coordinates once for several fits; finding them costs as much as several rounds.

    Args:
        features: (N, D) float16, float32 or float64, finite; 16 bits are fitted in float32.
        into: (N, min(N, D) + 1) float32, or float64 for such features: where the coordinates are
            written, for instance in a mapped file; None takes memory.

    Raises:
        ValueError: features that are not finite or of another type, `into` of another shape.
    """
    check_features(features)
    shape = (len(features), min(features.shape) + 1)
    dtype = widened(features[:0]).dtype
    if into is not None and (into.shape != shape or into.dtype != dtype):
        raise ValueError(
            f"`into` must be {shape} {dtype} to take the coordinates, got {tuple(into.shape)} "
            f"{into.dtype}."
        )
    even = torch.full((len(features),), 1 / len(features), dtype=dtype, device=features.device)
    return rotate_weighted(features, even, into=into)


def rotate_weighted(
    features: Tensor, shares: Tensor, *, into: Tensor | None = None
) -> RotatedFeatures:
    """The features in the basis of rows weighted by `shares` (N,)."""
    basis = find_basis(features, shares)
    return RotatedFeatures(raw=features, basis=basis, inputs=basis.apply(features, into))


def find_basis(features: Tensor, shares: Tensor) -> Basis:
    """Mean, scale and eigenvectors of the Gram matrix of rows weighted by `shares` (N,)."""
    count, width = features.shape
    mean = torch.zeros(width, dtype=torch.float64, device=features.device)
    for rows in slices(count, GRAM_ROWS):
        mean += shares[rows].double() @ features[rows].double()
    mean = mean.to(shares.dtype)
    span = None
    if width > count:  # the few rows span all that matters
        span = torch.linalg.qr((features - mean).double().T).Q
    size = width if span is None else count
    gram = torch.zeros(size, size, dtype=torch.float64, device=features.device)
    for rows in slices(count, GRAM_ROWS):
        part = widened(features[rows]) - mean
        part = part if span is None else (part.double() @ span).to(part.dtype)
        gram += part.T @ (part * shares[rows, None])
    variances, rotation = torch.linalg.eigh(gram)
    rotation = rotation if span is None else span @ rotation
    scale = float((variances.clamp_min(0).sum() / width).sqrt()) or 1.0
    return Basis(
        mean=mean,
        scale=scale,
        rotation=rotation.to(mean.dtype),
    )


def widened(features: Tensor) -> Tensor:
    """16 bits as float32, anything else as it is."""
    return features.float() if features.dtype == torch.float16 else features


def slices(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` (at least one) that cover `count` rows."""
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, count, size))


def check_features(features: Tensor) -> None:
    """Raise ValueError for features of which there is no fit."""
    if features.ndim != 2 or features.dtype not in (torch.float16, torch.float32, torch.float64):
        raise ValueError(
            f"`features` must be (N, D) float16, float32 or float64, got {tuple(features.shape)} "
            f"{features.dtype}. Convert them with .float()."
        )
    bad = num_not_finite(features)
    if bad:
        raise ValueError(f"`features` must be finite, got {bad} rows with NaN or infinity.")


def num_not_finite(features: Tensor) -> int:
    """How many rows (N, D) hold NaN or infinity."""
    parts = slices(len(features), GRAM_ROWS)
    return sum(int((~torch.isfinite(features[rows])).any(1).sum()) for rows in parts)
