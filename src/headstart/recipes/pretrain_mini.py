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
same number of threads. A GPU draws other random numbers than a processor.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from headstart.backbones.mini import MiniNet
from headstart.errors import UsageError
from headstart.files import digest_file, locked, make_folder, write_csv, write_whole
from headstart.finetune.records.checkpoints import (
    IDENTITY,
    check_identity,
    load_checkpoint,
    save_checkpoint,
)
from headstart.progress import Advance, Progress
from headstart.recipes.augmenting import Variation, augment, mix, normalise
from headstart.recipes.packs import TRAIN, VAL, Labelled, check_labels, check_pack, load_pack
from headstart.recipes.spec import RECIPES, RecipeSpec
from headstart.runtime import available_devices, best_precision, choose_execution

CHECKPOINT, LOG = "last.pt", "pretrain.csv"


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

    def __post_init__(self) -> None:
        """Refuse a schedule that cannot be.

        Raises:
            UsageError: no epoch at all, or a warm-up that would not end.
        """
        if not all(size > 0 and epochs > 0 for size, epochs in self.sizes):
            raise UsageError(
                f"`sizes` must be pairs of px and epochs above 0, got {self.sizes}. Correct them."
            )
        if not 0 <= self.warmup_epochs < self.num_epochs:
            raise UsageError(
                f"`warmup_epochs` must be below the {self.num_epochs} epochs of `sizes`, got "
                f"{self.warmup_epochs:g}. Train for longer, or warm up for less."
            )

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


def learning_rate(step: int, steps_per_epoch: int, settings: PretrainSettings) -> float:
    """Linear warm-up to the peak, then a line down to zero at the last step."""
    total = settings.num_epochs * steps_per_epoch
    warmup = max(1.0, settings.warmup_epochs * steps_per_epoch)
    return settings.peak_lr * min((step + 1) / warmup, (total - step) / (total - warmup))


def pretraining_device(asked: str = "auto") -> str:
    """'cuda' where there is a GPU, else 'cpu'; or what is asked for.

    Raises:
        UsageError: it is not there.
        GpuError: the GPU cannot compute.
    """
    if asked == "auto":
        asked = "cuda" if "cuda" in available_devices() else "cpu"
    return choose_execution(asked).device


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
    exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no other
    total = torch.zeros((), dtype=exact, device=device)
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
    device: str = "auto",
) -> Path:
    """Train and write the 16-bit backbone without its classifier, log and curve.

    Args:
        data_dir: folder of `train.parquet` and `val.parquet`, see `headstart.recipes.packs`.
        out_dir: folder of log, checkpoint and weights; what is there is gone on from.
        settings: everything that decides the weights; None for those of the recipe.
        progress: silent where None.
        device: 'auto' takes a GPU where there is one; or 'cpu', 'cuda', 'mps'.

    Returns:
        The path of `mini.safetensors`.

    Raises:
        DataError: the pack is not there or another one.
        ResumeError: the folder holds a training with other settings or data.
        UsageError: the device is not there.
        StorageError: the disk is full.
    """
    settings, progress = settings or PretrainSettings(), progress or Progress()
    check_pack(data_dir)
    device = pretraining_device(device)
    make_folder(out_dir)
    with locked(out_dir):
        files = {name: digest_file(data_dir / name) for name in (TRAIN, VAL)}
        identity = {"settings": plain(settings), "device": device, **files}
        with progress.phase("Decoding", 0) as advance:
            train, val = (load_pack(data_dir / name, advance) for name in (TRAIN, VAL))
        check_labels(data_dir, train[1], val[1], settings.batch_size)
        train, val = placed(train, device), placed(val, device)
        backbone, log = train_network(train, val, out_dir, settings, identity, progress)
        write_curve(out_dir / "pretrain.png", log)
        return write_weights(backbone, out_dir / "mini.safetensors", settings)


Log = list[dict[str, float]]  # a line an epoch


def placed(data: Labelled, device: str) -> Labelled:
    """Pictures and labels on the device that trains."""
    return data[0].to(device), data[1].to(device)


def train_network(
    train: Labelled,
    val: Labelled,
    folder: Path,
    settings: PretrainSettings,
    identity: dict[str, str],
    progress: Progress,
) -> tuple[MiniNet, Log]:
    """The trained backbone and its log, from the checkpoint in `folder` where there is one.

    Args:
        train: pictures and labels, on the device.
        val: of other pictures.
        folder: of log and checkpoint.
        settings: everything that decides the weights, beside the data.
        identity: settings, data and device, which a checkpoint must agree with.
        progress: told.

    Raises:
        ResumeError: the checkpoint is of other settings or data.
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
    log = restore(folder / CHECKPOINT, model, optimizer, identity)
    if not log and (folder / CHECKPOINT).exists():
        progress.note(f"The checkpoint '{folder / CHECKPOINT}' is damaged; training begins anew.")
    write_log(folder, log)  # it may have died between the checkpoint and this
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
        save_checkpoint(folder / CHECKPOINT, {**state, IDENTITY: json.dumps(identity)})
        write_log(folder, log)
    return backbone, log


def write_log(folder: Path, log: Log) -> None:
    """`pretrain.csv`: a line an epoch."""
    if log:
        write_csv(folder / LOG, list(log[0]), [list(line.values()) for line in log])


def restore(
    checkpoint: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, str],
) -> Log:
    """Load a checkpoint where there is a whole one; gives the log of its epochs, else none.

    Raises:
        ResumeError: it was written with other settings or data.
    """
    state = load_checkpoint(checkpoint)
    if state is None:
        return []
    check_identity(state, identity, checkpoint)
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
    data = save(contiguous, metadata=metadata)  # its own way to a file hides a full disk
    write_whole(path, lambda aside: aside.write_bytes(data))
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


def run(data: Path, out: Path, progress: Progress, device: str) -> Mapping[str, Any]:
    """The recipe as the command line calls it."""
    path = pretrain(data, out, progress=progress, device=device)
    with (out / LOG).open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {
        "weights": str(path),
        "sha256": digest_file(path),
        "val_accuracy": float(last["val_accuracy"]),
        "log": str(out / LOG),
        "curve": str(out / "pretrain.png"),
    }


PRETRAIN_MINI = RECIPES.register(
    RecipeSpec(
        name="pretrain-mini",
        summary="pretrain `mini`, the network in the box",
        data="folder of the Tiny-ImageNet pack: train.parquet and val.parquet, 64 px",
        expected="accuracy near 0.50 on val.parquet; minutes on a GPU, hours on two cores",
        run=run,
    )
)
