"""Multi-layer heads of all folds, and the final one.

With `choose_epochs` every fold is fitted twice: on its training part less the inner rows, which
say after how many epochs their log loss was lowest, then from a fresh start on its whole training
part for that many. The scored rows have no weight in either. The final fit takes the (lower)
median of the folds' epochs. Without it, one fit a fold of all epochs.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.errors import DataError
from headstart.heads.inner import InnerRows
from headstart.heads.layers import Layers
from headstart.heads.multilayer.mlp import MlpFit, MlpHistory, check_problems, fit_mlps
from headstart.heads.multilayer.settings import FitPlan, MlpSettings
from headstart.heads.multilayer.steps import OnEpoch

# Folds are problems 0, 1, ...; the final fit has random streams of its own.
FINAL_NUMBER = 2**32 - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class MlpFolds:
    """The heads of F folds.

    Attributes:
        fit: the heads that answer, and their history.
        epochs: (F,) int64 how many epochs each was trained.
        inner_history: figures of the fits that chose the epochs, their held rows being the inner
            ones; None where nothing was chosen.
    """

    fit: MlpFit
    epochs: Tensor
    inner_history: MlpHistory | None

    @property
    def final_epochs(self) -> int:
        """The (lower) median of the folds' epochs."""
        chosen: list[int] = self.epochs.tolist()
        return statistics.median_low(chosen)

    def layers(self, fold: int) -> Layers:
        """Weight (out, in) and bias (out,) of each layer of a fold's head, for raw features."""
        return self.fit.layers(fold)


def fit_mlp_folds(
    features: Tensor,
    labels: Tensor,
    learns: Tensor,
    inner: Tensor | InnerRows | None,
    num_classes: int,
    settings: MlpSettings,
    *,
    seed: int,
    on_epoch: OnEpoch | None = None,
) -> MlpFolds:
    """Fit the head of every fold, choosing its number of epochs where the settings say so.

    Args:
        features: (N, D) raw, float16 or float32.
        labels: (N,) int64.
        learns: (F, N) >= 0, zero on the rows that the fold is scored on.
        inner: (F, N) bool. With `choose_epochs`, the rows of each training part that choose.
            Without, rows whose figures follow each epoch (curves), or None; they choose nothing.
            `InnerRows` where rows are views of images.
        num_classes: C.
        settings: of all folds.
        seed: of everything random; a fold draws from its own streams.
        on_epoch: called with epochs done and epochs to do of the fits under way.

    Raises:
        DataError: input that has no fit; with `choose_epochs` a fold without inner rows, or with
            one outside its training part.
    """
    check_problems(features, labels, learns, num_classes)
    data = (features, labels)
    chooses = inner.chooses if isinstance(inner, InnerRows) else inner
    if not settings.choose_epochs:
        plan = FitPlan(score_rows=chooses)
        fit = fit_mlps(
            *data, learns, num_classes, settings, seed=seed, plan=plan, on_epoch=on_epoch
        )
        return MlpFolds(fit=fit, epochs=fit.num_epochs, inner_history=None)
    chooses = checked_inner(learns, chooses)
    left_out = inner.left_out if isinstance(inner, InnerRows) else chooses
    search = fit_mlps(
        *data,
        learns * ~left_out,
        num_classes,
        settings,
        seed=seed,
        plan=FitPlan(score_rows=chooses),
        on_epoch=on_epoch,
    )
    plan = FitPlan(epochs=search.best_epoch.tolist())
    fit = fit_mlps(*data, learns, num_classes, settings, seed=seed, plan=plan, on_epoch=on_epoch)
    return MlpFolds(fit=fit, epochs=search.best_epoch, inner_history=search.history)


def fit_mlp_final(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    num_classes: int,
    settings: MlpSettings,
    epochs: int,
    *,
    seed: int,
    on_epoch: OnEpoch | None = None,
) -> MlpFit:
    """Fit one head on everything that may be learnt from.

    Args:
        features: (N, D) raw.
        labels: (N,) int64.
        weights: (N,) >= 0.
        num_classes: C.
        settings: those of the folds.
        epochs: `MlpFolds.final_epochs`; the schedule still spans the settings' epochs.
        seed: as for the folds; the random streams are other ones.
        on_epoch: as in `fit_mlps`.

    Returns:
        A fit of one head, number 0.
    """
    return fit_mlps(
        features,
        labels,
        weights[None],
        num_classes,
        settings,
        seed=seed,
        plan=FitPlan(epochs=[epochs], numbers=[FINAL_NUMBER]),
        on_epoch=on_epoch,
    )


def checked_inner(learns: Tensor, inner: Tensor | None) -> Tensor:
    """The inner rows, or DataError where they cannot choose."""
    if inner is None or inner.shape != learns.shape or inner.dtype != torch.bool:
        got = "none" if inner is None else f"{inner.dtype} {tuple(inner.shape)}"
        raise DataError(
            f"`inner` must be bool {tuple(learns.shape)} like `learns` to choose epochs, "
            f"got {got}. Give rows of each training part, or set `choose_epochs` to False."
        )
    if bool((inner & (learns == 0)).any()):
        raise DataError(
            "`inner` must lie inside the training part of its fold, got rows outside. Correct it."
        )
    empty = (~inner.any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise DataError(
            f"`inner` must hold out a row in every fold, got none in {empty}. Hold some out."
        )
    return inner
