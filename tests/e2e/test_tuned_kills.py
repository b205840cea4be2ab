"""A whole fine-tuning run in a process of its own, killed and resumed."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import time

import pytest
from pictures import COLOURS, paint

SAME = ("predictions.csv", "out_of_fold_predictions.csv", "splits.csv", "model/weights.safetensors")
KILLS = 4


def command(data, out):
    return [
        *(sys.executable, "-m", "headstart", "run", "--data", data, "--out", out, "--folds", "2"),
        *("--strategy", "two-stage", "--epochs", "2,3", "--lr", "0.003", "--batch-size", "8"),
        *("--augment", "flip:0.5", "--head-blocks", "se", "--train", "average=ema"),
        *("--image-size", "32", "--audit", "none", "--no-learning-curve", "--resume"),
    ]


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("fold-*.ckpt")}


def wait_for_checkpoints(folder, count):
    """Return when so many more have been written; two folds write at least twelve."""
    before, deadline = stamps(folder), time.monotonic() + 300
    while count and time.monotonic() < deadline:
        time.sleep(0.002)
        now = stamps(folder)
        count -= now != before
        before = now


def without_times(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {key: value for key, value in row.items() if not key.endswith("seconds")}
            for row in csv.DictReader(file)
        ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_anywhere_and_resumed_ends_with_the_same_model(tmp_path, seed):
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(12):
            paint(tmp_path / "data" / name / f"{i:02d}.png", colour, seed=100 * number + i)
    environment = {**os.environ, "HEADSTART_CACHE": str(tmp_path / "cache")}
    whole = subprocess.run(
        command(tmp_path / "data", tmp_path / "whole"), env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    generator = random.Random(seed)
    for _ in range(KILLS):
        process = subprocess.Popen(
            command(tmp_path / "data", tmp_path / "run"), env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for_checkpoints(tmp_path / "run" / "checkpoints", generator.randint(1, 2))
        time.sleep(generator.uniform(0, 0.1))
        process.kill()
        assert process.wait() < 0
    last = subprocess.run(
        command(tmp_path / "data", tmp_path / "run"), env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert last.returncode == 0, last.stderr
    for name in SAME:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for name in ("history.csv", "cv_results.csv"):
        assert without_times(tmp_path / "run" / name) == without_times(tmp_path / "whole" / name)
