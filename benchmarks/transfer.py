"""What `mini` transfers: probe and fine-tuning against training from scratch, raw pixels and HOG.

    python benchmarks/transfer.py --packs DIR --out results.jsonl [--data flowers5,cats-dogs]
        [--methods probe,probe64,full,scratch,pixels,hog] [--seeds 3] [--table]

`--packs` is a folder of unpacked packs (flowers5/, cats-dogs/, cxr-pneumonia/, ...) and of
cifar10/train.parquet and test.parquet. Needs `pip install scikit-image` for HOG.

For every data set and seed a fifth of the images (of CIFAR-10 2,000 of its own test images) is
held out, by class and whole patients. All methods learn from the same rest and answer the same
test images:

    probe     logistic head on frozen `mini` at 96 px, its default; penalty chosen inside
    probe2    the same on the means of its last two stages, each of length one (`--layers 2`)
    probe64   the first at 64 px, the size at which the next two are trained
    full      everything learns, from the probe; epoch chosen on an inner part of the same
    scratch   the same network from random weights, more epochs, epoch chosen the same way
    pixels    logistic head on 32 x 32 RGB pixels
    hog       logistic head on histograms of oriented gradients of the grey 96 px picture

Every answer is appended to `--out` at once, so that an interrupted run goes on. The table gives
mean accuracy over seeds; differences to the probe are paired image by image (a picture's mean over
the seeds that tested it) with the bootstrap over images, or patients where there are.

Development packs are flowers5, cats-dogs and cifar10; the others are for the table only.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.backbones import Network, build_network, find_backbone
from headstart.comparison import paired_bootstrap
from headstart.data import load_table
from headstart.files import digest_file
from headstart.finetune import TrainingData, TrainSettings, fit_network
from headstart.finetune.batches.images import prepare_images
from headstart.finetune.fitting import predict_logits as tuned_logits
from headstart.heads import fit_with_chosen_penalty, penalty_path, predict_logits
from headstart.inference import FeatureExtractor, ImageList
from headstart.progress import Progress
from headstart.records import UNLABELLED
from headstart.runtime import Execution, choose_execution, machine
from headstart.splitting import hold_out

DEVELOPMENT = ("flowers5", "cats-dogs", "cifar10-25", "cifar10-1000")
REPORTED = ("caltech101", "cxr-pneumonia", "cars", "pacs")
METHODS = ("probe", "probe2", "probe64", "full", "scratch", "pixels", "hog")
TRAIN_SIZE, PROBE_SIZE = 64, 96
NO_FLIP = {"cxr-pneumonia": "xray"}  # augmentation of a data set; all others 'light'
CIFAR_TEST = 2000
CIFAR_SEEDS = 3  # whose training images are decoded
EPOCHS = ((500, 20), (2000, 8), (5000, 5), (10**9, 4))  # up to so many images: so many passes


@dataclass(frozen=True, eq=False)
class Pack:
    """Pictures at both sizes, labels, groups, and who is tested for a seed."""

    pixels: dict[int, torch.Tensor]  # size -> (N, S, S, 3) uint8
    labels: np.ndarray
    groups: np.ndarray | None
    test: Callable[[int], np.ndarray]  # seed -> (N,) bool
    train: Callable[[int], np.ndarray]


def load_pack(name: str, packs: Path) -> Pack:
    """Decode one data set at both sizes."""
    if name.startswith("cifar10"):
        return load_cifar(packs / "cifar10", int(name.rpartition("-")[2]))
    options: dict[str, Any] = {"group_by": "patient_id"} if name == "cxr-pneumonia" else {}
    if name == "pacs":
        table = load_table(str(pacs_manifest(packs / "pacs")))
    else:
        place = packs / {"cars": "cars/crop"}.get(name, name)
        table = load_table(str(place), **options)
    kept = np.array(
        [
            label != UNLABELLED and table.label_of(row) != "BACKGROUND_Google"
            for row, label in enumerate(table.labels)
        ]
    )
    rows = np.flatnonzero(kept)
    groups = None if table.groups is None else np.asarray(table.groups)[rows]
    _, labels = np.unique(np.asarray(table.labels)[rows], return_inverse=True)
    pixels = {}
    for size in (TRAIN_SIZE, PROBE_SIZE):
        prepared = prepare_images(table, on_cpu(random_mini(size)), progress=Progress())
        assert prepared.good[rows].all()
        pixels[size] = prepared.pixels[torch.from_numpy(rows)]
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1]

    def test(seed: int) -> np.ndarray:
        return hold_out(labels, 0.2, groups=codes, seed=seed)

    return Pack(pixels, labels, codes, test, lambda seed: ~test(seed))


def pacs_manifest(folder: Path) -> Path:
    """All four domains of PACS as one table: the class is the folder, the domain the source."""
    path = Path(tempfile.mkdtemp(prefix="pacs-")) / "pacs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "source"])
        for picture in sorted(folder.resolve().glob("*/*/*.jpg")):
            writer.writerow([str(picture), picture.parent.name, picture.parent.parent.name])
    return path


def load_cifar(folder: Path, per_class: int) -> Pack:
    """CIFAR-10: 2,000 fixed test images, `per_class` training images a seed."""
    import pyarrow.parquet as pq

    blobs: list[bytes] = []
    found: list[int] = []
    sizes = []
    for part in ("train", "test"):
        table = pq.read_table(folder / f"{part}.parquet", columns=["image", "label"])
        part_labels = np.array(table.column("label").to_pylist())
        generator = np.random.default_rng(0)
        rows = generator.permutation(len(part_labels))
        if part == "test":
            rows = rows[:CIFAR_TEST]
        else:  # those of all seeds, decoded once
            rows = np.concatenate(
                [rows[part_labels[rows] == c][: CIFAR_SEEDS * per_class] for c in range(10)]
            )
        images = table.column("image").to_pylist()
        blobs += [images[i]["bytes"] if isinstance(images[i], dict) else images[i] for i in rows]
        found += part_labels[rows].tolist()
        sizes.append(len(rows))
    labels = np.array(found)
    is_test = np.arange(len(labels)) >= sizes[0]
    source = ImageList(blobs, [f"{i}.webp" for i in range(len(blobs))])
    pixels = {
        size: prepare_images(source, on_cpu(random_mini(size)), progress=Progress()).pixels
        for size in (TRAIN_SIZE, PROBE_SIZE)
    }

    def train(seed: int) -> np.ndarray:
        chosen = np.zeros(len(labels), dtype=bool)
        for label in range(10):
            rows = np.flatnonzero((labels == label) & ~is_test)
            chosen[rows[seed * per_class : (seed + 1) * per_class]] = True
        return chosen

    return Pack(pixels, labels, None, lambda _seed: is_test, train)


def random_mini(size: int, seed: int = 0) -> Network:
    return build_network(find_backbone("mini"), weights="none", image_size=size, seed=seed)


def trained_mini(size: int, weights: str, layers: str | None = None) -> Network:
    return build_network(find_backbone("mini"), weights=weights, image_size=size, layers=layers)


def on_cpu(network: Network) -> FeatureExtractor:
    return FeatureExtractor(network, EXECUTION)


EXECUTION: Execution = choose_execution("auto", "auto")


def features(network: Network, pixels: torch.Tensor) -> torch.Tensor:
    extractor = on_cpu(network)
    parts = [
        torch.from_numpy(extractor.forward(pixels[start : start + 64])).float()
        for start in range(0, len(pixels), 64)
    ]
    return torch.cat(parts)


def fit_probe(
    x: torch.Tensor, pack: Pack, train: np.ndarray, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(C, D) coefficients and (C,) intercepts, the penalty chosen on an inner fifth."""
    inner = np.zeros(len(train), dtype=bool)
    rows = np.flatnonzero(train)
    groups = None if pack.groups is None else pack.groups[rows]
    inner[rows] = hold_out(pack.labels[rows], 0.2, groups=groups, seed=seed + 100)
    fit = fit_with_chosen_penalty(
        x,
        torch.from_numpy(pack.labels),
        torch.from_numpy(train.astype(np.float32))[None],
        torch.from_numpy(inner)[None],
        penalty_path(),
        int(pack.labels.max()) + 1,
    )
    return fit.coef[0], fit.intercept[0]


