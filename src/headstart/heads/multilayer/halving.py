"""Settings of an mlp head chosen by successive halving, inside the training data of every fold.

Jamieson and Talwalkar (2016): all S settings are trained for few epochs, the best third of them
three times as long, and so on, until one has gone the whole way.  With eta = 3 and R epochs, rung i
of the last rung L keeps S / 3^i settings for R / 3^(L - i) epochs: 27 settings of 20 epochs go
27 x 1 + 9 x 3 + 3 x 7 + 1 x 20 = 95 epochs instead of 27 x 20 = 540.

What counts is the lowest log loss so far on the fold's inner rows, as where the number of epochs
is chosen.  Every fold halves by itself: what it is scored on has no weight in any fit, and other
folds have no say.  The learning rate follows the schedule of R epochs from the start, so a short
fit is the beginning of the long one, and a setting that survives to the end has the very losses
that the full grid would give it.  Training that diverges loses.

A rung begins afresh and repeats the epochs of the one before (going on would need 70 epochs, not
95, and every fit's moments kept).  What halving can get wrong: a setting that starts slowly, such
as a low learning rate, is gone before it overtakes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.errors import UsageError
from headstart.heads.inner import InnerRows
from headstart.heads.layers import Layers
from headstart.heads.multilayer.folds import checked_inner
from headstart.heads.multilayer.mlp import MlpHistory, check_problems, fit_mlps
from headstart.heads.multilayer.settings import FitPlan, MlpSettings
from headstart.heads.multilayer.steps import DivergedError, OnEpoch

ETA = 3
SEARCH_STREAM = 11  # of random numbers, apart from those of the fits
# What is tried where the user gave nothing.
HIDDEN: tuple[tuple[int, ...], ...] = ((64,), (256,), (512,), (512, 64))
DROPOUT = (0.0, 0.25, 0.5)
WEIGHT_DECAY = (0.0, 0.001, 0.01)
LR = (1e-4, 1e-2)
MOST_SETTINGS = 200
FIGURES = tuple(field.name for field in fields(MlpHistory))


@dataclass(frozen=True, kw_only=True)
class Rung:
    """How many settings go on, and for how many epochs they are trained."""

    num_settings: int
    epochs: int


@dataclass(frozen=True, kw_only=True, eq=False)
class HalvedSettings:
    """What successive halving found in F folds over S settings.

    Attributes:
        candidates: the S settings.
        loss: (F, S) float64 lowest inner log loss of the last rung a setting reached; infinite
            where its training diverged.
        best_epoch: (F, S) int64 the epoch of that loss, from 1.
        epochs: (F, S) int64 epochs of that rung.
        winner: (F,) int64 the setting that each fold keeps.
        history: figures after each epoch of each fold's winner in its last rung.
        num_epochs: epochs trained over all folds, settings and rungs.
        num_full_epochs: what the full grid would have trained.
    """

    candidates: tuple[MlpSettings, ...]
    loss: Tensor
    best_epoch: Tensor
    epochs: Tensor
    winner: Tensor
    history: MlpHistory
    num_epochs: int
    num_full_epochs: int

    @property
    def winning_epochs(self) -> Tensor:
        """(F,) epochs for which each fold trains its winner."""
        return self.best_epoch.gather(1, self.winner[:, None])[:, 0]

    @property
    def final(self) -> tuple[int, int]:
        """The setting and the epochs of the final fit.

        The setting that most folds keep, of equals the one with the lower loss there, and the
        lower median of those folds' epochs.
        """
        winners = self.winner.tolist()
        losses = self.loss.gather(1, self.winner[:, None])[:, 0]

        def standing(setting: int) -> tuple[int, float, int]:
            return -winners.count(setting), float(losses[self.winner == setting].mean()), setting

        chosen = min(set(winners), key=standing)
        return chosen, int(self.winning_epochs[self.winner == chosen].median())


def rungs(num_settings: int, epochs: int, *, eta: int = ETA) -> list[Rung]:
    """How many settings go how far, from the first rung to the last.

    Args:
        num_settings: S, at least 1.
        epochs: R, of the last rung.
        eta: one in so many goes on.
    """
    last = 0
    while eta ** (last + 1) <= num_settings:
        last += 1
    return [
        Rung(num_settings=num_settings // eta**i, epochs=math.ceil(epochs / eta ** (last - i)))
        for i in range(last + 1)
    ]


def draw_settings(
    base: MlpSettings, count: int, *, fixed: frozenset[str] = frozenset(), seed: int
) -> tuple[MlpSettings, ...]:
    """Different settings to choose from, the given one first.

    Hidden layers, dropout and weight decay from short lists, the learning rate evenly in the
    logarithm, with two digits.

    Args:
        base: the first one, and what is not varied.
        count: how many, 2 to 200.
        fixed: names of fields that stay as they are.
        seed: of the draw.

    Raises:
        UsageError: a count out of range, or more than there are.
    """
    if not 2 <= count <= MOST_SETTINGS:
        raise UsageError(
            f"`tune` must be between 2 and {MOST_SETTINGS} settings, got {count}. Correct --tune."
        )
    lists: dict[str, tuple[Any, ...]] = {
        "hidden": HIDDEN,
        "dropout": DROPOUT,
        "weight_decay": WEIGHT_DECAY,
    }
    choices = {name: values for name, values in lists.items() if name not in fixed}
    if "lr" in fixed:
        combinations = {base} | {
            replace(base, **dict(zip(choices, values, strict=True)))
            for values in itertools.product(*choices.values())
        }
        if len(combinations) < count:
            raise UsageError(
                f"`tune` must be at most the {len(combinations)} settings that differ where "
                f"{', '.join(sorted(fixed))} are given, got {count}. Lower --tune, or leave one "
                "of them open."
            )
    generator = np.random.default_rng([seed, SEARCH_STREAM])
    found: dict[MlpSettings, None] = {base: None}  # in order
    while len(found) < count:
        changes: dict[str, Any] = {
            name: values[generator.integers(len(values))] for name, values in choices.items()
        }
        if "lr" not in fixed:
            changes["lr"] = float(f"{np.exp(generator.uniform(*np.log(LR))):.2g}")
        found[replace(base, **changes)] = None
    return tuple(found)


def successive_halving(
    features: Tensor,
    labels: Tensor,
    learns: Tensor,
    inner: Tensor | InnerRows,
    num_classes: int,
    candidates: Sequence[MlpSettings],
    *,
    seed: int,
    on_epoch: OnEpoch | None = None,
) -> HalvedSettings:
    """Find the setting of each fold on its inner rows.

    Args:
        features: (N, D) raw, float16 or float32.
        labels: (N,) int64.
        learns: (F, N) >= 0, zero on the rows that the fold is scored on.
        inner: (F, N) bool, rows of each training part that choose; `InnerRows` where rows are
            views of images.
        num_classes: C.
        candidates: S settings of equal `epochs`.
        seed: of everything random; a fold draws from its own streams, whatever the setting.
        on_epoch: called with epochs done and epochs to do.

    Raises:
        DataError: input that has no fit.
        UsageError: epochs that differ, or a fold in which every setting diverged.
    """
    check_problems(features, labels, learns, num_classes)
    inner = InnerRows.of(inner)
    chooses = checked_inner(learns, inner.chooses)
    lengths = {settings.epochs for settings in candidates}
    if len(lengths) != 1:
        raise UsageError(
            f"The settings to halve must have equal `epochs`, got {sorted(lengths)}. Correct them."
        )
    learnt = learns * ~inner.left_out
    race = _Race(features, labels, learnt, chooses, num_classes, candidates, seed)
    steps = rungs(len(candidates), lengths.pop())
    total = len(learns) * sum(rung.num_settings * rung.epochs for rung in steps)
    alive = torch.ones(len(learns), len(candidates), dtype=torch.bool)
    for rung in steps:
        alive &= _best(race.loss.masked_fill(~alive, torch.inf), rung.num_settings)
        for setting in alive.any(0).nonzero()[:, 0].tolist():
            race.train(setting, alive[:, setting].nonzero()[:, 0].tolist(), rung.epochs)
            if on_epoch is not None:
                on_epoch(race.num_epochs, total)
    lowest = race.loss.masked_fill(~alive, torch.inf).min(1)
    race.refuse_divergence(lowest.values)
    winner = lowest.indices
    return HalvedSettings(
        candidates=tuple(candidates),
        loss=race.loss,
        best_epoch=race.best_epoch,
        epochs=race.epochs,
        winner=winner,
        history=race.history_of(winner),
        num_epochs=race.num_epochs,
        num_full_epochs=alive.numel() * steps[-1].epochs,
    )


def _best(loss: Tensor, count: int) -> Tensor:
    """(F, S) bool, the `count` lowest losses of each fold; the first of equals."""
    kept = torch.zeros_like(loss, dtype=torch.bool)
    return kept.scatter(1, torch.sort(loss, dim=1, stable=True).indices[:, :count], True)


class _Race:
    """Settings on their way, in every fold, and what they have reached."""

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        weights: Tensor,
        inner: Tensor,
        num_classes: int,
        candidates: Sequence[MlpSettings],
        seed: int,
    ) -> None:
        """Nobody has begun; weights (F, N) are those of the training parts less the inner rows."""
        self.data = (features, labels)
        self.weights, self.inner = weights, inner
        self.num_classes, self.candidates, self.seed = num_classes, candidates, seed
        shape = (len(weights), len(candidates))
        self.loss = torch.zeros(shape, dtype=torch.float64)
        self.best_epoch = torch.zeros(shape, dtype=torch.int64)
        self.epochs = torch.zeros(shape, dtype=torch.int64)
        self.num_epochs = 0
        self.failures: dict[int, DivergedError] = {}
        self.figures: dict[tuple[int, int], Tensor] = {}  # (4, epochs) by fold and setting

    def train(self, setting: int, folds: list[int], epochs: int) -> None:
        """One setting in some folds, together; alone where one of them diverges."""
        plan = FitPlan(
            epochs=[epochs] * len(folds), numbers=folds, score_rows=self.inner[folds]
        )  # fmt: skip
        try:
            fit = fit_mlps(
                *self.data,
                self.weights[folds],
                self.num_classes,
                self.candidates[setting],
                seed=self.seed,
                plan=plan,
            )
        except DivergedError as error:
            if len(folds) > 1:
                for fold in folds:
                    self.train(setting, [fold], epochs)
                return
            self.failures[folds[0]] = error
            self.loss[folds, setting] = torch.inf
        else:
            self.loss[folds, setting] = fit.history.held_loss.amin(1)
            figures = torch.stack([getattr(fit.history, name) for name in FIGURES])
            self.figures |= {(fold, setting): figures[:, k] for k, fold in enumerate(folds)}
            self.best_epoch[folds, setting] = fit.best_epoch
        self.epochs[folds, setting] = epochs
        self.num_epochs += epochs * len(folds)

    def refuse_divergence(self, lowest: Tensor) -> None:
        """Raise where the lowest loss (F,) of what is left in a fold is none."""
        for fold, loss in enumerate(lowest.tolist()):
            if not math.isfinite(loss):
                raise self.failures[fold]

    def history_of(self, winner: Tensor) -> MlpHistory:
        """Figures of one setting (F,) a fold."""
        rows = [self.figures[fold, setting] for fold, setting in enumerate(winner.tolist())]
        figures = torch.stack(rows, 1)  # (4, F, epochs)
        return MlpHistory(**dict(zip(FIGURES, figures, strict=True)))


def fit_winners(
    features: Tensor,
    labels: Tensor,
    learns: Tensor,
    num_classes: int,
    found: HalvedSettings,
    *,
    seed: int,
    on_epoch: OnEpoch | None = None,
) -> list[Layers]:
    """The head of every fold with its own setting and epochs, on its whole training part.

    Args:
        features: (N, D) raw.
        labels: (N,) int64.
        learns: (F, N) >= 0, as for the search.
        num_classes: C.
        found: of the search.
        seed: as for the search.
        on_epoch: as in `fit_mlps`, which is called once a setting that won.
    """
    layers: dict[int, Layers] = {}
    for setting, folds in _by_winner(found.winner):
        plan = FitPlan(epochs=found.winning_epochs[folds].tolist(), numbers=folds)
        fit = fit_mlps(
            features,
            labels,
            learns[folds],
            num_classes,
            found.candidates[setting],
            seed=seed,
            plan=plan,
            on_epoch=on_epoch,
        )
        layers |= {fold: fit.layers(k) for k, fold in enumerate(folds)}
    return [layers[fold] for fold in range(len(learns))]


def _by_winner(winner: Tensor) -> Iterator[tuple[int, list[int]]]:
    """Each setting that won, and where."""
    for setting in sorted(set(winner.tolist())):
        yield setting, (winner == setting).nonzero()[:, 0].tolist()
