"""The same small network K times over, its steps written out by hand.

All parameters of problem k are one row of a (K, P) tensor, and the weight and bias of a layer are
views of it: the products of all problems are one batched product, Adam is one fused sweep over
rows that lie side by side, and copying a problem's state is copying its row.

Layers are x -> x W + b with W (in, out), ReLU and dropout after all but the last. The gradient is
written out rather than recorded: three layers need nine products, and at a batch of 16 the
bookkeeping of a recorded gradient costs as much as the arithmetic.

Adam (Kingma and Ba 2015) with the epsilon of Keras, 1e-7, added after the correction of the bias
as PyTorch does. Weight decay is decoupled (Loshchilov and Hutter 2019) and spares the biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

BETAS = (0.9, 0.999)
EPSILON = 1e-7
# What a step sweeps over for every parameter: itself, its gradient, two moments.
ARRAYS = 4
DROPOUT_LEVELS = 2**16


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """Weight (A, in, out) and bias (A, 1, out) of A problems, or their gradients."""

    weight: Tensor
    bias: Tensor


def num_parameters(widths: Sequence[int]) -> int:
    """Weights and biases of one network; `widths` are those of input, hidden layers, output."""
    return sum((before + 1) * after for before, after in pairwise(widths))


def split_layers(flat: Tensor, widths: Sequence[int]) -> list[Layer]:
    """Views of the rows of `flat` (A, P)."""
    layers, place = [], 0
    for before, after in pairwise(widths):
        end = place + before * after
        weight = flat[:, place:end].view(len(flat), before, after)
        bias = flat[:, end : end + after].view(len(flat), 1, after)
        layers.append(Layer(weight=weight, bias=bias))
        place = end + after
    return layers


def draw_parameters(widths: Sequence[int], generator: np.random.Generator) -> Tensor:
    """(P,) float32 of one network: weights uniform (Glorot and Bengio 2010), biases zero."""
    parts = []
    for before, after in pairwise(widths):
        bound = (6 / (before + after)) ** 0.5
        parts += [generator.uniform(-bound, bound, before * after), np.zeros(after)]
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def draw_masks(
    generator: np.random.Generator, num_steps: int, num_units: int, dropout: float
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """(S, U) of 0 and 1 / (1 - dropout): dropout is rounded to a 65,536th, the scale with it.

    Sixteen bits a unit instead of a number: masks cost a fiftieth of a step, not a tenth. A step
    draws whole words, so masks do not depend on how many steps are drawn at once.
    """
    words = generator.integers(0, 2**64, (num_steps, -(-num_units // 4)), dtype=np.uint64)
    dropped = min(round(dropout * DROPOUT_LEVELS), DROPOUT_LEVELS - 1)
    kept = words.view(np.uint16)[:, :num_units] >= dropped
    scale = DROPOUT_LEVELS / (DROPOUT_LEVELS - dropped)
    return np.multiply(kept, np.float32(scale), dtype=np.float32)


class StackedNetworks:
    """K networks of one shape with their gradients and moments.

    Every method works on the first `active` networks only, so that networks that have finished
    drop out from the end.
    """

    def __init__(self, parameters: Tensor, widths: Sequence[int], weight_decay: float) -> None:
        """Start at `parameters` (K, P), which are changed in place."""
        self.widths = widths
        self.weight_decay = weight_decay
        self.parameters = parameters
        self.gradients = torch.zeros_like(parameters)
        self.first = torch.zeros_like(parameters)
        self.second = torch.zeros_like(parameters)
        self.num_steps = parameters.new_zeros(())
        self.narrow(len(parameters))

    def narrow(self, active: int) -> None:
        """Go on with the first `active` networks."""
        self.active = active
        self.layers = split_layers(self.parameters[:active], self.widths)
        self.slopes = split_layers(self.gradients[:active], self.widths)

    def forward(
        self, inputs: Tensor, masks: Sequence[Tensor] | None, logits: Tensor
    ) -> list[Tensor]:
        """Write the logits (A, B, C) of inputs (A, B, D).

        Args:
            inputs: of each network its own rows.
            masks: (A, B, H) a hidden layer, zero where a unit is dropped; None drops nothing.
            logits: where they are written.

        Returns:
            What went into each layer, for `backward`.
        """
        entering = [inputs]
        for depth, layer in enumerate(self.layers[:-1]):
            hidden = torch.baddbmm(layer.bias, entering[-1], layer.weight).relu_()
            if masks is not None:
                hidden.mul_(masks[depth])
            entering.append(hidden)
        torch.baddbmm(self.layers[-1].bias, entering[-1], self.layers[-1].weight, out=logits)
        return entering

    def backward(
        self, entering: Sequence[Tensor], masks: Sequence[Tensor] | None, residual: Tensor
    ) -> None:
        """Set the gradients, given that of the loss by the logits (A, B, C)."""
        for depth in range(len(self.layers) - 1, -1, -1):
            below, slope = entering[depth], self.slopes[depth]
            torch.bmm(below.transpose(1, 2), residual, out=slope.weight)
            torch.sum(residual, 1, keepdim=True, out=slope.bias)
            if depth:
                residual = torch.bmm(residual, self.layers[depth].weight.transpose(1, 2))
                if masks is not None:
                    residual.mul_(masks[depth - 1])
                residual.mul_(below > 0)

    def update(self, rates: Sequence[float]) -> None:
        """One step of Adam with the learning rate of each active network.

        All active networks have made the same number of steps, for none begins late.
        """
        done = self.num_steps.clone()
        for rate, rows in _equal_runs(rates):
            self.num_steps.copy_(done)
            if self.weight_decay:
                for layer in self.layers:
                    layer.weight[rows].mul_(1 - rate * self.weight_decay)
            adam(
                [self.parameters[rows]],
                [self.gradients[rows]],
                [self.first[rows]],
                [self.second[rows]],
                [],
                [self.num_steps],
                fused=True,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=rate,
                weight_decay=0.0,
                eps=EPSILON,
                maximize=False,
            )


def _equal_runs(rates: Sequence[float]) -> list[tuple[float, slice]]:
    """Neighbours of equal rate: the fused sweep takes one rate."""
    runs, start = [], 0
    for rate, members in groupby(rates):
        end = start + len(list(members))
        runs.append((rate, slice(start, end)))
        start = end
    return runs
