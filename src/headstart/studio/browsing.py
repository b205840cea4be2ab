"""The label browser: every picture of a run with its label, its part and what was said of it.

Training pictures carry the answer of the fold that did not learn from them, test pictures that of
the final model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.records import Predictions
from headstart.report.reading import StoredRun

TRAIN, TEST, UNUSED = "train", "test", "unused"
EVERY = "all"
WRONG, RIGHT = "wrong", "right"
SURELY_WRONG, LEAST_SURE, BY_NAME = "most confidently wrong first", "least sure first", "by name"
ORDERS = (SURELY_WRONG, LEAST_SURE, BY_NAME)
PARTS = {EVERY: "all parts", TRAIN: "training part", TEST: "test part", UNUSED: "left out"}
SHOWN = {EVERY: "right and wrong", WRONG: "wrong answers", RIGHT: "right answers"}


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One picture of a run.

    Attributes:
        path: its name in the run.
        label: the class it is.
        part: 'train', 'test' or 'unused'.
        fold: of a training picture, '' otherwise.
        predicted: the answer, '' where there is none.
        confidence: probability of the answer, 0 where there is none.
        problem: why it was left out, '' for a good one.
    """

    path: str
    label: str
    part: str
    fold: str
    predicted: str
    confidence: float
    problem: str

    @property
    def wrong(self) -> bool:
        """Whether the answer is another class."""
        return bool(self.predicted) and self.predicted != self.label

    @property
    def right(self) -> bool:
        """Whether the answer is the class it is."""
        return bool(self.predicted) and self.predicted == self.label


def labelled_pictures(run: StoredRun) -> list[Labelled]:
    """Every picture of a run, in the order of its lists."""
    answers = answers_of(run.tested) | answers_of(run.learnt)
    place = {row["path"]: row for row in run.splits}
    rows = run.images or run.splits
    found = []
    for row in rows:
        path = row["path"]
        where = place.get(path, {})
        predicted, confidence = answers.get(path, ("", 0.0))
        found.append(
            Labelled(
                path=path,
                label=row.get("label", ""),
                part=where.get("part", UNUSED),
                fold=where.get("fold", ""),
                predicted=predicted,
                confidence=confidence,
                problem=row.get("problem", ""),
            )
        )
    return found


def answers_of(predictions: Predictions | None) -> dict[str, tuple[str, float]]:
    """Answer and confidence by path."""
    if predictions is None:
        return {}
    surest = predictions.probabilities.max(axis=1).tolist()
    return {
        path: (name, chance if name else 0.0)
        for path, name, chance in zip(predictions.paths, predictions.names, surest, strict=True)
    }


def chosen(
    pictures: Sequence[Labelled], *, label: str, part: str, shown: str, order: str
) -> list[Labelled]:
    """Some pictures in some order.

    Args:
        pictures: all of them.
        label: a class, or 'all'.
        part: a key of `PARTS`.
        shown: a key of `SHOWN`.
        order: one of `ORDERS`.
    """
    kept = [
        picture
        for picture in pictures
        if label in (EVERY, picture.label)
        and part in (EVERY, picture.part)
        and (shown == EVERY or (picture.wrong if shown == WRONG else picture.right))
    ]
    if order == SURELY_WRONG:
        return sorted(kept, key=suspicion)
    if order == LEAST_SURE:
        return sorted(kept, key=lambda p: (not p.predicted, p.confidence, p.path))
    return sorted(kept, key=lambda p: p.path)


def suspicion(picture: Labelled) -> tuple[int, float, str]:
    """Wrong answers by falling, then right ones by rising confidence, then those without one."""
    if picture.wrong:
        return 0, -picture.confidence, picture.path
    return (1 if picture.right else 2), picture.confidence, picture.path
