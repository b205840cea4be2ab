"""Which pairs of pictures are suspiciously close, by embedding and by perceptual hash.

Embeddings are centred and whitened by the data's own covariance before the cosine: among X-rays
all embeddings are alike, and only what differs from X-ray to X-ray tells one from another. The
eigenvalues are raised by a share of their mean, (FLOOR + FLOOR_UNITS / N), so that the directions
in which a re-encoded copy differs from its original are not blown up, least in small data.

Both thresholds come from the data's own distances: the median over pictures of the distance to
the *fifth* neighbour is what usual neighbours are apart (the first may be a duplicate, five copies
of most pictures are rare). A pair is near by embedding below `embedding_factor` (0.4) of it, kept
within [0.1, 0.35]; near by hash up to `hash_factor` (0.6) of the median fifth Hamming distance,
kept within [2, 10] of 64 bits. Mirrored copies count: the smaller of the two Hamming distances.
A pair that the hash alone calls near is suspicious only if its embeddings are nearer than usual
(0.75 of the median fifth distance), or if the hashes are all but equal.

Found so: 68 of 3,060 pictures of Caltech-101, 6 of 1,400 flowers, 2 of 924 chest X-rays, by eye all
of one original or scene; 10 of 1,797 digits and 9 of 5,000 of Fashion-MNIST, by eye twins at that
size, most of them no copies.

Rejected: plain or centred cosine (a threshold that finds copies of photographs finds thousands of
distinct digits); one fixed Hamming threshold (merges 44 % of the digits of scikit-learn).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.audit.findings import AuditSettings
from headstart.records import Integers

FLOOR, FLOOR_UNITS = 0.1, 20.0
NEIGHBOUR = 5
CALIBRATED_ON = 1000
DISTANCE_RANGE = (0.1, 0.35)
BITS_RANGE = (2, 10)
BLOCK, TILE, SAMPLE_BLOCK = 1024, 8192, 64
NEARER, EQUAL = 0.75, 0.25
INDEX_LISTS = 4  # times the root of the number of pictures
INDEX_NEIGHBOURS, INDEX_PROBES, RECALL_QUERIES, LEAST_NEAR = 16, 16, 500, 20

Singles = npt.NDArray[np.float32]
Tested = tuple[Integers, Integers, Singles, Singles]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """What two pictures are compared by; one row a picture with distinct pixels.

    Attributes:
        units: (N, D) float32 whitened embeddings of length one.
        hashes: (N,) the 64 bits of the perceptual hash.
        mirrored: (N,) those of the mirror image.
    """

    units: Singles
    hashes: npt.NDArray[np.uint64]
    mirrored: npt.NDArray[np.uint64]

    def distances(self, rows: slice | Integers, others: slice) -> Singles:
        """Cosine distance of some to others."""
        return np.asarray(1 - self.units[rows] @ self.units[others].T)

    def bits(self, first: Integers, second: Integers) -> Singles:
        """Differing bits of pairs, the mirror image tried too."""
        some = self.hashes[first]
        straight = np.bitwise_count(some ^ self.hashes[second])
        turned = np.bitwise_count(some ^ self.mirrored[second])
        return np.asarray(np.minimum(straight, turned), dtype=np.float32)

    def all_bits(self, rows: Integers, others: slice) -> Singles:
        """Differing bits of some to others, as a table."""
        return self.bits(rows[:, None], np.arange(len(self.hashes))[others][None])


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What counts as near, and what it was derived from.

    Attributes:
        distance: cosine distance of whitened embeddings below which a pair is near.
        bits: differing bits up to which a pair is near.
        usual_distance: median distance to the fifth neighbour.
        usual_bits: median differing bits to the fifth neighbour.
        num_sampled: pictures that the medians are over.
    """

    distance: float
    bits: int
    usual_distance: float
    usual_bits: float
    num_sampled: int

    def hash_alone(self, distances: Singles, bits: Singles) -> npt.NDArray[np.bool_]:
        """Whether the hash makes a pair suspicious whose embedding is not near.

        A near hash does where the embedding is nearer than usual; a hash that is nearly equal
        does so by itself: a grey copy of a coloured picture has such a one.
        """
        near = (bits <= self.bits) & (distances < NEARER * self.usual_distance)
        return near | ((bits <= EQUAL * self.bits) & (distances < self.usual_distance))


