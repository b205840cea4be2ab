"""Short trials for `mini`: which shape, augmentation or average of weights learns faster?

    python benchmarks/mini_shapes.py --packs DIR --out results.jsonl [--trials base,se,depthwise]
        [--images 20000] [--epochs 6] [--size 32] [--seed 0] [--table]

`--packs` is a folder of unpacked packs (flowers5/, cats-dogs/) and of tiny-imagenet/ and cifar10/
with their parquet files.

Question. Pretraining `mini` takes hours on two cores. A trial is a short one of the same recipe
(`headstart.recipes.pretrain_mini`): `--images` pictures of the pack, as many of each class,
`--epochs` passes at `--size` px, batches of 128, peak rate 0.25. Then linear probes, 5 folds with
two seeds of folds, on the development packs alone: flowers5 and cats-dogs at 64 and 96 px, 1,500
pictures of CIFAR-10 at 64 px. A trial is one training, so differences below about two points say
nothing; regularisation (label smoothing, MixUp, CutMix, RandAugment) looks worse in short runs than
it is in long ones, which is a limit of the method.

Trials. `base` is `mini` as it is; every other changes one thing:
    antialias     average pooling before strided convolutions (Zhang, 2019)
    se            squeeze and excitation in every block (Hu et al., 2018)
    deepstem      three 3x3 convolutions in the stem (He et al., 2019)
    depthwise     inverted residuals, expansion 4, kernel 3 (Sandler et al., 2018)
    shallow       one block a stage: half of the operations
    narrow        widths 32, 64, 128, 256: little more than half of the operations
    early         stride 4 in the stem: a quarter of the operations before stage 2
    smooth        labels smoothed by 0.1
    mixup         pairs mixed by Beta(0.2, 0.2) (Zhang et al., 2018)
    cutmix        on half of the batches (Yun et al., 2019)
    randaugment   two operations of magnitude 7 a group of eight pictures (Cubuk et al., 2020)
    adamw         AdamW, peak rate 2e-3, decay 0.05
    average       exponential average of base's weights over about 200 steps, from base's training

Figures of the recorded trials: docs/experiments.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transfer import load_pack

from headstart.backbones.mini import MiniNet, conv_norm
from headstart.heads import fit_with_chosen_penalty, penalty_path, predict_logits
from headstart.recipes import pretrain_mini
from headstart.recipes.pretrain_mini import (
    PretrainSettings,
    accuracy,
    augment,
    batches,
    half_precision,
    learning_rate,
    normalise,
    weight_groups,
)
from headstart.runtime import machine
from headstart.splitting import hold_out, stratified_folds

NUM_CLASSES = 200
VAL_PICTURES = 4999
PROBES = (("flowers5", 64), ("flowers5", 96), ("cats-dogs", 64), ("cats-dogs", 96), ("cifar10", 64))
AVERAGE_DECAY = 0.995
SPEED_BATCH, SPEED_SIZE = 256, 64


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
        norms = [module for module in branch if isinstance(module, nn.BatchNorm2d)]
        self.last_norm = norms[-1]
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
    """`mini`'s block, with squeeze and excitation or averages before strides."""
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
                nn.init.zeros_(module.last_norm.weight)
        return network


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One thing changed."""

    shape: Shape | None = None  # None is `mini` itself
    smoothing: float = 0.0
    mix: str = ""
    strong: bool = False
    adam: bool = False


TRIALS = {
    "base": Trial(),
    "antialias": Trial(shape=Shape(block=lambda w, s: basic(w, s, antialias=True))),
    "se": Trial(shape=Shape(block=lambda w, s: basic(w, s, se=True))),
    "deepstem": Trial(shape=Shape(stem=3)),
    "depthwise": Trial(shape=Shape(block=inverted)),
    "shallow": Trial(shape=Shape(depths=(1, 1, 1, 1))),
    "narrow": Trial(shape=Shape(widths=(32, 64, 128, 256))),
    "early": Trial(shape=Shape(stem_stride=4)),
    "smooth": Trial(smoothing=0.1),
    "mixup": Trial(mix="mixup"),
    "cutmix": Trial(mix="cutmix"),
    "randaugment": Trial(strong=True),
    "adamw": Trial(adam=True),
}


def build(trial: Trial) -> nn.Module:
    return MiniNet() if trial.shape is None else trial.shape.build()


def width_of(trial: Trial) -> int:
    return MiniNet.num_features if trial.shape is None else trial.shape.widths[-1]


def chosen_pictures(labels: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the first so many pictures, as many of each class."""
    each = count // NUM_CLASSES
    return torch.cat([(labels == c).nonzero()[:each, 0] for c in range(NUM_CLASSES)])


