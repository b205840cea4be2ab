"""`repeated_folds.csv`: what a candidate said of every training image, in every repetition."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.errors import ResumeError
from headstart.files import write_csv
from headstart.records import Floats, Integers

FILE = "repeated_folds.csv"


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """Out-of-fold answers of one candidate.

    Attributes:
        paths: M names, in the order of the table.
        labels: (M,) true classes.
        groups: (M,) codes, None where images are independent.
        folds: (R, M) the fold that scored each image, a row a repetition.
        predicted: (R, M) classes.
    """

    paths: tuple[str, ...]
    labels: Integers
    groups: Integers | None
    folds: Integers
    predicted: Integers

    @property
    def repeats(self) -> int:
        """R."""
        return len(self.folds)

    @property
    def right(self) -> Floats:
        """(R, M) one where the answer is right, else zero."""
        found: Floats = (self.predicted == self.labels).astype(np.float64)
        return found

    def fold_accuracies(self, repeats: int) -> Floats:
        """(repeats x F,) accuracy of each fold of the first repetitions."""
        right = self.right
        return np.array(
            [
                right[r, self.folds[r] == k].mean()
                for r in range(repeats)
                for k in range(int(self.folds[r].max()) + 1)
            ]
        )


def write_answers(folder: Path, answers: Answers) -> None:
    """Path, class and group of each image, then fold and answer of each repetition, as codes."""
    header = ["path", "true", "group"]
    columns: list[list[object]] = [
        list(answers.paths),
        answers.labels.tolist(),
        [""] * len(answers.paths) if answers.groups is None else answers.groups.tolist(),
    ]
    for r in range(answers.repeats):
        header += [f"fold_{r + 1}", f"predicted_{r + 1}"]
        columns += [answers.folds[r].tolist(), answers.predicted[r].tolist()]
    write_csv(folder / FILE, header, zip(*columns, strict=True))


def read_answers(folder: Path) -> Answers:
    """What `write_answers` wrote.

    Raises:
        ResumeError: it is missing or damaged.
    """
    try:
        with (folder / FILE).open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        paths, labels, groups, *rest = zip(*rows, strict=True)
        codes: npt.NDArray[np.int64] = np.array(rest, dtype=np.int64)
        return Answers(
            paths=paths,
            labels=np.array(labels, dtype=np.int64),
            groups=np.array(groups, dtype=np.int64) if groups[0] else None,
            folds=codes[0::2],
            predicted=codes[1::2],
        )
    except (OSError, ValueError) as error:
        raise ResumeError(
            f"The answers of '{folder}' are missing or damaged ({FILE}). Remove that folder and "
            "go on with --resume."
        ) from error
