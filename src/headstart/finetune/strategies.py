"""Strategies: which layers learn, when, and how fast.

A network is an ordered dictionary of named stages whose composition is the network, and a head
behind them. A strategy turns it into phases; a phase names every parameter that learns and its
rate. What is not named is frozen: no gradient, and its normalisation layers stay in eval mode, so
that their statistics do not drift.

Words: a *stage* is one of the network's named parts that has parameters (what only normalises
belongs to the part before it); a *layer* is a module with parameters of its own (a convolution, a
normalisation, a linear map), in the network's order. Parameters are named 'STAGE.NAME'. The head,
the classifier behind all stages, always learns, and so do head blocks, the stage between the
network's last map and its ending: no words choose them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from headstart.backbones import BLOCKS_STAGE
from headstart.errors import UsageError
from headstart.registry import Registry

if TYPE_CHECKING:
    from headstart.finetune.settings import TrainSettings

Stages = Mapping[str, nn.Module]
TRAINABLE = re.compile(r"(?:(stages|layers|after):)?(\d+)")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of epochs with one set of learning parameters.

    Attributes:
        name: for tables and the marks of the curves.
        epochs: how many are planned.
        head_rate: learning rate of the head.
        rates: learning rate of every backbone parameter that learns, by its name.
        frozen_stages: the stages at the network's beginning in which nothing learns.
    """

    name: str
    epochs: int
    head_rate: float
    rates: Mapping[str, float]
    frozen_stages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StageShare:
    """How much of one stage learns in one phase."""

    stage: str
    num_parameters: int
    num_trainable: int
    lowest_rate: float
    highest_rate: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The phases of one fit and what learns in them.

    Attributes:
        strategy: its name.
        phases: in order; empty for the probe.
        shares: a row a stage, one tuple a phase.
    """

    strategy: str
    phases: tuple[Phase, ...]
    shares: tuple[tuple[StageShare, ...], ...]

    def describe(self) -> str:
        """What trains, for people: a block a phase, a line a stage."""
        if not self.phases:
            return f"{self.strategy}: the network stays frozen; only the head is fitted"
        return "\n".join(
            f"{phase.name}: {phase.epochs} epochs, classifier at {phase.head_rate:.2g}\n"
            + "\n".join(f"  {share_line(share)}" for share in shares)
            for phase, shares in zip(self.phases, self.shares, strict=True)
        )


def share_line(share: StageShare) -> str:
    """One stage in words."""
    total, trained = share.num_parameters, share.num_trainable
    if not trained:
        return f"{share.stage:<12} {total:>12,} parameters, frozen"
    rate = f"{share.highest_rate:.2g}"
    if share.lowest_rate != share.highest_rate:
        rate = f"{share.lowest_rate:.2g} to {rate}"
    return f"{share.stage:<12} {total:>12,} parameters, {trained / total:.0%} learn at {rate}"


Draft = tuple[str, set[str], float]  # name of the phase, learning parameters, rate
Drafter = Callable[[Stages, "TrainSettings"], list[Draft]]


@dataclass(frozen=True, kw_only=True)
class StrategySpec:
    """One way to teach a network.

    Attributes:
        name: what users type.
        description: one line for tables.
        draft: the phases from the stages and the settings.
        has_loop: False for the probe, whose head is fitted in closed batches.
        from_probe: whether its head starts from the fitted probe where the user does not choose.
        wants_weights: False where the network must start from random weights.
        default_trainable: what learns where the user does not say; '' where nothing is to choose.
    """

    name: str
    description: str
    draft: Drafter
    has_loop: bool = True
    from_probe: bool = True
    wants_weights: bool = True
    default_trainable: str = ""


STRATEGIES: Registry[StrategySpec] = Registry("strategy")


def named_layers(stages: Stages) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every layer, in the network's order."""
    for stage, module in stages.items():
        for name, part in module.named_modules(prefix=stage):
            if next(part.parameters(recurse=False), None) is not None:
                yield name, part


def parameter_names(stages: Stages) -> set[str]:
    """The names of all parameters."""
    return {name for _, names in names_by_stage(stages).items() for name in names}


def names_by_stage(stages: Stages) -> dict[str, list[str]]:
    """Parameter names of every stage that has any."""
    found = {
        stage: [name for name, _ in module.named_parameters(prefix=stage)]
        for stage, module in stages.items()
    }
    return {stage: names for stage, names in found.items() if names}


