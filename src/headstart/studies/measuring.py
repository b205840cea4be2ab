"""What a candidate costs: seconds of a pass and of one prediction, parameters, peak memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from headstart.bundle import FittedHead
from headstart.data.views import WHOLE, View
from headstart.heads import mean_logits
from headstart.inference import FeatureExtractor
from headstart.inference.extractor import warm_decoders
from headstart.records import ImageTable, Integers

TIMED_IMAGES = 8
TIMED_ROUNDS = 3
TIMED_PASS = 64  # images that stand for a pass whose features came from the store
CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def prediction_ms(
    extractor: FeatureExtractor,
    head: FittedHead,
    table: ImageTable,
    rows: Integers,
    views: Sequence[View] = (WHOLE,),
) -> float:
    """Median milliseconds from the encoded picture to its logits, one picture at a time.

    Args:
        extractor: the network on its device.
        head: on top of it.
        table: of the run.
        rows: that may be looked at; the first few are taken.
        views: that an answer is averaged over.
    """
    taken = [int(row) for row in rows[:TIMED_IMAGES]]
    seconds = []
    answer_one(extractor, head, table, taken[0], views)  # the first call chooses kernels
    for row in taken * TIMED_ROUNDS:
        begun = time.perf_counter()
        answer_one(extractor, head, table, row, views)
        seconds.append(time.perf_counter() - begun)
    return round(1000 * statistics.median(seconds), 3)


def answer_one(
    extractor: FeatureExtractor,
    head: FittedHead,
    table: ImageTable,
    row: int,
    views: Sequence[View],
) -> None:
    """Classify one picture; the answer is not needed."""
    for _, _, values in extractor.extract_views(table, [row], tuple(views)):
        mean_logits(values, head.layers)


def estimated_pass_s(
    extractor: FeatureExtractor,
    table: ImageTable,
    rows: Integers,
    views: Sequence[View] = (WHOLE,),
) -> float:
    """Seconds that a pass over the table would take, from a part of the rows.

    Args:
        extractor: the network on its device.
        table: N images.
        rows: that may be looked at.
        views: of each image.
    """
    taken = [int(row) for row in rows[:TIMED_PASS]]
    warm_decoders(table, taken[0])
    list(extractor.extract_views(table, taken[:1], tuple(views)))
    begun = time.perf_counter()
    for _ in extractor.extract_views(table, taken, tuple(views)):
        pass
    return round((time.perf_counter() - begun) / len(taken) * len(table), 3)


def head_parameters(head: FittedHead) -> int:
    """Weights and biases of a head."""
    return sum(int(np.prod(tensor.shape)) for layer in head.layers for tensor in layer)


def reset_peak_memory(device: str) -> bool:
    """Forget the peak of what ran before; False where the system cannot, and none is known."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        CLEAR_REFS.write_text("5")  # Linux: 5 resets the high-water mark, see proc(5)
    except OSError:
        return False
    return STATUS.is_file()


def peak_memory_mib(device: str) -> float | None:
    """Peak since the reset: of the GPU where the work is there, else of the process."""
    if device == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return resident_peak_mib(STATUS.read_text().splitlines())


def resident_peak_mib(lines: Sequence[str]) -> float | None:
    """The high-water mark in a Linux process's status, 'VmHWM:  1024 kB'."""
    for line in lines:
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return None
