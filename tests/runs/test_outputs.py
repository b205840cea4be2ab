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


def test_an_unreadable_picture_has_no_yes_and_no_no(tmp_path):
    predictions = Predictions(
        paths=("a.png", "b.png"),
        class_names=("ill", "well"),
        probabilities=np.array([[0.7, 0.3], [np.nan, np.nan]], dtype=np.float32),
        labels=np.array([-1, -1]),
        problems=("", "not an image"),
        outlier_scores=np.array([1.5, np.nan]),
        unknown=np.array([False, False]),
        positive="ill",
        called=np.array([True, False]),
    )
    write_predictions(tmp_path / "p.csv", predictions)
    assert (tmp_path / "p.csv").read_text().splitlines()[1:] == [
        "a.png,,ill,0.700000,0.300000,yes,no,1.50,",
        "b.png,,,,,,,,not an image",
    ]
