"""How fast, in how much memory, and how exactly a large folder with bad files is read.

    python benchmarks/decode.py FOLDER [--sizes 10000 100000] [--network means]
    python benchmarks/decode.py FOLDER --scaled

Makes folders of small JPEGs (64 px, 10 classes, every file different) below FOLDER, 37 files of
each spoilt in nine ways. A new process for each size lists the folder, decodes and resizes a sample
in a bare loop over Pillow with as many threads, does the same through Headstart (all of the same
bytes, in turns, the median of five), then makes the features of everything at 32 px, without
anything stored before, by `mini` or (`--network means`) by three averages, where everything but the
network is measured. It prints images/s, peak memory (resident, of this process), and whether
exactly the spoilt files were named. A last table compares decoding in threads with decoding in
processes that can be killed.

`--scaled` asks what it brings to decode no more pixels of a large JPEG than the network needs: 20
photographs of FOLDER, enlarged to a shorter side of 256 to 2,048 px at quality 88, are decoded
whole and at a half, quarter or eighth, and resized to 96, 128 and 224 px; processor time a
picture, medians of five turns, and how far the pixels are apart. Then, at 512 px and in turns,
the rate of decoding alone (all cores), of EfficientNetB0 alone at 128 px, and of the whole pass.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from headstart.backbones import Network, build_network, find_backbone
from headstart.data import decode, load_table
from headstart.data.decoding import decode_here
from headstart.data.preparing import Order, prepare_picture
from headstart.features.passes import extract_features
from headstart.inference import FeatureExtractor, ImageList, ImageSource, resize_pixels
from headstart.progress import Progress
from headstart.records import ImageFacts, Preprocessing
from headstart.runtime import choose_execution, usable_cores

SIDE = 64
CLASSES = 10
DISTINCT = 300
SAMPLE = 3000
ROUNDS = 5
PROCESS_SIZE, PROCESS_ROUNDS = 96, 9
MIB = 1 << 20


def encodings() -> list[bytes]:
    """Some hundred pictures; a comment behind makes every file another one."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(DISTINCT):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        smooth.save(stream, "JPEG", quality=80 + number % 10)
        found.append(stream.getvalue())
    return found


