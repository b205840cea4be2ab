"""One pass against the usual way: the whole job beside what a plain loop alone would cost.

    scripts/bench one_pass [--quick] [--repeats 3] [--network ResNet50] [--images 70000] [--mlp]
                           [--loop-images 6400] [--pass-engine eager]

Question. A frozen network gives the same features every epoch and every fold. How near does the
whole job (5 folds x 10 penalties, final fit, test, every file written) come to one plain pass, and
how far is the usual way behind, which runs the frozen network again every epoch of every fold?

Data and network. Fashion-MNIST (idx files under HEADSTART_DATA/fashion-mnist), 6/7 to learn from
and 1/7 to test on, EfficientNetB0 (or `--network`) at 128 px with random weights: the arithmetic is
that of real ones. Imports, building the network and the audit are left out everywhere.

These, in one process, in turn, `repeats` times; medians, and ratios within one repeat:
    job         `run_job` with an empty feature store, less the building of the network; by PyTorch
                unless `--pass-engine` names another engine
    job, mlp    (`--mlp`) the same with the head of the usual way in place of the logistic one,
                5 epochs, batch 16, on the features that `job` has stored: its seconds but for
                reading them, and those of the pass of `job`
    plain loop  decode, resize, normalise, forward channels-last in the precision that the job
                takes here, batch 64, one by one
    forward     the same with the pixels decoded beforehand: the network alone
    engine      the network in the engine of the job (folded, or OpenVINO), pixels decoded
                beforehand
                (all three over `--loop-images`, scaled to all; half before the job, half after it)
    usual       batch 16; every step decodes, resizes, runs the frozen network and trains a head of
                512 and 64 units with Adam; 5 folds x 5 epochs over training and validation part,
                then 5 epochs over all training images, then the test part: 30 N_train + N_test
                images. Timed on a slice and scaled by the number of images; in float32 as users
                run it, and channels-last in the precision of the job (`usual, same`).

Figures of the last recorded run: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from headstart.backbones import Network, build_network, find_backbone
from headstart.data import load_table
from headstart.inference import FeatureExtractor
from headstart.inference.engines import PassWork, choose_engine
from headstart.records import ImageTable
from headstart.runs import RunSettings, run_job
from headstart.runs.files.record import versions
from headstart.runtime import choose_execution, machine

SIZE = 128
BATCH, USUAL_BATCH = 64, 16
FOLDS, EPOCHS = 5, 5
MEAN = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
STD = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)


def write_subset(source: Path, target: Path, num_train: int, num_test: int) -> None:
    """The first images of the idx files, as idx files of their own."""
    for part, count in (("train", num_train), ("t10k", num_test)):
        for kind, header, width in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
            name = f"{part}-{kind}-ubyte"
            path = source / f"{name}.gz"
            raw = (
                gzip.decompress(path.read_bytes())
                if path.exists()
                else (source / name).read_bytes()
            )
            head = bytearray(raw[:header])
            head[4:8] = count.to_bytes(4, "big")
            (target / name).write_bytes(bytes(head) + raw[header : header + count * width])


def pixels_of(table: ImageTable, rows: range) -> torch.Tensor:
    """(B, 3, 128, 128) float32 in [0, 1], decoded one by one as a plain loop does."""
    pictures = []
    for row in rows:
        image = Image.fromarray(table.read(row)).convert("RGB")
        image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pictures.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.stack(pictures).float() / 255


class Plain:
    """A network as it is, without folding, in one precision and layout.

    Attributes:
        module: a copy in that precision and layout.
        dtype: the precision.
        layout: channels-first as users have it, or channels-last.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, layout: torch.memory_format) -> None:
        """Copy the module."""
        self.dtype, self.layout = dtype, layout
        self.module = copy.deepcopy(module).to(dtype).to(memory_format=layout)

    def ready(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised, in the type and layout of the network."""
        return ((x - MEAN) / STD).to(self.dtype).to(memory_format=self.layout)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(B, D) of normalised pixels."""
        values: torch.Tensor = self.module(x)
        return values


def plain_loop(table: ImageTable, network: Plain, count: int) -> float:
    """Seconds to decode and forward so many images once."""
    begun = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, count, BATCH):
            rows = range(start, min(start + BATCH, count))
            network(network.ready(pixels_of(table, rows)))
    return time.perf_counter() - begun


def forward_only(table: ImageTable, network: Plain, count: int) -> float:
    """Seconds of the network alone over as many images, one prepared batch again and again."""
    x = network.ready(pixels_of(table, range(BATCH)))
    begun = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, count, BATCH):
            network(x[: min(BATCH, count - start)])
    return time.perf_counter() - begun


