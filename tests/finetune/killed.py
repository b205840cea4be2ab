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
from pathlib import Path
from typing import Any

import torch
from staged import EXECUTION, colourful, quick, staged_network

from headstart.finetune import fit_network
from headstart.finetune.records import keeping
from headstart.finetune.steps import training

SETTINGS = quick(
    strategy="two-stage",
    trainable="stages:2",
    epochs=(12, 18),
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


def strike_after(checkpoints: int, seconds: float) -> None:
    """Let the kernel end this process so many CPU seconds after so many checkpoints.

    The process's own processor time strikes at the same place however busy the machine is. Nobody
    handles the timer's signal, so it ends the process as SIGKILL does.
    """
    written = keeping.save_checkpoint

    def save(path: Path, state: dict[str, Any]) -> None:
        nonlocal checkpoints
        checkpoints -= 1
        if checkpoints == 0:
            signal.setitimer(signal.ITIMER_PROF, seconds)
        written(path, state)

    if checkpoints:
        keeping.save_checkpoint = save
    else:
        signal.setitimer(signal.ITIMER_PROF, seconds)


def trial(folder: Path, name: str, kill_after: tuple[int, float] | None) -> bool:
    """Run a child; kill it after so many checkpoints and seconds. Whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            if kill_after is not None:
                strike_after(*kill_after)
            train(folder, name)
        finally:
            os._exit(0 if (folder / f"{name}.pt").exists() else 1)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    generator = random.Random(seed)
    torch.set_num_threads(1)
    trial(folder, "whole", None)
    # The seconds are one or two epochs': all kills together come before the end of the 30.
    killed = sum(
        trial(folder, "killed", (generator.randint(0, 3), generator.uniform(0.001, 0.03)))
        for _ in range(kills)
    )
    trial(folder, "killed", None)
    print(f"{killed} killed of {kills}")


if __name__ == "__main__":
    assert training.PhaseModule
    main()