@dataclass(frozen=True, kw_only=True, eq=False)
class Close:
    """Pairs of one kind, the closest first; `count` were found, the closest of them are here.

    Attributes:
        first: (P,) rows.
        second: (P,) rows, above `first`.
        distance: (P,) cosine distance.
        bits: (P,) differing bits.
        count: how many pairs there are.
    """

    first: Integers
    second: Integers
    distance: Singles
    bits: Singles
    count: int

    def __len__(self) -> int:
        """How many are here."""
        return len(self.first)


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """Every pair that at least one test calls near.

    Attributes:
        thresholds: what counts as near.
        both: both tests agree.
        by_embedding: the embedding alone.
        by_hash: the perceptual hash alone, see `Thresholds.hash_alone`.
        recall: share of near pairs that the approximate index finds, None after an exact search.
        recall_of: what that share was measured on, in words.
        searched: how, in words.
    """

    thresholds: Thresholds
    both: Close
    by_embedding: Close
    by_hash: Close
    recall: float | None
    recall_of: str
    searched: str


def whiten(features: npt.NDArray[np.float16]) -> Singles:
    """(N, D) embeddings -> (N, D) float32 rows of length one, centred and whitened."""
    count, width = features.shape
    mean = np.mean(features, axis=0, dtype=np.float64)
    covariance = np.zeros((width, width))
    for part in _parts(count):
        centred = features[part].astype(np.float64) - mean
        covariance += centred.T @ centred
    values, vectors = np.linalg.eigh(covariance / max(count, 1))
    usual = values.sum() / max(1, min(width, count - 1))
    raised = np.maximum(values, 0) + (FLOOR + FLOOR_UNITS / max(count, 1)) * usual
    turn = vectors / np.sqrt(np.maximum(raised, 1e-12))
    units = np.empty((count, width), dtype=np.float32)
    for part in _parts(count):
        turned = (features[part].astype(np.float64) - mean) @ turn
        lengths = np.linalg.norm(turned, axis=1, keepdims=True)
        units[part] = turned / np.maximum(lengths, 1e-12)
    return units


def calibrate(
    pictures: Pictures, settings: AuditSettings, generator: np.random.Generator
) -> Thresholds:
    """The thresholds that the data's own distances give.

    Args:
        pictures: at least two.
        settings: the two factors.
        generator: draws the sample the medians are over.
    """
    count = len(pictures.units)
    rows = np.arange(count)
    if count > CALIBRATED_ON:
        rows = np.sort(generator.choice(count, CALIBRATED_ON, replace=False))
    distance, bits = (
        float(np.median(_nearest(measure, rows, count)))
        for measure in (pictures.distances, pictures.all_bits)
    )
    return Thresholds(
        distance=float(np.clip(settings.embedding_factor * distance, *DISTANCE_RANGE)),
        bits=int(np.clip(settings.hash_factor * bits, *BITS_RANGE)),
        usual_distance=distance,
        usual_bits=bits,
        num_sampled=len(rows),
    )


def _nearest(measure: Callable[[Integers, slice], Singles], rows: Integers, count: int) -> Singles:
    """The distance of each row to its fifth neighbour, or to its farthest among fewer."""
    place = min(NEIGHBOUR, count - 1) - 1
    found = []
    for start in range(0, len(rows), SAMPLE_BLOCK):
        chosen = rows[start : start + SAMPLE_BLOCK]
        distances = measure(chosen, slice(None))
        distances[np.arange(len(chosen)), chosen] = np.inf
        found.append(np.partition(distances, place, axis=1)[:, place])
    return np.concatenate(found)


