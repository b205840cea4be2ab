"""Averages of weights: exponential over steps (EMA), plain over epochs (SWA).

SWA: Izmailov et al., 2018, "Averaging weights leads to wider optima". Buffers such as the
statistics of batch normalisation are averaged like weights; whole numbers are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def snapshot(tensors: Mapping[str, Tensor]) -> Tensors:
    """Copies on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in tensors.items()}


@torch.no_grad()
def restore(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Write values back into living tensors."""
    for name, value in values.items():
        tensors[name].copy_(value)


class WeightAverage:
    """A running mean of some tensors; empty until the first update."""

    def __init__(self, values: Tensors | None = None, count: int = 0) -> None:
        """Begin empty, or go on from stored values."""
        self.values: Tensors = values or {}
        self.count = count

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        """Move towards the tensors: mean = decay * mean + (1 - decay) * value."""
        for name, value in tensors.items():
            mean = self.values.get(name)
            if mean is None or not mean.is_floating_point():
                self.values[name] = value.detach().clone()
            else:
                mean = self.values[name] = mean.to(value.device)
                mean.lerp_(value.detach(), 1 - decay)
        self.count += 1

    def update_exponential(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        """One step of EMA; the memory grows with the steps, so that the start is forgotten."""
        self.update(tensors, min(decay, (1 + self.count) / (10 + self.count)))

    def update_equal(self, tensors: Mapping[str, Tensor]) -> None:
        """One epoch of SWA: every epoch weighs the same."""
        self.update(tensors, self.count / (self.count + 1))

    @contextmanager
    def in_place(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Let the tensors hold the average while the block runs."""
        if not self.count:
            yield
            return
        own = {name: value.detach().clone() for name, value in tensors.items()}
        restore(tensors, self.values)
        try:
            yield
        finally:
            restore(tensors, own)
