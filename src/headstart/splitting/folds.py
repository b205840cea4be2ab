"""Folds of which each scores its share of every class."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from headstart.errors import DataError
from headstart.records import Integers
from headstart.splitting.units import Bools, Groups, Shares, several_units

FOLD_ATTEMPTS = 20
INNER_STREAM = 7  # of random numbers, apart from those of the inner part that is held out once


def stratified_folds(
    labels: Integers,
    num_folds: int,
    *,
    class_names: Sequence[str],
    groups: Groups | None = None,
    seed: int,
    unit: str = "group",
    setting: str = "folds",
) -> Integers:
    """The fold in which each image is scored.

    Without units a class's images differ by at most one between folds.  Units of several images
    go one by one, the largest first, to the fold where their classes are rarest; single images
    then level the classes out.

    Args:
        labels: (N,) int64; classes without images are passed over.
        num_folds: 2 to the smallest class's number of images (of units).
        class_names: C names for the messages.
        groups: (N,) unit of each image, or None.
        seed: of the shuffle.
        unit: what messages call one of `groups`.
        setting: what messages call the number of folds.

    Returns:
        (N,) int64, 0 to num_folds - 1.

    Raises:
        DataError: a class too small for so many folds, or tied up by its units.
    """
    word = "image" if groups is None else unit
    flag = "--" + setting.replace("_", "-")
    _check_folds(labels, num_folds, class_names, groups, (word, setting, flag))
    codes = several_units(groups)
    if codes is None:
        return _shuffled_folds(labels, num_folds, np.random.RandomState(seed))
    for attempt in range(FOLD_ATTEMPTS):  # a greedy choice can put a small class in one fold
        fold = _spread(labels, num_folds, codes, np.random.default_rng([seed, attempt]))
        tied = class_in_one_fold(labels, fold)
        if tied is None and len(np.unique(fold)) == num_folds:
            return fold
    name = class_names[0 if tied is None else tied]
    raise DataError(
        f"The {word}s must allow '{name}' in at least two of {num_folds} folds, "
        f"got none such in {FOLD_ATTEMPTS} attempts. Lower {flag} or add {word}s with '{name}'."
    )


def inner_folds(
    labels: Integers,
    fold: Integers,
    num_inner: int,
    *,
    class_names: Sequence[str],
    groups: Groups | None = None,
    seed: int,
    unit: str = "group",
) -> Integers:
    """Folds inside the training part of every fold, to choose settings on all of it in turn.

    Args:
        labels: (N,) int64.
        fold: (N,) int64, the fold in which each image is scored.
        num_inner: 2 to the smallest number of images (units) of a class in a training part.
        class_names: C names for the messages.
        groups: (N,) unit of each image, or None.
        seed: of the shuffles; every fold draws from its own stream.
        unit: what messages call one of `groups`.

    Returns:
        (num_folds, N) int64, 0 to num_inner - 1, and -1 on the part that is scored.

    Raises:
        DataError: a training part in which a class is too small for so many folds.
    """
    inner = np.full((int(fold.max()) + 1, len(labels)), -1, dtype=np.int64)
    for number, row in enumerate(inner):
        train = np.flatnonzero(fold != number)
        own_seed = int(np.random.default_rng([seed, number, INNER_STREAM]).integers(2**32))
        try:
            row[train] = stratified_folds(
                labels[train],
                num_inner,
                class_names=class_names,
                groups=None if groups is None else groups[train],
                seed=own_seed,
                unit=unit,
                setting="inner_folds",
            )
        except DataError as error:
            part = f"Inside the training part of fold {number + 1}"
            raise DataError(f"{part}: {error} Or leave --inner-folds out.") from error
    return inner


def class_in_one_fold(labels: Integers, fold: Integers) -> int | None:
    """A class that a fold would score without having seen it, or None."""
    for label in np.unique(labels):
        if len(np.unique(fold[labels == label])) < 2:
            return int(label)
    return None


def _spread(
    labels: Integers, num_folds: int, codes: Integers, generator: np.random.Generator
) -> Integers:
    """(N,) folds: units of several images, then the single ones."""
    single = np.bincount(codes)[codes] == 1
    several = np.flatnonzero(~single)
    fold = np.full(len(labels), -1, dtype=np.int64)
    totals = np.maximum(np.bincount(labels), 1)
    part = np.unique(codes[several], return_inverse=True)[1]
    shares = Shares.count(labels[several], part, totals)
    fold[several] = _place_units(shares, len(totals), num_folds, generator)[part]
    sizes = np.bincount(fold[several], minlength=num_folds).tolist()
    for label in np.unique(labels[single]):
        rows = generator.permutation(np.flatnonzero(single & (labels == label)))
        placed = fold[(labels == label) & (fold >= 0)]
        counts = np.bincount(placed, minlength=num_folds).tolist()
        heap = [(counts[k], sizes[k], k) for k in range(num_folds)]
        heapq.heapify(heap)
        for row in rows:
            count, size, k = heap[0]
            fold[row] = k
            sizes[k] = size + 1
            heapq.heapreplace(heap, (count + 1, size + 1, k))
    return fold


def _place_units(
    shares: Shares, num_classes: int, num_folds: int, generator: np.random.Generator
) -> Integers:
    """(U,) fold of each unit.

    With t the shares that a fold holds and s those of the unit, the sum of squares over all folds
    and classes grows by 2 t.s + s.s, so the unit goes where t.s is smallest; on a tie to the fold
    that holds least.
    """
    held = np.zeros((num_folds, num_classes))
    load = np.zeros(num_folds)
    fold = np.zeros(len(shares), dtype=np.int64)
    for unit in shares.largest_first(generator):
        cells = shares.cells(unit)
        at, share = shares.label[cells], shares.share[cells]
        cost = held[:, at] @ share
        best = np.flatnonzero(cost <= cost.min() + 1e-12)
        k = best[load[best].argmin()]
        fold[unit] = k
        held[k, at] += share
        load[k] += share.sum()
    return fold


def _shuffled_folds(labels: Integers, num_folds: int, generator: np.random.RandomState) -> Integers:
    """(N,) fold of each image, a class's images shuffled over its share of every fold.

    The folds of scikit-learn's `StratifiedKFold`, draw by draw, without loading it: classes in the
    order in which they occur, and all images dealt out in that order to the folds in turn.
    """
    _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    codes = np.argsort(np.argsort(first))[codes]
    dealt = np.sort(codes)
    fold = np.empty(len(labels), dtype=np.int64)
    for code in range(len(first)):
        places = np.flatnonzero(dealt == code) % num_folds
        own = np.sort(places)
        generator.shuffle(own)
        fold[codes == code] = own
    return fold


def _check_folds(
    labels: Integers,
    num_folds: int,
    class_names: Sequence[str],
    groups: Groups | None,
    words: tuple[str, str, str],
) -> None:
    """Raise DataError where a class is too small for the folds; `words`: unit, setting, flag."""
    unit, setting, flag = words
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
        hint = f"Raise {flag}." if num_folds < 2 else f"Lower {flag} or add {unit}s of '{name}'."
        raise DataError(
            f"`{setting}` must be between 2 and the smallest class's {size} {unit}s, "
            f"got {num_folds}. {hint}"
        )


def _count_units(mask: Bools, groups: Groups | None) -> int:
    """Images, or different units, where `mask` is true."""
    return int(mask.sum()) if groups is None else len(np.unique(groups[mask]))
