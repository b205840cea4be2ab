"""`predictions.csv`, a line a picture; `predict` writes it too: nothing that draws is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.files import write_csv
from headstart.records import Predictions


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Path, true and predicted class, one probability column a class."""
    names = predictions.class_names
    header = ["path", "true", "predicted", *(f"prob_{name}" for name in names)]
    columns: list[Sequence[object]] = [
        predictions.paths,
        ["" if label < 0 else names[label] for label in predictions.labels],
        predictions.names,
        *(
            ["" if np.isnan(p) else f"{p:.6f}" for p in column]
            for column in predictions.probabilities.T.tolist()
        ),
    ]
    if predictions.called is not None:
        header.append(f"decision_{predictions.positive}")
        columns.append(yes_or_no(predictions.called, predictions))
    if predictions.sets is not None:
        header.append("set")
        columns.append([" | ".join(np.array(names)[row]) for row in predictions.sets])
    if predictions.unknown is not None and predictions.outlier_scores is not None:
        header += ["unknown", "outlier_score"]
        columns.append(yes_or_no(predictions.unknown, predictions))
        columns.append(["" if np.isnan(v) else f"{v:.2f}" for v in predictions.outlier_scores])
    if any(predictions.problems):
        header.append("problem")
        columns.append(predictions.problems)
    write_csv(path, header, zip(*columns, strict=True))


def yes_or_no(values: npt.NDArray[np.bool_], predictions: Predictions) -> list[str]:
    """(N,) words, '' for a picture that has no answer."""
    return [
        ("yes" if value else "no") if good else ""
        for value, good in zip(values, predictions.good, strict=True)
    ]
