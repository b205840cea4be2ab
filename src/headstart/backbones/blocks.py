"""Blocks between a backbone's last map and its ending: attention, and another way of pooling.

    stages up to the last map -> blocks -> pooling (or the network's own ending) -> features

The blocks are timm's own layers. Each begins as the identity: what its gate is computed from is
set to zero, so that every sigmoid gives a half, which a factor of two undoes to the bit. A head
that was fitted on the plain features is therefore the right start for a network with blocks, and
training leaves that start as fast as its gradient asks (the habit of Goyal et al., 2017, for
residual branches). They learn with the head, at its rate, and stay a part of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from headstart.backbones.catalogue import BackboneSpec
from headstart.backbones.stages import SpatialMean, Stages, stage_modules
from headstart.errors import UsageError
from headstart.registry import Registry

BLOCKS_STAGE = "head_blocks"  # the stage's name; none of the networks has one called so
POOLING_STAGE = "pooling"
POOLS = ("own", "mean", "max", "flatten")
MOST_FEATURES = 32_768  # VGG16 at 224 px has 25,088; the probe costs their square
REDUCTION = 16
# Networks whose ending begins elsewhere than with their last stage: the stage, and how many of
# its first modules still make the map.
ENDINGS = {
    "headstart.backbones.lenet.LeNet5": ("dense1", 0),
    "timm.models.efficientnet.EfficientNet": ("head", 2),
    "timm.models.regnet.RegNet": ("head", 1),
    "timm.models.convnext.ConvNeXt": ("head", 1),
}


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One kind of block.

    Attributes:
        name: what users type.
        description: one line, with its reference.
        number: what the number after a colon means; '' where there is none.
        default: that number.
        build: (channels, number) -> the layer, beginning as the identity.
    """

    name: str
    description: str
    number: str
    default: int
    build: Callable[[int, int], nn.Module]


BLOCKS: Registry[BlockSpec] = Registry("head block")


class Gated(nn.Module):
    """A layer whose gates all give a half at first, scaled so that it begins as the identity."""

    def __init__(self, layer: nn.Module, *, zeroed: tuple[nn.Module, ...], gates: int) -> None:
        """Set what the gates are computed from to zero.

        Args:
            layer: multiplies its input by gates.
            zeroed: its last maps before the sigmoids.
            gates: how many gates one value passes.
        """
        super().__init__()
        self.layer = layer
        self.scale = float(2**gates)
        for module in zeroed:
            for parameter in module.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same."""
        scaled: torch.Tensor = self.layer(x) * self.scale
        return scaled


def squeeze_excite(channels: int, reduction: int) -> nn.Module:
    """Weights of the channels, from their means."""
    from timm.layers.squeeze_excite import SEModule

    layer: Any = SEModule(channels, rd_ratio=1 / reduction)
    return Gated(layer, zeroed=(layer.fc2,), gates=1)


def efficient_channels(channels: int, kernel: int) -> nn.Module:
    """Weights of the channels, each from the means of its neighbours."""
    from timm.layers.eca import EcaModule

    layer: Any = EcaModule(kernel_size=kernel) if kernel else EcaModule(channels)
    return Gated(layer, zeroed=(layer.conv,), gates=1)


def channel_attention(channels: int, reduction: int) -> nn.Module:
    """Weights of the channels, from their means and largest values."""
    from timm.layers.cbam import ChannelAttn

    layer: Any = ChannelAttn(channels, rd_ratio=1 / reduction)
    return Gated(layer, zeroed=(layer.fc2,), gates=1)


def spatial_attention(channels: int, kernel: int) -> nn.Module:
    """Weights of the places, from the mean and the largest channel there."""
    from timm.layers.cbam import SpatialAttn

    del channels
    layer: Any = SpatialAttn(kernel)
    return Gated(layer, zeroed=(layer.conv.bn,), gates=1)


def channels_and_places(channels: int, reduction: int) -> nn.Module:
    """Channel attention, then spatial attention."""
    from timm.layers.cbam import CbamModule

    layer: Any = CbamModule(channels, rd_ratio=1 / reduction)
    return Gated(layer, zeroed=(layer.channel.fc2, layer.spatial.conv.bn), gates=2)


for _spec in (
    BlockSpec(
        name="se",
        description="squeeze and excitation (Hu et al., 2018)",
        number="reduction",
        default=REDUCTION,
        build=squeeze_excite,
    ),
    BlockSpec(
        name="eca",
        description="efficient channel attention (Wang et al., 2020)",
        number="kernel",
        default=0,  # chosen by the number of channels
        build=efficient_channels,
    ),
    BlockSpec(
        name="channel",
        description="the channel attention of CBAM (Woo et al., 2018)",
        number="reduction",
        default=REDUCTION,
        build=channel_attention,
    ),
    BlockSpec(
        name="spatial",
        description="the spatial attention of CBAM",
        number="kernel",
        default=7,
        build=spatial_attention,
    ),
    BlockSpec(
        name="cbam",
        description="channel attention, then spatial attention",
        number="reduction",
        default=REDUCTION,
        build=channels_and_places,
    ),
):
    BLOCKS.register(_spec)


@dataclass(frozen=True, kw_only=True)
class HeadBlocks:
    """What stands between a backbone's last map and its features.

    Attributes:
        blocks: in order, each NAME or NAME:NUMBER as users type it.
        pool: 'own' keeps the network's ending; 'mean', 'max' and 'flatten' take its place.
    """

    blocks: tuple[str, ...] = ()
    pool: str = "own"

    def __post_init__(self) -> None:
        """Check every word.

        Raises:
            UsageError: an unknown block or pooling, or a number that cannot be.
        """
        for text in self.blocks:
            parse_block(text)
        if self.pool not in POOLS:
            raise UsageError(
                f"`pool` must be one of {', '.join(POOLS)}, got '{self.pool}'. Correct --pool."
            )

    @classmethod
    def parse(cls, blocks: str | None, pool: str | None) -> HeadBlocks:
        """From the words of a user: 'se:8,spatial' and a pooling; None for nothing.

        Raises:
            UsageError: words that mean nothing.
        """
        names = tuple(part.strip().casefold() for part in (blocks or "").split(",") if part.strip())
        return cls(blocks=names, pool=(pool or "own").casefold())

    def __bool__(self) -> bool:
        """Whether anything differs from the plain network."""
        return bool(self.blocks) or self.pool != "own"

    def describe(self) -> str:
        """Short words, the same for the same blocks."""
        return "+".join([*self.blocks, *([] if self.pool == "own" else [f"pool {self.pool}"])])


def parse_block(text: str) -> tuple[BlockSpec, int]:
    """The spec and the number of 'NAME' or 'NAME:NUMBER'.

    Raises:
        UsageError: an unknown name, or a number that cannot be.
    """
    name, colon, number = text.partition(":")
    spec = BLOCKS.get(name)
    if not colon:
        return spec, spec.default
    value = int(number) if number.isdecimal() and len(number) < 5 else 0
    if value < 1 or (spec.number == "kernel" and value % 2 == 0):
        odd = "an odd number" if spec.number == "kernel" else "a number"
        raise UsageError(
            f"A block '{spec.name}' of `head_blocks` must have {odd} of 1 or more as its "
            f"{spec.number}, got '{text}'. Correct --head-blocks."
        )
    return spec, value


class SpatialMax(nn.Module):
    """Global maximum pooling."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, D, H, W) -> (B, D)."""
        return x.amax(dim=(2, 3))


