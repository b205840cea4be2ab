"""Multi-layer heads of many folds: together, one by one, and the usual loop.

    scripts/bench mlp_heads [--quick] [--repeats 5]

Question. Is fitting K heads in one call, as `fit_mlps` groups them by its rule, faster than one by
one and never slower, and how far behind is a plain loop of recorded gradients?

Data. Random features of `ROWS` rows, five classes; the time of a fit does not depend on what the
features say. Every way makes the same steps: dropout 0.5, Adam, one or several epochs.

The ways, in one process, in turn, `repeats` times, beginning with another one each time; the table
gives the median a head and epoch in milliseconds and the median ratio to one by one within a
repeat, with the smallest and the largest:
    rule        `fit_mlps` as it is, with the number of heads that its rule puts together
    together    all K in one stack
    one by one  stacks of one
    usual       nn.Sequential, cross entropy, torch.optim.Adam, one head after the other

Figures of the last recorded run: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise

import torch
from torch import Tensor, nn

from headstart.heads import FitPlan, MlpSettings, fit_mlps, problems_at_once
from headstart.runtime import machine

ROWS = 480
CLASSES = 5
# Features of a network, hidden layers, heads, batch.
CASES = [
    (width, hidden, num_heads, batch)
    for width, hidden in ((384, (512, 64)), (384, (64,)), (1280, (512, 64)))
    for num_heads in (5, 30)
    for batch in (16, 256)
]


def fit_usual(features: Tensor, labels: Tensor, settings: MlpSettings) -> None:
    """One head as tutorials write it."""
    widths = [features.shape[1], *settings.hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(settings.dropout)]
    head = nn.Sequential(*layers, nn.Linear(widths[-1], CLASSES))
    optimizer = torch.optim.Adam(head.parameters(), lr=settings.lr)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(features)).split(settings.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(features[rows]), labels[rows])
            loss.backward()
            optimizer.step()


def time_case(
    width: int, hidden: tuple[int, ...], num_heads: int, batch: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds of every way, one entry a repeat."""
    features = torch.randn(ROWS, width, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(ROWS) % CLASSES
    weights = torch.ones(num_heads, ROWS)
    settings = MlpSettings(hidden=hidden, epochs=2, batch_size=batch, schedule="constant")
    data = (features, labels, weights, CLASSES, settings)

    def usual() -> None:
        for _ in range(num_heads):
            fit_usual(features, labels, settings)

    ways = {
        "rule": lambda: fit_mlps(*data, seed=0),
        "together": lambda: fit_mlps(*data, seed=0, plan=FitPlan(at_once=num_heads)),
        "one by one": lambda: fit_mlps(*data, seed=0, plan=FitPlan(at_once=1)),
        "usual": usual,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for repeat in range(repeats + 1):
        for name in names[repeat % 4 :] + names[: repeat % 4]:  # each way follows each other
            begun = time.perf_counter()
            ways[name]()
            if repeat:  # the first round warms up
                times[name].append(time.perf_counter() - begun)
    return times


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="five heads only")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    print(f"{machine()}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"n = {chosen.repeats} repeats; {ROWS} rows, {CLASSES} classes, 2 epochs\n")
    print("features hidden     heads batch  at once | ms a head and epoch: median (ratio, range)")
    for width, hidden, num_heads, batch in CASES:
        if chosen.quick and num_heads > 5:
            continue
        times = time_case(width, hidden, num_heads, batch, chosen.repeats)
        alone = times["one by one"]
        cells = []
        for name, seconds in times.items():
            ratios = [a / b for a, b in zip(seconds, alone, strict=True)]
            each = 1000 * statistics.median(seconds) / num_heads / 2
            cells.append(
                f"{name} {each:.1f} ({statistics.median(ratios):.2f}, "
                f"{min(ratios):.2f}-{max(ratios):.2f})"
            )
        at_once = min(num_heads, problems_at_once((width, *hidden, CLASSES)))
        print(
            f"{width:8d} {hidden!s:10s} {num_heads:5d} {batch:5d} {at_once:8d} | "
            + "; ".join(cells),
            flush=True,
        )


if __name__ == "__main__":
    main()