def find_neighbours(
    pictures: Pictures, settings: AuditSettings, seed: int, advance: Callable[[int], None]
) -> Neighbours:
    """Every near pair: all pairs compared up to `exact_limit`, an index above it.

    Args:
        pictures: in an order that does not depend on the table's.
        settings: factors and limits.
        seed: of the calibration's sample and of the index.
        advance: is told how many pictures were compared with all others.
    """
    generator = np.random.default_rng(seed)
    thresholds = calibrate(pictures, settings, generator)
    recall, recall_of, searched = None, "", "all pairs compared"
    if len(pictures.units) <= settings.exact_limit:
        tested = _all_pairs(pictures, thresholds, advance)
    elif (index := _build_index(pictures.units, seed)) is not None:
        recall, recall_of = _measure_recall(pictures, index, thresholds, generator)
        tested = _indexed_pairs(pictures, index, thresholds, advance)
        searched = (
            f"approximate index (inverted lists, {INDEX_PROBES} probed, {INDEX_NEIGHBOURS} "
            "neighbours a picture by embedding, compared by hash too)"
        )
    else:
        tested = _all_pairs(pictures, thresholds, advance)
        searched = "all pairs compared; faster with: pip install faiss-cpu"
    both, by_embedding, by_hash = _sorted_out(tested, thresholds, settings)
    return Neighbours(
        thresholds=thresholds,
        both=both,
        by_embedding=by_embedding,
        by_hash=by_hash,
        recall=recall,
        recall_of=recall_of,
        searched=searched,
    )


def _all_pairs(
    pictures: Pictures, thresholds: Thresholds, advance: Callable[[int], None]
) -> Iterator[Tested]:
    """Candidates of the upper triangle, tile by tile; memory is a few tiles."""
    count = len(pictures.units)
    # every rule asks for less than one of these, so hashes are compared for few pairs only
    least_likeness = 1 - max(thresholds.distance, thresholds.usual_distance)
    for start in range(0, count, BLOCK):
        rows = slice(start, min(start + BLOCK, count))
        for left in range(start, count, TILE):
            likeness = pictures.units[rows] @ pictures.units[left : left + TILE].T
            row, column = np.nonzero(likeness > least_likeness)
            first, second = row.astype(np.int64) + start, column.astype(np.int64) + left
            upper = second > first
            first, second = first[upper], second[upper]
            distances = 1 - likeness[row[upper], column[upper]]
            bits = pictures.bits(first, second)
            near = (distances < thresholds.distance) | thresholds.hash_alone(distances, bits)
            yield first[near], second[near], distances[near], bits[near]
        advance(rows.stop - rows.start)


