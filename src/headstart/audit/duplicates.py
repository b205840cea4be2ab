"""Which images show the same: groups that must stay on one side, and pairs to look at.

Exact duplicates have equal pixels after decoding, however they are stored. Of each set one stands
for all in the search for near-duplicates (`headstart.audit.neighbours`).

A group of near-duplicates is a star: one picture and those that both tests call near to it. The
picture with most such pairs takes its partners first, and nobody belongs to two stars, so nothing
chains; pairs that agree but end in different stars are reported as suspects. A star has at most
`largest_group` members, the closest ones.

Ties go to the lower row: the audit sorts its table by path before it comes here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from headstart.audit.findings import AuditSettings, Pair
from headstart.audit.fingerprints import Examined, Record
from headstart.audit.neighbours import (
    Close,
    Neighbours,
    Pictures,
    find_neighbours,
    whiten,
)
from headstart.progress import Progress
from headstart.records import ImageTable, Integers

NONE = -1
MOST_TOLD = 50_000  # pairs of a kind that are told, the closest; groups follow from all of them


@dataclass(frozen=True, kw_only=True, eq=False)
class Duplicates:
    """What shows the same as what.

    Attributes:
        exact: (N,) number of the set of equal pixels, -1 where there is no other of them.
        near: (N,) number of the star of near-duplicates, -1 outside; exact copies included.
        linked: (N,) code of the unit that must stay on one side: given groups, exact duplicates
            and stars, joined where they share an image.
        pairs: exact, near, then suspect ones, the closest first within each, at most `MOST_TOLD`
            of each kind beside the exact ones.
        neighbours: the search, None where fewer than two distinct pictures could be compared.
        num_left_apart: agreeing pairs whose pictures belong to different stars.
        num_full: stars that reached the largest size.
    """

    exact: Integers
    near: Integers
    linked: Integers
    pairs: tuple[Pair, ...]
    neighbours: Neighbours | None
    num_left_apart: int
    num_full: int


def find_duplicates(
    table: ImageTable,
    examined: Examined,
    settings: AuditSettings,
    seed: int,
    progress: Progress,
) -> Duplicates:
    """Exact and near duplicates of a table, and the units that follow."""
    good = np.flatnonzero(examined.records["present"]).astype(np.int64)
    sets = number_equal(examined.records[good])
    exact = np.full(len(table), NONE, dtype=np.int64)
    exact[good] = sets
    firsts = good[np.unique(sets, return_index=True)[1]]  # one picture for each set
    compared = firsts[examined.records["flat"][firsts] == 0]
    neighbours = _search(examined, compared, settings, seed, progress)
    stars = np.arange(len(compared), dtype=np.int64)
    if neighbours is not None:
        stars = group_stars(neighbours.both, len(compared), settings.largest_group)
    star_of_set = {int(exact[row]): int(star) for row, star in zip(compared, stars, strict=True)}
    near = np.array([star_of_set.get(int(code), NONE) for code in exact], dtype=np.int64)
    sizes = np.bincount(stars, minlength=1)
    return Duplicates(
        exact=without_singles(exact),
        near=_without_small(near, sizes),
        linked=link(table, exact, near),
        pairs=_all_pairs(good, sets, compared, stars, neighbours),
        neighbours=neighbours,
        num_left_apart=0 if neighbours is None else int(_apart(neighbours.both, stars).sum()),
        num_full=int((sizes >= settings.largest_group).sum()),
    )


def number_equal(records: Record) -> Integers:
    """(M,) number of each record's set of equal pixels, in order of first appearance."""
    digests = np.ascontiguousarray(records["pixels"]).view("<u8").reshape(-1, 2)
    _, first, inverse = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)]


def _search(
    examined: Examined,
    rows: Integers,
    settings: AuditSettings,
    seed: int,
    progress: Progress,
) -> Neighbours | None:
    if len(rows) < 2:
        return None
    records = examined.records[rows]
    pictures = Pictures(
        units=whiten(examined.features.values[rows]),
        hashes=records["hash"].astype(np.uint64),
        mirrored=records["mirrored"].astype(np.uint64),
    )
    with progress.phase("Near-duplicates", len(rows)) as advance:
        return find_neighbours(pictures, settings, seed, advance)


