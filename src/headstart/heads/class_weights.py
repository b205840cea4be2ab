"""Weights that make up for unequal class sizes, from each problem's own training rows.

'balanced': a row of class c counts n / (C n_c), with n the weight of all training rows, n_c that
of the class and C the classes that have any: every class then has the same total weight, and the
mean over rows stays one (King and Zeng 2001; the same as scikit-learn's 'balanced').
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.errors import DataError, UsageError

CLASS_WEIGHTS = ("none", "balanced")
ROWS = 8192


def balanced_weights(labels: Tensor, num_classes: int, weights: Tensor) -> Tensor:
    """Weights under which every class of a problem has the same total.

    Args:
        labels: (N,) int64, 0 to C - 1; those of rows without weight do not matter.
        num_classes: C.
        weights: (K, N) bool or >= 0, zero or False where the row is not in the problem.

    Returns:
        (K, N) in the type of `weights` (float32 for bool), zero where those are; the total of
        every problem is what it was.

    Raises:
        DataError: shapes that do not fit, or a problem without any weight.
    """
    if weights.ndim != 2 or labels.shape != weights.shape[1:]:
        raise DataError(
            f"`weights` must be (K, {len(labels)}) like the labels, got {tuple(weights.shape)}. "
            "Bring them to one length."
        )
    exact = weights.double()
    used = (exact > 0).any(0)
    known = torch.where(used, labels, 0)
    totals = exact.new_zeros(len(exact), num_classes)  # (K, C)
    for start in range(0, len(known), ROWS):  # all classes beside all rows would not fit
        rows = slice(start, start + ROWS)
        members = torch.nn.functional.one_hot(known[rows], num_classes).double()
        totals += exact[:, rows] @ members
    if bool((totals.sum(1) <= 0).any()):
        raise DataError("`weights` must be positive somewhere in every problem. Correct them.")
    made = exact * balancing_factors(totals)[:, known]
    return made.to(weights.dtype if weights.is_floating_point() else torch.float32)


def balancing_factors(totals: Tensor) -> Tensor:
    """What to multiply each class by, so that all classes that are there have one total.

    Args:
        totals: (K, C) >= 0, positive somewhere in every row.

    Returns:
        (K, C): n / (C n_c) of each problem's own classes; 0 for those that are not there.
    """
    present = (totals > 0).sum(1, keepdim=True)
    factors = totals.sum(1, keepdim=True) / (present * totals)
    return factors.masked_fill(totals == 0, 0.0)


def apply_class_weights(kind: str, labels: Tensor, weights: Tensor, num_classes: int) -> Tensor:
    """Training weights (K, N) with the class weights of that kind on top.

    Args:
        kind: 'none' or 'balanced'.
        labels: (N,) int64.
        weights: (K, N) as in `balanced_weights`.
        num_classes: C.

    Raises:
        UsageError: an unknown kind.
        DataError: as in `balanced_weights`.
    """
    if kind == "none":
        return weights
    if kind == "balanced":
        return balanced_weights(labels, num_classes, weights)
    raise UsageError(
        f"`class_weights` must be one of {', '.join(CLASS_WEIGHTS)}, got '{kind}'. Correct it."
    )
