"""A network in a table: layers, shapes, parameters, and what of it learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from headstart.backbones import Network
from headstart.finetune.strategies import Phase, Plan


def summary(network: Network, plan: Plan | None = None) -> str:
    """Layers with the shapes of what they give, their parameters, totals, shares by stage.

    Args:
        network: stays as it is.
        plan: whose last phase says what learns; None counts everything as frozen.
    """
    phase = plan.phases[-1] if plan is not None and plan.phases else None
    rows = layer_rows(network)
    widths = [max(len(str(row[i])) for row in rows) for i in range(3)]
    size = network.preprocessing.size
    lines = [
        f"{network.spec.name}, weights {network.weights.describe()}, input 3 x {size} x {size}"
    ]
    lines += [
        f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:<{widths[2]}}  {count:>12,}"
        for name, kind, shape, count in rows
    ]
    total = network.num_parameters
    lines += ["", f"Parameters without the classifier  {total:>14,}"]
    lines += [f"Learning in the last phase         {num_learning(plan, phase):>14,}"]
    lines += [f"Features                           {network.num_features:>14,}"]
    return "\n".join(lines if plan is None else [*lines, "", plan.describe()]) + "\n"


def num_learning(plan: Plan | None, phase: Phase | None) -> int:
    """Backbone parameters that learn in the last phase."""
    if plan is None or phase is None:
        return 0
    return sum(share.num_trainable for share in plan.shares[-1])


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
