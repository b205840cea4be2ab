"""Pretrain `mini` on the Tiny-ImageNet pack: 68,000 pictures of 64 px, 200 classes.

    python -m headstart.recipes.pretrain_mini --data DIR --out DIR [--continue-from FILE]

Expected: accuracy and time stand in the model card, `src/headstart/weights/mini.md`.

What it does. The pictures are decoded once and kept as bytes in memory (0.8 GB). Every batch is
cropped, flipped, recoloured and resized by one affine sampling, so augmentation costs a few
per cent of a step. The resolution grows with the epochs (48 px, then 64 px): the early epochs
cost half and lose nothing (Howard, 2018, "progressive resizing"). SGD with Nesterov momentum,
one warm-up and a linear decay to zero; channels-last, bf16 where the processor has it. No label
smoothing: it raises the accuracy on the pretraining classes and lowers that of a linear probe on
other data (Kornblith et al., 2021, "Why do better loss functions lead to less transferable
features?").

`--continue-from` begins at a backbone that is there already, with a fresh classifier and a lower
peak (warm restart; Loshchilov and Hutter, 2017, "SGDR"): more epochs without the first ones.

Every random choice of epoch e hangs on (seed, e), and a checkpoint is written after each epoch:
a killed run goes on where it stopped and ends with the same weights.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from headstart.backbones.mini import PIXEL_MEAN, PIXEL_STD, MiniNet
from headstart.backbones.weights import load_state, read_state
from headstart.data import decode
from headstart.runtime import cpu_multiplies_bfloat16


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Everything that decides the weights, beside the data.

    `sizes` gives the resolution of each epoch as (size in px, epochs) pairs in order.
    """

    sizes: tuple[tuple[int, int], ...] = ((48, 12), (64, 6))
    batch_size: int = 256
    peak_lr: float = 0.5
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    min_area_fraction: float = 0.25
    colour_strength: float = 0.3
    grey_fraction: float = 0.1
    seed: int = 0

    @property
    def num_epochs(self) -> int:
        """Epochs in all."""
        return sum(epochs for _, epochs in self.sizes)

    def size_of(self, epoch: int) -> int:
        """Resolution in px of epoch `epoch`, counted from 0."""
        for size, epochs in self.sizes:
            if epoch < epochs:
                return size
            epoch -= epochs
        raise ValueError(f"`epoch` must be below {self.num_epochs}.")


def load_pack(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode one parquet pack into (N, 3, 64, 64) uint8 pixels and (N,) int64 labels."""
    table = pq.read_table(path, columns=["image", "label"])
    column = table.column("image").to_pylist()
    raw = [cell["bytes"] if isinstance(cell, dict) else cell for cell in column]
    pixels = torch.empty((len(raw), 3, 64, 64), dtype=torch.uint8)

    def fill(index: int) -> None:
        picture, _ = decode(raw[index], f"{path.name} row {index}")
        pixels[index] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(raw)), chunksize=256))
    labels = torch.tensor(table.column("label").to_pylist(), dtype=torch.int64)
    return pixels, labels


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Uint8 pixels (B, 3, H, W) -> float32, zero mean and unit deviation a channel."""
    mean = torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1) * 255
    std = torch.tensor(PIXEL_STD).view(1, 3, 1, 1) * 255
    return (pixels.float() - mean) / std


def augment(
    x: torch.Tensor, size: int, settings: PretrainSettings, generator: torch.Generator
) -> torch.Tensor:
    """Crop, flip and resize by one affine sampling, then vary brightness, contrast, colour.

    Args:
        x: (B, 3, 64, 64) normalised pixels.
        size: resolution of the result in px.
        settings: strengths.
        generator: source of every random number.

    Returns:
        (B, 3, size, size) float32.
    """
    count = len(x)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(count).uniform_(low, high, generator=generator)

    area = uniform(settings.min_area_fraction, 1.0)
    ratio = torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2] = uniform(-1, 1) * (1 - width)
    theta[:, 1, 2] = uniform(-1, 1) * (1 - height)
    grid = functional.affine_grid(theta, [count, 3, size, size], align_corners=False)
    x = functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)

    strength = settings.colour_strength
    grey = x.mean(dim=1, keepdim=True)
    saturation = uniform(1 - strength, 1 + strength)
    saturation[uniform(0, 1) < settings.grey_fraction] = 0
    x = torch.lerp(grey, x, saturation.view(-1, 1, 1, 1))
    contrast = uniform(1 - strength, 1 + strength).view(-1, 1, 1, 1)
    return x * contrast + uniform(-strength, strength).view(-1, 1, 1, 1)