def strengthen(pixels: torch.Tensor) -> torch.Tensor:
    """RandAugment of (B, 3, H, W) uint8, other operations for every eight pictures."""
    from torchvision.transforms.v2 import RandAugment

    policy = RandAugment(num_ops=2, magnitude=7)
    return torch.cat([policy(part) for part in pixels.split(8)])


def mixed(
    x: torch.Tensor, labels: torch.Tensor, how: str, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Pictures mixed with others, the others' labels, and the share of the first."""
    order = torch.randperm(len(x), generator=generator)
    numbers = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    if how == "mixup":
        share = float(numbers.beta(0.2, 0.2))
        return share * x + (1 - share) * x[order], labels[order], share
    share = float(numbers.uniform()) if numbers.uniform() < 0.5 else 1.0
    side = x.shape[-1]
    edge = round(side * (1 - share) ** 0.5)
    top, left = numbers.integers(0, side - edge + 1, 2)
    x = x.clone()
    x[:, :, top : top + edge, left : left + edge] = x[
        order, :, top : top + edge, left : left + edge
    ]
    return x, labels[order], 1 - edge**2 / side**2


def train(
    trial: Trial, data: tuple[torch.Tensor, torch.Tensor], options: argparse.Namespace
) -> tuple[nn.Sequential, nn.Sequential, float]:
    """The trained network with its classifier, the average of its weights, the last mean loss."""
    settings = PretrainSettings(
        sizes=((options.size, options.epochs),), batch_size=128, peak_lr=0.25, seed=options.seed
    )
    if trial.adam:
        settings = replace(settings, peak_lr=2e-3, weight_decay=0.05)
    torch.manual_seed(options.seed)
    model = nn.Sequential(build(trial), nn.Linear(width_of(trial), NUM_CLASSES))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model)
    groups = weight_groups(model, settings.weight_decay)
    optimizer: torch.optim.Optimizer
    if trial.adam:
        optimizer = torch.optim.AdamW(groups, lr=settings.peak_lr)
    else:
        optimizer = torch.optim.SGD(groups, lr=settings.peak_lr, momentum=0.9, nesterov=True)
    pixels, labels = data
    steps = len(pixels) // settings.batch_size
    model.train()
    for epoch in range(settings.num_epochs):
        generator = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
        total, begun = 0.0, time.perf_counter()
        for index, rows in enumerate(batches(len(pixels), settings.batch_size, generator)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch * steps + index, steps, settings)
            raw = strengthen(pixels[rows]) if trial.strong else pixels[rows]
            x = augment(normalise(raw), options.size, settings, generator)
            targets, others, share = labels[rows], labels[rows], 1.0
            if trial.mix:
                x, others, share = mixed(x, targets, trial.mix, generator)
            with half_precision():
                logits = model(x.to(memory_format=torch.channels_last)).float()
            loss = share * functional.cross_entropy(
                logits, targets, label_smoothing=trial.smoothing
            )
            if share < 1:
                loss = loss + (1 - share) * functional.cross_entropy(logits, others)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            follow(average, model)
            total += loss.item()
        spent = time.perf_counter() - begun
        print(f"  epoch {epoch + 1}: loss {total / steps:.3f}, {spent:.0f} s", flush=True)
    return model, average, total / steps


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module) -> None:
    """One step of the exponential average; statistics of normalisations are taken as they are."""
    for mean, now in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(now, 1 - AVERAGE_DECAY)
    for mean, now in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(now)