def answer_probe(x: torch.Tensor, pack: Pack, seed: int) -> np.ndarray:
    coef, intercept = fit_probe(x, pack, pack.train(seed), seed)
    answers: np.ndarray = predict_logits(x, coef, intercept).argmax(1).numpy()
    return answers


def epochs_for(count: int, method: str) -> int:
    """Passes: more for few images; scratch gets three times as many as fine-tuning."""
    full = next(epochs for most, epochs in EPOCHS if count <= most)
    return 3 * full if method == "scratch" else full


def answer_trained(name: str, pack: Pack, seed: int, method: str, weights: str) -> np.ndarray:
    """Fine-tuning from the probe, or from scratch; the epoch is chosen on an inner part."""
    train = np.flatnonzero(pack.train(seed))
    groups = None if pack.groups is None else pack.groups[train]
    inner = hold_out(pack.labels[train], 0.15, groups=groups, seed=seed + 200)
    data = TrainingData(
        images=pack.pixels[TRAIN_SIZE],
        labels=pack.labels,
        train_rows=train[~inner],
        inner_rows=train[inner],
        num_classes=int(pack.labels.max()) + 1,
    )
    settings = TrainSettings(
        strategy=method,
        epochs=(epochs_for(len(train), method),),
        lr=1e-3 if method == "scratch" else 1e-4,
        batch_size=32 if len(train) < 5000 else 64,
        augmentation=NO_FLIP.get(name, "light"),
        patience=0,
        seed=seed,
    )
    start = None
    if method == "scratch":
        network = random_mini(TRAIN_SIZE, seed)
    else:
        network = trained_mini(TRAIN_SIZE, weights)
        learnt = np.zeros(len(pack.labels), dtype=bool)
        learnt[data.train_rows] = True
        x = features(network, pack.pixels[TRAIN_SIZE])
        start = (fit_probe(x, pack, learnt, seed),)
    tuned = fit_network(network, data, settings, execution=EXECUTION, start_head=start)
    rows = np.flatnonzero(pack.test(seed))
    answers = np.full(len(pack.labels), -1)
    answers[rows] = tuned_logits(tuned, data.images, rows, execution=EXECUTION).argmax(1)
    return answers