def learning_rate(step: int, steps_per_epoch: int, settings: PretrainSettings) -> float:
    """Linear warm-up to the peak, then a line down to zero at the last step."""
    total = settings.num_epochs * steps_per_epoch
    warmup = max(1.0, settings.warmup_epochs * steps_per_epoch)
    return settings.peak_lr * min((step + 1) / warmup, (total - step) / (total - warmup))


def half_precision() -> torch.autocast:
    """bfloat16 autocast where the processor has that arithmetic; elsewhere it would be slower."""
    return torch.autocast("cpu", torch.bfloat16, enabled=cpu_multiplies_bfloat16())


def weight_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay convolutions and the classifier; spare scales, shifts and biases."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Shuffled index batches; the incomplete last one is dropped."""
    order = torch.randperm(count, generator=generator)
    for start in range(0, count - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


@torch.inference_mode()
def accuracy(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    """Fraction of (N, 3, 64, 64) uint8 pictures whose largest logit is their label."""
    model.eval()
    hits = 0
    for start in range(0, len(pixels), 500):
        x = normalise(pixels[start : start + 500]).to(memory_format=torch.channels_last)
        with half_precision():
            hits += int((model(x).argmax(1) == labels[start : start + 500]).sum())
    return hits / len(pixels)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: tuple[torch.Tensor, torch.Tensor],
    epoch: int,
    settings: PretrainSettings,
) -> float:
    """One pass over the training pictures; returns the mean loss."""
    model.train()
    pixels, labels = data
    generator = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
    steps = len(pixels) // settings.batch_size
    total = 0.0
    for index, rows in enumerate(batches(len(pixels), settings.batch_size, generator)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch * steps + index, steps, settings)
        x = augment(normalise(pixels[rows]), settings.size_of(epoch), settings, generator)
        with half_precision():
            logits = model(x.to(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits.float(), labels[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        total += loss.item()
    return total / steps


# A second round: 12 epochs from a backbone of the first.
RESTART = PretrainSettings(sizes=((48, 10), (64, 2)), peak_lr=0.15, seed=1)


def pretrain(
    data_dir: Path, out_dir: Path, settings: PretrainSettings, *, begin: Path | None = None
) -> Path:
    """Train, logging a line an epoch, and write the 16-bit backbone without its classifier.

    Args:
        data_dir: folder of `train.parquet` and `val.parquet`.
        out_dir: folder of log, checkpoint and weights; a checkpoint there is gone on from.
        settings: everything that decides the weights.
        begin: weights of a backbone to begin with; None begins at random ones.

    Returns:
        The path of the safetensors file.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    train, val = load_pack(data_dir / "train.parquet"), load_pack(data_dir / "val.parquet")
    torch.manual_seed(settings.seed)
    backbone = MiniNet()
    if begin is not None:
        load_state(backbone, {k: v.float() for k, v in read_state(begin).items()}, what="mini")
    model = nn.Sequential(backbone, nn.Linear(MiniNet.num_features, int(train[1].max()) + 1))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        weight_groups(model, settings.weight_decay),
        lr=settings.peak_lr,
        momentum=settings.momentum,
        nesterov=True,
    )
    start, checkpoint = 0, out_dir / "last.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["epoch"] + 1
    for epoch in range(start, settings.num_epochs):
        begun = time.perf_counter()
        loss = train_epoch(model, optimizer, train, epoch, settings)
        row = {
            "epoch": epoch,
            "size": settings.size_of(epoch),
            "loss": round(loss, 4),
            "val_accuracy": round(accuracy(model, *val), 4),
            "seconds": round(time.perf_counter() - begun, 1),
        }
        append_row(out_dir / "pretrain.csv", row)
        print(row, flush=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(state, checkpoint.with_suffix(".new"))
        os.replace(checkpoint.with_suffix(".new"), checkpoint)
    weights = {
        k: v.half() if v.is_floating_point() else v for k, v in backbone.state_dict().items()
    }
    contiguous = {k: v.contiguous() for k, v in weights.items()}
    path = out_dir / "mini.safetensors"
    save_file(contiguous, path, metadata={"settings": str(asdict(settings))})
    return path


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Add one line to a CSV file, with a header where the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    """Read the two folders from the command line and pretrain."""
    parser = argparse.ArgumentParser(description="Pretrain mini on the Tiny-ImageNet pack.")
    parser.add_argument("--data", type=Path, required=True, help="folder of train.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder for log and weights")
    parser.add_argument("--continue-from", type=Path, help="weights of a backbone to begin with")
    options = parser.parse_args()
    settings = PretrainSettings() if options.continue_from is None else RESTART
    print(pretrain(options.data, options.out, settings, begin=options.continue_from))


if __name__ == "__main__":
    main()
