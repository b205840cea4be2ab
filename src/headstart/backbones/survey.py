"""The catalogue as a list for people: what each network is, where its weights are.

Sizes and stages are measured on networks built without memory (torch's meta device), so that
nothing here repeats by hand what the code of a network says.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from headstart.backbones.catalogue import BACKBONES, BackboneSpec, timm_architectures, timm_spec
from headstart.backbones.hubs import cached_file
from headstart.backbones.networks import feature_width
from headstart.backbones.origins import make_architecture, timm_config, timm_preprocessing
from headstart.backbones.stages import has_stages, stage_modules
from headstart.backbones.weights import bundled_file, local_file
from headstart.errors import UsageError

MOST_MEASURED = 20  # further networks that are built for their figures: a tenth of a second each
FROM_HUB = "from the hub"
FILLING = (
    *("uniform_", "normal_", "fill_", "zero_", "mul_", "add_", "erfinv_", "clamp_"),
    *("kaiming_uniform_", "kaiming_normal_", "trunc_normal_", "constant_"),
)
UNMEASURED: dict[str, Any] = {"num_parameters": None, "num_features": None, "stages": None}


def survey_backbones(contains: str | None = None, *, measure: bool = True) -> list[dict[str, Any]]:
    """One entry a backbone; entries are ready for JSON.

    Args:
        contains: part of a name, in any case; timm's networks are searched too. None lists the
            familiar ones only.
        measure: look up what needs timm and a network built without weights: parameters,
            features, stages, preprocessing, licence, the hub's cache. Networks of timm beyond
            the familiar ones are built up to `MOST_MEASURED`; their figures are None else.
    """
    word = (contains or "").casefold()
    listed = [
        describe_backbone(spec, measure=measure, build=measure)
        for spec in BACKBONES
        if word in spec.name.casefold() or word in spec.architecture
    ]
    if contains is None:
        return listed
    named = {entry["architecture"] for entry in listed}
    further = [a for a in timm_architectures() if word in a and a not in named]
    build = measure and len(further) <= MOST_MEASURED
    return listed + [
        describe_backbone(timm_spec(architecture), measure=measure, build=build)
        for architecture in further
    ]


def describe_backbone(spec: BackboneSpec, *, measure: bool, build: bool) -> dict[str, Any]:
    """What the list says of one network."""
    facts = dict(UNMEASURED)
    if build:
        facts.update(measure_network(spec))
    elif measure:
        facts.update(configured(spec))
    place, at_hand = weights_at_hand(spec, facts.get("weights_source", ""))
    return {
        "name": spec.name,
        "origin": spec.origin,
        "architecture": spec.architecture,
        **facts,
        "weights": place,
        "at_hand": at_hand,
        "code_licence": spec.code_licence,
        "weights_licence": facts.get("weights_licence", spec.weights_licence),
        "summary": spec.summary,
    }


class WithoutFilling(TorchFunctionMode):
    """Leaves out what would fill a tensor that has no memory: most of the time of building one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Give the tensor back where only its values would change."""
        options = kwargs or {}
        if getattr(func, "__name__", "") in FILLING:
            target = args[0] if args else options["tensor"]
            if target.is_meta:
                return target
        return func(*args, **options)


@cache
def measure_network(spec: BackboneSpec) -> dict[str, Any]:
    """Figures of a network at its own image size, built without memory for its weights."""
    try:
        with torch.device("meta"), WithoutFilling():
            made = make_architecture(spec, None)
    except (UsageError, RuntimeError, NotImplementedError):
        return configured(spec)  # a few networks of timm compute while they are built
    module = made.module
    return {
        "num_parameters": sum(p.numel() for p in module.parameters()),
        "num_features": feature_width(module),
        "stages": list(stage_modules(module, spec)) if has_stages(module) else [],
        "image_size": made.preprocessing.size,
        "preprocessing": asdict(made.preprocessing),
        "weights_source": made.source or spec.default_weights,
        "weights_licence": made.licence,
    }


def configured(spec: BackboneSpec) -> dict[str, Any]:
    """What timm's configuration says of a network that is not built."""
    config = timm_config(spec.architecture)
    size = spec.image_size or int(config["input_size"][-1])
    return {
        "image_size": size,
        "preprocessing": asdict(timm_preprocessing(config, size)),
        "weights_source": config.get("hf_hub_id") or "none",
        "weights_licence": config.get("license") or "not stated by its hub",
    }


def weights_at_hand(spec: BackboneSpec, source: str) -> tuple[str, bool]:
    """Where the default weights are, in words, and whether that is on this machine.

    Args:
        spec: the network.
        source: the hub's name or address of its weights, '' where it was not looked up.
    """
    if spec.default_weights == "bundled" and bundled_file(spec.architecture).is_file():
        return "in the package", True
    path = local_file(spec.architecture)
    if path is not None:
        return f"at hand: {path.name}", True
    if "none" in (spec.default_weights, source):
        return "none published", False
    if source and cached_file(source) is not None:
        return "in the hub's cache", True
    return FROM_HUB, False