def _build_index(units: Singles, seed: int):  # type: ignore[no-untyped-def]
    """An inverted file over the embeddings; None where faiss is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    count, width = units.shape
    lists = max(1, int(INDEX_LISTS * np.sqrt(count)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed % 2**31
    index.cp.niter = 10
    sample = np.random.default_rng(seed).permutation(count)[: 40 * lists]
    index.train(np.ascontiguousarray(units[np.sort(sample)]))
    index.add(units)
    index.nprobe = INDEX_PROBES
    return index


def _indexed_pairs(  # type: ignore[no-untyped-def]
    pictures: Pictures, index, thresholds: Thresholds, advance: Callable[[int], None]
) -> Iterator[Tested]:
    """Near pairs that the index finds from either end, each once."""
    count = len(pictures.units)
    limit = max(thresholds.distance, thresholds.usual_distance)
    found = [np.zeros(0, dtype=np.int64)]
    for start in range(0, count, BLOCK):
        rows = np.arange(start, min(start + BLOCK, count))
        likeness, others = index.search(pictures.units[rows], INDEX_NEIGHBOURS)
        # a little wider here: the index adds up in another order than the exact distance
        row, place = np.nonzero((1 - likeness < limit + 1e-4) & (others >= 0))
        first, second = rows[row], others[row, place]
        pair = np.minimum(first, second) * count + np.maximum(first, second)
        found.append(pair[first != second])
        advance(len(rows))
    pairs = np.unique(np.concatenate(found))
    for start in range(0, len(pairs), TILE):
        i, j = np.divmod(pairs[start : start + TILE], count)
        distances = 1 - np.einsum("pd,pd->p", pictures.units[i], pictures.units[j])
        bits = pictures.bits(i, j)
        near = (distances < thresholds.distance) | thresholds.hash_alone(distances, bits)
        yield i[near], j[near], distances[near], bits[near]


def _measure_recall(  # type: ignore[no-untyped-def]
    pictures: Pictures, index, thresholds: Thresholds, generator: np.random.Generator
) -> tuple[float, str]:
    """Share of near pairs of a sample that the index finds; of nearest ones where few are near."""
    count = len(pictures.units)
    rows = np.sort(generator.choice(count, min(RECALL_QUERIES, count), replace=False))
    _, found = index.search(pictures.units[rows], INDEX_NEIGHBOURS)
    hits = wanted = nearest_hits = 0
    for start in range(0, len(rows), SAMPLE_BLOCK):
        chosen = rows[start : start + SAMPLE_BLOCK]
        distances = pictures.distances(chosen, slice(None))
        distances[np.arange(len(chosen)), chosen] = np.inf
        for row, neighbours in zip(distances, found[start : start + SAMPLE_BLOCK], strict=True):
            nearest_hits += int(row.argmin() in neighbours)
            near = np.flatnonzero(row < thresholds.distance)
            wanted += len(near)
            hits += len(np.intersect1d(near, neighbours))
    if wanted >= LEAST_NEAR:
        return hits / wanted, f"{wanted:,} near pairs"
    told = f"the nearest neighbours of {len(rows):,} pictures, for hardly any are near"
    return nearest_hits / len(rows), told


def _sorted_out(
    tested: Iterator[Tested], thresholds: Thresholds, settings: AuditSettings
) -> tuple[Close, Close, Close]:
    """Pairs by which test agrees, of each kind the closest that may be kept."""
    kept = [_Closest(settings.most_pairs), *(_Closest(settings.most_suspects) for _ in range(2))]
    for first, second, distance, bits in tested:
        by_embedding, by_hash = distance < thresholds.distance, bits <= thresholds.bits
        masks = (by_embedding & by_hash, by_embedding & ~by_hash, by_hash & ~by_embedding)
        for closest, mask in zip(kept, masks, strict=True):
            closest.add(first[mask], second[mask], distance[mask], bits[mask])
    both, embedding, hashes = (closest.close() for closest in kept)
    return both, embedding, hashes


class _Closest:
    """The closest pairs seen so far, and how many there were."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.parts: list[Tested] = []
        self.held = 0
        self.count = 0

    def add(self, first: Integers, second: Integers, distance: Singles, bits: Singles) -> None:
        if not len(first):
            return
        self.parts.append((first, second, distance, bits))
        self.held += len(first)
        self.count += len(first)
        if self.held > 2 * self.most:
            self._trim()

    def _trim(self) -> None:
        columns = [np.concatenate(column) for column in zip(*self.parts, strict=True)]
        first, second, distance, bits = columns
        order = np.lexsort((second, first, bits, distance))[: self.most]
        self.parts = [(first[order], second[order], distance[order], bits[order])]
        self.held = len(order)

    def close(self) -> Close:
        if self.parts:
            self._trim()
        nothing = np.zeros(0, dtype=np.int64)
        empty = np.zeros(0, dtype=np.float32)
        first, second, distance, bits = (
            self.parts[0] if self.parts else (nothing, nothing, empty, empty)
        )
        return Close(first=first, second=second, distance=distance, bits=bits, count=self.count)


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, TILE):
        yield slice(start, min(start + TILE, count))