def counted_stages(stages: Stages) -> list[list[str]]:
    """Parameter names of each stage that words count, first to last.

    One that has nothing but normalisation (the norm behind a transformer's blocks) goes with the
    stage before it: alone it would be all that a 'last stage' teaches.
    """
    norms = norm_parameters(stages)
    found: list[list[str]] = []
    for names in names_by_stage(stages).values():
        if found and norms.issuperset(names):
            found[-1] += names
        else:
            found.append(names)
    return found


def layer_names(layers: list[tuple[str, nn.Module]]) -> set[str]:
    """The parameter names of some layers."""
    return {
        f"{name}.{own}" for name, part in layers for own, _ in part.named_parameters(recurse=False)
    }


def select_parameters(stages: Stages, trainable: str) -> set[str]:
    """The parameters that a user's words choose.

    Args:
        stages: the network.
        trainable: 'all', 'none', 'stages:N' (the last N stages), 'layers:N' or 'N' (the last N
            layers), 'after:N' (all but the first N layers).

    Raises:
        UsageError: other words, or more stages or layers than there are.
    """
    if trainable in ("all", "none"):
        return parameter_names(stages) if trainable == "all" else set()
    kind, count = parse_trainable(trainable)
    counted = counted_stages(stages)
    layers = list(named_layers(stages))
    present = len(counted) if kind == "stages" else len(layers)
    if count > present:
        unit = "stages" if kind == "stages" else "layers"
        raise UsageError(
            f"`trainable` must name at most the {present} {unit} of this network, got "
            f"'{trainable}'. Lower the number or use 'all'."
        )
    if kind == "stages":
        return set().union(*counted[present - count :])
    return layer_names(layers[count:] if kind == "after" else layers[present - count :])


