"""How much of the label other things give away: the source, the file, the border.

Source: Cramér's V with the correction for chance of Bergsma (2013), its interval by resampling
whole units (patients, duplicates) 500 times.

File facts and border: a shallow decision tree, balanced over classes, predicts the label from
nothing but these facts; every unit is scored by a tree that did not see it. Balanced accuracy is
compared with chance, 1 / C, by a bootstrap over units. The picture's content is not looked at, so
what is well above chance is a way to be right for the wrong reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from headstart.metrics.counts import balanced_accuracy, count_classes
from headstart.records import Floats, Integers
from headstart.statistics import bootstrap_counts

RESAMPLES = 500
NUM_FOLDS = 5
LEAST_LEAF = 3
UNUSED = -1
DRAWN_AT_ONCE = 2**22
Predictor = Callable[[Floats, Integers, Integers, int], Integers]  # values, labels, fold, seed


@dataclass(frozen=True, kw_only=True)
class Association:
    """How well something tells the label.

    Attributes:
        value: Cramér's V, or balanced accuracy.
        low: lower end of the 95 % interval.
        high: upper end.
        chance: what no association would give.
        num_images: how many it was measured on.
    """

    value: float
    low: float
    high: float
    chance: float
    num_images: int

    def clear_by(self, margin: float) -> bool:
        """Whether the interval lies above chance by this share of what chance leaves."""
        return self.low > self.chance + margin * (1 - self.chance)


def cramers_v(counts: Floats) -> Floats:
    """Bias-corrected Cramér's V of one or several tables.

    Args:
        counts: (..., R, C); empty rows and columns do not count.

    Returns:
        (...) in [0, 1]; 0 where a table has a single row or column.
    """
    total = counts.sum(axis=(-2, -1))
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    num_rows, num_columns = (rows > 0).sum(axis=-1), (columns > 0).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = counts**2 / (rows[..., :, None] * columns[..., None, :])
        phi = np.nansum(shares, axis=(-2, -1)) - 1
        spare = np.maximum(total - 1, 1)
        phi = np.maximum(0, phi - (num_rows - 1) * (num_columns - 1) / spare)
        short = np.minimum(
            num_rows - (num_rows - 1) ** 2 / spare, num_columns - (num_columns - 1) ** 2 / spare
        )
        value = np.sqrt(phi / (short - 1))
    return np.clip(np.where((num_rows > 1) & (num_columns > 1) & (short > 1), value, 0), 0, 1)


def measure_source(
    labels: Integers, sources: Integers, units: Integers, generator: np.random.Generator
) -> Association:
    """Cramér's V of label and source.

    Args:
        labels: (N,) 0 to C - 1.
        sources: (N,) 0 to S - 1.
        units: (N,) codes of what is resampled as a whole.
        generator: source of chance.
    """
    shape = (int(labels.max()) + 1, int(sources.max()) + 1)
    cells, cell = np.unique(labels * shape[1] + sources, return_inverse=True)
    codes = np.unique(units, return_inverse=True)[1]
    count = int(codes.max()) + 1
    by_unit = coo_array((np.ones(len(codes)), (codes, cell)), shape=(count, len(cells))).tocsr()
    step = max(1, DRAWN_AT_ONCE // count)
    drawn = []
    for begun in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - begun)
        weights = generator.multinomial(count, np.full(count, 1 / count), size=size)
        drawn.append(cramers_v(_tables((by_unit.T @ weights.T).T, cells, shape)))
    whole = _tables(np.asarray(by_unit.sum(axis=0))[None], cells, shape)
    value = float(cramers_v(whole)[0])
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return Association(
        value=value,
        low=min(value, float(low)),
        high=max(value, float(high)),
        chance=0.0,
        num_images=len(labels),
    )


def _tables(sums: Floats, cells: Integers, shape: tuple[int, int]) -> Floats:
    tables = np.zeros((len(sums), shape[0] * shape[1]))
    tables[:, cells] = sums
    return tables.reshape(-1, *shape)


def split_by_source(labels: Integers, sources: Integers) -> list[list[int]]:
    """Sets of classes that are joined by common sources, largest first.

    More than one set means that source and label coincide between them: whatever tells one set
    from the other may be the source, and no way of splitting the images can show otherwise.
    """
    num_classes = int(labels.max()) + 1
    nodes = num_classes + int(sources.max()) + 1
    graph = coo_array(
        (np.ones(len(labels), dtype=bool), (labels, sources + num_classes)), shape=(nodes, nodes)
    )
    component = connected_components(graph, directed=False)[1]
    present = np.unique(labels)
    sets: dict[int, list[int]] = {}
    for label in present.tolist():
        sets.setdefault(int(component[label]), []).append(label)
    return sorted(sets.values(), key=lambda members: (-len(members), members))


def number_folds(labels: Integers, units: Integers, seed: int) -> Integers:
    """The fold in which each image is scored; -1 for classes of fewer units than folds.

    Units go by their first label, large ones first, from fold to fold. Not scikit-learn's grouped
    folds: those take seconds for every thousand units, and nothing here needs them exact.

    Args:
        labels: (N,) int64, 0 to C - 1.
        units: (N,) codes of what must stay together.
        seed: of the shuffle.
    """
    fold = np.full(len(labels), UNUSED, dtype=np.int64)
    pairs = np.unique(np.stack([labels, units]), axis=1)[0]
    names, num_units = np.unique(pairs, return_counts=True)
    rows = np.flatnonzero(np.isin(labels, names[num_units >= NUM_FOLDS]))
    if not len(rows):
        return fold
    _, first, code, sizes = np.unique(
        units[rows], return_index=True, return_inverse=True, return_counts=True
    )
    chance = np.random.default_rng(seed).random(len(first))
    order = np.lexsort((chance, -sizes, labels[rows][first]))
    of_unit = np.empty(len(first), dtype=np.int64)
    of_unit[order] = np.arange(len(first)) % NUM_FOLDS
    fold[rows] = of_unit[code]
    return fold


def measure_prediction(
    values: Floats,
    labels: Integers,
    units: Integers,
    fold: Integers,
    *,
    seed: int,
    predict: Predictor | None = None,
) -> Association | None:
    """How well a classifier on these facts alone tells the label of units it did not see.

    Args:
        values: (N, F) facts.
        labels: (N,) int64.
        units: (N,) codes of what is resampled as a whole.
        fold: (N,) from `number_folds`.
        seed: of tree and bootstrap.
        predict: gives the answers for unseen units; None takes a shallow decision tree.

    Returns:
        None where fewer than two classes are large enough, or where no fact varies.
    """
    rows = np.flatnonzero(fold != UNUSED)
    kept = np.unique(labels[rows])
    if len(kept) < 2:
        return None
    values = values[rows][:, np.ptp(values[rows], axis=0) > 0]
    if values.shape[1] == 0:
        return None
    coded = np.searchsorted(kept, labels[rows]).astype(np.int64)
    predicted = (predict or predict_by_tree)(values, coded, fold[rows], seed)
    value = float(balanced_accuracy(count_classes(coded, predicted, len(kept))))
    drawn = bootstrap_counts(
        coded,
        predicted,
        len(kept),
        groups=units[rows],
        generator=np.random.default_rng(seed),
        resamples=RESAMPLES,
    )
    low, high = np.nanquantile(balanced_accuracy(drawn), [0.025, 0.975])
    return Association(
        value=value,
        low=min(value, float(low)),
        high=max(value, float(high)),
        chance=1 / len(kept),
        num_images=len(rows),
    )


def predict_by_tree(values: Floats, labels: Integers, fold: Integers, seed: int) -> Integers:
    """(N,) answers of trees, each for the fold that it did not see."""
    from sklearn.tree import DecisionTreeClassifier

    predicted = np.zeros(len(labels), dtype=np.int64)
    depth = 3 + int(np.ceil(np.log2(labels.max() + 1)))
    for number in range(NUM_FOLDS):
        test = fold == number
        tree = DecisionTreeClassifier(
            max_depth=depth,
            min_samples_leaf=LEAST_LEAF,
            class_weight="balanced",
            random_state=seed % 2**32,
        )
        predicted[test] = tree.fit(values[~test], labels[~test]).predict(values[test])
    return predicted


def as_codes(names: Sequence[str]) -> Integers:
    """0, 1, ... by sorted name."""
    return np.unique(np.asarray(names, dtype=object), return_inverse=True)[1].astype(np.int64)