def engine_only(table: ImageTable, extractor: FeatureExtractor, count: int) -> float:
    """Seconds of the job's own engine over as many images, one prepared batch again and again."""
    pixels = (pixels_of(table, range(BATCH)) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    begun = time.perf_counter()
    for start in range(0, count, BATCH):
        extractor.forward(pixels[: min(BATCH, count - start)])
    return time.perf_counter() - begun


def usual_images(num_train: int, num_test: int) -> int:
    """Images that the usual way sends through the frozen network."""
    return FOLDS * EPOCHS * num_train + EPOCHS * num_train + num_test


def usual_way(table: ImageTable, network: Plain, slice_size: int) -> float:
    """Seconds an image of the usual way, over one slice."""
    with torch.inference_mode():
        width = network(network.ready(torch.zeros(1, 3, SIZE, SIZE))).shape[1]
    head = nn.Sequential(
        nn.Linear(width, 512), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(head.parameters(), 1e-4)
    begun = time.perf_counter()
    for start in range(0, slice_size, USUAL_BATCH):
        rows = range(start, start + USUAL_BATCH)
        with torch.no_grad():
            features = network(network.ready(pixels_of(table, rows))).float()
        labels = torch.from_numpy(table.labels[list(rows)])
        loss = nn.functional.cross_entropy(head(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - begun) / slice_size


def whole_job(model: str, out: Path, **settings: object) -> dict[str, float]:
    """Seconds of a job by phase, and of all but the building of the network as 'job'."""
    chosen = RunSettings(
        data="fashion-mnist", model=model, weights="none", image_size=SIZE, out=str(out),
        audit="none", **settings,
    )  # fmt: skip
    begun = time.perf_counter()
    phases = dict(run_job(chosen).record["times"])
    return phases | {"job": time.perf_counter() - begun - phases["network"]}


def measure(table: ImageTable, network: Network, place: Path, options: argparse.Namespace) -> list:
    """One dictionary of seconds a repeat."""
    same = Plain(network.module, choose_execution().dtype, torch.channels_last)
    users = Plain(network.module, torch.float32, torch.contiguous_format)
    num_test = sum(split == "test" for split in table.splits)
    images = usual_images(len(table) - num_test, num_test)
    work = PassWork(architecture=network.spec.architecture, image_size=SIZE,
                    num_images=len(table), frozen=True)  # fmt: skip
    engine = choose_engine(options.pass_engine, work, choose_execution())
    extractor = FeatureExtractor(network, choose_execution(), engine=engine)
    engine_only(table, extractor, BATCH * 2)
    half = min(options.loop_images or len(table), len(table)) // 2
    scale = len(table) / (2 * half)
    plain_loop(table, same, BATCH * 2)  # warm-up
    small = RunSettings(data="digits", image_size=32, out=str(place / "warm-up"))
    os.environ["HEADSTART_CACHE"] = str(place / "warm-up-cache")
    run_job(small)  # loads matplotlib, TensorBoard and the rest, which are left out
    found = []
    for repeat in range(options.repeats):
        os.environ["HEADSTART_CACHE"] = str(place / f"cache{repeat}")
        model, out = options.network, place / f"run{repeat}"
        computed = engine_only(table, extractor, half)
        plain, forward = plain_loop(table, same, half), forward_only(table, same, half)
        job = whole_job(model, out, pass_engine=options.pass_engine)
        seconds = {
            "job": job["job"],
            "plain loop": scale * (plain + plain_loop(table, same, half)),
            "forward": scale * (forward + forward_only(table, same, half)),
            "engine": scale * (computed + engine_only(table, extractor, half)),
            "usual, same": images * usual_way(table, same, options.slice),
            "usual float32": images * usual_way(table, users, options.slice),
        }
        told = {"repeat": repeat, "phases": job}
        if options.mlp:
            settings = {
                "pass_engine": options.pass_engine,
                "head": "mlp",
                "epochs": EPOCHS,
                "batch_size": USUAL_BATCH,
            }
            mlp = whole_job(model, place / f"mlp{repeat}", **settings)
            seconds["job, mlp"] = job["features"] + mlp["job"] - mlp["features"]
            told["phases, mlp"] = mlp
        found.append(seconds)
        shown = {name: round(value, 1) for name, value in seconds.items()}
        print(json.dumps({**told, **shown}), flush=True)
    return found


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description="The whole job against the usual way.")
    parser.add_argument("--network", default="EfficientNetB0")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loop-images", type=int, default=0, help="0 takes all")
    parser.add_argument("--pass-engine", default="eager")
    parser.add_argument("--slice", type=int, default=1024, help="images of the usual way")
    parser.add_argument("--mlp", action="store_true", help="the job with the head of E1 too")
    parser.add_argument("--quick", action="store_true", help="2,100 images, one repeat")
    options = parser.parse_args()
    if options.quick:
        options.images, options.repeats, options.slice = 2_100, 1, 256
    total = options.images
    source = Path(os.environ.get("HEADSTART_DATA", "../shared/data")) / "fashion-mnist"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "fashion-mnist").mkdir()
        write_subset(source, place / "fashion-mnist", total - total // 7, total // 7)
        os.environ["HEADSTART_DATA"] = name
        table = load_table("fashion-mnist")
        network = build_network(find_backbone(options.network), weights="none", image_size=SIZE)
        print(f"{machine()}; {versions()}")
        print(f"{choose_execution().describe()}; n = {options.repeats}, {len(table):,} images")
        found = measure(table, network, place, options)
    for name in found[0]:
        print(f"{name:<16} seconds {spread([entry[name] for entry in found])}")
    pairs = [("job", "plain loop"), ("job", "forward"), ("job", "engine"), ("usual, same", "job"),
             ("usual float32", "job")]  # fmt: skip
    if options.mlp:
        pairs += [("job, mlp", "forward"), ("usual, same", "job, mlp"),
                  ("usual float32", "job, mlp")]  # fmt: skip
    for over, under in pairs:
        ratios = [entry[over] / entry[under] for entry in found]
        print(f"{over} / {under}: {spread(ratios)}")


if __name__ == "__main__":
    main()