def group_stars(close: Close, count: int, largest: int) -> Integers:
    """Stars of agreeing pairs.

    Args:
        close: the pairs, the closest first.
        count: how many pictures.
        largest: most members of a star.

    Returns:
        (count,) number of the picture in the middle of each picture's star; its own outside.
    """
    middle = np.arange(count, dtype=np.int64)
    partners: dict[int, list[int]] = {}
    for first, second in zip(close.first.tolist(), close.second.tolist(), strict=True):
        partners.setdefault(first, []).append(second)
        partners.setdefault(second, []).append(first)
    taken: set[int] = set()
    for picture in sorted(partners, key=lambda p: (-len(partners[p]), p)):
        if picture in taken:
            continue
        members = [other for other in partners[picture] if other not in taken][: largest - 1]
        if members:
            middle[members] = picture
            taken.update(members, [picture])
    return middle


def link(table: ImageTable, exact: Integers, near: Integers) -> Integers:
    """(N,) codes of the units that must stay on one side, numbered as they first appear."""
    columns = [exact, near]
    if table.groups is not None:
        names = {name: code for code, name in enumerate(sorted(set(table.groups)))}
        columns.append(np.array([names[name] if name else NONE for name in table.groups]))
    count = len(table)
    starts, ends = [], []
    for codes in columns:
        rows = np.flatnonzero(codes != NONE)
        if len(rows):
            _, first, inverse = np.unique(codes[rows], return_index=True, return_inverse=True)
            starts.append(rows)
            ends.append(rows[first[inverse]])
    if not starts:
        return _renumbered(np.arange(count, dtype=np.int64))
    start, end = np.concatenate(starts), np.concatenate(ends)
    graph = coo_array((np.ones(len(start), dtype=bool), (start, end)), shape=(count, count))
    return _renumbered(connected_components(graph, directed=False)[1].astype(np.int64))


def without_singles(codes: Integers) -> Integers:
    """The codes of sets of at least two images, numbered anew; -1 for all others."""
    held = codes[codes != NONE]
    counts = np.bincount(held, minlength=1) if len(held) else np.zeros(1, dtype=np.int64)
    kept = np.where((codes != NONE) & (counts[np.maximum(codes, 0)] > 1), codes, NONE)
    return _renumbered(kept)


def _without_small(near: Integers, sizes: Integers) -> Integers:
    """Stars of at least two distinct pictures; a star of exact copies alone is none."""
    several = np.zeros(len(sizes) + 1, dtype=bool)
    several[: len(sizes)] = sizes > 1
    return _renumbered(np.where((near != NONE) & several[near], near, NONE))


def _renumbered(codes: Integers) -> Integers:
    """0, 1, ... in the order in which the codes first appear; -1 stays."""
    number: dict[int, int] = {NONE: NONE}
    return np.array(
        [number.setdefault(code, len(number) - 1) for code in codes.tolist()], dtype=np.int64
    )


def _apart(close: Close, stars: Integers) -> npt.NDArray[np.bool_]:
    return np.asarray(stars[close.first] != stars[close.second])


def _all_pairs(
    good: Integers,
    sets: Integers,
    compared: Integers,
    stars: Integers,
    neighbours: Neighbours | None,
) -> tuple[Pair, ...]:
    first_of: dict[int, int] = {}
    pairs = []
    for row, code in zip(good.tolist(), sets.tolist(), strict=True):
        first = first_of.setdefault(code, row)
        if first != row:
            pairs.append(_pair(first, row, "exact", "equal pixels", 0.0, 0))
    if neighbours is None:
        return tuple(pairs)
    apart = _apart(neighbours.both, stars)
    limit = neighbours.thresholds.distance
    kinds = (
        (neighbours.both, ~apart, "near", "embedding and hash"),
        (neighbours.both, apart, "suspect", "embedding and hash, in another group"),
        (neighbours.by_embedding, None, "suspect", "embedding only"),
        (neighbours.by_hash, None, "suspect", "hash only"),
    )
    for close, mask, kind, tests in kinds:
        places = np.arange(len(close)) if mask is None else np.flatnonzero(mask)
        for place in places[:MOST_TOLD]:
            i, j = compared[close.first[place]], compared[close.second[place]]
            distance = max(0.0, float(close.distance[place])) / limit
            pairs.append(_pair(int(i), int(j), kind, tests, distance, int(close.bits[place])))
    return tuple(pairs)


def _pair(first: int, second: int, kind: str, tests: str, distance: float, bits: int) -> Pair:
    return Pair(
        first=first,
        second=second,
        kind=kind,
        tests=tests,
        distance=round(distance, 4),
        bits=bits,
    )
