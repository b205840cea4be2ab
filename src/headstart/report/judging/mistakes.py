"""Where a model errs: pairs of classes, single images, groups and sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.records import Integers, Predictions
from headstart.report.reading import Row
from headstart.statistics import share_estimate

MOST_PAIRS = 6
EXAMPLES_A_PAIR = 4
MOST_IMAGES = 12
MOST_GROUPS = 10


@dataclass(frozen=True, kw_only=True)
class Confused:
    """Two classes of which one is taken for the other.

    Attributes:
        true: the class it is.
        predicted: the class it is taken for.
        count: how many images.
        share: of the true class.
        paths: some of them, the surest mistakes first.
    """

    true: str
    predicted: str
    count: int
    share: float
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One image and what the model said.

    Attributes:
        path: its name.
        true: the class it is.
        predicted: the class it was taken for.
        confidence: probability of the predicted class.
        second: the runner-up.
        second_confidence: probability of the runner-up.
    """

    path: str
    true: str
    predicted: str
    confidence: float
    second: str
    second_confidence: float

    @property
    def right(self) -> bool:
        """Whether the answer is true."""
        return self.true == self.predicted


@dataclass(frozen=True, kw_only=True)
class PartScore:
    """How often images of one group or source are answered rightly."""

    name: str
    num_images: int
    right: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.num_images


def confused_pairs(predictions: Predictions) -> list[Confused]:
    """The most frequent mistakes, commonest first."""
    answered = predictions.indices
    labels, names = predictions.labels, predictions.class_names
    wrong = np.flatnonzero((answered >= 0) & (labels >= 0) & (answered != labels))
    rows: dict[tuple[int, int], list[int]] = {}
    for row in wrong[np.argsort(-predictions.probabilities[wrong].max(axis=1), kind="stable")]:
        rows.setdefault((int(labels[row]), int(answered[row])), []).append(int(row))
    ranked = sorted(rows.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        Confused(
            true=names[true],
            predicted=names[predicted],
            count=len(found),
            share=len(found) / int((labels == true).sum()),
            paths=tuple(predictions.paths[row] for row in found[:EXAMPLES_A_PAIR]),
        )
        for (true, predicted), found in ranked[:MOST_PAIRS]
    ]


def confidently_wrong(predictions: Predictions, most: int = MOST_IMAGES) -> list[Answer]:
    """Wrong answers, the surest first."""
    good = predictions.good & (predictions.labels >= 0)
    wrong = np.flatnonzero(good & (predictions.indices != predictions.labels))
    order = np.argsort(-predictions.probabilities[wrong].max(axis=1), kind="stable")
    return answers_of(predictions, wrong[order][:most])


def torn(predictions: Predictions, most: int = MOST_IMAGES) -> list[Answer]:
    """Answers with the smallest lead over the runner-up, right or wrong."""
    good = np.flatnonzero(predictions.good & (predictions.labels >= 0))
    best = np.sort(predictions.probabilities[good], axis=1)
    order = np.argsort(best[:, -1] - best[:, -2], kind="stable")
    return answers_of(predictions, good[order][:most])


def answers_of(predictions: Predictions, rows: Integers) -> list[Answer]:
    """Some images with the model's first and second choice."""
    names, found = predictions.class_names, []
    for row in rows.tolist():
        probabilities = predictions.probabilities[row]
        first, second = np.argsort(-probabilities, kind="stable")[:2].tolist()
        found.append(
            Answer(
                path=predictions.paths[row],
                true=names[predictions.labels[row]],
                predicted=names[first],
                confidence=float(probabilities[first]),
                second=names[second],
                second_confidence=float(probabilities[second]),
            )
        )
    return found


def scores_by(
    column: str, predictions: Predictions, splits: Sequence[Row], images: Sequence[Row] = ()
) -> list[PartScore]:
    """Accuracy of every group or source of the test part, most mistakes first.

    Args:
        column: 'group' or 'source' of `splits.csv`.
        predictions: of the test part.
        splits: lines of `splits.csv`; empty cells belong to no part.
        images: lines of `images.csv`, whose units the intervals draw whole.
    """
    rows_of = {row["path"]: row for row in splits}
    found = [rows_of.get(path, {}) for path in predictions.paths]
    right = predictions.indices == predictions.labels
    tally: dict[str, list[int]] = {}
    for i, row in enumerate(found):
        part = row.get(column, "")
        if part:
            tally.setdefault(part, []).append(i)
    unit_of = {row["path"]: row.get("unit", "") for row in images}
    scores = []
    for name, rows in tally.items():
        own = [found[i] for i in rows]
        units = [unit_of.get(row["path"]) or row.get("group") or row["path"] for row in own]
        made = share_estimate(right[rows], groups=None if column == "group" else np.array(units))
        assert made.interval is not None
        scores.append(
            PartScore(
                name=name,
                num_images=len(rows),
                right=int(right[rows].sum()),
                low=made.interval.low,
                high=made.interval.high,
            )
        )
    return sorted(scores, key=lambda s: (s.right - s.num_images, s.accuracy, s.name))