def raw_pixels(pack: Pack) -> torch.Tensor:
    chosen = pack.pixels[TRAIN_SIZE].permute(0, 3, 1, 2).float() / 255
    return torch.nn.functional.avg_pool2d(chosen, 2).flatten(1)


def hog(pack: Pack) -> torch.Tensor:
    from skimage.feature import hog as histograms

    grey = pack.pixels[PROBE_SIZE].float().mean(3).numpy()
    found = [
        histograms(picture, orientations=9, pixels_per_cell=(12, 12), cells_per_block=(2, 2))
        for picture in grey
    ]
    return torch.from_numpy(np.stack(found)).float()


def answer(name: str, pack: Pack, seed: int, method: str, weights: str) -> np.ndarray:
    if method in ("full", "scratch"):
        return answer_trained(name, pack, seed, method, weights)
    if method not in KEPT:
        made = {
            "probe": lambda: features(trained_mini(PROBE_SIZE, weights), pack.pixels[PROBE_SIZE]),
            "probe2": lambda: features(
                trained_mini(PROBE_SIZE, weights, "2"), pack.pixels[PROBE_SIZE]
            ),
            "probe64": lambda: features(trained_mini(TRAIN_SIZE, weights), pack.pixels[TRAIN_SIZE]),
            "pixels": lambda: raw_pixels(pack),
            "hog": lambda: hog(pack),
        }
        KEPT[method] = made[method]()
    return answer_probe(KEPT[method], pack, seed)


KEPT: dict[str, torch.Tensor] = {}  # features of the data set at hand


def weights_name(choice: str) -> str:
    """'auto', or a file's name and the beginning of its digest."""
    if choice == "auto":
        return choice
    return f"{Path(choice).name} {digest_file(Path(choice))[:16]}"