def parse_trainable(trainable: str) -> tuple[str, int]:
    """('stages' | 'layers' | 'after', N) of 'stages:N', 'layers:N', 'N' or 'after:N'."""
    match = TRAINABLE.fullmatch(trainable.strip())
    if match is None:
        raise UsageError(
            "`trainable` must be 'all', 'none', 'stages:N', 'layers:N', 'after:N' or a number of "
            f"last layers, got '{trainable}'. Correct it."
        )
    return match[1] or "layers", int(match[2])


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises activations; some carry statistics that can drift."""
    known = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    return isinstance(module, known) or "Norm" in type(module).__name__


def norm_parameters(stages: Stages) -> set[str]:
    """The parameters of all normalisation layers."""
    return layer_names([(name, part) for name, part in named_layers(stages) if is_norm(part)])


def trainable_plan(stages: Stages, settings: TrainSettings) -> Plan:
    """What learns when and how fast.

    Args:
        stages: ordered, their composition the network.
        settings: strategy, words for what learns, rates, epochs.

    Raises:
        UsageError: a choice of layers that this network does not have; more epochs than phases.
    """
    spec = STRATEGIES.get(settings.strategy)
    body = {name: module for name, module in stages.items() if name != BLOCKS_STAGE}
    drafts = spec.draft(body, settings)
    if spec.has_loop and len(settings.epochs) > len(drafts):
        raise UsageError(
            f"`epochs` must be one number a phase, and '{spec.name}' has {len(drafts)} "
            f"({', '.join(name for name, _, _ in drafts)}), got {len(settings.epochs)} numbers. "
            "Correct --epochs."
        )
    phases = tuple(make_phase(stages, settings, draft, i) for i, draft in enumerate(drafts))
    shares = tuple(phase_shares(stages, phase) for phase in phases)
    return Plan(strategy=spec.name, phases=phases, shares=shares)


def make_phase(stages: Stages, settings: TrainSettings, draft: Draft, index: int) -> Phase:
    """A phase with a rate for every learning parameter.

    The last stage learns at the phase's rate; each earlier one at `stage_decay` times the next,
    head blocks at the head's.
    """
    name, chosen, rate = draft
    if settings.freeze_norms:
        chosen = chosen - norm_parameters(stages)
    blocks = {name: module for name, module in stages.items() if name == BLOCKS_STAGE}
    body = {name: module for name, module in stages.items() if name not in blocks}
    head_rate = rate * settings.head_lr_factor
    rates = {name: head_rate for names in names_by_stage(blocks).values() for name in names}
    for depth, names in enumerate(reversed(counted_stages(body))):
        for parameter in names:
            if parameter in chosen:
                rates[parameter] = rate * settings.stage_decay**depth
    return Phase(
        name=name,
        epochs=settings.epochs[min(index, len(settings.epochs) - 1)],
        head_rate=head_rate,
        rates=rates,
        frozen_stages=frozen_prefix(stages, set(rates)),
    )


def frozen_prefix(stages: Stages, learning: set[str]) -> tuple[str, ...]:
    """The stages before the first in which something learns."""
    frozen = []
    for stage, module in stages.items():
        if any(name in learning for name, _ in module.named_parameters(prefix=stage)):
            break
        frozen.append(stage)
    return tuple(frozen)


def phase_shares(stages: Stages, phase: Phase) -> tuple[StageShare, ...]:
    """One row a stage that has parameters."""
    rows = []
    for stage, module in stages.items():
        sizes = {name: p.numel() for name, p in module.named_parameters(prefix=stage)}
        rates = [phase.rates[name] for name in sizes if name in phase.rates]
        if sizes:
            rows.append(
                StageShare(
                    stage=stage,
                    num_parameters=sum(sizes.values()),
                    num_trainable=sum(n for name, n in sizes.items() if name in phase.rates),
                    lowest_rate=min(rates, default=0.0),
                    highest_rate=max(rates, default=0.0),
                )
            )
    return tuple(rows)


def draft_probe(stages: Stages, settings: TrainSettings) -> list[Draft]:
    """No phase at all."""
    del stages, settings
    return []


def draft_partial(stages: Stages, settings: TrainSettings) -> list[Draft]:
    """One phase with the chosen parameters."""
    return [("partial", select_parameters(stages, settings.chosen_trainable), settings.lr)]


def draft_full(stages: Stages, settings: TrainSettings) -> list[Draft]:
    """One phase with everything."""
    return [(settings.strategy, parameter_names(stages), settings.lr)]


def draft_two_stage(stages: Stages, settings: TrainSettings) -> list[Draft]:
    """The head alone, then the chosen parameters at the later rate."""
    chosen = select_parameters(stages, settings.chosen_trainable)
    return [("head", set(), settings.lr), ("fine-tuning", chosen, settings.chosen_later_lr)]


def draft_gradual(stages: Stages, settings: TrainSettings) -> list[Draft]:
    """The head alone, then one stage more a phase, from the last to the first chosen one."""
    chosen = select_parameters(stages, settings.chosen_trainable)
    drafts: list[Draft] = [("head", set(), settings.lr)]
    learning: set[str] = set()
    for names in reversed(counted_stages(stages)):
        if more := chosen.intersection(names):
            learning = learning | more
            stage = names[0].partition(".")[0]
            drafts.append((f"from {stage}", learning, settings.chosen_later_lr))
    return drafts


def draft_norms(stages: Stages, settings: TrainSettings) -> list[Draft]:
    """One phase with the normalisation layers.

    Raises:
        UsageError: the network has none, or they are to stay frozen.
    """
    norms = norm_parameters(stages)
    if not norms or settings.freeze_norms:
        raise UsageError(
            "The strategy 'norm-only' must have normalisation layers that may learn, got none. "
            "Choose another strategy, or let norms learn."
        )
    return [("norm-only", norms, settings.lr)]


for _spec in (
    StrategySpec(
        name="probe",
        description="the network stays frozen, only the head is fitted",
        draft=draft_probe,
        has_loop=False,
    ),
    StrategySpec(
        name="partial",
        description="the last stages or layers learn, the first stay frozen",
        draft=draft_partial,
        default_trainable="stages:1",
    ),
    StrategySpec(name="full", description="everything learns", draft=draft_full),
    StrategySpec(
        name="two-stage",
        description="the head first, then the last stages or layers at a lower rate",
        draft=draft_two_stage,
        default_trainable="stages:1",
    ),
    StrategySpec(
        name="gradual",
        description="the head first, then one stage more at a time, from the last",
        draft=draft_gradual,
        default_trainable="all",
    ),
    StrategySpec(
        name="norm-only",
        description="scale and shift of the normalisation layers learn",
        draft=draft_norms,
    ),
    StrategySpec(
        name="scratch",
        description="everything learns, from random weights",
        draft=draft_full,
        from_probe=False,
        wants_weights=False,
    ),
):
    STRATEGIES.register(_spec)
