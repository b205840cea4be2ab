"""Memory of a run over more features than should be in memory.

    scripts/bench memory FOLDER [--rows 200000 400000] [--columns 1280] [--classes 3]
                         [--memory unlimited 1GiB] [--head logistic]

Question. How much private memory does a run take beside its imports, phase by phase, with features
in memory and in mapped files, and what does the mapping cost in seconds? Does it stay the same when
there are twice as many images?

Data. Made up: N "images" of eight bytes, whose features lie in the store already, D numbers in 16
bits with variances of the principal components that fall like a power (1 / i). Labels are drawn
from the softmax of a linear map, so that classes overlap. The run has the defaults (probe, five
folds, ten penalties, learning curve) without the audit, and EfficientNetB0 without its weights
stands for the network. Nothing is decoded.

Measured. Every run in a process of its own, once: the most of `RssAnon` (private memory: neither
libraries nor mapped files) in each phase, every 10 ms, less that before the images were listed;
wall seconds and processor seconds. `--memory` is `HEADSTART_MEMORY`. All runs of one N must write
the same figures, or the benchmark fails.

Figures of the last recorded run: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones import Network, WeightsRecord, build_network, find_backbone
from headstart.features import FeatureStore
from headstart.features.passes import identity, store_keys
from headstart.features.scratch import MEMORY_VARIABLE
from headstart.inference import FeatureExtractor
from headstart.records import ImageFacts, ImageTable
from headstart.runs import RunSettings, job
from headstart.runs.files.record import versions
from headstart.runs.fitting.task import Clock
from headstart.runtime import choose_execution, machine

CHUNK = 4096
EVERY_S = 0.01
FIGURES = ("metrics.json", "predictions.csv", "out_of_fold_predictions.csv")
START = "start"


def network_of(columns: int) -> Network:
    """A network of the familiar name, which says that it gives so many features."""
    found = build_network(find_backbone("EfficientNetB0"), weights="none", image_size=64)
    if columns != found.num_features:
        raise SystemExit(f"The stand-in gives {found.num_features} features.")
    return replace(found, weights=WeightsRecord(source="file", origin="made up", licence="none"))


def table_of(rows: int, classes: int, folder: Path) -> ImageTable:
    """The images, with the labels that `fill` wrote."""
    return ImageTable(
        name="made up",
        paths=tuple(f"class/{row:07d}.png" for row in range(rows)),
        labels=np.load(folder / "labels.npy"),
        class_names=tuple(f"class {c}" for c in range(classes)),
        splits=("",) * rows,
        blobs=tuple(row.to_bytes(8, "little") for row in range(rows)),
    )


def fill(given: argparse.Namespace) -> None:
    """Write features into the store and labels beside it."""
    rows, classes, folder = given.rows[0], given.classes, given.folder
    generator = np.random.default_rng(0)
    np.save(folder / "labels.npy", np.zeros(rows, dtype=np.int64))
    table, labels = table_of(rows, classes, folder), np.empty(rows, dtype=np.int64)
    network = network_of(given.columns)
    extractor = FeatureExtractor(network, choose_execution())
    store = FeatureStore(identity(extractor), given.columns)
    deviations = np.arange(1, given.columns + 1, dtype=np.float32) ** -0.5
    truth = generator.normal(size=(given.columns, classes)).astype(np.float32)
    offset = generator.random(given.columns, dtype=np.float32)
    keys = store_keys(table, range(rows))
    for start in range(0, rows, CHUNK):
        part = range(start, min(start + CHUNK, rows))
        values = generator.standard_normal((len(part), given.columns), dtype=np.float32)
        values *= deviations
        logits = 1.5 * values @ truth + generator.gumbel(size=(len(part), classes))
        labels[part.start : part.stop] = logits.argmax(axis=1)
        stored = (values + offset).astype(np.float16)
        store.put(
            (keys[row], vector, ImageFacts(path="", digest=keys[row][:32], format="PNG"))
            for row, vector in zip(part, stored, strict=True)
        )
    store.close()
    np.save(folder / "labels.npy", labels)


class Watch:
    """The most private memory by phase."""

    def __init__(self) -> None:
        """Begin to look."""
        self.phase, self.peaks = START, defaultdict[str, int](int)
        self.base = private_bytes()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self) -> None:
        """Until told to stop."""
        while not self.done.wait(EVERY_S):
            more = private_bytes() - self.base
            self.peaks[self.phase] = max(self.peaks[self.phase], more)

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Look at a block under a name."""
        before, self.phase = self.phase, name
        try:
            yield
        finally:
            self.phase = before