def run(options: argparse.Namespace) -> None:
    lines = read_lines(options.out)
    weights = weights_name(options.weights)
    others = {line.get("weights", "auto") for line in lines} - {weights}
    if others:
        raise SystemExit(f"'{options.out}' has answers of other weights ({', '.join(others)}).")
    done = {(line["data"], line["method"], line["seed"]) for line in lines}
    for name in options.data:
        wanted = [
            (method, seed)
            for seed in range(options.seeds)
            for method in options.methods
            if (name, method, seed) not in done
        ]
        if not wanted:
            continue
        KEPT.clear()
        pack = load_pack(name, options.packs)
        for method, seed in wanted:
            begun, cpu = time.perf_counter(), time.process_time()
            rows = np.flatnonzero(pack.test(seed))
            answers = answer(name, pack, seed, method, options.weights)
            right = answers[rows] == pack.labels[rows]
            units = rows if pack.groups is None else pack.groups[rows]
            line = {
                "data": name,
                "method": method,
                "seed": seed,
                "weights": weights,
                "num_train": int(pack.train(seed).sum()),
                "num_classes": int(pack.labels.max()) + 1,
                "accuracy": round(float(right.mean()), 4),
                "wall_s": round(time.perf_counter() - begun, 1),
                "cpu_s": round(time.process_time() - cpu, 1),
                "rows": rows.tolist(),
                "units": units.tolist(),
                "right": right.astype(int).tolist(),
            }
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(
                {k: v for k, v in line.items() if k not in ("rows", "units", "right")}, flush=True
            )


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def by_image(lines: Iterable[dict[str, Any]]) -> dict[int, tuple[float, int]]:
    """Row -> mean of right over the seeds that tested it, and its unit."""
    found: dict[int, list[float]] = {}
    units: dict[int, int] = {}
    for line in lines:
        for row, unit, right in zip(line["rows"], line["units"], line["right"], strict=True):
            found.setdefault(row, []).append(right)
            units[row] = unit
    return {row: (float(np.mean(values)), units[row]) for row, values in found.items()}


def difference(lines: list[dict[str, Any]], name: str, first: str, second: str) -> str:
    """Accuracy of the first minus the second in points, paired, with its 95 % interval."""
    of = {
        method: {
            line["seed"]: line for line in lines if (line["data"], line["method"]) == (name, method)
        }
        for method in (first, second)
    }
    seeds = sorted(of[first].keys() & of[second].keys())
    if not seeds:
        return ""
    ones = by_image(of[first][seed] for seed in seeds)
    others = by_image(of[second][seed] for seed in seeds)
    rows = sorted(ones)
    found = paired_bootstrap(
        np.array([ones[row][0] for row in rows]),
        np.array([others[row][0] for row in rows]),
        groups=np.array([ones[row][1] for row in rows]),
        seed=0,
    )
    assert found.value is not None
    if found.interval is None:
        return f"{100 * found.value:+.1f}"
    low, high = 100 * found.interval.low, 100 * found.interval.high
    return f"{100 * found.value:+.1f} [{low:+.1f}, {high:+.1f}]"


def rival_of(method: str) -> str:
    """The probe that a method is compared with: the one of its size."""
    return "probe64" if method in ("full", "scratch") else "probe"


def table(path: Path) -> None:
    """The two tables as Markdown."""
    lines = read_lines(path)
    names = [n for n in (*DEVELOPMENT, *REPORTED) if any(line["data"] == n for line in lines)]
    methods = [m for m in METHODS if any(line["method"] == m for line in lines)]
    print(f"\n| data | train / classes | {' | '.join(methods)} |\n|---|---{'|---' * len(methods)}|")
    for name in names:
        own = [line for line in lines if line["data"] == name]
        cells = []
        for method in methods:
            values = [line["accuracy"] for line in own if line["method"] == method]
            few = f" (n = {len(values)})" if 0 < len(values) < 3 else ""
            cells.append(f"{np.mean(values):.3f}{few}" if values else "")
        size = f"{own[0]['num_train']:,} / {own[0]['num_classes']}"
        print(f"| {name} | {size} | {' | '.join(cells)} |")
    others = [m for m in methods if m not in ("probe", "probe64")]
    heads = [f"{m} - probe" if m == "probe2" else f"{rival_of(m)} - {m}" for m in others]
    print(f"\n| data | {' | '.join(heads)} |\n|---{'|---' * len(heads)}|")
    for name in names:
        cells = [
            difference(lines, name, *((m, "probe") if m == "probe2" else (rival_of(m), m)))
            for m in others
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="What mini transfers.")
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default=",".join((*DEVELOPMENT, *REPORTED)))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", default="auto", help="of mini: auto, or a file")
    parser.add_argument("--table", action="store_true", help="print the tables and stop")
    options = parser.parse_args()
    if not 1 <= options.seeds <= CIFAR_SEEDS:
        parser.error(f"--seeds must be 1 to {CIFAR_SEEDS}, got {options.seeds}")
    options.data, options.methods = options.data.split(","), options.methods.split(",")
    if not options.table:
        print(machine(), torch.__version__, EXECUTION.key, flush=True)
        run(options)
    table(options.out)


if __name__ == "__main__":
    main()
