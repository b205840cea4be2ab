"""Who is trained on and who is scored: seeded splits that keep classes in proportion.

Pure functions of labels and, where given, group codes.  Images of one group (a patient, a
video, duplicates) are never on both sides.  Classes are in the proportion of the whole as far
as whole images and whole groups allow.  The same arguments give the same split, for ever:
the generators are numpy's PCG64 and scikit-learn's, both seeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from headstart.errors import DataError, UsageError
from headstart.records import Floats, Integers

Bools = npt.NDArray[np.bool_]
Groups = npt.NDArray[Any]

FOLD_ATTEMPTS = 20
MAX_MOVES = 500


def hold_out(
    labels: Integers, fraction: float, *, groups: Groups | None = None, seed: int
) -> Bools:
    """Hold out a part of every class.

    Every class with at least two images (two groups) has one or more on each side; a class
    with one stays where it is not held out.  Where groups of mixed classes make that
    impossible, the side that is kept comes first.

    Args:
        labels: (N,) int64.
        fraction: share to hold out, above 0 and below 1.
        groups: (N,) or None.
        seed: of the choice.

    Returns:
        (N,) bool, True where held out.

    Raises:
        UsageError: a fraction out of range.
    """
    return _hold_out(labels, fraction, groups, np.random.default_rng(seed))


def stratified_folds(
    labels: Integers,
    num_folds: int,
    *,
    class_names: Sequence[str],
    groups: Groups | None = None,
    seed: int,
) -> Integers:
    """The fold in which each image is scored.

    Args:
        labels: (N,) int64; classes without images are passed over.
        num_folds: 2 to the smallest class's number of images (of groups).
        class_names: C names for the messages.
        groups: (N,) or None.
        seed: of the shuffle.

    Returns:
        (N,) int64, 0 to num_folds - 1.

    Raises:
        DataError: a class too small for so many folds, or tied up by its groups.
    """
    _check_folds(labels, num_folds, class_names, groups)
    if groups is None:
        splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
        return _number_folds(splitter.split(labels, labels), len(labels))
    for attempt in range(FOLD_ATTEMPTS):  # its greedy choice can put a small class in one fold
        splitter = StratifiedGroupKFold(
            num_folds, shuffle=True, random_state=(seed + attempt * 2**16) % 2**32
        )
        fold = _number_folds(splitter.split(labels, labels, groups), len(labels))
        tied = _class_in_one_fold(labels, fold)
        if tied is None and len(np.unique(fold)) == num_folds:
            return fold
    name = class_names[0 if tied is None else tied]
    raise DataError(
        f"The groups must allow '{name}' in at least two of {num_folds} folds, "
        f"got none such in {FOLD_ATTEMPTS} attempts. Lower --folds or add groups with '{name}'."
    )


def inner_hold_out(
    labels: Integers,
    fold: Integers,
    *,
    fraction: float = 0.2,
    groups: Groups | None = None,
    seed: int,
) -> Bools:
    """In the training part of every fold, hold out a part that settings are chosen on.

    A class with a single image (group) in the training part keeps it for training.

    Args:
        labels: (N,) int64.
        fold: (N,) int64, the fold in which each image is scored.
        fraction: share of the training part.
        groups: (N,) or None.
        seed: of the choice; every fold draws from its own stream.

    Returns:
        (num_folds, N) bool, never True on the part that is scored.

    Raises:
        DataError: a fold in which no class has two images to train on.
    """
    inner = np.zeros((int(fold.max()) + 1, len(labels)), dtype=bool)
    for number, row in enumerate(inner):
        train = np.flatnonzero(fold != number)
        part = None if groups is None else groups[train]
        generator = np.random.default_rng([seed, number])
        row[train] = _hold_out(labels[train], fraction, part, generator)
        if not row.any():
            raise DataError(
                f"Every fold needs a class with 2 {_unit(groups)}s to train on, got none in fold "
                f"{number}. Add images, or fit without choosing settings."
            )
    return inner


def _hold_out(
    labels: Integers, fraction: float, groups: Groups | None, generator: np.random.Generator
) -> Bools:
    """`hold_out` with a generator."""
    if not 0 < fraction < 1:
        raise UsageError(f"`fraction` must be above 0 and below 1, got {fraction}.")
    if groups is not None:
        return _hold_out_groups(labels, fraction, groups, generator)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        held[rows[:count]] = True
    return held


def _hold_out_groups(
    labels: Integers, fraction: float, groups: Groups, generator: np.random.Generator
) -> Bools:
    """Whole groups: a greedy pass from the largest, then single moves while they help."""
    codes = np.unique(groups, return_inverse=True)[1]
    table = np.zeros((int(codes.max()) + 1, int(labels.max()) + 1))
    np.add.at(table, (codes, labels), 1)
    table = table[:, table.any(axis=0)]
    several = (table > 0).sum(axis=0) >= 2  # classes that can be on both sides
    table /= table.sum(axis=0)  # each class's share in each group
    order = generator.permutation(len(table))
    order = order[np.argsort(-table[order].sum(axis=1), kind="stable")]
    chosen, held = np.zeros(len(table), dtype=bool), np.zeros(table.shape[1])
    for group in order:
        if _cost(held + table[group], fraction, several) < _cost(held, fraction, several):
            chosen[group], held = True, held + table[group]
    for _ in range(MAX_MOVES):
        moves = np.where(chosen[:, None], -table, table)[order]
        costs = _cost(held + moves, fraction, several)
        best = int(costs.argmin())
        if costs[best] >= _cost(held, fraction, several) - 1e-12:
            break
        chosen[order[best]] ^= True
        held = table[chosen].sum(axis=0)
    return np.asarray(chosen[codes])


def _cost(held: Floats, fraction: float, several: Bools) -> Floats:
    """(...) how bad it is to hold out these shares (..., C) of the classes.

    A class missing from the kept side outweighs one missing from the other, and that the
    departure from the fraction.  A class of a single group must stay on the kept side.
    """
    gone = (held > 1 - 1e-9).sum(axis=-1)
    missing = (several & (held < 1e-9)).sum(axis=-1)
    off = ((held - fraction) ** 2).sum(axis=-1)
    width = held.shape[-1]
    return np.asarray(off + 2 * width * missing + 4 * width**2 * gone)


def _number_folds(splits: Any, count: int) -> Integers:
    """(N,) fold of each image from scikit-learn's pairs of indices."""
    fold = np.full(count, -1, dtype=np.int64)
    for number, (_, scored) in enumerate(splits):
        fold[scored] = number
    return fold


