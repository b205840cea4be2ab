"""Which candidates are compared: backbones x strategies x what else is varied.

A setting that means nothing to a candidate is left out of it (the epochs of a probe, the head of
fine-tuning) where another candidate takes it; where none does it is refused as in a run.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.backbones import WEIGHT_CHOICES, find_backbone
from headstart.errors import UsageError
from headstart.files import digest_bytes
from headstart.inference.engines import EAGER
from headstart.runs import RunSettings
from headstart.runs.backbone import build_backbone
from headstart.runs.settings.run import (
    ONLY_PROBE,
    PROBE,
    STEP_SETTINGS,
    stored_settings,
    strategy_name,
)
from headstart.runs.settings.training import ONLY_TRAINING, train_settings

SCRATCH = "scratch"
COSTS = {
    "training": "in feature pass and training",
    "prediction": "in one prediction",
}
# Settings of the model; those of the data, the folds and the seed are the same for all.
VARIABLE = ("image_size", "weights", "head", "tune", "class_weights", *STEP_SETTINGS,
            *ONLY_TRAINING, *ONLY_PROBE)  # fmt: skip
LONGEST_NAME = 80
# Settings of a run that a comparison has of its own, and their names here.
OWN = {"model": "models", "strategy": "strategies", "out": "out"}


@dataclass(frozen=True, kw_only=True)
class CandidateRun:
    """One candidate: its name, which is its folder's too, and the settings of its run."""

    name: str
    settings: RunSettings

    @property
    def network_key(self) -> tuple[str | int, ...]:
        """What decides how long a pass takes; alike for all strategies of a backbone."""
        chosen = self.settings
        words = [getattr(chosen, name) for name in ("head_blocks", "pool", *ONLY_PROBE)]
        size = chosen.image_size or 0
        return chosen.model, chosen.weights, size, *(word or "" for word in words)


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """What a user decided about a comparison.

    Attributes:
        out: its folder; every candidate has a run of its own in it.
        settings: of the runs, by name, the same for all: `data`, `folds`, `seed` and so on.
        models: names of backbones; 'LeNet5@none' gives one other weights than the rest.
        strategies: names of strategies.
        vary: settings of the model with several values each, every combination is tried.
        repeats: times that a probe is cross-validated, each with other folds.
        fast: 'training' or 'prediction': which time counts in the recommendation.
        candidates: made from these.
    """

    out: str
    settings: Mapping[str, Any]
    models: Sequence[str] = ("mini",)
    strategies: Sequence[str] = (PROBE,)
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    repeats: int = 3
    fast: str = "training"
    candidates: tuple[CandidateRun, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Check what needs no image, and make the candidates."""
        refuse_text("models", self.models)
        refuse_text("strategies", self.strategies)
        refuse_own(self.settings)
        if not self.settings.get("data"):
            raise UsageError("`--data` is missing: name a folder of class folders, or 'digits'.")
        object.__setattr__(self, "settings", stored_settings(self.settings))
        if self.fast not in COSTS:
            raise UsageError(
                f"`fast` must be {' or '.join(COSTS)}, got '{self.fast}'. Correct --fast."
            )
        if isinstance(self.repeats, bool) or not 1 <= self.repeats <= 100:
            raise UsageError(
                f"`repeats` must be between 1 and 100, got {self.repeats}. Correct --repeats."
            )
        for name, values in self.vary.items():
            if name not in VARIABLE:
                raise UsageError(
                    f"`vary` must name a setting of the model, got '{name}'. It can be one of "
                    f"{', '.join(VARIABLE)}."
                )
            refuse_text(f"vary {name}", values)
        varied = {
            name: [stored_settings({name: value})[name] for value in values]
            for name, values in self.vary.items()
        }
        for name, values in varied.items():
            refuse_twice(f"vary {name}", [str(value) for value in values])
        object.__setattr__(self, "vary", varied)
        object.__setattr__(self, "candidates", tuple(self._candidates()))

    def _candidates(self) -> list[CandidateRun]:
        """Every combination once, in the order given."""
        models = [full_name(name) for name in self.models]
        strategies = [strategy_name(name) for name in self.strategies]
        refuse_twice("model", models)
        refuse_twice("strategy", strategies)
        found: dict[str, CandidateRun] = {}
        for model, strategy in itertools.product(models, strategies):
            for values in itertools.product(*self.vary.values()):
                changes = dict(zip(self.vary, values, strict=True))
                candidate = self._candidate(model, strategy, changes, strategies)
                found.setdefault(candidate.name, candidate)
        return list(found.values())

    def _candidate(
        self, model: str, strategy: str, changes: dict[str, Any], strategies: Sequence[str]
    ) -> CandidateRun:
        """One combination, without the settings that are another candidate's."""
        backbone, weights = split_name(model)
        if weights:  # '@' names them for this backbone alone, whatever varies for the others
            changes = {**changes, "weights": weights}
        chosen = {"learning_curve": False, **self.settings, **changes}
        heads = self.vary.get("head", [chosen.get("head", "logistic")])
        unused = foreign_settings(strategy, strategies, str(chosen.get("head", "logistic")), heads)
        told = [
            f"{name.replace('_', '-')}={told_value(changes[name], values)}"
            for name, values in self.vary.items()
            if name not in unused and not (name == "weights" and weights)
        ]
        if strategy == SCRATCH and "weights" not in chosen:
            chosen["weights"] = "none"
        name = folder_name(" ".join([model.replace("@", " "), strategy, *told]))
        kept = {key: value for key, value in chosen.items() if key not in unused}
        if set(strategies) != {PROBE}:  # the rule would give a probe another engine than the rest
            kept.setdefault("pass_engine", EAGER)
        kept |= {"model": backbone, "strategy": strategy, "out": str(Path(self.out) / name)}
        return CandidateRun(name=name, settings=RunSettings(**kept))

    def asked(self) -> dict[str, Any]:
        """What was asked, as records keep it, to go on with it later."""
        return {
            "settings": dict(self.settings),
            "models": list(self.models),
            "strategies": list(self.strategies),
            "vary": {name: list(values) for name, values in self.vary.items()},
            "repeats": self.repeats,
            "fast": self.fast,
        }

    def compared(self) -> dict[str, Any]:
        """What must be the same when a comparison goes on."""
        runs = {c.name: c.settings.compared() for c in self.candidates}
        return {"candidates": runs, "repeats": self.repeats, "fast": self.fast}


def split_name(text: str) -> tuple[str, str]:
    """'LeNet5@none' -> 'LeNet5' and 'none'; '' for the weights of a name alone."""
    name, mark, weights = text.rpartition("@")
    if mark and weights.casefold() in WEIGHT_CHOICES:
        return name, weights.casefold()
    return text, ""


def full_name(text: str) -> str:
    """The name as it is registered, with the weights that were asked for.

    Raises:
        UnknownNameError: there is no such backbone.
    """
    name, weights = split_name(text)
    return find_backbone(name).name + (f"@{weights}" if weights else "")


def foreign_settings(
    strategy: str, strategies: Sequence[str], head: str, heads: Sequence[str]
) -> tuple[str, ...]:
    """Settings that another candidate of the comparison takes and this one does not.

    Args:
        strategy: of this one.
        strategies: of all.
        head: of this one, where it is a probe.
        heads: of all probes.
    """
    if strategy != PROBE:
        return ("head", "tune", *ONLY_PROBE) if PROBE in strategies else ()
    trained = set(strategies) != {PROBE}
    foreign = ONLY_TRAINING if trained else ()
    if head.casefold() == "mlp":
        return foreign
    stepped = trained or any(other.casefold() == "mlp" for other in heads)
    return ("tune", *STEP_SETTINGS, *foreign) if stepped else foreign


def told_value(value: Any, values: Sequence[Any]) -> Any:
    """A varied value as names tell it: a file by its name, where no other one has the same."""
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    short = Path(value).name
    return short if [Path(str(other)).name for other in values].count(short) == 1 else value


def folder_name(text: str) -> str:
    """The text without what a file system dislikes; long ones end with a digest."""
    name = re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-.")
    if len(name) <= LONGEST_NAME and name == text.replace(" ", "-"):
        return name
    return f"{name[:LONGEST_NAME]}-{digest_bytes(text.encode())[:6]}"


def refuse_text(what: str, names: Any) -> None:
    """Refuse one text where several are wanted: its letters would be taken one by one.

    Raises:
        UsageError: it is one.
    """
    if isinstance(names, str | bytes):
        raise UsageError(f"`{what}` must be a list, got '{names!s}'. Put it into brackets.")


def refuse_own(settings: Mapping[str, Any]) -> None:
    """Refuse settings of one run that a comparison decides by itself.

    Raises:
        UsageError: one such.
    """
    for name, instead in OWN.items():
        if name in settings:
            raise UsageError(
                f"`{name}` is a setting of one run, got '{settings[name]}'; a comparison takes "
                f"`{instead}`."
            )


def refuse_twice(what: str, names: Sequence[str]) -> None:
    """Refuse an empty list, or one that names something twice.

    Raises:
        UsageError: one such.
    """
    flag = what.split()[0]
    if not names:
        raise UsageError(f"`{what}` names nothing to compare. Correct --{flag}.")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"`{what}` names '{name}' twice. Leave one out of --{flag}.")


def check_candidates(candidates: Sequence[CandidateRun]) -> None:
    """Build every network once, so that nothing is missing after hours of work.

    Raises:
        UsageError: weights that are not at hand, an image size or a choice of layers that a
            network cannot take, a strategy that cannot start from these weights.
    """
    for key, alike in itertools.groupby(sorted(candidates, key=sort_key), key=sort_key):
        del key
        runs = [candidate.settings for candidate in alike]
        network = build_backbone(runs[0])
        for settings in runs:
            if settings.strategy == PROBE:
                continue
            from headstart.finetune import plan_network

            plan_network(network, train_settings(settings))
            if settings.strategy == SCRATCH and network.weights.source != "none":
                raise UsageError(
                    f"The strategy '{SCRATCH}' must start from random weights, got those of "
                    f"'{network.weights.source}' for {settings.model}. Leave --weights out, or "
                    f"{SCRATCH} out of --strategy."
                )


def sort_key(candidate: CandidateRun) -> tuple[str | int, ...]:
    """Candidates of one network lie together."""
    return candidate.network_key
