"""Build a network: the architecture, its weights, its preprocessing, as one thing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.backbones.catalogue import BackboneSpec
from headstart.backbones.mini import PIXEL_MEAN, PIXEL_STD, MiniNet
from headstart.backbones.weights import (
    State,
    WeightsRecord,
    choose_source,
    file_origin,
    hub_state,
    load_state,
    read_state,
    state_digest,
)
from headstart.errors import UsageError
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
        digest: digest of architecture and weights; part of every cache key.
    """

    spec: BackboneSpec
    module: nn.Module
    num_features: int
    preprocessing: Preprocessing
    weights: WeightsRecord
    digest: str

    @property
    def num_parameters(self) -> int:
        """Parameters without the classifier."""
        return sum(p.numel() for p in self.module.parameters())


def build_network(
    spec: BackboneSpec, *, weights: str = "auto", image_size: int | None = None, seed: int = 0
) -> Network:
    """Build a network with the weights asked for.

    Args:
        spec: from `find_backbone`.
        weights: 'auto', 'bundled', 'hub', 'none' or a file.
        image_size: input size in px; None takes the network's own.
        seed: of the random weights that `weights='none'` asks for.

    Raises:
        WeightsError: the weights are not at hand or do not fit.
        UsageError: an image size the network cannot take.
    """
    check_image_size(image_size)
    source, path = choose_source(
        weights, default=spec.default_weights, architecture=spec.architecture
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, preprocessing, hub = bare_module(spec, image_size)
    record = WeightsRecord(source="none", origin="", licence="none: random weights")
    if source != "none":
        state, record = find_state(spec, source, path, hub)
        load_state(module, state, what=spec.name, spare=hub.get("classifier_prefix", ""))
    return finish(spec, module, preprocessing, record)


def rebuild_network(
    spec: BackboneSpec, state: State, preprocessing: Preprocessing, record: WeightsRecord
) -> Network:
    """Build a network around tensors from a bundle; preprocessing as the bundle says."""
    module, _, _ = bare_module(spec, preprocessing.size)
    load_state(module, state, what=spec.name)
    return finish(spec, module, preprocessing, record)


def finish(
    spec: BackboneSpec, module: nn.Module, preprocessing: Preprocessing, record: WeightsRecord
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
        digest=f"{spec.architecture}-{state_digest(module)}",
    )


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


def bare_module(
    spec: BackboneSpec, image_size: int | None
) -> tuple[nn.Module, Preprocessing, dict[str, Any]]:
    """The architecture with fresh weights, its preprocessing, and what its hub says of it."""
    if spec.origin == "own":
        preprocessing = Preprocessing(
            size=image_size or spec.image_size,
            interpolation="bilinear",
            mean=PIXEL_MEAN,
            std=PIXEL_STD,
        )
        return MiniNet(), preprocessing, {"licence": spec.weights_licence}
    return timm_module(spec, image_size)


def timm_module(
    spec: BackboneSpec, image_size: int | None
) -> tuple[nn.Module, Preprocessing, dict[str, Any]]:
    """A timm network without its classifier.

    Raises:
        UsageError: the network does not take that image size.
    """
    import timm

    found: Any = timm.get_pretrained_cfg(spec.architecture)
    config: dict[str, Any] = found.to_dict() if found is not None else {}
    native = int(config.get("input_size", (3, 224, 224))[-1])
    size = image_size or native
    options: dict[str, Any] = {"num_classes": 0}
    if size != native and config.get("fixed_input_size"):
        options["img_size"] = size
    try:
        module = timm.create_model(spec.architecture, pretrained=False, **options)
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{spec.name} cannot be built for {size} px ({error}). "
            f"Leave --image-size out to take its own {native} px."
        ) from error
    interpolation = str(config.get("interpolation", "bicubic"))
    preprocessing = Preprocessing(
        size=size,
        interpolation=interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
        mean=tuple(config.get("mean", Preprocessing(size=size).mean)),
        std=tuple(config.get("std", Preprocessing(size=size).std)),
    )
    classifier = config.get("classifier") or ""
    prefix = (classifier if isinstance(classifier, str) else classifier[0]) or ""
    hub = {
        "id": config.get("hf_hub_id") or f"timm/{spec.architecture}",
        "licence": config.get("license") or "not stated by its hub",
        "classifier_prefix": prefix + "." if prefix else "",
    }
    return module, preprocessing, hub


def find_state(
    spec: BackboneSpec, source: str, path: Path | None, hub: dict[str, Any]
) -> tuple[State, WeightsRecord]:
    """The tensors from where they are, and the record that says so."""
    record = WeightsRecord(source=source, origin="", licence=str(hub["licence"]))
    if path is not None:
        state = read_state(path)
        if source == "file":
            record = replace(record, licence="of the file given; its user knows")
    else:
        state, path = hub_state(hub["id"], spec.architecture)
        record = replace(record, origin=hub["id"], file_digest=file_origin(path)[1])
        return state, record
    name, digest = file_origin(path)
    return state, replace(record, origin=name, file_digest=digest)
