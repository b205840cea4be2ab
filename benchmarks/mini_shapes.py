"""Trials for `mini`: which shape, augmentation or schedule gives features that transfer best?

    python benchmarks/mini_shapes.py --packs DIR --out results.jsonl [--trials base,shallow+cutmix]
        [--images 20000] [--sizes 32:6] [--batch 128] [--rate 0.25] [--seed 0] [--keep DIR]
        [--workers 1] [--table]

`--packs` is a folder of unpacked packs (flowers5/, cats-dogs/) and of tiny-imagenet/ and cifar10/
with their parquet files; packs that are not there are not probed.

Question. Pretraining `mini` takes hours on two cores. A trial is the same recipe
(`headstart.recipes.pretrain_mini`) with something changed: `--images` pictures of the pack, as many
of each class, at the sizes and for the epochs of `--sizes` (48:15,64:5 is 15 epochs at 48 px, then
5 at 64 px). The defaults are short trials for a CPU; on a GPU whole trainings run, `--workers` at a
time, and `--keep` writes their weights. Then linear probes, 5 folds with two seeds of folds, on the
development packs alone: flowers5 and cats-dogs at 64 and 96 px, 1,500 of CIFAR-10 at 64 px.
A trial is one training: docs/experiments.md says by how much two of the same differ.

Changes, joined by `+`, of `base`: widths 32, 64, 192, 384 with 1, 1, 2, 2 blocks and strided
convolutions. `lean+shallow+antialias` is `mini` as it is:
    antialias     average pooling before strided convolutions (Zhang, 2019)
    se            squeeze and excitation in every block (Hu et al., 2018)
    deepstem      three 3x3 convolutions in the stem (He et al., 2019)
    depthwise     inverted residuals, expansion 4, kernel 3 (Sandler et al., 2018)
    shallow       one block a stage: half of the operations
    narrow        widths 32, 64, 128, 256: little more than half of the operations
    broad         widths 32, 64, 160, 512: more features
    lean          widths 24, 48, 160, 384
    late          widths 24, 48, 128, 512
    third         one block a stage, two in the third
    early         stride 4 in the stem: a quarter of the operations before stage 2
    smooth        labels smoothed by 0.1
    mixup         pairs mixed by Beta(0.2, 0.2) on half of the batches (Zhang et al., 2018)
    cutmix        on half of the batches (Yun et al., 2019)
    randaugment   two operations of magnitude 7 a group of pictures (Cubuk et al., 2020)
    mildcrop      crops of at least half of the picture
    adamw         AdamW, peak rate 2e-3, decay 0.05

Figures of the recorded trials: docs/experiments.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transfer import load_pack

from headstart.backbones.mini import conv_norm
from headstart.heads import fit_with_chosen_penalty, penalty_path, predict_logits
from headstart.recipes import packs
from headstart.recipes.augmenting import Variation, normalise
from headstart.recipes.pretrain_mini import (
    PretrainSettings,
    accuracy,
    half_precision,
    placed,
    pretraining_device,
    repeatable,
    train_epoch,
    weight_groups,
    write_weights,
)
from headstart.runtime import machine
from headstart.splitting import hold_out, stratified_folds

NUM_CLASSES = 200
PROBES = (("flowers5", 64), ("flowers5", 96), ("cats-dogs", 64), ("cats-dogs", 96), ("cifar10", 64))
SPEED_BATCH, SPEED_SIZE = 256, 64
RANDAUGMENT_GROUPS = 8


class SqueezeExcite(nn.Module):
    """Weights of the channels, from their means."""

    def __init__(self, channels: int) -> None:
        """Fresh weights for so many channels."""
        super().__init__()
        hidden = max(8, channels // 8)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same."""
        return x * self.gate(x)


