"""Several processes at one folder: one owns it, the others leave it alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import headstart

HEADSTART = Path(sys.executable).with_name("headstart")
NUM_PROCESSES = 3


def test_of_runs_begun_at_once_one_is_whole_and_the_others_refused(colour_folder, tmp_path):
    out = tmp_path / "run"
    words = ["run", "--data", colour_folder, "--folds", "3", "--image-size", "32", "--out", out]
    processes = [
        subprocess.Popen(
            [HEADSTART, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(NUM_PROCESSES)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 2, 2], errors
    for code, told in zip(codes, errors, strict=True):
        assert "Traceback" not in told
        if code:
            assert "in use" in told or "holds a run already" in told
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["test_openings"]) == ("finished", 1)
    for name in ("images.csv", "splits.csv", "metrics.json", "predictions.csv", "curves.png"):
        assert (out / name).stat().st_size > 0
    assert headstart.load(out).predict(colour_folder / "red" / "00.png").names == ["red"]
    resumed = headstart.run(colour_folder, out=out, folds=3, image_size=32, resume=True)
    assert resumed.record == record