def _class_in_one_fold(labels: Integers, fold: Integers) -> int | None:
    """A class that a fold would score without having seen it, or None."""
    for label in np.unique(labels):
        if len(np.unique(fold[labels == label])) < 2:
            return int(label)
    return None


def _check_folds(
    labels: Integers, num_folds: int, class_names: Sequence[str], groups: Groups | None
) -> None:
    """Raise DataError where a class is too small for the folds."""
    unit = _unit(groups)
    sizes = {int(label): _count_units(labels == label, groups) for label in np.unique(labels)}
    if not sizes:
        raise DataError("Cross-validation needs labelled images, got none.")
    label = min(sizes, key=lambda key: sizes[key])
    name, size = class_names[label], sizes[label]
    if size < 2:
        raise DataError(
            f"Cross-validation needs at least 2 {unit}s of every class, got 1 of '{name}'. "
            f"Add {unit}s of '{name}' or leave the class out."
        )
    if not 2 <= num_folds <= size:
        hint = "Raise --folds." if num_folds < 2 else f"Lower --folds or add {unit}s of '{name}'."
        raise DataError(
            f"`folds` must be between 2 and the smallest class's {size} {unit}s, "
            f"got {num_folds}. {hint}"
        )


def _unit(groups: Groups | None) -> str:
    """What is drawn, in words."""
    return "image" if groups is None else "group"


def _count_units(mask: Bools, groups: Groups | None) -> int:
    """Images, or different groups, where `mask` is true."""
    return int(mask.sum()) if groups is None else len(np.unique(groups[mask]))
