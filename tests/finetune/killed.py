"""Train in child processes that are killed at random moments, then once to the end.

    python killed.py FOLDER KILLS SEED

Loading torch and Lightning takes longer than the training, so this process loads them, computes
nothing, and forks a child a trial.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from staged import EXECUTION, colourful, quick, staged_network

from headstart.finetune import fit_network, training

SETTINGS = quick(
    strategy="two-stage",
    trainable="stages:2",
    epochs=(4, 6),
    augmentation="flip:0.5,rotate:12:0.5",
    average="ema",
    schedule="plateau",
    plateau_patience=1,
    hidden=(6,),
    dropout=(0.3,),
    accumulate=2,
)


def train(folder: Path, name: str) -> None:
    """One fit; its weights, predictions and figures go into a file."""
    network = staged_network()
    tuned = fit_network(
        network, colourful(), SETTINGS, execution=EXECUTION, checkpoint_dir=folder / name, fold=1
    )
    figures = [
        [r.epoch, r.train_loss, r.train_accuracy, r.rate, *r.inner.values()] for r in tuned.history
    ]
    result = [tuned.network.module.state_dict(), list(tuned.head), figures, tuned.best_epoch]
    torch.save(result, folder / f"{name}.pt")


def trial(folder: Path, name: str, kill_after: tuple[int, float] | None) -> bool:
    """Run a child; kill it after so many checkpoints and seconds. Whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            train(folder, name)
        finally:
            os._exit(0 if (folder / f"{name}.pt").exists() else 1)
    if kill_after is not None:
        wait_for_checkpoints(folder / name / "fold-1.ckpt", kill_after[0])
        time.sleep(kill_after[1])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def wait_for_checkpoints(path: Path, count: int) -> None:
    """Return when the file has been written so many times."""
    stamp = path.stat().st_mtime_ns if path.exists() else 0
    deadline = time.monotonic() + 60
    while count and time.monotonic() < deadline:
        time.sleep(0.001)
        now = path.stat().st_mtime_ns if path.exists() else 0
        count -= now != stamp
        stamp = now


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    generator = random.Random(seed)
    torch.set_num_threads(1)
    trial(folder, "whole", None)
    # Ten epochs: all kills together come before the end. The seconds are about one epoch's.
    most = 9 // kills
    killed = sum(
        trial(folder, "killed", (generator.randint(0, most), generator.uniform(0, 0.08)))
        for _ in range(kills)
    )
    trial(folder, "killed", None)
    print(f"{killed} killed of {kills}")


if __name__ == "__main__":
    assert training.PhaseModule
    main()
