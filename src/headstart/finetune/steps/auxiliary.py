"""Auxiliary heads: classifiers on the way, which help a deep network to learn from scratch.

Szegedy et al., 2015, "Going deeper with convolutions": two of them stand in GoogLeNet, and their
losses count 0.3 each in training; afterwards they are dropped. They are torchvision's, listen by
hooks to where torchvision puts them, and never become a part of the network. Where no gradient
reaches a place, because all before it is frozen, its head stays out of the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from headstart.backbones import Network
from headstart.errors import UsageError
from headstart.finetune.settings import TrainSettings

OWN_WEIGHT = 0.3
# Where they listen, and the channels there, by the class of the network.
PLACES: dict[str, dict[str, int]] = {
    "torchvision.models.googlenet.GoogLeNet": {"inception4a": 512, "inception4d": 528},
}


class AuxiliaryHeads(nn.Module):
    """Classifiers on inner maps of a network; without any, it does nothing."""

    def __init__(
        self, places: dict[str, int], body: nn.Module, num_classes: int, weight: float, seed: int
    ) -> None:
        """Draw fresh heads and let them listen.

        Args:
            places: modules of the network and the channels they give.
            body: the network that is trained.
            num_classes: C.
            weight: of each head's loss.
            seed: of their weights.
        """
        super().__init__()
        self.weight = weight
        self.heads = nn.ModuleList()
        self.heard: dict[int, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        if places:
            from torchvision.models.googlenet import InceptionAux

            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                self.heads.extend(InceptionAux(n, num_classes) for n in places.values())
        for index, name in enumerate(places):
            listener = body.get_submodule(name).register_forward_hook(self._listener(index))
            self._handles.append(listener)

    def _listener(self, index: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def hear(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if self.training and output.requires_grad:
                self.heard[index] = output

        return hear

    def __bool__(self) -> bool:
        """Whether there are any."""
        return len(self.heads) > 0

    def added_loss(self, loss: Callable[[Tensor], Tensor]) -> Tensor | float:
        """(B,) weighted losses of what was heard since the last call; 0 where nothing was."""
        heard, self.heard = self.heard, {}
        losses = [loss(self.heads[index](x).float()) for index, x in heard.items()]
        return self.weight * torch.stack(losses).sum(dim=0) if losses else 0.0

    def detach_from_network(self) -> None:
        """Listen no more; the network is as if they had never been there."""
        for handle in self._handles:
            handle.remove()
        self.heard = {}


def auxiliary_weight(network: Network, settings: TrainSettings) -> float:
    """The weight of the auxiliary losses: as asked for, else the network's own from scratch.

    Fresh heads would pull trained weights away from where they are good, so a network that starts
    from trained ones has them on request only.

    Raises:
        UsageError: they are asked for where there are none, or with compilation.
    """
    places = auxiliary_places(network)
    weight = settings.auxiliary
    if weight is None:
        fresh = network.weights.source == "none"
        weight = OWN_WEIGHT if places and fresh and not settings.compile else 0.0
    if weight and not places:
        raise UsageError(
            f"`auxiliary` must be 0 for {network.spec.name}, which has no auxiliary heads, got "
            f"{weight:g}. Only GoogLeNet has some."
        )
    if weight and settings.compile:
        raise UsageError(
            f"`auxiliary` must be 0 with `compile`, got {weight:g}: a compiled network cannot be "
            "listened to. Leave one of them out."
        )
    return weight


def auxiliary_places(network: Network) -> dict[str, int]:
    """Where a network has auxiliary heads; nowhere for most."""
    kind = type(plain_body(network.module))
    return PLACES.get(f"{kind.__module__}.{kind.__qualname__}", {})


def plain_body(module: nn.Module) -> nn.Module:
    """The network itself, where it stands in one with head blocks."""
    from headstart.backbones.blocks import BlockedNetwork

    return module.body if isinstance(module, BlockedNetwork) else module
