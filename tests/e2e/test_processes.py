"""The installed command in processes of their own: start-up time, Ctrl-C, kill -9, resume."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart.features import list_cache

HEADSTART = Path(sys.executable).with_name("headstart")
FIGURES = ("metrics.json", "predictions.csv", "out_of_fold_predictions.csv", "splits.csv")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Enough pictures that a process can be caught in the middle of its pass."""
    from pictures import paint

    folder = tmp_path_factory.mktemp("many")
    for i in range(320):  # five batches
        colour = [(200, 60, 60), (60, 60, 200), (60, 200, 60)][i % 3]
        paint(folder / "abc"[i % 3] / f"{i:03d}.png", colour, seed=i)
    return folder


def headstart(*words, **options):
    return subprocess.run(
        [HEADSTART, *map(str, words)], capture_output=True, text=True, timeout=300, **options
    )


def words(many, out):
    return [
        "run",
        "--data",
        many,
        "--out",
        out,
        "--image-size",
        "128",
        "--folds",
        "3",
        "--audit",
        "none",
    ]


def stop_in_the_middle(command, number, cache):
    """Start, wait until a part of the features is stored, and send a signal."""
    process = subprocess.Popen(
        [HEADSTART, *map(str, command)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "HEADSTART_CACHE": str(cache)},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(entry.num_images for entry in list_cache(cache)):
            break
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_a_stopped_run_goes_on_to_the_same_figures(many, tmp_path, number):
    cache, fresh = tmp_path / "cache", tmp_path / "fresh"
    code, err = stop_in_the_middle(words(many, tmp_path / "run"), number, cache)
    assert code == (130 if number == signal.SIGINT else -signal.SIGKILL), err
    if number == signal.SIGINT:
        assert f"headstart run --resume --out {tmp_path / 'run'}" in err
        assert "Traceback" not in err
    resumed = headstart(
        "run", "--resume", "--out", tmp_path / "run",
        env={**os.environ, "HEADSTART_CACHE": str(cache)},
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert " 0 read back" not in resumed.stderr  # what was stored was not computed again
    assert "Features   320 computed" not in resumed.stderr
    whole = headstart(
        *words(many, tmp_path / "whole"), env={**os.environ, "HEADSTART_CACHE": str(fresh)}
    )
    assert whole.returncode == 0, whole.stderr
    for name in FIGURES:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_help_is_quick():
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        assert headstart("--help").returncode == 0
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.5


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        f"{HEADSTART} models | head -1", shell=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("mini")
    assert done.stderr == ""


def test_a_terminal_gets_no_command_from_a_files_name(tmp_path):
    """A terminal runs what follows an escape; one that knows ASCII only must not stop us."""
    import torch
    from pictures import paint

    from headstart.backbones import build_network, find_backbone
    from headstart.bundle import FittedHead, save_bundle

    network = build_network(find_backbone("mini"), weights="none", image_size=32)
    head = FittedHead.linear(torch.zeros(2, network.num_features), torch.zeros(2), penalty=1.0)
    save_bundle(
        tmp_path / "model", network=network, head=head, class_names=("süß", "herb"), about={}
    )
    paint(tmp_path / "a.png", (200, 50, 40), seed=0)
    (tmp_path / "a.png").rename(tmp_path / "ü\x1b[31m.png")
    for words in (["ü\x1b[31m.png"], [".", "--json"]):
        done = subprocess.run(
            [HEADSTART, "predict", "model", *words], cwd=tmp_path, capture_output=True,
            timeout=120, env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b"31m.png" in done.stdout
        assert b"\x1b" not in done.stdout + done.stderr
        assert b"Traceback" not in done.stderr


def test_a_full_disk_is_one_sentence_and_the_rest_stays_whole(many, tmp_path):
    """A real full file system, where this machine lets us mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("no right to mount a small file system")
    try:
        env = {**os.environ, "HEADSTART_CACHE": str(tmp_path / "cache")}
        done = headstart(*words(many, small / "run"), env=env)
        assert done.returncode == 1, done.stderr
        assert "disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        left = {path.name for path in (small / "run").iterdir()}
        assert {"run.json", "images.csv", "splits.csv", "cv_results.csv"} <= left
        assert "model" not in left
        assert not [name for name in left if name.startswith(".new-")]
        shutil.copytree(small / "run", tmp_path / "run")
        resumed = headstart("run", "--resume", "--out", tmp_path / "run", env=env)
        assert resumed.returncode == 0, resumed.stderr
    finally:
        subprocess.run(["umount", small], check=False)
