"""What a trained head has to beat: rules on the features that have nothing to train.

Each takes the training rows, their labels and queries and answers with scores (Q, C), larger for
likelier; the predicted class is the first of the highest. A class without training rows scores
minus infinity (zero votes for neighbours) and is never predicted. Training rows and queries are
gathered and widened in blocks, so that memory does not grow with their number; arithmetic is
float64 for class means, float32 for neighbours.

Rows of length zero have cosine similarity zero to everything.

Cost. Class means take a sweep over the rows. Neighbours compare every query with every training
row, so that scoring all images costs their square: such rules are `quadratic`, and whoever has
many images scores a sample of them. The training rows stay whole: fewer would be a weaker rival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.errors import DataError, UsageError
from headstart.heads.linear.rotation import slices
from headstart.registry import Registry

BLOCK_BYTES = 64 * 2**20  # of distances
WIDENED_BYTES = 2**21  # of rows in float64: fresh pages cost more than arithmetic beyond the cache
KNOWN_ROWS = 8192  # training rows that queries are compared with at a time
NUM_NEIGHBOURS = 10
METRICS = ("cosine", "euclidean")


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a matrix, gathered where they are asked for: no second copy of them all.

    Attributes:
        values: (N, D).
        index: (n,) which rows.
    """

    values: Tensor
    index: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, D)."""
        return (len(self.index), *self.values.shape[1:])

    def __len__(self) -> int:
        """How many."""
        return len(self.index)

    def __getitem__(self, part: slice) -> Tensor:
        """Some of them."""
        return self.values[self.index[part]]


Matrix = Tensor | Rows
Score = Callable[[Matrix, Tensor, Matrix, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class BaselineSpec:
    """A rule that can be named.

    Attributes:
        name: what users type.
        summary: one line for tables.
        score: training rows (N, D), labels (N,), queries (Q, D), C -> (Q, C).
        quadratic: whether scoring N images costs N times N.
    """

    name: str
    summary: str
    score: Score
    quadratic: bool = False


BASELINES: Registry[BaselineSpec] = Registry("baseline")


def nearest_class_mean(train: Matrix, labels: Tensor, queries: Matrix, num_classes: int) -> Tensor:
    """Minus the squared Euclidean distance to the mean of each class.

    Args:
        train: (N, D).
        labels: (N,) int64.
        queries: (Q, D).
        num_classes: C.

    Returns:
        (Q, C) float64.
    """
    _check(train, labels, queries, num_classes)
    means, present = _class_means(train, labels, num_classes, _same)
    scores = torch.cat(
        [-_squared_distances(queries[rows].double(), means) for rows in _widened(queries)]
    )
    return scores.masked_fill(~present, -torch.inf)


def cosine_class_mean(train: Matrix, labels: Tensor, queries: Matrix, num_classes: int) -> Tensor:
    """Cosine of the angle to the mean of each class's rows, all brought to length one first.

    Args:
        train: (N, D).
        labels: (N,) int64.
        queries: (Q, D).
        num_classes: C.

    Returns:
        (Q, C) float64, from -1 to 1.
    """
    _check(train, labels, queries, num_classes)
    means, present = _class_means(train, labels, num_classes, _unit)
    targets = _unit(means).T
    parts = [_unit(queries[rows].double()) @ targets for rows in _widened(queries)]
    scores = torch.cat(parts)
    return scores.masked_fill(~present, -torch.inf)


def k_nearest_neighbours(
    train: Matrix,
    labels: Tensor,
    queries: Matrix,
    num_classes: int,
    *,
    k: int = NUM_NEIGHBOURS,
    metric: str = "cosine",
) -> Tensor:
    """Share of each class among the k nearest training rows (all of them where there are fewer).

    Args:
        train: (N, D).
        labels: (N,) int64.
        queries: (Q, D).
        num_classes: C.
        k: neighbours with one vote each.
        metric: 'cosine' or 'euclidean'.

    Returns:
        (Q, C) float64, rows summing to one.

    Raises:
        UsageError: `k` below 1 or an unknown metric.
    """
    _check(train, labels, queries, num_classes)
    if k < 1:
        raise UsageError(f"`k` must be at least 1, got {k}. Raise it.")
    if metric not in METRICS:
        raise UsageError(
            f"`metric` must be one of {', '.join(METRICS)}, got '{metric}'. Correct it."
        )
    prepare = _unit if metric == "cosine" else _same
    # Near the rows an expanded square keeps its digits; angles are measured from zero.
    origin = _mean(train) if metric == "euclidean" else torch.zeros(1, device=labels.device)
    shape = (len(queries), min(k, len(train)))
    nearest = torch.full(shape, torch.inf, device=labels.device)
    classes = torch.zeros(shape, dtype=torch.int64, device=labels.device)  # of the nearest
    for part in slices(len(train), KNOWN_ROWS):
        known = prepare(train[part].float() - origin)
        lengths = known.square().sum(1)  # those of the queries are no part of the order
        for rows in slices(max(1, len(queries)), BLOCK_BYTES // (4 * len(known))):
            asked = prepare(queries[rows].float() - origin)
            found = torch.addmm(lengths, asked, known.T, alpha=-2)
            of_found = labels[part].expand(len(found), -1)
            met = torch.cat([nearest[rows], found], dim=1)
            nearest[rows], place = met.topk(shape[1], largest=False)
            classes[rows] = torch.cat([classes[rows], of_found], dim=1).gather(1, place)
    votes = torch.zeros(len(queries), num_classes, dtype=torch.float64, device=labels.device)
    ones = votes.new_ones(()).expand(shape)
    return votes.scatter_add_(1, classes, ones) / shape[1]


def score_baselines(
    features: Tensor,
    labels: Tensor,
    fold: Tensor,
    num_classes: int,
    *,
    sample: Tensor | None = None,
) -> dict[str, Tensor]:
    """Out-of-fold predictions of every registered baseline.

    Args:
        features: (N, D).
        labels: (N,) int64.
        fold: (N,) int64, the fold in which each row is scored; a row below 0 is never scored and
            never learnt from.
        num_classes: C.
        sample: (N,) bool, the rows that `quadratic` rules are scored on; None for all. They learn
            from all rows of the other folds.

    Returns:
        Name -> (N,) int64 predictions, -1 where a row is not scored.
    """
    found = {spec.name: torch.full_like(labels, -1) for spec in BASELINES}
    for number in sorted(set(fold[fold >= 0].tolist())):
        scored, learns = fold == number, (fold >= 0) & (fold != number)
        if not bool(learns.any()):
            raise DataError("`fold` must leave rows to learn from, got one fold. Take two or more.")
        train, known = Rows(features, learns.nonzero()[:, 0]), labels[learns]
        for spec in BASELINES:
            asked = scored & sample if spec.quadratic and sample is not None else scored
            queries = Rows(features, asked.nonzero()[:, 0])
            scores = spec.score(train, known, queries, num_classes)
            found[spec.name][asked] = scores.argmax(1)
    return found


def _same(rows: Tensor) -> Tensor:
    return rows


def _unit(rows: Tensor) -> Tensor:
    """Rows (N, D) brought to length one; a row of zeros stays."""
    lengths = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(lengths > 0, lengths, 1.0)


def _mean(rows: Matrix) -> Tensor:
    """(D,) float32 mean of (N, D) rows."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows[:1].device)
    for part in _widened(rows):
        total += rows[part].double().sum(0)
    return (total / len(rows)).float()


