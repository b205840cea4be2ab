"""Pretrain `mini` on the Tiny-ImageNet pack: 68,000 pictures of 64 px, 200 classes.

    headstart recipe pretrain-mini --data DIR --out DIR

Expected: accuracy and time stand in the model card, `src/headstart/weights/mini.md`.

What it does. The pictures are decoded once and kept as bytes in memory (0.8 GB). Every batch is
cropped, flipped, recoloured and resized by one affine sampling, so augmentation costs a few
per cent of a step. The resolution grows with the epochs (48 px, then 64 px): the early epochs
cost half and lose nothing (Howard, 2018, "progressive resizing"). SGD with Nesterov momentum,
one warm-up and a linear decay to zero; channels-last, bf16 where the processor has it. No label
smoothing: it raises the accuracy on the pretraining classes and lowers that of a linear probe on
other data (Kornblith et al., 2021, "Why do better loss functions lead to less transferable
features?").

Where there is a GPU, pictures lie and are varied on it: three minutes on a fast one, hours on two
cores. CutMix and MixUp are here because they were tried (`benchmarks/mini_shapes.py`); the recipe
does without.

Every random choice of epoch e hangs on (seed, e), and a checkpoint is written after each epoch: a
killed run goes on where it stopped and ends with the same weights, on the same machine with the
same number of threads.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from headstart.backbones.mini import MiniNet
from headstart.data import decode
from headstart.data.listed.sheets import open_parquet
from headstart.errors import DataError, ResumeError
from headstart.files import digest_file, locked, make_folder, storage_errors, write_csv, write_whole
from headstart.progress import Advance, Progress
from headstart.recipes.augmenting import Variation, augment, mix, normalise
from headstart.recipes.spec import RECIPES, RecipeSpec
from headstart.runtime import available_devices, best_precision

SIDE = 64  # px of the pack's pictures
TRAIN, VAL = "train.parquet", "val.parquet"


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Everything that decides the weights, beside the data.

    `sizes` gives the resolution of each epoch as (size in px, epochs) pairs in order.
    """

    sizes: tuple[tuple[int, int], ...] = ((48, 22), (64, 8))
    batch_size: int = 256
    peak_lr: float = 0.5
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    variation: Variation = field(default_factory=Variation)
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


def check_pack(data_dir: Path) -> None:
    """Refuse a folder without the two files of the pack, before anything is written.

    Raises:
        DataError: one is not there.
    """
    for path in (data_dir / TRAIN, data_dir / VAL):
        if not path.is_file():
            raise DataError(
                f"The recipe needs '{path}', which is not there. Name the folder of the "
                f"Tiny-ImageNet pack ({TRAIN} and {VAL}) by --data."
            )


