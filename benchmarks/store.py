"""What the feature store costs: a second run, a hundred more images, rows a second.

    python benchmarks/store.py FOLDER [--images 10000] [--added 100] [--size 64] [--repeats 3]

Question. A second run reads every file once more, because the key is the digest of its bytes, and
looks its features up. Is that at most 5 % of the first pass, with the cheapest network (`mini`) on
the smallest pictures (64 px), where it weighs most? Do 100 images added to 10,000 cost 1 % of it?

Data and network. JPEGs of 64 px, 10 classes, every file different (those of `decode.py`), below
FOLDER; `mini` at --size px with the engine that the machine gets.

Each step in a process of its own, after a warm-up pass over 64 other images into another store
(decoders started, kernels chosen): the feature phase of an empty store once; that of a second run
and, each on a copy of the store, that with the added images `repeats` times, medians. Wall and
processor seconds of this process, the decoders' not counted; shares of the first phase. The system
has the files in memory.

Rows. 10,000 rows of D float16 values written in batches of 64, read back in order of their keys:
rows a second, median of `repeats`, and bytes a row on the disk.

Figures of the last recorded run: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from decode import chosen_network, encodings, make_folder

from headstart.data import load_table
from headstart.features import FeatureStore, extract_features
from headstart.inference import FeatureExtractor, ImageList
from headstart.progress import Progress
from headstart.records import ImageFacts
from headstart.runs.files.record import versions
from headstart.runtime import choose_execution, machine

ROWS, BATCH, WIDTHS = 10_000, 64, (384, 1280, 2048)
WARM_UP = 64


def measure(folder: Path, size: int) -> dict[str, float]:
    """One feature phase, in this process."""
    extractor = FeatureExtractor(chosen_network("mini", size), choose_execution())
    pictures = ImageList(encodings()[:WARM_UP], [f"{i}.jpg" for i in range(WARM_UP)])
    with tempfile.TemporaryDirectory() as aside:
        store = FeatureStore("warm-up", extractor.num_features, folder=Path(aside))
        extract_features(pictures, extractor, progress=Progress(), store=store)
        store.close()
    table = load_table(folder)
    wall, cpu = time.perf_counter(), time.process_time()
    features = extract_features(table, extractor, progress=Progress())
    return {
        "images": len(table),
        "computed": features.computed,
        "wall_s": round(time.perf_counter() - wall, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
    }


def measure_apart(folder: Path, size: int, cache: Path) -> dict[str, float]:
    """The same in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, str(folder), "--size", str(size), "--measure"],
        env={**os.environ, "HEADSTART_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def compare_runs(given: argparse.Namespace) -> None:
    """First, second, and grown run."""
    folder = given.folder / f"{given.images}-{given.size}"
    make_folder(folder, given.images, 0)
    for path in folder.rglob("added-*.jpg"):  # of a run before
        path.unlink()
    with tempfile.TemporaryDirectory(dir=given.folder) as cache:
        first = measure_apart(folder, given.size, Path(cache))
        print("first  ", first, flush=True)
        seconds = [measure_apart(folder, given.size, Path(cache)) for _ in range(given.repeats)]
        for second in seconds:
            print("second ", second, flush=True)
        for number, picture in enumerate(encodings()[: given.added]):
            comment = f"x{number:07d}".encode()
            data = picture[:2] + b"\xff\xfe\x00\x0a" + comment + picture[2:]
            (folder / "class0" / f"added-{number}.jpg").write_bytes(data)
        grown = []
        for number in range(given.repeats):  # each goes on from the store of the first
            copied = Path(cache).with_name(f"{Path(cache).name}-{number}")
            shutil.copytree(cache, copied)
            try:
                grown.append(measure_apart(folder, given.size, copied))
            finally:
                shutil.rmtree(copied)
            print("grown  ", grown[-1], flush=True)
    for kind in ("wall_s", "cpu_s"):
        again = statistics.median(second[kind] for second in seconds)
        shares = [second[kind] / first[kind] for second in seconds]
        more = [(one[kind] - again) / first[kind] for one in grown]
        whole = statistics.median(one[kind] for one in grown) / first[kind]
        print(
            f"{kind}: a second run takes {again / first[kind]:.2%} of the first "
            f"[{min(shares):.2%}, {max(shares):.2%}], n = {given.repeats}; "
            f"{1e6 * again / first['images']:.0f} us an image; {given.added} more images take "
            f"{whole:.2%}, {statistics.median(more):.2%} [{min(more):.2%}, {max(more):.2%}] "
            "without reading the others back",
            flush=True,
        )


def measure_rows(width: int, folder: Path) -> tuple[float, float, float]:
    """Rows written and read a second, and bytes a row."""
    values = np.random.default_rng(0).normal(size=(ROWS, width)).astype(np.float16)
    keys = [f"{i * 0x9E3779B97F4A7C15 % 2**64:032x}.jpg" for i in range(ROWS)]  # in no order
    facts = ImageFacts(path="", digest="0" * 32, width=64, height=64, format="JPEG", mode="RGB")
    store = FeatureStore("rows", width, folder=folder)
    begun = time.perf_counter()
    for start in range(0, ROWS, BATCH):
        part = range(start, min(start + BATCH, ROWS))
        store.put((keys[i], values[i], facts) for i in part)
    written = time.perf_counter() - begun
    store.close()
    num_bytes = store.path.stat().st_size
    store = FeatureStore("rows", width, folder=folder)
    begun = time.perf_counter()
    found = store.get(sorted(keys))
    read = time.perf_counter() - begun
    store.close()
    assert all(np.array_equal(found[key][0], row) for key, row in zip(keys, values, strict=True))
    return ROWS / written, ROWS / read, num_bytes / ROWS


def compare_rows(place: Path, repeats: int) -> None:
    """A line a width."""
    for width in WIDTHS:
        found = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory(dir=place) as folder:
                found.append(measure_rows(width, Path(folder)))
        written, read, num_bytes = (
            statistics.median(column) for column in zip(*found, strict=True)
        )
        print(
            f"D = {width}: {written:,.0f} rows/s written, {read:,.0f} read, "
            f"{num_bytes:,.0f} bytes a row ({2 * width:,} of them features), n = {repeats}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--added", type=int, default=100)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.folder, given.size)))
        return
    print({"machine": machine(), "engine": choose_execution().describe(), **versions(),
           "sqlite": sqlite3.sqlite_version, "load": os.getloadavg()[0]})  # fmt: skip
    given.folder.mkdir(parents=True, exist_ok=True)
    compare_rows(given.folder, given.repeats)
    compare_runs(given)


if __name__ == "__main__":
    main()
