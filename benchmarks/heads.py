"""Heads at once: folds x inner folds x penalties beside the pass that the features came from.

    scripts/bench heads [--rows 60000] [--columns 1280] [--folds 5] [--inner-folds 3]
                        [--penalties 20] [--tolerances 0.01 0.002 0.001] [--no-forward]

Question. What does it cost to choose the penalty of a logistic head inside every fold by inner
folds, and to fit every fold with it, beside one pass of EfficientNetB0 at 128 px in bfloat16
(batch 64, channels-last, as runs do it) over as many images?

Data. Made up, as features of a network look to a solver: the variances of the principal components
fall like a power (1 / i), turned by a random rotation and shifted off zero, in 16 bits. Labels of
ten classes are drawn from the softmax of a linear map, so that classes overlap: about 70 % of them
can be told by who knows the map, and penalties matter.

Measured. Wall seconds and processor seconds of all threads (which tell more where other work runs)
of `rotate_features` and `fit_with_chosen_penalty`, once; rounds of the solver, that is passes over
the rows, of both looks and the folds' heads; the tolerances; how many heads converged. The network
alone is timed on `BATCHES` batches of prepared pixels, median, and scaled to the rows.

Figures of the last recorded run: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.backbones import build_network, find_backbone
from headstart.heads import (
    FIT_TOLERANCE,
    LOOK_TOLERANCE,
    SEARCH_TOLERANCE,
    fit_with_chosen_penalty,
    penalty_path,
    rotate_features,
)
from headstart.inference import FeatureExtractor
from headstart.runtime import choose_execution, machine
from headstart.splitting import inner_folds, stratified_folds

CLASSES = 10
CHUNK = 4096
BATCHES = 8
SIZE = 128


def make_features(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Features (N, D) float16 and labels (N,) as the module says."""
    generator = torch.Generator().manual_seed(0)
    deviations = torch.arange(1, columns + 1).float().rsqrt()
    turn = torch.linalg.qr(torch.randn(columns, columns, generator=generator)).Q
    truth = torch.randn(CLASSES, columns, generator=generator)
    offset = torch.rand(columns, generator=generator)
    features = torch.empty(rows, columns, dtype=torch.float16)
    labels = torch.empty(rows, dtype=torch.int64)
    for start in range(0, rows, CHUNK):
        part = slice(start, min(start + CHUNK, rows))
        parts = torch.randn(part.stop - start, columns, generator=generator) * deviations
        logits = 1.5 * parts @ truth.T
        labels[part] = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        features[part] = (parts @ turn.T + offset).half()
    return features, labels


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, wall seconds, processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    made = work()
    return made, time.perf_counter() - wall, time.process_time() - processor


def forward_seconds(rows: int) -> tuple[float, float]:
    """Wall and processor seconds of EfficientNetB0 over so many prepared images."""
    network = build_network(find_backbone("EfficientNetB0"), weights="none", image_size=SIZE)
    extractor = FeatureExtractor(network, choose_execution("cpu", "bfloat16"))
    size = network.preprocessing.size
    batch = extractor.batch_size
    pixels = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
    extractor.forward(pixels)
    taken = [timed(lambda: extractor.forward(pixels))[1:] for _ in range(BATCHES)]
    walls, processors = zip(*taken, strict=True)
    scale = rows / batch
    return scale * statistics.median(walls), scale * statistics.median(processors)


def fit(chosen: argparse.Namespace) -> tuple[float, float]:
    """Print what the heads took; wall and processor seconds."""
    features, labels = make_features(chosen.rows, chosen.columns)
    names = [str(c) for c in range(CLASSES)]
    of_class = labels.numpy()
    fold = stratified_folds(of_class, chosen.folds, class_names=names, seed=0)
    inner = inner_folds(of_class, fold, chosen.inner_folds, class_names=names, seed=0)
    numbers = np.arange(chosen.inner_folds)[:, None]
    held_out = torch.from_numpy(inner[:, None] == numbers)
    weights = torch.from_numpy(fold != np.arange(chosen.folds)[:, None]).float()
    path = penalty_path(chosen.penalties)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rotated, *turning = timed(lambda: rotate_features(features))
    look, search, heads = chosen.tolerances
    found, *fitting = timed(
        lambda: fit_with_chosen_penalty(
            rotated, labels, weights, held_out, path, CLASSES,
            tolerance=heads, tolerances=(look, search),
        )
    )  # fmt: skip
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    scored = [(fold == k).nonzero()[0] for k in range(chosen.folds)]
    right = [
        (features[rows].float() @ found.coef[k].T + found.intercept[k]).argmax(1) == labels[rows]
        for k, rows in enumerate(scored)
    ]
    rounds, done = found.inner_iterations.double(), found.inner_converged
    print(f"rotation   {turning[0]:7.1f} s wall {turning[1]:7.1f} s of processors")
    print(f"heads      {fitting[0]:7.1f} s wall {fitting[1]:7.1f} s of processors")
    print(
        f"tolerances {look:g} first look, {search:g} contenders, {heads:g} heads of the folds "
        "(largest entry of the gradient)"
    )
    print(
        f"rounds     inner fits mean {rounds.mean():.1f}, most {int(rounds.max())}; by penalty "
        + " ".join(f"{value:.0f}" for value in rounds.mean((0, 1)).tolist())
        + f"; heads {found.iterations.tolist()}"
    )
    print(
        f"converged  {int(done.sum())} of {done.numel()} inner fits, "
        f"{int(found.converged.sum())} of {chosen.folds} heads"
    )
    print(
        f"chosen     {[float(f'{value:.2g}') for value in found.penalty.tolist()]}, out of fold "
        f"{torch.cat(right).float().mean():.4f} right; {more / 2**20:.2f} GiB more at the peak"
    )
    return turning[0] + fitting[0], turning[1] + fitting[1]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--columns", type=int, default=1280)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--inner-folds", type=int, default=3)
    parser.add_argument("--penalties", type=int, default=20)
    parser.add_argument(
        "--tolerances", type=float, nargs=3, metavar=("LOOK", "CLOSER", "HEADS"),
        default=(LOOK_TOLERANCE, SEARCH_TOLERANCE, FIT_TOLERANCE),
    )  # fmt: skip
    parser.add_argument("--no-forward", action="store_true", help="leave the network out")
    chosen = parser.parse_args()
    print(f"{machine()}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(
        f"n = 1; {chosen.rows:,} rows x {chosen.columns:,} columns, {CLASSES} classes; "
        f"{chosen.folds} x {chosen.inner_folds} folds x {chosen.penalties} penalties"
    )
    wall, processor = fit(chosen)
    if chosen.no_forward:
        return
    forward_wall, forward_processor = forward_seconds(chosen.rows)
    print(
        f"forward    {forward_wall:7.1f} s wall {forward_processor:7.1f} s of processors "
        f"(EfficientNetB0, {SIZE} px, from {BATCHES} batches)"
    )
    print(
        f"ratio      {wall / forward_wall:7.2f} by wall, {processor / forward_processor:.2f} by "
        "processor seconds (aim: at most 1.5)"
    )


if __name__ == "__main__":
    main()
