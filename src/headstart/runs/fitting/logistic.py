"""The logistic head: folds and penalties fitted at once on features that are there already."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from headstart.bundle import FittedHead
from headstart.features import new_array
from headstart.heads import (
    ChosenFit,
    RotatedFeatures,
    fit_scaled_logistic,
    fit_with_chosen_penalty,
    penalty_path,
    rotate_features,
)
from headstart.plots import penalty_figure
from headstart.records import Integers
from headstart.runs.files.checkpoints import State, load_state, save_state
from headstart.runs.fitting.task import FittedModel, FoldsOutcome, Task, out_of_fold

CHECKPOINT = "folds.bin"
FINAL_PENALTY = "final_penalty"


class LogisticFitting:
    """Multinomial logistic regression, its penalty chosen inside every fold."""

    def __init__(self, task: Task) -> None:
        """Keep the task; nothing is computed yet."""
        self.task = task
        self.fit: ChosenFit | None = None
        self._rotated: RotatedFeatures | None = None

    @property
    def probe(self) -> LogisticFitting:
        """Itself: a logistic head on the frozen features."""
        return self

    def beside(self) -> dict[str, Any]:
        """Nothing more for `metrics.json`."""
        return {}

    @property
    def rotated(self) -> RotatedFeatures:
        """The training features in the coordinates of the fits, found once a run."""
        if self._rotated is None:
            features = torch.from_numpy(self.task.fit_features)
            self._rotated = coordinates(features)
        return self._rotated

    def fit_folds(self) -> FoldsOutcome:
        """All folds and all penalties at once, each with a fresh head."""
        task = self.task
        self.fit = fit = self.fit or load_fit(task) or self._fit_and_keep()
        parts = [
            task.fold_logits(k, ((fit.coef[k], fit.intercept[k]),))
            for k in range(task.split.num_folds)
        ]
        return FoldsOutcome(
            logits=out_of_fold(task.num_classes, task.split.fold, parts),
            chosen={"penalty": fit.final_penalty},
            columns={"penalty": [float(value) for value in fit.penalty]},
            history=history(fit),
            scalars=scalars(fit),
        )

    def _fit_and_keep(self) -> ChosenFit:
        task = self.task
        fit = fit_with_chosen_penalty(
            self.rotated,
            task.fit_labels,
            task.fold_weights(),
            task.penalty_inner,
            penalty_path(task.settings.num_penalties),
            task.num_classes,
        )
        save_state(task.folder, CHECKPOINT, *stored(fit))
        return fit

    def refit(
        self, folds: torch.Tensor, weights: torch.Tensor, penalties: torch.Tensor, tolerance: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """More heads, each like that of a fold, where it begins; after `fit_folds`.

        Args:
            folds: (K,) whose.
            weights: (K, R) what each row weighs.
            penalties: (K,).
            tolerance: as in `fit_scaled_logistic`.

        Returns:
            (K, C, D) coefficients and (K, C) intercepts.
        """
        assert self.fit is not None
        found = fit_scaled_logistic(
            self.rotated,
            self.task.fit_labels,
            weights,
            penalties,
            self.task.num_classes,
            tolerance=tolerance,
            start=(self.fit.coef[folds], self.fit.intercept[folds]),
        )
        return found.coef, found.intercept

    def curves(self, title: str) -> Figure:
        """The inner log loss along the penalties."""
        assert self.fit is not None
        return penalty_figure(
            self.fit.penalties.numpy(),
            self.fit.inner_log_loss.numpy(),
            self.fit.final_penalty,
            f"{title}: choosing the penalty",
        )

    def fit_final(self) -> FittedModel:
        """One head on all training images, with the penalty the folds agreed on."""
        assert self.fit is not None
        head = final_head(self.task, self.rotated, self.fit)
        return FittedModel(network=self.task.extractor.network, head=head)

    def features(self, model: FittedModel, rows: Integers) -> npt.NDArray[np.floating]:
        """(n, A, D) features of some rows of the table; the network is the frozen one."""
        return self.task.answering(rows)


def final_head(task: Task, rotated: RotatedFeatures, fit: ChosenFit) -> FittedHead:
    """A head on all training images, beginning at the mean of the folds' heads.

    Args:
        task: the run.
        rotated: the features that it takes, or the last columns of them.
        fit: the folds.
    """
    columns = rotated.raw.shape[1]
    start = fit.coef[..., -columns:].mean(0, keepdim=True), fit.intercept.mean(0, keepdim=True)
    final = fit_scaled_logistic(
        rotated,
        task.fit_labels,
        task.final_weights(),
        torch.tensor([fit.final_penalty], dtype=torch.float64),
        task.num_classes,
        start=start,
    )
    if not bool(final.converged.all()):
        task.progress.note(
            f"The final head stopped after {int(final.iterations[0])} rounds, before it was as "
            "near its optimum as asked; its figures are still honest."
        )
    return FittedHead.linear(final.coef[0], final.intercept[0], penalty=fit.final_penalty)


def coordinates(features: torch.Tensor) -> RotatedFeatures:
    """Features (N, D) in the coordinates of fits, in a file where they are large."""
    into = new_array((len(features), min(features.shape) + 1), np.float32)
    return rotate_features(features, into=torch.from_numpy(into))


def stored(fit: ChosenFit) -> tuple[State, dict[str, object]]:
    """The fit as tensors and what is none."""
    tensors = {
        field.name: getattr(fit, field.name)
        for field in fields(ChosenFit)
        if field.name != FINAL_PENALTY
    }
    return tensors, {FINAL_PENALTY: fit.final_penalty}


def load_fit(task: Task) -> ChosenFit | None:
    """The folds that an interrupted run has fitted already."""
    kept = load_state(task.folder, CHECKPOINT)
    if kept is None:
        return None
    tensors, chosen = kept
    return ChosenFit(final_penalty=float(str(chosen[FINAL_PENALTY])), **tensors)


def history(fit: ChosenFit) -> tuple[list[str], list[list[object]]]:
    """How the inner held-out part liked every penalty, a fold at a time.

    Contenders were fitted closely; the others only until it was clear that they lose.
    """
    rows: list[list[object]] = [
        [
            fold + 1,
            float(penalty),
            float(fit.inner_log_loss[fold, p]),
            float(fit.inner_accuracy[fold, p]),
            "yes" if fit.contender[fold, p] else "no",
        ]
        for fold in range(len(fit.inner_log_loss))
        for p, penalty in enumerate(fit.penalties)
    ]
    return ["fold", "penalty", "inner_log_loss", "inner_accuracy", "contender"], rows


def scalars(fit: ChosenFit) -> list[tuple[str, float, int]]:
    """The penalty search by step, means over the folds."""
    found = []
    for p, penalty in enumerate(fit.penalties):
        found.append(("inner/log_loss", float(fit.inner_log_loss[:, p].mean()), p))
        found.append(("inner/accuracy", float(fit.inner_accuracy[:, p].mean()), p))
        found.append(("inner/penalty", float(penalty), p))
    return found
