"""The files of a run grow with the images and no faster."""

from __future__ import annotations

import time

import numpy as np

from headstart.records import Predictions
from headstart.runs.files.predictions import write_predictions


def test_many_predictions_are_written_in_linear_time(tmp_path):
    count, classes = 20_000, tuple("abcde")
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), count).astype(np.float32)
    labels = probabilities.argmax(axis=1).astype(np.int64)
    predictions = Predictions(
        paths=tuple(f"{i:05d}.png" for i in range(count)),
        class_names=classes,
        probabilities=probabilities,
        labels=labels,
        problems=("",) * count,
    )
    begun = time.perf_counter()
    write_predictions(tmp_path / "predictions.csv", predictions)
    assert time.perf_counter() - begun < 3
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(lines) == count + 1
    best = classes[labels[-1]]
    assert lines[-1].startswith(f"19999.png,{best},{best},{probabilities[-1, 0]:.6f},")
