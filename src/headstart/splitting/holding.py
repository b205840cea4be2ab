"""One part held out: for the test, or inside a fold to choose settings on."""

from __future__ import annotations

import numpy as np

from headstart.errors import DataError, UsageError
from headstart.records import Floats, Integers
from headstart.splitting.units import Bools, Groups, Shares, several_units

MAX_MOVES = 500
NUM_DRAWS = 8


def hold_out(
    labels: Integers, fraction: float, *, groups: Groups | None = None, seed: int
) -> Bools:
    """Hold out a part of every class.

    Every class with at least two images (two units) has one or more on each side; a class
    with one stays where it is not held out.  Where units of mixed classes make that
    impossible, the side that is kept comes first.

    Args:
        labels: (N,) int64.
        fraction: share to hold out, above 0 and below 1.
        groups: (N,) unit of each image, or None.
        seed: of the choice.

    Returns:
        (N,) bool, True where held out.

    Raises:
        UsageError: a fraction out of range.
    """
    return _hold_out(labels, fraction, groups, np.random.default_rng(seed))


def inner_hold_out(
    labels: Integers,
    fold: Integers,
    *,
    fraction: float = 0.2,
    groups: Groups | None = None,
    seed: int,
    unit: str = "group",
) -> Bools:
    """In the training part of every fold, hold out a part that settings are chosen on.

    A class with a single image (unit) in the training part keeps it for training.

    Args:
        labels: (N,) int64.
        fold: (N,) int64, the fold in which each image is scored.
        fraction: share of the training part.
        groups: (N,) unit of each image, or None.
        seed: of the choice; every fold draws from its own stream.
        unit: what messages call one of `groups`.

    Returns:
        (num_folds, N) bool, never True on the part that is scored.

    Raises:
        DataError: a fold in which no class has two images (units) to train on.
    """
    inner = np.zeros((int(fold.max()) + 1, len(labels)), dtype=bool)
    for number, row in enumerate(inner):
        train = np.flatnonzero(fold != number)
        part = None if groups is None else groups[train]
        generator = np.random.default_rng([seed, number])
        row[train] = _hold_out(labels[train], fraction, part, generator)
        if not row.any():
            word = "image" if groups is None else unit
            raise DataError(
                f"Every fold needs a class with 2 {word}s to train on, got none in fold "
                f"{number + 1}. Add {word}s, or change --folds."
            )
    return inner


def _hold_out(
    labels: Integers, fraction: float, groups: Groups | None, generator: np.random.Generator
) -> Bools:
    """`hold_out` with a generator: units of several images first, the others fill what is open."""
    if not 0 < fraction < 1:
        raise UsageError(f"`fraction` must be above 0 and below 1, got {fraction}.")
    held = np.zeros(len(labels), dtype=bool)
    single = np.ones(len(labels), dtype=bool)
    codes = several_units(groups)
    if codes is not None:
        single = np.bincount(codes)[codes] == 1
        several = np.flatnonzero(~single)
        part = np.unique(codes[several], return_inverse=True)[1]
        held[several] = _hold_out_units(labels[several], fraction, part, generator)
    for label in np.unique(labels):
        of_class = labels == label
        size = int(of_class.sum())
        wanted = min(max(round(fraction * size), 1), size - 1) - int(held[of_class].sum())
        rows = generator.permutation(np.flatnonzero(of_class & single))
        held[rows[: max(wanted, 0)]] = True
    return held


def _hold_out_units(
    labels: Integers, fraction: float, codes: Integers, generator: np.random.Generator
) -> Bools:
    """Whole units, drawn at random: each in turn, where it brings its classes nearer.

    What is held out stands for units that were never seen, so size must not decide: down the cost
    from the largest unit on, a test part was the patients with the most pictures. Of a few such
    draws the one nearest to the wanted shares is kept, after single moves that bring it nearer.
    """
    present, labels = np.unique(labels, return_inverse=True)
    shares = Shares.count(labels, codes, np.bincount(labels))
    cost = _Cost(fraction, several=np.bincount(shares.label) >= 2)
    found = []
    for _ in range(NUM_DRAWS if len(shares) <= MAX_MOVES else 1):
        order = generator.permutation(len(shares))
        start = _pass_greedily(shares, cost, order, len(present))
        found.append(_move_singly(shares, cost, order, start, len(present)))
    chosen = min(found, key=lambda pair: round(pair[1], 9))[0]
    return np.asarray(chosen[codes])


def _pass_greedily(shares: Shares, cost: _Cost, order: Integers, num_classes: int) -> Bools:
    """(U,) each unit in turn is held out where that is better."""
    chosen = np.zeros(len(shares), dtype=bool)
    held: Floats = np.zeros(num_classes)
    for unit in order:
        cells = shares.cells(unit)
        at, share = shares.label[cells], shares.share[cells]
        if cost.change(held, at, share).sum() < 0:
            chosen[unit] = True
            held[at] += share
    return chosen


def _move_singly(
    shares: Shares, cost: _Cost, order: Integers, chosen: Bools, num_classes: int
) -> tuple[Bools, float]:
    """(U,) after the best single moves, and what that costs; ties go to the first in `order`."""
    chosen = chosen.copy()
    kept = chosen[shares.unit]
    held: Floats = np.zeros(num_classes)
    np.add.at(held, shares.label[kept], shares.share[kept])
    for _ in range(MAX_MOVES):
        moves = np.where(chosen[shares.unit], -shares.share, shares.share)
        gains = shares.by_unit(cost.change(held, shares.label, moves))[order]
        best = int(gains.argmin())
        if gains[best] >= -1e-12:
            break
        chosen[order[best]] ^= True
        cells = shares.cells(int(order[best]))
        held[shares.label[cells]] += moves[cells]
    return chosen, cost.total(held)


class _Cost:
    """How bad it is to hold out some share of each class; a sum over the C classes.

    A class missing from the kept side outweighs one missing from the other, and that the
    departure from the fraction.  A class of a single unit must stay on the kept side.
    """

    def __init__(self, fraction: float, *, several: Bools) -> None:
        """`several`: (C,) classes of two units or more, which can be on both sides."""
        self.fraction = fraction
        self.missing = 2.0 * len(several) * several
        self.gone = 4.0 * len(several) ** 2

    def change(self, held: Floats, at: Integers, moved: Floats) -> Floats:
        """(E,) what each class's cost changes by when its held share does.

        Args:
            held: (C,) shares held out.
            at: (E,) classes.
            moved: (E,) added to the class's share.
        """
        return self._of(held[at] + moved, at) - self._of(held[at], at)

    def total(self, held: Floats) -> float:
        """The cost of (C,) held shares."""
        return float(self._of(held, np.arange(len(held))).sum())

    def _of(self, held: Floats, at: Integers) -> Floats:
        off = (held - self.fraction) ** 2
        cost: Floats = off + self.missing[at] * (held < 1e-9) + self.gone * (held > 1 - 1e-9)
        return cost
