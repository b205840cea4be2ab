"""One fit's checkpoint: what it must agree with, written and read.

A fit goes on only where everything its result hangs on is as it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.backbones import Network
from headstart.files import digest_bytes
from headstart.finetune.batches.images import TrainingData
from headstart.finetune.batches.objectives import DenseLayers
from headstart.finetune.records.checkpoints import (
    IDENTITY,
    check_identity,
    load_checkpoint,
    save_checkpoint,
)
from headstart.finetune.settings import TrainSettings
from headstart.finetune.steps.state import FitState
from headstart.runtime import Execution

NOT_COMPARED = ("profile",)  # changes no result


class Keeper:
    """Writes and reads one fit's checkpoint; does nothing without a path."""

    def __init__(self, path: Path | None, identity: dict[str, str]) -> None:
        """Keep where it lies and what it must agree with."""
        self.path = path
        self.identity = identity
        self.seconds_before = 0.0
        self.begun = time.perf_counter()

    def load(self) -> dict[str, Any] | None:
        """The state of this very training; None where there is none or it is damaged.

        Raises:
            ResumeError: it is of another training.
        """
        state = None if self.path is None else load_checkpoint(self.path)
        if state is not None and self.path is not None:
            check_identity(state, self.identity, self.path)
            self.seconds_before = float(state["seconds"])
        return state

    def save(self, state: FitState, current: Mapping[str, torch.Tensor]) -> None:
        """Write where a fit stands."""
        if self.path is not None:
            plain = state.to_plain(dict(current))
            plain[IDENTITY] = json.dumps(self.identity)
            plain["seconds"] = self.seconds_before + time.perf_counter() - self.begun
            save_checkpoint(self.path, plain)


def describe_fit(
    network: Network,
    data: TrainingData,
    settings: TrainSettings,
    execution: Execution,
    head: DenseLayers,
) -> dict[str, str]:
    """What the result hangs on, by the names that a refused resume shows."""
    rows = [data.labels, data.train_rows, data.inner_rows]
    compared = {name: v for name, v in asdict(settings).items() if name not in NOT_COMPARED}
    return {
        "settings": json.dumps(compared, sort_keys=True),
        "network": network.digest,
        "preprocessing": network.preprocessing.key,
        "rows and labels": digest_bytes(*(np.asarray(part).tobytes() for part in rows)),
        "pictures": pixel_digest(data),
        "start of the head": digest_bytes(*(t.numpy().tobytes() for pair in head for t in pair)),
        "engine": execution.key,
    }


def pixel_digest(data: TrainingData) -> str:
    """Digest of the pictures' shape and of those used, picture by picture to stay small."""
    rows = np.concatenate([data.train_rows, data.inner_rows])
    parts = [digest_bytes(data.images[int(row)].numpy().tobytes()) for row in rows]
    return digest_bytes(str(tuple(data.images.shape)).encode(), "".join(parts).encode())
