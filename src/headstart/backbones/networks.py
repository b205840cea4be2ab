"""Build a network: the architecture, its weights, its preprocessing, as one thing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from headstart.backbones.blocks import BlockedNetwork, HeadBlocks
from headstart.backbones.catalogue import BackboneSpec
from headstart.backbones.hubs import fetch_weights
from headstart.backbones.layered import LayeredNetwork, find_layers
from headstart.backbones.origins import Architecture, make_architecture
from headstart.backbones.stages import has_stages, stage_modules
from headstart.backbones.weights import (
    State,
    WeightsRecord,
    choose_source,
    file_origin,
    load_state,
    read_state,
    state_digest,
)
from headstart.errors import UsageError, WeightsError
from headstart.records import Preprocessing

SMALLEST_SIZE = 32
LARGEST_SIZE = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A built backbone: images in, pooled features out.

    Attributes:
        spec: what was asked for.
        module: (B, 3, H, W) normalised pixels -> (B, D) features, float32, eval mode.
        num_features: D.
        preprocessing: how pictures must be prepared for it.
        weights: which weights it carries.
        digest: digest of architecture, blocks, layers and weights; part of every cache key.
        blocks: what stands between its last map and its features, if anything.
        layers: stages whose features these are and how many each gives; empty for its own alone.
    """

    spec: BackboneSpec
    module: nn.Module
    num_features: int
    preprocessing: Preprocessing
    weights: WeightsRecord
    digest: str
    blocks: HeadBlocks = field(default_factory=HeadBlocks)
    layers: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_parameters(self) -> int:
        """Parameters without the classifier."""
        return sum(p.numel() for p in self.module.parameters())

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages at which it can be cut, first to last; empty where unknown."""
        return tuple(stage_modules(self.module, self.spec)) if has_stages(self.module) else ()


def build_network(
    spec: BackboneSpec,
    *,
    weights: str = "auto",
    image_size: int | None = None,
    seed: int = 0,
    blocks: HeadBlocks | None = None,
    layers: str | None = None,
) -> Network:
    """Build a network with the weights asked for.

    Args:
        spec: from `find_backbone`.
        weights: 'auto', 'bundled', 'hub', 'none' or a file.
        image_size: input size in px; None takes the network's own.
        seed: of the random weights that `weights='none'` asks for, and of blocks.
        blocks: what to put between its last map and its features; None for nothing.
        layers: stages to take features of, words from `check_layers`; None for its own alone.

    Raises:
        WeightsError: the weights are not at hand or do not fit.
        UsageError: an image size the network cannot take, blocks where it has no map, stages that
            it does not have.
    """
    check_image_size(image_size)
    source, path = choose_source(
        weights, default=spec.default_weights, architecture=spec.architecture, name=spec.name
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        architecture = make_architecture(spec, image_size)
    record = WeightsRecord(source="none", origin="", licence="none: random weights")
    if source != "none":
        state, record = find_state(spec, source, path, architecture)
        state = architecture.convert(state)
        load_state(architecture.module, state, what=spec.name, spare=architecture.spare)
    preprocessing = architecture.preprocessing
    module = with_blocks(architecture.module, spec, blocks, preprocessing.size, seed=seed).eval()
    if layers is not None:
        size = preprocessing.size
        check_takes(spec, module, size)
        module = LayeredNetwork(module, spec, find_layers(module, spec, layers, size), size)
    return finish(spec, module, preprocessing, record, blocks)


def rebuild_network(
    spec: BackboneSpec,
    state: State,
    preprocessing: Preprocessing,
    record: WeightsRecord,
    blocks: HeadBlocks | None = None,
    layers: Sequence[str] = (),
) -> Network:
    """Build a network around tensors from a bundle, everything else as the bundle says."""
    architecture = make_architecture(spec, preprocessing.size)
    module = with_blocks(architecture.module, spec, blocks, preprocessing.size)
    if layers:
        module = LayeredNetwork(module, spec, layers, preprocessing.size)
    load_state(module, state, what=spec.name)
    return finish(spec, module, preprocessing, record, blocks)


def with_blocks(
    module: nn.Module, spec: BackboneSpec, blocks: HeadBlocks | None, size: int, *, seed: int = 0
) -> nn.Module:
    """The network with blocks of fresh weights; itself where none are asked for."""
    if not blocks:
        return module
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return BlockedNetwork(module, spec, blocks, size)


def keep_last_layers(network: Network, count: int) -> Network:
    """The network with the features of its last layers alone; itself where it has no more.

    Args:
        network: with layers; its parameters are shared.
        count: how many, at least 1.
    """
    names = list(network.layers)[-count:]
    if len(names) == len(network.layers):
        return network
    assert isinstance(network.module, LayeredNetwork)
    size = network.preprocessing.size
    module = LayeredNetwork(network.module.body, network.spec, names, size)
    return finish(network.spec, module, network.preprocessing, network.weights, network.blocks)


def cut(network: Network, after: str) -> tuple[nn.Sequential, nn.Sequential]:
    """Cut a network in two that share its parameters.

    Args:
        network: from `build_network`.
        after: one of `network.stages`.

    Returns:
        The front, (B, 3, H, W) pixels -> what stands after that stage, and the back, which makes
        (B, D) features of it (of the features themselves after the last stage). One after the
        other they equal the network; the back leaves its input as it is.

    Raises:
        UsageError: the network's stages are not known, or none is called so.
    """
    stages = stage_modules(network.module, network.spec)
    if after not in stages:
        raise UsageError(
            f"{network.spec.name} has no stage '{after}'. Its stages are {', '.join(stages)}."
        )
    position = list(stages).index(after) + 1
    parts = list(stages.items())
    return (
        nn.Sequential(OrderedDict(parts[:position])).eval(),
        nn.Sequential(OrderedDict(parts[position:])).eval(),
    )


def finish(
    spec: BackboneSpec,
    module: nn.Module,
    preprocessing: Preprocessing,
    record: WeightsRecord,
    blocks: HeadBlocks | None = None,
) -> Network:
    """Freeze a loaded module and measure what records need."""
    module.eval().requires_grad_(False)
    check_takes(spec, module, preprocessing.size)
    return Network(
        spec=spec,
        module=module,
        num_features=feature_width(module),
        preprocessing=preprocessing,
        weights=record,
        digest=network_digest(spec, module, blocks),
        blocks=blocks or HeadBlocks(),
        layers=module.layers if isinstance(module, LayeredNetwork) else {},
    )


def network_digest(spec: BackboneSpec, module: nn.Module, blocks: HeadBlocks | None) -> str:
    """Tells any two networks apart that answer differently."""
    words = f"({blocks.describe()})" if blocks else ""
    if isinstance(module, LayeredNetwork):
        words += f"(layers {','.join(module.layers)})"
    return f"{spec.architecture}{words}-{state_digest(module)}"


def check_takes(spec: BackboneSpec, module: nn.Module, size: int) -> None:
    """Send one grey picture through, so that a size the network cannot take is refused early.

    Raises:
        UsageError: the network fails on it, or gives something else than one row of features.
    """
    try:
        with torch.inference_mode():
            shape = tuple(module(torch.zeros(1, 3, size, size)).shape)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UsageError(
            f"{spec.name} cannot take pictures of {size} px ({str(error).splitlines()[0]}). "
            "Leave --image-size out to take its own size."
        ) from error
    if shape != (1, feature_width(module)):
        raise UsageError(
            f"{spec.name} does not give one row of features a picture, got shape {shape}. "
            "Choose another network."
        )


def feature_width(module: nn.Module) -> int:
    """D; some timm networks widen their features once more after pooling."""
    width = getattr(module, "head_hidden_size", None) or module.num_features
    return int(width)  # type: ignore[arg-type]


def check_image_size(image_size: int | None) -> None:
    """Refuse sizes that no network here can take."""
    if image_size is not None and not SMALLEST_SIZE <= image_size <= LARGEST_SIZE:
        raise UsageError(
            f"`image_size` must be between {SMALLEST_SIZE} and {LARGEST_SIZE} px, got "
            f"{image_size}. Correct --image-size."
        )


def find_state(
    spec: BackboneSpec, source: str, path: Path | None, architecture: Architecture
) -> tuple[State, WeightsRecord]:
    """The tensors from where they are, and the record that says so.

    Raises:
        WeightsError: they are not at hand, or the bundled file is not this version's.
    """
    if path is None:
        path = fetch_weights(architecture.source, spec.architecture)
        record = WeightsRecord(
            source=source,
            origin=architecture.source,
            licence=architecture.licence,
            file_digest=file_origin(path)[1],
        )
        return read_state(path), record
    state = read_state(path)
    name, digest = file_origin(path)
    licence = architecture.licence
    if source == "bundled":
        check_bundled(spec, path, digest)
    else:
        licence = "of the file given; its user knows"
    return state, WeightsRecord(source=source, origin=name, licence=licence, file_digest=digest)


def check_bundled(spec: BackboneSpec, path: Path, digest: str) -> None:
    """Compare the file in the package with the checksum in the catalogue.

    Raises:
        WeightsError: they differ.
    """
    if digest != spec.weights_sha256:
        raise WeightsError(
            f"The bundled weights of {spec.name} are not those of this version: the SHA-256 of "
            f"'{path}' is {digest}, expected {spec.weights_sha256}. Install Headstart again, or "
            "pass the file as --weights FILE if it is meant."
        )
