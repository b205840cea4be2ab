"""Features of several stages: what earlier layers see, beside what the last one makes of it.

    stage  -> mean over places -> length one  |
    stage  -> mean over places -> length one  |  side by side: the features
    ending (the network's own) -> length one  |

Early stages hold colour and texture that the last one has traded for the classes it was trained
on; on other classes a head may want them back (Head2Toe: Evci et al., 2022). Stages differ in size
by factors, so without a common length the largest would decide alone; measured for `mini`, means
as they are brought nothing and means of length one did (docs/experiments.md).

Means and lengths are taken in float32. A part that is zero everywhere stays zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from headstart.backbones.blocks import MOST_FEATURES
from headstart.backbones.catalogue import BackboneSpec
from headstart.backbones.stages import Stages, stage_modules
from headstart.errors import UsageError

AUTO = "auto"
MOST_CANDIDATES = 4
SHORTEST = 1e-12  # a length that is not divided by


@dataclass(frozen=True, kw_only=True)
class StageOutput:
    """What a stage gives: so many features when it is averaged, and whether over places."""

    num_features: int
    has_places: bool


class LayeredNetwork(nn.Module):
    """A backbone whose features are those of some of its stages.

    Attributes:
        body: the backbone, without what comes after the last stage wanted.
        layers: features of each stage, in the network's order.
        num_features: D, all of them.
    """

    def __init__(
        self, body: nn.Module, spec: BackboneSpec, names: Sequence[str], size: int
    ) -> None:
        """Take over a network; what none of the stages needs is removed from it.

        Args:
            body: from an architecture, its weights loaded or not.
            spec: names it in messages.
            names: of its stages, each once, in the network's order.
            size: input size in px, which it can take.

        Raises:
            UsageError: no such stages, or too many features.
        """
        super().__init__()
        self.body = body.eval()
        self.spec = spec
        stages = stage_modules(body, spec)
        places = [list(stages).index(name) if name in stages else -1 for name in names]
        if not places or min(places) < 0 or places != sorted(set(places)):
            raise UsageError(
                f"`layers` must name stages of {spec.name} once and in their order "
                f"({', '.join(stages)}), got {', '.join(names) or 'none'}."
            )
        found = stage_outputs(body, spec, size, until=names[-1])
        self.layers = {name: found[name].num_features for name in names}
        self.num_features = sum(self.layers.values())
        if self.num_features > MOST_FEATURES:
            raise UsageError(
                f"`layers` must leave at most {MOST_FEATURES:,} features, {', '.join(names)} of "
                f"{spec.name} give {self.num_features:,}. Name fewer."
            )
        unused = list(stages)[places[-1] + 1 :]
        remove_stages(body, stages, unused)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised pixels -> (B, D) float32, every part of length one."""
        parts = []
        for name, stage in stage_modules(self.body, self.spec).items():
            x = stage(x)
            if name in self.layers:
                rows = mean_over_places(x, self.body).float()
                parts.append(nn.functional.normalize(rows, dim=1, eps=SHORTEST))
            if len(parts) == len(self.layers):
                break
        return torch.cat(parts, dim=1)


def mean_over_places(x: torch.Tensor, body: Any) -> torch.Tensor:
    """Maps and tokens as (B, D) means in float32, features as they are.

    Args:
        x: (B, D, H, W), or (B, H, W, D) where timm says so of the network; (B, tokens, D), of
            which those that stand for no place (class, registers) are left out; (B, D).
        body: the network it comes from.
    """
    if x.ndim == 3:
        return x[:, getattr(body, "num_prefix_tokens", 0) :].mean(dim=1, dtype=torch.float32)
    if x.ndim == 4:
        places = (1, 2) if getattr(body, "output_fmt", "NCHW") == "NHWC" else (2, 3)
        return x.mean(dim=places, dtype=torch.float32)
    return x


@torch.no_grad()
def stage_outputs(
    body: nn.Module, spec: BackboneSpec, size: int, *, until: str = ""
) -> dict[str, StageOutput]:
    """What each stage gives, up to and with `until` or to the last.

    Args:
        body: the network, in eval mode.
        spec: names it in messages.
        size: input size in px, which it can take.
        until: name of a stage.

    Raises:
        UsageError: the network's stages are not known.
    """
    found, x = {}, torch.zeros(1, 3, size, size)
    for name, stage in stage_modules(body, spec).items():
        x = stage(x)
        width = mean_over_places(x, body).shape[1]
        found[name] = StageOutput(num_features=width, has_places=x.ndim > 2)
        if name == until:
            break
    return found


def check_layers(words: str) -> str:
    """The words of a user without blanks, in small letters; names are looked up by `find_layers`.

    Raises:
        UsageError: neither 'auto', a number, nor names.
    """
    names = [part.strip().casefold() for part in words.split(",")]
    if not all(names) or len(set(names)) < len(names) or names == ["0"]:
        raise UsageError(
            "`layers` must be auto, a number of stages from the last, or names of stages with "
            f"commas between, each once, got '{words}'. Correct --layers."
        )
    return ",".join(names)


def find_layers(body: nn.Module, spec: BackboneSpec, words: str, size: int) -> tuple[str, ...]:
    """The stages that a user means, in the network's order.

    A number counts from the last stage that makes a map, for which the network's own features
    stand. 'auto' is the widest of the candidates: as many as `MOST_CANDIDATES`, as far as they
    have no more than `MOST_FEATURES` features.

    Args:
        body: the network, in eval mode.
        spec: names it in messages.
        words: from `check_layers`.
        size: input size in px, which it can take.

    Raises:
        UsageError: there are no such stages.
    """
    found = stage_outputs(body, spec, size)
    *earlier, own = found
    maps = [name for name in earlier if found[name].has_places]
    counted = [*maps[:-1], own]
    if words == AUTO:
        for first in range(max(0, len(counted) - MOST_CANDIDATES), len(counted)):
            if sum(found[name].num_features for name in counted[first:]) <= MOST_FEATURES:
                return tuple(counted[first:])
        return (own,)
    if words.isdecimal():
        count = int(words)
        if count > len(counted):
            raise UsageError(
                f"`layers` must be at most {len(counted)} for {spec.name} ({', '.join(counted)}), "
                f"got {words}. Correct --layers."
            )
        return tuple(counted[-count:])
    names = words.split(",")
    for name in names:
        if name not in found:
            raise UsageError(
                f"{spec.name} has no stage '{name}'. Its stages are {', '.join(found)}. "
                "Correct --layers."
            )
    return tuple(name for name in found if name in names)


def remove_stages(body: nn.Module, stages: Stages, unused: Sequence[str]) -> None:
    """Put identities in the place of every module that only these stages have."""
    kept = {id(m) for name in stages if name not in unused for m in stages[name].modules()}
    gone = {id(m) for name in unused for m in stages[name].modules()} - kept
    removed: list[str] = []
    for name, module in list(body.named_modules()):
        if id(module) in gone and not any(name.startswith(f"{above}.") for above in removed):
            body.set_submodule(name, nn.Identity())
            removed.append(name)
