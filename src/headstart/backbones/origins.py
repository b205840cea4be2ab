"""Where architectures come from: our own, timm's, torchvision's; each without its classifier.

Preprocessing is what the library states for its weights (mean, deviation, interpolation, size).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import nn

from headstart.backbones.catalogue import BackboneSpec
from headstart.backbones.weights import State
from headstart.errors import UsageError
from headstart.records import Preprocessing

INTERPOLATIONS = ("bilinear", "bicubic")
# Names that timm gives its conversions of published weights, in the module of the network.
TIMM_CONVERSIONS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")


@dataclass(frozen=True, kw_only=True, eq=False)
class Architecture:
    """A network with fresh weights, and what its origin says of the published ones.

    Attributes:
        module: without classifier; `num_features` or `head_hidden_size` is D.
        preprocessing: how pictures must be prepared for it.
        licence: of the published weights.
        source: their hub's name or address, '' where none are published.
        spare: prefixes of keys that a full weights file has and the module has not.
        convert: makes a published state fit the module's names and image size.
    """

    module: nn.Module
    preprocessing: Preprocessing
    licence: str
    source: str = ""
    spare: tuple[str, ...] = ()
    convert: Callable[[State], State] = dict


def make_architecture(spec: BackboneSpec, image_size: int | None) -> Architecture:
    """Build what the spec names, weights drawn from torch's global generator.

    Args:
        spec: from `find_backbone`.
        image_size: input size in px; None takes the spec's, or the origin's own.

    Raises:
        UsageError: the network does not take that image size.
    """
    make = {"own": make_own, "timm": make_timm, "torchvision": make_torchvision}[spec.origin]
    return make(spec, image_size or spec.image_size)


def make_own(spec: BackboneSpec, image_size: int) -> Architecture:
    """`mini`, LeNet-5 or SmallCNN."""
    from headstart.backbones import lenet, mini, small

    own: Any
    own, build = {
        "mini2": (mini, mini.MiniNet),
        "lenet5": (lenet, lenet.LeNet5),
        "smallcnn": (small, small.SmallCNN),
    }[spec.architecture]
    if spec.architecture == "lenet5" and image_size != spec.image_size:
        raise UsageError(
            f"{spec.name} takes pictures of {spec.image_size} px only, got {image_size}. "
            "Leave --image-size out."
        )
    preprocessing = Preprocessing(
        size=image_size, interpolation="bilinear", mean=own.PIXEL_MEAN, std=own.PIXEL_STD
    )
    return Architecture(module=build(), preprocessing=preprocessing, licence=spec.weights_licence)


def make_timm(spec: BackboneSpec, image_size: int) -> Architecture:
    """A timm network, preprocessing and licence from its pretrained configuration.

    Raises:
        UsageError: the network does not take that image size.
    """
    import timm

    config = timm_config(spec.architecture)
    native = int(config["input_size"][-1])
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
    check_patches(spec, module, size)
    # Only torchvision's Inception was published with its second classifier.
    prefixes = (*names_of(config.get("classifier")), "AuxLogits")
    return Architecture(
        module=module,
        preprocessing=timm_preprocessing(config, size),
        licence=config.get("license") or "not stated by its hub",
        source=config.get("hf_hub_id") or "",
        spare=tuple(f"{prefix}." for prefix in prefixes),
        convert=timm_conversion(module),
    )


def timm_config(architecture: str) -> dict[str, Any]:
    """What timm says of a network's default weights, `input_size` always among it."""
    import timm

    found: Any = timm.get_pretrained_cfg(architecture)
    config: dict[str, Any] = found.to_dict() if found is not None else {}
    return {"input_size": (3, 224, 224), **config}


def timm_preprocessing(config: dict[str, Any], size: int) -> Preprocessing:
    """The preprocessing that timm resolves for a configuration, at this size."""
    from timm.data.config import resolve_data_config

    resolve: Callable[..., dict[str, Any]] = resolve_data_config
    data = resolve(pretrained_cfg=config)
    interpolation = str(data["interpolation"])
    return Preprocessing(
        size=size,
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def names_of(classifier: Any) -> tuple[str, ...]:
    """One classifier's name, several or none, as a tuple."""
    if isinstance(classifier, str):
        return (classifier,) if classifier else ()
    return tuple(classifier or ())


def check_patches(spec: BackboneSpec, module: nn.Module, size: int) -> None:
    """Refuse a size that patches do not fill: the network would cut off the border unasked.

    Raises:
        UsageError: with the two sizes next to it.
    """
    embed = getattr(module, "patch_embed", None)
    if type(embed).__name__ != "PatchEmbed" or getattr(embed, "dynamic_img_pad", False):
        return
    patch = int(embed.patch_size[0])  # type: ignore[union-attr]
    if size % patch:
        below = max(size // patch, 1) * patch
        raise UsageError(
            f"{spec.name} reads patches of {patch} px, so its image size must be a multiple of "
            f"{patch}, got {size}. Pass --image-size {below} or {below + patch}."
        )


def timm_conversion(module: nn.Module) -> Callable[[State], State]:
    """Timm's own conversion of published weights for a network, the copy where it has none."""
    home = sys.modules[type(module).__module__]
    found = [getattr(home, name) for name in TIMM_CONVERSIONS if hasattr(home, name)]
    if not found:
        return dict
    convert: Callable[..., State] = found[0]
    with_module = len(signature(convert).parameters) > 1

    def run(state: State) -> State:
        try:
            return convert(dict(state), module) if with_module else convert(dict(state))
        except Exception:  # another network's weights: the comparison of keys says so in words
            return dict(state)

    return run


# The classifier of each network, what building it needs, further keys of its weights file.
TORCHVISION: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "alexnet": ("classifier.6", {}, ()),
    # The weights were ported: they want their own rescaling after ImageNet's normalisation.
    "googlenet": (
        "fc",
        {"transform_input": True, "aux_logits": False, "init_weights": True},
        ("aux1.", "aux2."),
    ),
}


def make_torchvision(spec: BackboneSpec, image_size: int) -> Architecture:
    """A torchvision network, preprocessing and address from its weights' entry."""
    from torchvision import models

    classifier, options, further = TORCHVISION[spec.architecture]
    module = models.get_model(spec.architecture, weights=None, **options)
    module.num_features = module.get_submodule(classifier).in_features
    parent, _, name = classifier.rpartition(".")
    setattr(module.get_submodule(parent), name, nn.Identity())
    published = models.get_model_weights(spec.architecture).DEFAULT
    transforms = published.transforms()
    return Architecture(
        module=module,
        preprocessing=Preprocessing(
            size=image_size or transforms.crop_size[0],
            interpolation=transforms.interpolation.value,
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
        ),
        licence=spec.weights_licence,
        source=published.url,
        spare=(f"{classifier}.", *further),
    )
