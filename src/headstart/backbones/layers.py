"""A network as a table: every layer, the shape of what it gives, its parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from headstart.backbones.networks import Network


def layers_table(network: Network) -> str:
    """A heading, then a line a layer in the order they run.

    Args:
        network: stays as it is.
    """
    rows = layer_rows(network)
    widths = [max(len(str(row[i])) for row in rows) for i in range(3)]
    size = network.preprocessing.size
    heading = (
        f"{network.spec.name}, weights {network.weights.describe()}, input 3 x {size} x {size}"
    )
    lines = [
        f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:<{widths[2]}}  {count:>12,}"
        for name, kind, shape, count in rows
    ]
    return "\n".join([heading, *lines])


def totals(network: Network, num_learning: int) -> str:
    """Parameters in all, how many of them learn, and features.

    Args:
        network: stays as it is.
        num_learning: of the backbone's parameters, in the last phase.
    """
    return "\n".join(
        [
            f"Parameters without the classifier  {network.num_parameters:>14,}",
            f"Learning in the last phase         {num_learning:>14,}",
            f"Features                           {network.num_features:>14,}",
        ]
    )


def layer_rows(network: Network) -> list[tuple[str, str, str, int]]:
    """Name, kind, output shape, parameters of every innermost module, in the order they run."""
    rows: list[tuple[str, str, str, int]] = []
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def note(part: nn.Module, inputs: Any, output: Any) -> None:
            shape = " x ".join(str(n) for n in output.shape[1:]) if torch.is_tensor(output) else ""
            count = sum(p.numel() for p in part.parameters(recurse=False))
            rows.append((name, type(part).__name__, shape, count))

        handles.append(module.register_forward_hook(note))

    for name, module in network.module.named_modules():
        own = next(module.parameters(recurse=False), None) is not None
        if own or not any(True for _ in module.children()):
            watch(name or "(itself)", module)
    size = network.preprocessing.size
    try:
        with torch.inference_mode():
            network.module(torch.zeros(1, 3, size, size))
    finally:
        for handle in handles:
            handle.remove()
    return rows