def spoil(good: bytes, kind: int) -> bytes:
    """Nine kinds of bad files."""
    return (
        b"",
        b"no picture at all",
        good[: len(good) // 2],
        good[:20],
        good[:-2] if kind == 0 else good[: len(good) - 200],
        b"GIF89a" + bytes(30),
        b"\x89PNG\r\n\x1a\n" + good,
        b"II*\x00" + good[:100],
        b"RIFF" + bytes(4) + b"WEBP" + good[:50],
    )[kind % 9]


def make_folder(root: Path, count: int, bad: int) -> list[str]:
    """Write the files; returns the paths of the spoilt ones."""
    pictures = encodings()
    spoilt = {round((i + 0.5) * count / bad): i for i in range(bad)}
    names = []
    for label in range(CLASSES):
        (root / f"class{label}").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name = f"class{number % CLASSES}/{number:06d}.jpg"
        data = pictures[number % DISTINCT]
        if number in spoilt:
            data = spoil(data, spoilt[number])
            names.append(name)
        else:
            comment = f"{number:08d}".encode()
            data = data[:2] + b"\xff\xfe\x00\x0a" + comment + data[2:]
        (root / name).write_bytes(data)
    return names


def rate(work: Callable[[bytes], object], sources: Sequence[bytes], threads: int) -> float:
    """Images a second."""
    with ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        for _ in pool.map(work, sources):
            pass
        return len(sources) / (time.perf_counter() - begun)


def compare(
    ways: dict[str, Callable[[bytes], object]], sources: Sequence[bytes]
) -> dict[str, float]:
    """The median rate of each way, taken in turns."""
    threads = len(os.sched_getaffinity(0))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, work in ways.items():
            rates[name].append(rate(work, sources, threads))
    return {name: round(statistics.median(found), 1) for name, found in rates.items()}


def bare(data: bytes) -> np.ndarray:
    """What everybody writes first."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32)))


def chosen_network(name: str, image_size: int = 32) -> Network:
    """`mini`, or `mini` with its layers replaced by the averages of the channels."""
    network = build_network(find_backbone("mini"), image_size=image_size)
    if name == "mini":
        return network
    return dataclasses.replace(network, module=Means(network.num_features), digest="means")


class Means(nn.Module):
    """The averages of the channels, over and over until there are D of them."""

    def __init__(self, num_features: int) -> None:
        """Keep D; one parameter gives the device its place."""
        super().__init__()
        self.num_features = num_features
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, D)."""
        means = x.mean(dim=(2, 3)) * self.one
        return means.repeat(1, self.num_features // 3 + 1)[:, : self.num_features]


def measure(folder: Path, name: str) -> dict[str, object]:
    """Everything about one folder, in this process."""
    network = chosen_network(name)
    extractor = FeatureExtractor(network, choose_execution())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begun = time.perf_counter()
    table = load_table(folder)
    listed_s = time.perf_counter() - begun
    step = max(len(table) // SAMPLE, 1)
    sample = [table.read(row) for row in range(0, len(table), step)]
    good = [data for data in sample if data[2:4] == b"\xff\xfe"]

    def ours(data: bytes) -> np.ndarray:
        return resize_pixels(decode(data, "a.jpg")[0], network.preprocessing)

    speeds = compare({"bare": bare, "headstart": ours}, good)
    begun = time.perf_counter()
    features = extract_features(table, extractor, progress=Progress())
    pass_s = time.perf_counter() - begun
    problems = sorted(record.path for record in features.facts if record.problem)
    return {
        "images": len(table),
        "list_s": round(listed_s, 2),
        **{f"{name}_per_s": speed for name, speed in speeds.items()},
        "share_of_bare": round(speeds["headstart"] / speeds["bare"], 3),
        "pass_s": round(pass_s, 1),
        "pass_per_s": round(len(table) / pass_s, 1),
        "start_mib": before // MIB,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MIB,
        "problems": problems,
    }


def compare_processes(network: str) -> None:
    """Threads against processes that can be killed, for three sizes: all that a pass does."""
    generator = np.random.default_rng(1)
    extractor = FeatureExtractor(chosen_network(network, PROCESS_SIZE), choose_execution())
    for side, count in ((64, 1600), (256, 800), (1600, 48)):
        count = min(count, 256) if network == "mini" else count
        coarse = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        stream = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        source = ImageList([stream.getvalue()] * count, [f"{i}.jpg" for i in range(count)])
        rates: dict[bool, list[float]] = {False: [], True: []}
        list(extractor.extract(source, range(16), isolated=True))  # the processes are started
        for turn in range(PROCESS_ROUNDS):
            for isolated in (False, True) if turn % 2 else (True, False):
                begun = time.perf_counter()
                for _ in extractor.extract(source, range(count), isolated=isolated):
                    pass
                rates[isolated].append(count / (time.perf_counter() - begun))
        shares = sorted(p / t for p, t in zip(rates[True], rates[False], strict=True))
        medians = {word: round(statistics.median(rates[key]), 1)
                   for word, key in (("threads", False), ("processes", True))}  # fmt: skip
        told = f"{statistics.median(shares):.2f} [{shares[0]:.2f}, {shares[-1]:.2f}]"
        print(f"{side} px: {medians}, processes {told} of threads", flush=True)


def compare_scaled(folder: Path) -> None:
    """Whole against scaled decoding, and a pass beside its two halves."""
    files = sorted(folder.rglob("*.jpg"))[:20]
    for side in (256, 512, 1024, 2048):
        encoded = [enlarged(path, side) for path in files]
        for size in (96, 128, 224):
            order = Order(preprocessing=Preprocessing(size=size))
            ways = {"whole": decode_whole, "scaled": decode_here}
            spent: dict[str, list[float]] = {name: [] for name in ways}
            pixels: dict[str, list[np.ndarray]] = {}
            for _ in range(ROUNDS):
                for name, way in ways.items():
                    begun = time.process_time()
                    pixels[name] = [
                        prepare_picture(data, "a.jpg", None, order, way).pixels for data in encoded
                    ]
                    spent[name].append((time.process_time() - begun) / len(encoded) * 1e3)
            ms = {name: round(statistics.median(found), 2) for name, found in spent.items()}
            apart = np.abs(np.stack(pixels["whole"]).astype(int) - np.stack(pixels["scaled"]))
            print(f"{side} px to {size} px: {ms} ms, {apart.mean():.2f} of 255 apart", flush=True)
    network = build_network(find_backbone("EfficientNetB0"), weights="none", image_size=128)
    extractor = FeatureExtractor(network, choose_execution())
    encoded = [enlarged(path, 512) for path in files] * 32
    source = ImageList(encoded, [f"{i}.jpg" for i in range(len(encoded))])
    batch = torch.zeros((extractor.batch_size, 128, 128, 3), dtype=torch.uint8)
    rates: dict[str, list[float]] = {"decoding": [], "network": [], "pass": []}
    list(extractor.extract(source, range(64), isolated=True))
    for _ in range(ROUNDS):
        rates["decoding"].append(
            prepared_rate(extractor, source, len(source), usable_cores(), isolated=True)
        )
        begun = time.perf_counter()
        for _ in range(len(source) // len(batch)):
            extractor.forward(batch)
        rates["network"].append(len(source) / (time.perf_counter() - begun))
        rates["pass"].append(pass_rate(extractor, source, len(source)))
    for name, found in rates.items():
        low, high = min(found), max(found)
        print(f"{name}: {statistics.median(found):.0f} [{low:.0f}, {high:.0f}] images/s")
    shares = sorted(p / n for p, n in zip(rates["pass"], rates["network"], strict=True))
    print(
        f"pass / network alone: {statistics.median(shares):.2f} [{shares[0]:.2f}, {shares[-1]:.2f}]"
    )


def made_jpegs(count: int) -> list[bytes]:
    """Pictures with a shorter side of 512 px, detail at four scales, quality 90."""

    def one(seed: int) -> bytes:
        generator = np.random.default_rng(seed)
        total = np.zeros((512, 682, 3), dtype=np.float32)
        for cells, weight in ((6, 0.5), (24, 0.25), (96, 0.15), (340, 0.1)):
            coarse = generator.integers(0, 256, (cells, cells * 4 // 3, 3), dtype=np.uint8)
            part = Image.fromarray(coarse).resize((682, 512), Image.Resampling.BICUBIC)
            total += weight * np.asarray(part, dtype=np.float32)
        stream = io.BytesIO()
        Image.fromarray(total.round().astype(np.uint8)).save(stream, "JPEG", quality=90)
        return stream.getvalue()

    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(one, range(count)))


def prepared_rate(
    extractor: FeatureExtractor, source: ImageSource, count: int, threads: int, *, isolated: bool
) -> float:
    """Images/s of decoding and resizing alone, in the extractor's tasks of 32 images."""
    tasks = [range(start, min(start + 32, count)) for start in range(0, count, 32)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda rows: extractor.prepare_many(source, rows, isolated=isolated),
                          tasks):  # fmt: skip
            pass
    return count / (time.perf_counter() - begun)


def pass_rate(extractor: FeatureExtractor, source: ImageSource, count: int) -> float:
    """Images/s of a whole pass, nothing stored."""
    begun = time.perf_counter()
    for _ in extractor.extract(source, range(count)):
        pass
    return count / (time.perf_counter() - begun)


def decoded_on(jpegs: list[bytes], device: str) -> list[torch.Tensor]:
    """(3, H, W) uint8 on the device: nvJPEG there, Pillow on the processor for a dry run."""
    if device == "cuda":
        from torchvision.io import ImageReadMode, decode_jpeg

        encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in jpegs]
        return decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device)
    pictures = [np.array(Image.open(io.BytesIO(data)).convert("RGB")) for data in jpegs]
    return [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in pictures]


def resized_on(pictures: list[torch.Tensor], size: int, mode: str) -> torch.Tensor:
    """(B, size, size, 3) uint8; pictures of one shape at once."""
    alike = len({picture.shape for picture in pictures}) == 1
    groups = [torch.stack(pictures)] if alike else [picture[None] for picture in pictures]
    squares = [
        nn.functional.interpolate(
            group.float(), size=(size, size), mode=mode, antialias=True, align_corners=False
        )
        for group in groups
    ]
    return torch.cat(squares).round_().clamp_(0, 255).byte().permute(0, 2, 3, 1)


def enlarged(path: Path, side: int) -> bytes:
    """A photograph with a shorter side of so many px, as a JPEG."""
    image = Image.open(path).convert("RGB")
    scale = side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    stream = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def decode_whole(
    source: bytes, path: str, *, min_side: int | None = None
) -> tuple[Image.Image, ImageFacts]:
    """As `decode_here`, at the full size whatever is needed."""
    return decode_here(source, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--bad", type=int, default=37)
    parser.add_argument("--network", choices=("mini", "means"), default="mini")
    parser.add_argument("--processes", action="store_true", help="the last table alone")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--scaled", action="store_true", help="scaled decoding of FOLDER's JPEGs")
    given = parser.parse_args()
    if given.scaled:
        compare_scaled(given.folder)
        return
    if given.measure:
        print(json.dumps(measure(given.folder, given.network)))
        return
    for size in [] if given.processes else given.sizes:
        root = given.folder / str(size)
        spoilt = make_folder(root, size, given.bad)
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                [sys.executable, __file__, str(root), "--measure", "--network", given.network],
                env={**os.environ, "HEADSTART_CACHE": cache},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        found = json.loads(done.stdout)
        problems = found.pop("problems")
        exact = sorted(spoilt) == problems
        print({**found, "bad_named": len(problems), "exactly_the_bad": exact}, flush=True)
    compare_processes(given.network)


if __name__ == "__main__":
    main()
