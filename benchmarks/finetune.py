"""Fine-tuning: images a second against a plain loop, and what the freeze-point cache saves.

    OMP_NUM_THREADS=2 python benchmarks/finetune.py [--model mini] [--size 128] [--images 128]

Both loops train everything, in the same process, in turn, on the same pixels in the same batches
with the same optimizer; the plain one is what timm's script does a step, without its workers. The
cache is measured on the last stage: an epoch with the activations read back against one that runs
the frozen stages again. Printed: versions, machine, the median of the epochs after the first, in
seconds of the processor, which other work on the machine disturbs less than wall time (on a GPU
they say little).
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from torch import nn

from headstart.backbones import Network, build_network, find_backbone
from headstart.finetune import TrainingData, TrainSettings, TunedNetwork, fit_network
from headstart.inference.preprocessing import normalise
from headstart.runtime import Execution, choose_execution, machine

EPOCHS = 4
CLASSES = 10


def random_data(count: int, size: int) -> TrainingData:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    return TrainingData(
        images=torch.from_numpy(pixels),
        labels=np.arange(count, dtype=np.int64) % CLASSES,
        train_rows=np.arange(count),
        inner_rows=np.empty(0, dtype=np.int64),
        num_classes=CLASSES,
    )


def plain_epochs(
    network: Network, data: TrainingData, batch_size: int, execution: Execution
) -> list[float]:
    import copy

    body = copy.deepcopy(network.module).requires_grad_(True)
    model = nn.Sequential(body, nn.Linear(network.num_features, CLASSES)).train()
    model.to(execution.device)
    if execution.device != "mps":
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    low = execution.dtype == torch.bfloat16
    seconds = []
    for _ in range(EPOCHS):
        begun = time.process_time()
        order = torch.randperm(len(data.images))
        for rows in order.split(batch_size):
            pixels = data.images[rows].to(execution.device)
            x = normalise(pixels, network.preprocessing)
            labels = torch.from_numpy(data.labels)[rows].to(execution.device)
            with torch.autocast(execution.device, torch.bfloat16, enabled=low):
                loss = nn.functional.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        seconds.append(time.process_time() - begun)
    return seconds[1:]


def epochs_of(tuned: TunedNetwork) -> list[float]:
    return [record.cpu_seconds for record in tuned.history][1:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="mini")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    execution = choose_execution()
    network = build_network(
        find_backbone(options.model),
        weights="auto" if options.model == "mini" else "none",
        image_size=options.size,
    )
    data = random_data(options.images, options.size)
    print(f"torch {torch.__version__}, {machine()}, {execution.describe()}")
    print(
        f"{options.model}, {options.size} px, {options.images} images, {options.batch_size} a batch"
    )

    def ours(strategy: str, cache: str = "auto") -> list[float]:
        settings = TrainSettings(
            strategy=strategy, epochs=(EPOCHS,), batch_size=options.batch_size, cache=cache
        )
        return epochs_of(fit_network(network, data, settings, execution=execution))

    loops = {
        "plain loop, everything learns": lambda: plain_epochs(
            network, data, options.batch_size, execution
        ),
        "headstart, everything learns": lambda: ours("full"),
        "headstart, last stage, recomputed": lambda: ours("partial", "off"),
        "headstart, last stage, cached": lambda: ours("partial"),
    }
    for _ in range(2):
        for name, run in loops.items():
            seconds = run()
            rate = options.images / statistics.median(seconds)
            spread = f"{min(seconds):.2f} to {max(seconds):.2f} CPU s an epoch, n = {len(seconds)}"
            print(f"{name:<36} {rate:8.1f} images/CPU-s ({spread})", flush=True)


if __name__ == "__main__":
    main()
