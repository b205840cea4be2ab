"""A network in a table: layers, shapes, parameters, and what of it learns."""

from __future__ import annotations

from headstart.backbones import Network
from headstart.backbones.layers import layers_table, totals
from headstart.finetune.strategies import Plan


def summary(network: Network, plan: Plan | None = None) -> str:
    """Layers with the shapes of what they give, their parameters, totals, shares by stage.

    Args:
        network: stays as it is.
        plan: whose last phase says what learns; None counts everything as frozen.
    """
    learning = 0
    if plan is not None and plan.phases:
        learning = sum(share.num_trainable for share in plan.shares[-1])
    parts = [layers_table(network), totals(network, learning)]
    if plan is not None:
        parts.append(plan.describe())
    return "\n\n".join(parts) + "\n"