def _class_means(
    rows: Matrix, labels: Tensor, num_classes: int, prepare: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Means (C, D) float64 of prepared rows and which classes (C,) have any."""
    counts = torch.bincount(labels, minlength=num_classes)
    sums = torch.zeros(num_classes, rows.shape[1], dtype=torch.float64, device=labels.device)
    for part in _widened(rows):
        sums.index_add_(0, labels[part], prepare(rows[part].double()))
    return sums / counts.clamp_min(1)[:, None], counts > 0


def _squared_distances(queries: Tensor, rows: Tensor) -> Tensor:
    """(Q, N); queries (Q, D) and rows (N, D)."""
    lengths = queries.square().sum(1, keepdim=True) + rows.square().sum(1)
    return torch.addmm(lengths, queries, rows.T, alpha=-2)


def _widened(rows: Matrix) -> Iterator[slice]:
    """Rows (N, D) in parts that stay in the cache in float64; one empty part of no rows."""
    return slices(max(1, len(rows)), WIDENED_BYTES // (8 * rows.shape[1]))


def _check(train: Matrix, labels: Tensor, queries: Matrix, num_classes: int) -> None:
    """Raise DataError for input that no rule can use."""
    if len(train.shape) != 2 or len(queries.shape) != 2 or train.shape[1] != queries.shape[1]:
        raise DataError(
            f"`train` and `queries` must be (N, D) and (Q, D), got {tuple(train.shape)} and "
            f"{tuple(queries.shape)}. Take features of one network."
        )
    if len(train) == 0 or labels.shape != tuple(train.shape[:1]):
        raise DataError(
            f"`labels` must be ({len(train)},) like the training rows, of which there must be one "
            f"or more, got {tuple(labels.shape)}. Bring them to one length."
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise DataError(f"`labels` must be 0 to C - 1, got C = {num_classes}. Correct them.")


BASELINES.register(
    BaselineSpec(
        name="class-mean",
        summary="nearest class mean, Euclidean",
        score=nearest_class_mean,
    )
)
BASELINES.register(
    BaselineSpec(
        name="cosine-mean",
        summary="class mean at the smallest angle",
        score=cosine_class_mean,
    )
)
BASELINES.register(
    BaselineSpec(
        name="neighbours",
        summary=f"vote of the {NUM_NEIGHBOURS} nearest images by angle",
        score=k_nearest_neighbours,
        quadratic=True,
    )
)
