"""Do 16 bits cost accuracy? Paired answers from features in float32 and in bfloat16.

    scripts/bench precision [--model mini] [--size 32] [--images 70000] [--margin 0.2]
                            [--ways float32:eager,bfloat16:eager,bfloat16:openvino]

Question. A pass computes in bfloat16 where the processor has it, with batch normalisations folded,
and by another engine where a rule says so. Is the accuracy of what is learnt from such features
lower than from float32 by more than `--margin` points?

Data and method. All of Fashion-MNIST (HEADSTART_DATA/fashion-mnist), the whole of `headstart run`
once for each way, with an empty store, the same folds and seed: every image is answered once by a
model that did not learn from it, the training part out of fold and the test part by the final
model. Right or wrong is compared image by image; the interval of the difference is the paired
bootstrap's (95 %, images drawn). A way is not inferior where the interval's low end is above minus
the margin. The margin was fixed before the first run. Only the precision and engine of the pass
differ; heads are fitted in float32 on features that are rounded to 16 bits in every way.

Figures of the last recorded run: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.comparison import mcnemar_exact, paired_bootstrap
from headstart.runs import RunSettings, run_job
from headstart.runs.files.record import versions
from headstart.runtime import machine

FILES = ("out_of_fold_predictions.csv", "predictions.csv")


@dataclass(frozen=True)
class Answers:
    """What one way answered, sorted by image."""

    paths: list[str]
    predicted: list[str]
    right: np.ndarray
    probabilities: np.ndarray
    seconds: float  # of the pass
    engine: str


def read_answers(out: Path) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Paths, predictions, right or wrong, and probabilities of both files."""
    rows = []
    for name in FILES:
        with (out / name).open(newline="") as stream:
            rows += list(csv.DictReader(stream))
    rows.sort(key=lambda row: row["path"])
    columns = [name for name in rows[0] if name.startswith("prob_")]
    return (
        [row["path"] for row in rows],
        [row["predicted"] for row in rows],
        np.array([float(row["predicted"] == row["true"]) for row in rows]),
        np.array([[float(row[name]) for name in columns] for row in rows]),
    )


def answers_of(way: str, options: argparse.Namespace, place: Path) -> Answers:
    """The whole job in one precision and engine."""
    precision, engine = way.split(":")
    os.environ["HEADSTART_CACHE"] = str(place / f"cache-{precision}-{engine}")
    settings = RunSettings(
        data="fashion-mnist", model=options.model, image_size=options.size, audit="none",
        max_images=options.images, learning_curve=False, device="cpu", precision=precision,
        pass_engine=engine, out=str(place / f"{precision}-{engine}"),
    )  # fmt: skip
    begun = time.perf_counter()
    result = run_job(settings)
    print(f"  {way}: {time.perf_counter() - begun:.0f} s", flush=True)
    record = result.record
    seconds, key = record["times"]["features"], record["engine"]["key"]
    return Answers(*read_answers(result.out), seconds=seconds, engine=key)


def compare(exact: Answers, other: Answers, margin: float) -> None:
    """Print the paired difference, other minus exact, in points."""
    assert exact.paths == other.paths
    found = paired_bootstrap(other.right, exact.right, seed=0)
    same = np.mean([a == b for a, b in zip(exact.predicted, other.predicted, strict=True)])
    largest = np.abs(exact.probabilities - other.probabilities).max()
    low, high = (0.0, 0.0) if found.interval is None else (found.interval.low, found.interval.high)
    better = int(((other.right - exact.right) > 0).sum())
    worse = int(((other.right - exact.right) < 0).sum())
    verdict = "not inferior" if 100 * low > -margin else "not shown"
    print(
        f"{other.engine} against {exact.engine}: accuracy {100 * other.right.mean():.3f} against "
        f"{100 * exact.right.mean():.3f}, difference {100 * found.value:+.3f} "
        f"[{100 * low:+.3f}, {100 * high:+.3f}] points, margin {margin:g}: {verdict}; "
        f"{len(exact.paths):,} pairs, {worse} lost, {better} won "
        f"(McNemar p {mcnemar_exact(other.right, exact.right):.2f}), "
        f"{100 * same:.2f} % the same answer, largest probability difference {largest:.3f}; "
        f"pass {other.seconds:.0f} s against {exact.seconds:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy from features in 16 bits.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=None, help="a sample; default all")
    parser.add_argument("--margin", type=float, default=0.2, help="points")
    parser.add_argument("--ways", default="float32:eager,bfloat16:eager")
    options = parser.parse_args()
    os.environ.setdefault("HEADSTART_DATA", "../shared/data")
    ways = options.ways.split(",")
    print(f"{machine()}; {versions()}; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        exact = answers_of(ways[0], options, Path(name))
        for way in ways[1:]:
            compare(exact, answers_of(way, options, Path(name)), options.margin)


if __name__ == "__main__":
    main()