def private_bytes() -> int:
    """`RssAnon` of this process."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """One run in this process."""
    network = network_of(given.columns)
    watch, true_phase = Watch(), Clock.phase

    @contextmanager
    def phase(self: Clock, name: str) -> Iterator[None]:
        with watch.named(name), true_phase(self, name):
            yield

    Clock.phase = phase  # type: ignore[method-assign]
    wall, cpu = time.perf_counter(), time.process_time()
    table = table_of(given.rows[0], given.classes, given.folder)
    job.read_table = lambda _settings, _progress: table  # type: ignore[assignment]
    job.build_backbone = lambda _settings: network  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(dir=given.folder) as out:
        settings = RunSettings(
            data="made up", out=f"{out}/run", model="EfficientNetB0", image_size=64,
            audit="none", pass_engine="eager", head=given.head,
        )  # fmt: skip
        done = job.run_job(settings)
        watch.done.set()
        figures = "".join((done.out / name).read_text() for name in FIGURES)
    assert done.record["times"]
    return {
        "wall_s": round(time.perf_counter() - wall, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mib": round(max(watch.peaks.values()) / 2**20),
        "base_mib": round(watch.base / 2**20),
        "phases_mib": {name: round(peak / 2**20) for name, peak in watch.peaks.items()},
        "phases_s": done.record["times"],
        "figures": hash_of(figures),
    }


def hash_of(text: str) -> str:
    """Short digest of what a run wrote."""
    from headstart.files import digest_bytes

    return digest_bytes(text.encode())


def apart(given: argparse.Namespace, rows: int, step: str, **environment: str) -> str:
    """A step in a process of its own; what it printed."""
    command = [
        sys.executable, __file__, str(given.folder), "--step", step, "--rows", str(rows),
        "--columns", str(given.columns), "--classes", str(given.classes), "--head", given.head,
    ]  # fmt: skip
    variables = {
        "HEADSTART_CACHE": str(given.folder / "cache"),
        "HEADSTART_CACHE_SIZE": "unlimited",
    }
    done = subprocess.run(
        command, env={**os.environ, **variables, **environment}, stdout=subprocess.PIPE, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout


def compare(given: argparse.Namespace) -> None:
    """All sizes, all bounds."""
    print({"machine": machine(), **versions(), "load": os.getloadavg()[0]}, flush=True)
    place = given.folder
    for rows in given.rows:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            given.folder = Path(folder)
            apart(given, rows, "fill")
            size = 2 * rows * given.columns / 2**20
            print(f"{rows:,} x {given.columns:,} in 16 bits, {size:,.0f} MiB", flush=True)
            figures = set()
            for memory in given.memory:
                found = json.loads(apart(given, rows, "measure", **{MEMORY_VARIABLE: memory}))
                figures.add(found.pop("figures"))
                print(f"{MEMORY_VARIABLE}={memory}: {found}", flush=True)
            if len(figures) > 1:
                raise SystemExit("The figures differ.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 400_000])
    parser.add_argument("--columns", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--memory", nargs="+", default=["unlimited", "1GiB"])
    parser.add_argument("--head", default="logistic")
    parser.add_argument("--step", choices=["fill", "measure"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step == "fill":
        fill(given)
    elif given.step == "measure":
        print(json.dumps(measure(given)))
    else:
        given.folder.mkdir(parents=True, exist_ok=True)
        compare(given)


if __name__ == "__main__":
    main()