class BlockedNetwork(nn.Module):
    """A backbone with blocks between its map and its ending, or with another ending.

    Attributes:
        body: the backbone; without what another pooling leaves unused.
        blocks: one after the other.
        num_features: D.
    """

    def __init__(self, body: nn.Module, spec: BackboneSpec, wanted: HeadBlocks, size: int) -> None:
        """Put the blocks in; fresh weights are drawn from torch's global generator.

        Args:
            body: from an architecture, its weights loaded or not.
            spec: names it in messages.
            wanted: which blocks and pooling.
            size: input size in px.

        Raises:
            UsageError: the network has no map of channels x height x width that is known here.
        """
        super().__init__()
        self.body = body.eval()
        self.spec = spec
        self.pool = wanted.pool
        before, ending = split_at_map(body, spec)
        shape = map_shape(before, body, spec, size)
        self.blocks = nn.Sequential(*(made_block(text, shape[0]) for text in wanted.blocks))
        if self.pool != "own":
            drop_children(body, ending)
        with torch.no_grad():
            self.num_features = int(self.eval()(torch.zeros(1, 3, size, size)).shape[1])
        if self.num_features > MOST_FEATURES:
            raise UsageError(
                f"`pool` must leave at most {MOST_FEATURES:,} features, 'flatten' of "
                f"{spec.name}'s map of {' x '.join(map(str, shape))} gives {self.num_features:,}. "
                "Use --pool mean, or a smaller --image-size."
            )

    def stages(self) -> Stages:
        """The backbone's stages up to the map, the blocks, the ending."""
        before, ending = split_at_map(self.body, self.spec)
        if self.pool != "own":
            pools = {"mean": SpatialMean, "max": SpatialMax, "flatten": nn.Flatten}
            ending = {POOLING_STAGE: pools[self.pool]()}
        blocks = {BLOCKS_STAGE: self.blocks} if len(self.blocks) else {}
        return {**before, **blocks, **ending}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised pixels -> (B, D)."""
        for stage in self.stages().values():
            x = stage(x)
        return x


def made_block(text: str, channels: int) -> nn.Module:
    """One block for so many channels."""
    spec, number = parse_block(text)
    return spec.build(channels, number)


def split_at_map(module: nn.Module, spec: BackboneSpec) -> tuple[Stages, Stages]:
    """The stages that make the last map, and those after it."""
    stages = list(stage_modules(module, spec).items())
    kind = type(module)
    begins, count = ENDINGS.get(f"{kind.__module__}.{kind.__qualname__}", (stages[-1][0], 0))
    position = [name for name, _ in stages].index(begins)
    before, ending = dict(stages[:position]), dict(stages[position:])
    if count:
        parts = list(ending[begins].children())
        before[begins] = nn.Sequential(*parts[:count])
        ending = {POOLING_STAGE: nn.Sequential(*parts[count:])}
    return before, ending


@torch.no_grad()
def map_shape(before: Stages, body: nn.Module, spec: BackboneSpec, size: int) -> tuple[int, ...]:
    """(C, H, W) of the last map.

    Raises:
        UsageError: what stands there is no such map.
    """
    x = torch.zeros(1, 3, size, size)
    try:
        for stage in before.values():
            x = stage.eval()(x)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UsageError(
            f"{spec.name} cannot take pictures of {size} px ({str(error).splitlines()[0]}). "
            "Leave --image-size out to take its own size."
        ) from error
    if x.ndim != 4 or getattr(body, "output_fmt", "NCHW") != "NCHW":
        raise UsageError(
            f"`head_blocks` and `pool` must be left out for {spec.name}, which has no map of "
            "channels x height x width before its head. Use a convolutional network."
        )
    return tuple(x.shape[1:])


def drop_children(body: nn.Module, ending: Stages) -> None:
    """Put identities in the place of the modules that the ending alone consists of."""
    used = {id(module) for stage in ending.values() for module in stage.modules()}
    for name, child in list(body.named_children()):
        if id(child) in used:
            setattr(body, name, nn.Identity())
