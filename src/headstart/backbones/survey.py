"""The catalogue as a list for people: where weights come from, whether they are at hand."""

from __future__ import annotations

from typing import Any

from headstart.backbones.catalogue import BACKBONES, timm_architectures
from headstart.backbones.weights import bundled_file, local_file


def survey_backbones(contains: str | None = None) -> list[dict[str, Any]]:
    """One entry a backbone.

    Args:
        contains: part of a name, in any case; timm's networks are searched too. None lists the
            familiar ones only.
    """
    word = (contains or "").casefold()
    listed = [
        {
            "name": spec.name,
            "architecture": spec.architecture,
            "origin": spec.origin,
            "weights": weights_at_hand(spec.architecture, spec.default_weights),
            "code_licence": spec.code_licence,
            "weights_licence": spec.weights_licence,
            "summary": spec.summary,
        }
        for spec in BACKBONES
        if word in spec.name.casefold() or word in spec.architecture
    ]
    if contains is None:
        return listed
    named = {entry["architecture"] for entry in listed}
    return listed + [
        {
            "name": architecture,
            "architecture": architecture,
            "origin": "timm",
            "weights": weights_at_hand(architecture, "hub"),
            "code_licence": "Apache-2.0",
            "weights_licence": "see the hub",
            "summary": "a network of timm",
        }
        for architecture in timm_architectures()
        if word in architecture and architecture not in named
    ]


def weights_at_hand(architecture: str, default: str) -> str:
    """'in the package', 'at hand: FILE' or 'from the hub'."""
    if default == "bundled" and bundled_file(architecture).is_file():
        return "in the package"
    path = local_file(architecture)
    return f"at hand: {path.name}" if path is not None else "from the hub"