class Branched(nn.Module):
    """relu(branch(x) + shortcut(x)), the branch's last scale starting at zero."""

    def __init__(self, branch: nn.Sequential, ways: tuple[int, int], stride: int) -> None:
        """The branch beside a shortcut of channels `ways`, in and out."""
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Sequential()
        if stride != 1 or ways[0] != ways[1]:
            pool = [nn.AvgPool2d(2, ceil_mode=True)] if stride == 2 else []
            self.shortcut = nn.Sequential(*pool, *conv_norm(*ways, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        return torch.relu(self.branch(x) + self.shortcut(x))


def relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def basic(
    ways: tuple[int, int], stride: int, *, se: bool = False, antialias: bool = False
) -> nn.Module:
    """Two 3x3 convolutions, with squeeze and excitation or averages in place of strides."""
    if stride == 2 and antialias:
        first = [nn.AvgPool2d(2, ceil_mode=True), *conv_norm(*ways, 3, 1), relu()]
    else:
        first = [*conv_norm(*ways, 3, stride), relu()]
    last = [SqueezeExcite(ways[1])] if se else []
    return Branched(nn.Sequential(*first, *conv_norm(ways[1], ways[1], 3, 1), *last), ways, stride)


def inverted(ways: tuple[int, int], stride: int, expansion: int = 4) -> nn.Module:
    """Widen, filter each channel, narrow."""
    middle = ways[0] * expansion
    depthwise = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
    branch = nn.Sequential(
        *conv_norm(ways[0], middle, 1, 1), relu(), depthwise, nn.BatchNorm2d(middle), relu(),
        *conv_norm(middle, ways[1], 1, 1),
    )  # fmt: skip
    return Branched(branch, ways, stride)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a network is made of.

    Attributes:
        widths: channels of the stages.
        depths: blocks of the stages.
        block: (channels in and out, stride) -> a block.
        stem: convolutions in the stem.
        stem_stride: 2 or 4.
    """

    widths: tuple[int, ...] = (32, 64, 192, 384)
    depths: tuple[int, ...] = (1, 1, 2, 2)
    block: Callable[[tuple[int, int], int], nn.Module] = basic
    stem: int = 1
    stem_stride: int = 2

    def build(self) -> nn.Sequential:
        """(B, 3, H, W) -> (B, D), fresh weights from torch's global generator."""
        width = self.widths[0]
        parts = [*conv_norm(3, width, 3, 2), relu()]
        for _ in range(self.stem - 1):
            parts += [*conv_norm(width, width, 3, 1), relu()]
        if self.stem_stride == 4:
            parts.append(nn.AvgPool2d(2, ceil_mode=True))
        before = width
        for index, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            for position in range(depth):
                stride = 2 if position == 0 and index > (self.stem_stride == 4) else 1
                parts.append(self.block((before, width), stride))
                before = width
        network = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in network.modules():
            if isinstance(module, Branched):
                norms = [part for part in module.branch if isinstance(part, nn.BatchNorm2d)]
                nn.init.zeros_(norms[-1].weight)
        return network


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network and how it is trained.

    Attributes:
        shape: of the network.
        variation: of the pictures.
        smoothing: of the labels.
        strong: RandAugment before all else.
        adam: AdamW in place of SGD.
    """

    shape: Shape = field(default_factory=Shape)
    variation: Variation = field(default_factory=Variation)
    smoothing: float = 0.0
    strong: bool = False
    adam: bool = False

    def shaped(self, **changes: Any) -> Trial:
        """The same with another shape."""
        return replace(self, shape=replace(self.shape, **changes))

    def varied(self, **changes: Any) -> Trial:
        """The same with other augmentation."""
        return replace(self, variation=replace(self.variation, **changes))


def antialiased(ways: tuple[int, int], stride: int) -> nn.Module:
    return basic(ways, stride, antialias=True)


def excited(ways: tuple[int, int], stride: int) -> nn.Module:
    return basic(ways, stride, se=True)


CHANGES: dict[str, Callable[[Trial], Trial]] = {
    "base": lambda t: t,
    "antialias": lambda t: t.shaped(block=antialiased),
    "se": lambda t: t.shaped(block=excited),
    "deepstem": lambda t: t.shaped(stem=3),
    "depthwise": lambda t: t.shaped(block=inverted),
    "shallow": lambda t: t.shaped(depths=(1, 1, 1, 1)),
    "narrow": lambda t: t.shaped(widths=(32, 64, 128, 256)),
    "broad": lambda t: t.shaped(widths=(32, 64, 160, 512)),
    "lean": lambda t: t.shaped(widths=(24, 48, 160, 384)),
    "late": lambda t: t.shaped(widths=(24, 48, 128, 512)),
    "third": lambda t: t.shaped(depths=(1, 1, 2, 1)),
    "early": lambda t: t.shaped(stem_stride=4),
    "smooth": lambda t: replace(t, smoothing=0.1),
    "mixup": lambda t: t.varied(mixup_fraction=0.5),
    "cutmix": lambda t: t.varied(cutmix_fraction=0.5),
    "randaugment": lambda t: replace(t, strong=True),
    "mildcrop": lambda t: t.varied(min_area_fraction=0.5),
    "adamw": lambda t: replace(t, adam=True),
}


def trial_of(name: str) -> Trial:
    """The trial of changes joined by `+`.

    Raises:
        ValueError: one is not known.
    """
    trial = Trial()
    for change in name.split("+"):
        if change not in CHANGES:
            raise ValueError(f"unknown change {change}; known: {', '.join(CHANGES)}")
        trial = CHANGES[change](trial)
    return trial


def chosen_pictures(labels: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the first so many pictures, as many of each class, in the pack's order.

    With all of them a trial shuffles as the recipe does.
    """
    each = count // NUM_CLASSES
    return torch.cat([(labels == c).nonzero()[:each, 0] for c in range(NUM_CLASSES)]).sort().values


class Strengthened:
    """Pictures that every look at varies by RandAugment, other operations for every group."""

    def __init__(self, pixels: torch.Tensor) -> None:
        """Of (N, 3, H, W) uint8 pixels."""
        from torchvision.transforms.v2 import RandAugment

        self.pixels, self.policy = pixels, RandAugment(num_ops=2, magnitude=7)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.pixels)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Those at (B,) rows."""
        parts = self.pixels[rows].chunk(RANDAUGMENT_GROUPS)
        return torch.cat([self.policy(part) for part in parts])


def settings_of(trial: Trial, options: argparse.Namespace) -> PretrainSettings:
    pairs = [part.split(":") for part in options.sizes.split(",")]
    settings = PretrainSettings(
        sizes=tuple((int(size), int(epochs)) for size, epochs in pairs),
        batch_size=options.batch,
        peak_lr=options.rate,
        label_smoothing=trial.smoothing,
        variation=trial.variation,
        seed=options.seed,
    )
    return replace(settings, peak_lr=2e-3, weight_decay=0.05) if trial.adam else settings


def train(
    trial: Trial, data: tuple[torch.Tensor, torch.Tensor], options: argparse.Namespace
) -> tuple[nn.Sequential, float]:
    """The trained network with its classifier, and the last mean loss."""
    settings = settings_of(trial, options)
    torch.manual_seed(options.seed)
    model = nn.Sequential(trial.shape.build(), nn.Linear(trial.shape.widths[-1], NUM_CLASSES))
    model = model.to(data[0].device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = weight_groups(model, settings.weight_decay)
    optimizer: torch.optim.Optimizer
    if trial.adam:
        optimizer = torch.optim.AdamW(groups, lr=settings.peak_lr)
    else:
        optimizer = torch.optim.SGD(groups, lr=settings.peak_lr, momentum=0.9, nesterov=True)
    pixels: Any = Strengthened(data[0]) if trial.strong else data[0]
    loss = float("nan")
    for epoch in range(settings.num_epochs):
        begun = time.perf_counter()
        with repeatable():
            loss = train_epoch(
                model, optimizer, (pixels, data[1]), epoch, settings, lambda count=1: None
            )
        spent = time.perf_counter() - begun
        print(f"  {options.name} {epoch + 1}: loss {loss:.3f}, {spent:.1f} s", flush=True)
    return model, loss


@torch.inference_mode()
def features(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """(N, S, S, 3) uint8 -> (N, D)."""
    network.eval()
    parts = []
    device = next(network.parameters()).device
    for part in pixels.split(128):
        x = normalise(part.to(device).permute(0, 3, 1, 2))
        with half_precision(device.type):
            parts.append(network(x.contiguous(memory_format=torch.channels_last)).float().cpu())
    return torch.cat(parts)


def probe(x: torch.Tensor, labels: np.ndarray, seed: int) -> float:
    """Out-of-fold accuracy of 5 folds, each with a penalty chosen inside."""
    names = [str(label) for label in range(int(labels.max()) + 1)]
    fold = stratified_folds(labels, 5, class_names=names, seed=seed)
    train_rows = np.stack([fold != k for k in range(5)])
    inner = np.zeros_like(train_rows)
    for k in range(5):
        rows = np.flatnonzero(train_rows[k])
        inner[k, rows] = hold_out(labels[rows], 0.2, seed=seed + 100 + k)
    fit = fit_with_chosen_penalty(
        x,
        torch.from_numpy(labels),
        torch.from_numpy(train_rows.astype(np.float32)),
        torch.from_numpy(inner),
        penalty_path(),
        int(labels.max()) + 1,
    )
    answers = predict_logits(x, fit.coef, fit.intercept).argmax(2).numpy()
    return float((answers[fold, np.arange(len(labels))] == labels).mean())


def probes(network: nn.Module, packs: dict[str, Any]) -> dict[str, float]:
    """Mean over two seeds of folds, by pack and size."""
    found = {}
    for name, size in PROBES:
        if name not in packs:
            continue
        pixels, labels = packs[name]
        x = features(network, pixels[size])
        accuracies = [probe(x, labels, seed) for seed in (0, 1)]
        found[f"{name} {size}"] = round(float(np.mean(accuracies)), 4)
    return found


@torch.inference_mode()
def speed(network: nn.Module) -> float:
    """Images/s at 64 px on the CPU, median of 5 batches."""
    network.cpu().eval()
    x = torch.randn(SPEED_BATCH, 3, SPEED_SIZE, SPEED_SIZE)
    x = x.to(memory_format=torch.channels_last)
    times = []
    for _ in range(6):
        begun = time.process_time()
        with half_precision("cpu"):
            network(x)
        times.append((time.process_time() - begun) / torch.get_num_threads())
    return round(SPEED_BATCH / float(np.median(times[1:])))


def operations(network: nn.Module) -> float:
    """GFLOP of a picture of 64 px."""
    from torch.utils.flop_counter import FlopCounterMode

    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, SPEED_SIZE, SPEED_SIZE))
    return round(counter.get_total_flops() / 1e9, 3)


def load_packs(folder: Path) -> dict[str, Any]:
    """Pixels by size, and labels, of the development packs that are there."""
    found = {}
    for name in ("flowers5", "cats-dogs"):
        if (folder / name).exists():
            pack = load_pack(name, folder)
            found[name] = (pack.pixels, pack.labels)
    if (folder / "cifar10").exists():
        pack = load_pack("cifar10-50", folder)
        rows = ~pack.test(0)  # the 1,500 of its training part
        kept = {size: pixels[torch.from_numpy(rows)] for size, pixels in pack.pixels.items()}
        found["cifar10"] = (kept, pack.labels[rows])
    return found


SHARED: dict[str, Any] = {}


def prepare_worker(aside: Path) -> None:
    """Load in a worker what every trial needs."""
    SHARED.update(torch.load(aside, mmap=True, weights_only=False))
    torch.set_num_threads(max(1, torch.get_num_threads() // SHARED["workers"]))
    device = pretraining_device()
    SHARED["train"], SHARED["val"] = placed(SHARED["train"], device), placed(SHARED["val"], device)


def run_trial(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train and probe one."""
    begun = time.perf_counter()
    options.name = name
    trial = trial_of(name)
    model, loss = train(trial, SHARED["train"], options)
    spent = time.perf_counter() - begun
    network = model[0]
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        write_weights(network, options.keep / f"{name}.safetensors", settings_of(trial, options))
    line = {
        "trial": name,
        **asked(options),
        "images": len(SHARED["train"][1]),
        "parameters_m": round(sum(p.numel() for p in network.parameters()) / 1e6, 2),
        "gflop": operations(trial.shape.build()),
        "loss": round(loss, 3),
        "val": round(accuracy(model, *SHARED["val"]), 4),
        "seconds": round(spent),
        **probes(network, SHARED["packs"]),
    }
    on_gpu = SHARED["train"][1].is_cuda  # then this processor's speed is beside the point
    return {**line, "images_s": "" if on_gpu else speed(network)}


def asked(options: argparse.Namespace) -> dict[str, Any]:
    """What decides a trial beside its name."""
    names = ("seed", "sizes", "batch", "rate")
    return {name: getattr(options, name) for name in names} | {"wanted_images": options.images}


def run(options: argparse.Namespace) -> None:
    own = asked(options)
    done = {
        line["trial"]
        for line in read_lines(options.out)
        if {name: line.get(name) for name in own} == own
    }
    wanted = [name for name in options.trials if name not in done]
    if not wanted:
        return
    folder = options.packs / "tiny-imagenet"
    pixels, labels = packs.load_pack(folder / "train.parquet", lambda count=1: None)
    rows = chosen_pictures(labels, options.images)
    shared = {
        "train": (pixels[rows], labels[rows]),
        "val": packs.load_pack(folder / "val.parquet", lambda count=1: None),
        "packs": load_packs(options.packs),
        "workers": options.workers,
    }
    aside = options.out.with_suffix(".pt")
    torch.save(shared, aside)
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(
            options.workers, context, initializer=prepare_worker, initargs=(aside,)
        ) as pool:
            trials = {pool.submit(run_trial, n, options): n for n in wanted}
            for future in as_completed(trials):
                if future.exception() is not None:  # the others go on
                    print(f"{trials[future]} failed: {future.exception()!r}", flush=True)
                    continue
                with options.out.open("a") as file:
                    file.write(json.dumps(future.result()) + "\n")
                print(future.result(), flush=True)
    finally:
        aside.unlink()


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(path: Path) -> None:
    """The trials as Markdown."""
    names = [f"{name} {size}" for name, size in PROBES]
    print(f"\n| trial | M | GFLOP | images/s | loss | val | {' | '.join(names)} |")
    print(f"|---|---|---|---|---|---|{'---|' * len(names)}")
    for line in read_lines(path):
        cells = [f"{line[name]:.3f}" if name in line else "" for name in names]
        print(
            f"| {line['trial']} | {line['parameters_m']} | {line['gflop']} | {line['images_s']}"
            f" | {line['loss']:.2f} | {line['val']:.3f} | {' | '.join(cells)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Short trials for mini.")
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", default=",".join(CHANGES))
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--sizes", default="32:6", help="SIZE:EPOCHS,...")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.25)
    parser.add_argument("--workers", type=int, default=1, help="trials at a time")
    parser.add_argument("--keep", type=Path, help="folder for the weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    options = parser.parse_args()
    options.trials = options.trials.split(",")
    for name in options.trials:
        try:
            settings_of(trial_of(name), options)
        except ValueError as error:
            parser.error(str(error))
    if not options.table:
        print(machine(), torch.__version__, f"{torch.get_num_threads()} thread(s)", flush=True)
        run(options)
    table(options.out)


if __name__ == "__main__":
    main()