def load_pack(path: Path, advance: Advance) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode one parquet pack into (N, 3, 64, 64) uint8 pixels and (N,) int64 labels.

    Raises:
        DataError: it has no columns `image` and `label`, or other sizes.
        MissingExtraError: pyarrow is not installed.
    """
    file = open_parquet(path, f"'{path}'")
    missing = {"image", "label"} - set(file.schema_arrow.names)
    if missing:
        raise DataError(f"'{path}' has no column {', '.join(sorted(missing))}: it is another pack.")
    table = file.read(columns=["image", "label"])
    column = table.column("image").to_pylist()
    raw = [cell["bytes"] if isinstance(cell, dict) else cell for cell in column]
    pixels = torch.empty((len(raw), 3, SIDE, SIDE), dtype=torch.uint8)

    def fill(index: int) -> None:
        picture, _ = decode(raw[index], f"{path.name} row {index}")
        if picture.size != (SIDE, SIDE):
            raise DataError(
                f"The pictures of '{path}' must have {SIDE} x {SIDE} px, row {index} has "
                f"{picture.width} x {picture.height}. Take the Tiny-ImageNet pack."
            )
        pixels[index] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        advance()

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(raw)), chunksize=256))
    labels = torch.tensor(table.column("label").to_pylist(), dtype=torch.int64)
    return pixels, labels


def learning_rate(step: int, steps_per_epoch: int, settings: PretrainSettings) -> float:
    """Linear warm-up to the peak, then a line down to zero at the last step."""
    total = settings.num_epochs * steps_per_epoch
    warmup = max(1.0, settings.warmup_epochs * steps_per_epoch)
    return settings.peak_lr * min((step + 1) / warmup, (total - step) / (total - warmup))


def pretraining_device() -> str:
    """'cuda' where there is a GPU, else 'cpu'."""
    return "cuda" if "cuda" in available_devices() else "cpu"


def half_precision(device: str) -> torch.autocast:
    """bfloat16 autocast where the device has that arithmetic; elsewhere it would be slower."""
    enabled = best_precision(device)[0] == "bfloat16"
    return torch.autocast(device, torch.bfloat16, enabled=enabled)


def repeatable() -> AbstractContextManager[None]:
    """On a GPU the same sums in the same order every time, for a few per cent of the speed."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


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
    order = torch.randperm(count, generator=generator, device=generator.device)
    for start in range(0, count - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


@torch.inference_mode()
def accuracy(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    """Fraction of (N, 3, 64, 64) uint8 pictures whose largest logit is their label."""
    model.eval()
    hits = 0
    for start in range(0, len(pixels), 500):
        x = normalise(pixels[start : start + 500]).to(memory_format=torch.channels_last)
        with half_precision(x.device.type):
            hits += int((model(x).argmax(1) == labels[start : start + 500]).sum())
    return hits / len(pixels)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: tuple[torch.Tensor, torch.Tensor],
    epoch: int,
    settings: PretrainSettings,
    advance: Advance,
) -> float:
    """One pass over the training pictures; returns the mean loss."""
    model.train()
    pixels, labels = data
    device = labels.device
    seed = settings.seed * 100_003 + epoch
    generator, numbers = torch.Generator(device).manual_seed(seed), np.random.default_rng(seed)
    steps = len(pixels) // settings.batch_size
    total = torch.zeros((), dtype=torch.float64, device=device)
    for index, rows in enumerate(batches(len(pixels), settings.batch_size, generator)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch * steps + index, steps, settings)
        x = normalise(pixels[rows])
        x = augment(x, settings.size_of(epoch), settings.variation, generator)
        batch = mix(x, labels[rows], settings.variation, numbers)
        with half_precision(device.type):
            logits = model(batch.x.to(memory_format=torch.channels_last))
        loss = batch.loss(logits.float(), settings.label_smoothing)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        total += loss.detach()
        advance(settings.batch_size)
    return float(total) / steps


def pretrain(
    data_dir: Path,
    out_dir: Path,
    settings: PretrainSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Path:
    """Train and write the 16-bit backbone without its classifier, log and curve.

    Args:
        data_dir: folder of `train.parquet` and `val.parquet`.
        out_dir: folder of log, checkpoint and weights; what is there is gone on from.
        settings: everything that decides the weights; None for those of the recipe.
        progress: silent where None.

    Returns:
        The path of `mini.safetensors`.

    Raises:
        DataError: the pack is not there or another one.
        ResumeError: the folder holds a training with other settings.
        StorageError: the disk is full.
    """
    settings, progress = settings or PretrainSettings(), progress or Progress()
    check_pack(data_dir)
    make_folder(out_dir)
    with locked(out_dir):
        with progress.phase("Decoding", 0) as advance:
            train = placed(load_pack(data_dir / TRAIN, advance))
            val = placed(load_pack(data_dir / VAL, advance))
        backbone, log = train_network(train, val, out_dir, settings, progress)
        write_curve(out_dir / "pretrain.png", log)
        return write_weights(backbone, out_dir / "mini.safetensors", settings)


Labelled = tuple[torch.Tensor, torch.Tensor]
Log = list[dict[str, float]]  # a line an epoch


def placed(data: Labelled) -> Labelled:
    """Pictures and labels on the device that trains."""
    device = pretraining_device()
    return data[0].to(device), data[1].to(device)


def train_network(
    train: Labelled, val: Labelled, folder: Path, settings: PretrainSettings, progress: Progress
) -> tuple[MiniNet, Log]:
    """The trained backbone and its log, from the checkpoint in `folder` where there is one.

    Raises:
        ResumeError: the checkpoint is of other settings.
        StorageError: the disk is full.
    """
    torch.manual_seed(settings.seed)
    backbone = MiniNet()
    model = nn.Sequential(backbone, nn.Linear(MiniNet.num_features, int(train[1].max()) + 1))
    model = model.to(train[0].device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        weight_groups(model, settings.weight_decay),
        lr=settings.peak_lr,
        momentum=settings.momentum,
        nesterov=True,
    )
    log = restore(folder / "last.pt", model, optimizer, settings)
    for epoch in range(len(log), settings.num_epochs):
        begun = time.perf_counter()
        title = f"Epoch {epoch + 1} of {settings.num_epochs}"
        with progress.phase(title, len(train[0])) as advance, repeatable():
            loss = train_epoch(model, optimizer, train, epoch, settings, advance)
        row = {
            "epoch": epoch,
            "size": settings.size_of(epoch),
            "loss": round(loss, 4),
            "val_accuracy": round(accuracy(model, *val), 4),
            "seconds": round(time.perf_counter() - begun, 1),
        }
        log.append(row)
        progress.note(f"{title}: loss {row['loss']}, accuracy {row['val_accuracy']}")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "log": log}
        state["settings"] = plain(settings)
        write_whole(folder / "last.pt", partial(torch.save, state))
        write_csv(folder / "pretrain.csv", list(row), [list(line.values()) for line in log])
    return backbone, log


def restore(
    checkpoint: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: PretrainSettings,
) -> Log:
    """Load a checkpoint where there is one; gives the log of its epochs, else an empty one.

    Raises:
        ResumeError: it was written with other settings.
    """
    if not checkpoint.exists():
        return []
    device = next(model.parameters()).device
    state = torch.load(checkpoint, weights_only=True, map_location=device)
    if state["settings"] != plain(settings):
        raise ResumeError(
            f"'{checkpoint}' was written with other settings of the recipe. Choose another --out."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    log: Log = state["log"]
    return log


def plain(settings: PretrainSettings) -> str:
    """The settings as text, to compare and to keep."""
    return str(asdict(settings))


def write_weights(backbone: nn.Module, path: Path, settings: PretrainSettings) -> Path:
    """The backbone in 16 bits."""
    state = backbone.state_dict()
    weights = {k: (v.half() if v.is_floating_point() else v).cpu() for k, v in state.items()}
    contiguous = {k: v.contiguous() for k, v in weights.items()}
    metadata = {"settings": plain(settings)}
    write_whole(path, lambda aside: save_file(contiguous, aside, metadata=metadata))
    return path


def write_curve(path: Path, log: Log) -> None:
    """Loss and accuracy by epoch."""
    from headstart.plots import pretraining_figure

    figure = pretraining_figure(
        loss=[row["loss"] for row in log],
        accuracy=[row["val_accuracy"] for row in log],
        title="Pretraining of mini",
    )
    write_whole(path, lambda aside: figure.savefig(aside, dpi=110, format="png"))


def run(data: Path, out: Path, progress: Progress) -> Mapping[str, Any]:
    """The recipe as the command line calls it."""
    with storage_errors(out):
        path = pretrain(data, out, progress=progress)
    with (out / "pretrain.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {
        "weights": str(path),
        "sha256": digest_file(path),
        "val_accuracy": float(last["val_accuracy"]),
        "log": str(out / "pretrain.csv"),
        "curve": str(out / "pretrain.png"),
    }


PRETRAIN_MINI = RECIPES.register(
    RecipeSpec(
        name="pretrain-mini",
        summary="pretrain `mini`, the network in the box",
        data="folder of the Tiny-ImageNet pack: train.parquet and val.parquet, 64 px",
        expected="accuracy 0.50 on val.parquet; minutes on a GPU, hours on two cores",
        run=run,
    )
)
