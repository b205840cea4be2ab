"""A copy of a network on its device, in the precision and layout of an execution."""

from __future__ import annotations

import copy

import torch
from torch import nn

from headstart.inference.folding import FloatBiasConvolution, fold_normalisations
from headstart.runtime import Execution, cpu_multiplies_bfloat16

FOLDING_DEVICES = frozenset({"cpu"})  # see `folds`


@torch.inference_mode(False)  # an inference tensor could not be copied into later
def place_module(module: nn.Module, execution: Execution, size: int = 0) -> nn.Module:
    """A copy in eval mode on the device, in the precision and layout of `execution`.

    Normalisation layers that stay keep float32 parameters and statistics: they are cheap, and
    rounding their statistics is what costs accuracy in 16 bits. So do the biases that come from
    folding.

    Args:
        module: stays as it is; float32.
        execution: device, precision, layout.
        size: pictures' size in px, to fold batch normalisations into convolutions (in float32,
            before any rounding) where `folds` says so; 0 keeps the layers apart.
    """
    placed = copy.deepcopy(module).eval()
    if size and folds(execution):
        rounded = execution.dtype != torch.float32
        fold_normalisations(placed, torch.zeros(1, 3, size, size), float_bias=rounded)
    exact: dict[str, dict[str, torch.Tensor]] = {}
    for name, part in placed.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            exact[name] = copy.deepcopy(part.state_dict())
        elif isinstance(part, FloatBiasConvolution):
            exact[name] = {"bias": part.bias.detach().clone()}
    placed = placed.to(device=execution.device, dtype=execution.dtype)
    for name, tensors in exact.items():
        part = placed.get_submodule(name)
        for key, value in tensors.items():
            getattr(part, key).data = value.to(execution.device)
    if execution.channels_last:
        placed = placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def folds(execution: Execution) -> bool:
    """Whether normalisations are folded: on a processor, at a precision that it computes in.

    Not on CUDA: there PyTorch adds a convolution's bias in a kernel of its own, which moves as much
    memory as the normalisation does. `FOLDING_DEVICES` is the one place that decides it.
    """
    if execution.device == "cpu" and execution.dtype != torch.float32:
        return cpu_multiplies_bfloat16()
    return execution.device in FOLDING_DEVICES
