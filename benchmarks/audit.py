"""What an audit of a large folder costs, and whether it names exactly the bad files.

    python benchmarks/audit.py FOLDER [--sizes 10000 100000] [--network cells]

FOLDER lies outside the checkout; what is made there is removed again unless `--keep`. For each
size a folder of small JPEGs (64 px, 10 classes, every picture another one) is made, 37 of the
files spoilt in nine ways and 50 pictures saved once more with stronger compression. A new process
then decodes a sample in a bare loop over Pillow with as many threads as Headstart takes, audits the
folder as `headstart data audit FOLDER --out OUT` does (empty store), and prints images/s of both,
seconds a phase, peak memory (resident, of this process), whether exactly the spoilt files are
named, how many of the copies were linked, and how the near-duplicates were searched. The last line
tells the cost of the largest size as a multiple of the smallest one's.

`--network cells` puts the means of 8 x 8 cells, turned at random, in the place of `mini`: what is
left is everything but the network, whose cost is the same for every image.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE, CLASSES = 64, 10
SAMPLE, ROUNDS = 3000, 3
MIB = 1 << 20


def painted(number: int) -> Image.Image:
    """One smooth picture of its own."""
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, quality: int) -> bytes:
    """As JPEG."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def spoil(good: bytes, kind: int) -> bytes:
    """Nine kinds of bad files."""
    return (
        b"",
        b"no picture at all",
        good[: len(good) // 2],
        good[:20],
        good[: len(good) - 200],
        b"GIF89a" + bytes(30),
        b"\x89PNG\r\n\x1a\n" + good,
        b"II*\x00" + good[:100],
        b"RIFF" + bytes(4) + b"WEBP" + good[:50],
    )[kind % 9]


def make_folder(root: Path, count: int, bad: int, copies: int) -> dict[str, list[Any]]:
    """Write the files; returns the names of the spoilt ones and of originals with their copies."""
    for label in range(CLASSES):
        (root / f"class{label}").mkdir(parents=True, exist_ok=True)
    spoilt = {round((i + 0.5) * count / bad): i for i in range(bad)}
    copied = {count - 1 - i: round(i * 0.9 * count / copies) for i in range(copies)}
    names: dict[str, list[Any]] = {"bad": [], "copies": []}
    for number in range(count):
        name = named(number)
        if number in copied and copied[number] not in spoilt and number not in spoilt:
            data = encoded(painted(copied[number]), quality=60)
            names["copies"].append([named(copied[number]), name])
        else:
            data = encoded(painted(number), quality=80 + number % 10)
        if number in spoilt:
            data = spoil(data, spoilt[number])
            names["bad"].append(name)
        (root / name).write_bytes(data)
    return names


def named(number: int) -> str:
    """Where a picture lies."""
    return f"class{number % CLASSES}/{number:06d}.jpg"


def bare(path: Path) -> np.ndarray:
    """What everybody writes first."""
    try:
        return np.asarray(Image.open(path).convert("RGB").resize((96, 96)))
    except OSError:
        return np.zeros((96, 96, 3), dtype=np.uint8)


def bare_rate(files: list[Path]) -> float:
    """Images a second of the bare loop, median of some rounds."""
    rates = []
    for _ in range(ROUNDS):
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            begun = time.perf_counter()
            for _image in pool.map(bare, files):
                pass
            rates.append(len(files) / (time.perf_counter() - begun))
    return statistics.median(rates)


def put_cells_in_place() -> None:
    """Let the audit embed pictures by the means of their cells."""
    import dataclasses

    import torch
    from torch import nn

    from headstart.audit import fingerprints

    network = fingerprints.fixed_network()

    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.turn = nn.Parameter(torch.randn(192, network.num_features, generator=generator))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.adaptive_avg_pool2d(x, 8).flatten(1) @ self.turn

    cheap = dataclasses.replace(network, module=Cells(), digest="cells")
    fingerprints.fixed_network = lambda: cheap  # type: ignore[assignment]


def measure(root: Path, out: Path, network: str) -> dict[str, Any]:
    """Everything about one folder, in this process."""
    from headstart import api

    if network == "cells":
        put_cells_in_place()
    files = sorted(root.glob("*/*.jpg"))
    before = bare_rate(files[:: max(1, len(files) // SAMPLE)])
    start = peak_mib()
    begun, cpu = time.perf_counter(), cpu_s_so_far()
    summary, _ = api.audit(root, out=out)
    wall_s, cpu_s = time.perf_counter() - begun, cpu_s_so_far() - cpu
    after = bare_rate(files[:: max(1, len(files) // SAMPLE)])
    found = summary["duplicates"]
    return {
        "images": len(files),
        "bare_per_s": [round(before), round(after)],
        "wall_s": round(wall_s, 1),
        "cpu_s": round(cpu_s, 1),
        "audit_per_s": round(len(files) / wall_s, 1),
        "seconds": summary["seconds"],
        "start_mib": start,
        "peak_mib": peak_mib(),
        "search": found["search"],
        "recall": found["recall"],
        "near_groups": found["near_groups"],
    }


def cpu_s_so_far() -> float:
    """CPU seconds of this process and of the decoders that are alive (Linux)."""
    from headstart.data.guarded.pool import shared_pool

    ticks = 0
    for decoder in list(shared_pool()._idle):
        fields = Path(f"/proc/{decoder.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def peak_mib() -> int:
    """The largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MIB


def judge(out: Path, names: dict[str, list[Any]]) -> dict[str, Any]:
    """Whether `images.csv` names exactly the bad files and keeps the copies together."""
    with (out / "images.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    bad = sorted(path for path, row in rows.items() if row["problem"])
    linked = [rows[one]["unit"] == rows[other]["unit"] for one, other in names["copies"]]
    return {
        "bad_named": len(bad),
        "exactly_the_bad": bad == sorted(names["bad"]),
        "copies_linked": f"{sum(linked)} of {len(linked)}",
    }


def in_new_process(root: Path, out: Path, network: str) -> dict[str, Any]:
    """Measure with nothing stored before."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, __file__, str(root), "--measure", str(out), "--network", network],
            env={**os.environ, "HEADSTART_CACHE": cache},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--bad", type=int, default=37)
    parser.add_argument("--copies", type=int, default=50)
    parser.add_argument("--keep", action="store_true", help="leave the folders there")
    parser.add_argument("--network", choices=("mini", "cells"), default="mini")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.folder, given.measure, given.network)))
        return
    costs = []
    for size in given.sizes:
        root, out = given.folder / str(size), given.folder / f"{size}-audit"
        names = make_folder(root, size, given.bad, given.copies)
        found = in_new_process(root, out, given.network) | judge(out, names)
        print(json.dumps(found, indent=1), flush=True)
        costs.append((size, found["wall_s"], found["cpu_s"]))
        if not given.keep:
            shutil.rmtree(root)
            shutil.rmtree(out)
    (small, *first), (large, *last) = costs[0], costs[-1]
    ratios = [round(b / a, 2) for a, b in zip(first, last, strict=True)]
    print(f"{small:,} -> {large:,} images (x {large / small:g}): wall x {ratios[0]}, "
          f"CPU x {ratios[1]}")  # fmt: skip


if __name__ == "__main__":
    main()