@torch.inference_mode()
def features(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """(N, S, S, 3) uint8 -> (N, D)."""
    network.eval()
    parts = []
    for part in pixels.split(128):
        x = normalise(part.permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
        with half_precision():
            parts.append(network(x).float())
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
        pack = packs[name]
        x = features(network, pack.pixels[size])
        found[f"{name} {size}"] = round(
            float(np.mean([probe(x, pack.labels, seed) for seed in (0, 1)])), 4
        )
    return found


@torch.inference_mode()
def speed(network: nn.Module) -> float:
    """Images/s at 64 px, median of 5 batches."""
    network.eval()
    x = torch.randn(SPEED_BATCH, 3, SPEED_SIZE, SPEED_SIZE)
    x = x.to(memory_format=torch.channels_last)
    times = []
    for _ in range(6):
        begun = time.process_time()
        with half_precision():
            network(x)
        times.append((time.process_time() - begun) / torch.get_num_threads())
    return round(SPEED_BATCH / float(np.median(times[1:])), 1)


def operations(network: nn.Module) -> float:
    """GFLOP of a picture of 64 px."""
    from torch.utils.flop_counter import FlopCounterMode

    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, SPEED_SIZE, SPEED_SIZE))
    return round(counter.get_total_flops() / 1e9, 3)


def run(options: argparse.Namespace) -> None:
    done = {line["trial"] for line in read_lines(options.out) if line["seed"] == options.seed}
    wanted = [name for name in options.trials if name not in done]
    if not wanted:
        return
    folder = options.packs / "tiny-imagenet"
    pixels, labels = pretrain_mini.load_pack(folder / "train.parquet", lambda: None)
    rows = chosen_pictures(labels, options.images)
    data = pixels[rows], labels[rows]
    val = pretrain_mini.load_pack(folder / "val.parquet", lambda: None)
    packs: dict[str, Any] = {n: load_pack(n, options.packs) for n in ("flowers5", "cats-dogs")}
    packs["cifar10"] = few(load_pack("cifar10-50", options.packs))
    for name in wanted:
        trial = TRIALS[name]
        print(f"{name}: {operations(build(trial))} GFLOP", flush=True)
        begun = time.process_time()
        model, average, loss = train(trial, data, options)
        spent = time.process_time() - begun
        for title, trained in ((name, model), ("average", average)):
            if title == "average" and name != "base":
                continue
            network = trained[0]
            line = {
                "trial": title,
                "seed": options.seed,
                "parameters_m": round(sum(p.numel() for p in network.parameters()) / 1e6, 2),
                "gflop": operations(network),
                "images_s": speed(network),
                "loss": round(loss, 3),
                "val": round(accuracy(trained, *val), 4),
                "cpu_s": round(spent),
                **probes(network, packs),
            }
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)


def few(pack: Any) -> Any:
    """The 1,500 training pictures of the pack."""
    rows = ~pack.test(0)
    kept = {size: pixels[torch.from_numpy(rows)] for size, pixels in pack.pixels.items()}
    return replace(pack, pixels=kept, labels=pack.labels[rows])


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(path: Path) -> None:
    """The trials as Markdown."""
    names = [f"{name} {size}" for name, size in PROBES]
    print(f"\n| trial | M | GFLOP | images/s | loss | val | {' | '.join(names)} |")
    print(f"|---|---|---|---|---|---|{'---|' * len(names)}")
    for line in read_lines(path):
        cells = [f"{line[name]:.3f}" for name in names]
        print(
            f"| {line['trial']} | {line['parameters_m']} | {line['gflop']} | {line['images_s']:.0f}"
            f" | {line['loss']:.2f} | {line['val']:.3f} | {' | '.join(cells)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Short trials for mini.")
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", default=",".join(TRIALS))
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    options = parser.parse_args()
    options.trials = options.trials.split(",")
    unknown = set(options.trials) - TRIALS.keys()
    if unknown:
        parser.error(f"unknown trials {', '.join(sorted(unknown))}; known: {', '.join(TRIALS)}")
    if not options.table:
        print(machine(), torch.__version__, f"{torch.get_num_threads()} thread(s)", flush=True)
        run(options)
    table(options.out)


if __name__ == "__main__":
    main()
