"""Figures of parts of the test part: by sex, by age, by whatever column the data bring.

Values of a column that are all numbers, and many, are cut at their terciles over all images, in
which no label plays a part.  Images without a value are counted and judged as 'not known'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.bundle.confidence import Decision
from headstart.data import load_table
from headstart.data.listed.columns import parse_columns
from headstart.errors import DataError, UsageError
from headstart.records import Integers, Predictions
from headstart.runs.fitting.task import Task
from headstart.runs.judging.evaluation import figure
from headstart.runs.settings.run import RunSettings
from headstart.statistics import (
    decision_estimates,
    share_estimate,
)

NOT_KNOWN = "not known"
MOST_VALUES = 12  # distinct values of a column; more numbers are cut, more words are refused


Bools = npt.NDArray[np.bool_]
Values = dict[str, str]  # of an image's path


def read_subgroups(settings: RunSettings) -> dict[str, Values]:
    """Each column's value of every image.

    Raises:
        DataError: the data have no such column, or it tells too many things apart.
    """
    found = {}
    for name in column_names(settings.subgroups):
        columns = {**parse_columns(settings.columns), "source": name}
        table = load_table(settings.data, test_data=settings.test_data, columns=columns)
        assert table.sources is not None
        values = cut(table.sources)
        distinct = sorted(set(values) - {""})
        if not 2 <= len(distinct) <= MOST_VALUES:
            raise DataError(
                f"`subgroups` must name columns with 2 to {MOST_VALUES} values, or with numbers, "
                f"got '{name}' with {len(distinct)}. Correct --subgroups."
            )
        found[name] = dict(zip(table.paths, values, strict=True))
    return found


def column_names(text: str | None) -> list[str]:
    """'sex,age' as names.

    Raises:
        UsageError: one is empty or stands twice.
    """
    names = [] if text is None else [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(
            f"`subgroups` must be columns with commas between, each once, got '{text}'. "
            "Correct --subgroups."
        )
    return names


def cut(values: Sequence[str]) -> list[str]:
    """The values themselves, or where they are many numbers, the tercile each falls into."""
    known = sorted({value for value in values if value})
    try:
        numbers = {value: float(value) for value in known}
    except ValueError:
        return list(values)
    if len(known) <= MOST_VALUES or not np.isfinite(list(numbers.values())).all():
        return list(values)
    all_numbers = np.array([numbers[value] for value in values if value])
    low, high = np.quantile(all_numbers, [1 / 3, 2 / 3], method="lower")
    names = (f"up to {low:g}", f"above {low:g}, up to {high:g}", f"above {high:g}")
    return [
        names[int(numbers[value] > low) + int(numbers[value] > high)] if value else ""
        for value in values
    ]


def judge_subgroups(
    columns: Mapping[str, Values],
    task: Task,
    predictions: Predictions,
    decision: Decision | None,
) -> list[dict[str, Any]]:
    """Counts in every part and figures on the test part, a column at a time.

    Args:
        columns: from `read_subgroups`.
        task: the run.
        predictions: of the test part, in the order of `split.test`.
        decision: of the model; sensitivity and specificity are judged where there is one.
    """
    table, split = task.table, task.split
    tested = task.drawn(split.test)
    found = []
    for name, values in columns.items():
        of_image = np.array([values.get(path, "") or NOT_KNOWN for path in table.paths])
        words = sorted(set(of_image.tolist()), key=place)
        parts = [
            {
                "name": word,
                "counts": {
                    part: int((of_image[rows] == word).sum())
                    for part, rows in (
                        ("train", split.train),
                        ("calibration", split.calibration),
                        ("test", split.test),
                    )
                },
                **figures_of(
                    predictions,
                    np.flatnonzero(of_image[split.test] == word),
                    tested,
                    decision,
                ),
            }
            for word in words
        ]
        found.append({"column": name, "parts": parts})
    return found


def place(word: str) -> tuple[bool, int, str]:
    """Where a value stands: by name, terciles by size, what is not known last."""
    middle = word.startswith("above ") and ", up to " in word
    tercile = 1 if middle else 2 if word.startswith("above ") else 0
    return word == NOT_KNOWN, tercile, word


def figures_of(
    predictions: Predictions,
    rows: Integers,
    groups: Integers | None,
    decision: Decision | None,
) -> dict[str, Any]:
    """Accuracy of some test images, and what the decision is worth on them."""
    kept = predictions.take(rows)
    own = None if groups is None else groups[rows]
    right = kept.indices == kept.labels
    accuracy = share_estimate(right, groups=own)
    found = {"accuracy": figure(accuracy.value, accuracy.interval)}
    if decision is None or not len(rows):
        return found
    made = decision_estimates(
        decision.called(kept.probabilities), kept.labels == decision.index, groups=own
    )
    for name in ("sensitivity", "specificity"):
        found[name] = figure(made[name].value, made[name].interval)
    return found
