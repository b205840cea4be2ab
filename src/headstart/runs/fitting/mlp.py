"""The multilayer head: trained by steps on features that are there already."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from headstart.bundle import FittedHead
from headstart.heads import Layers, fit_mlp_final, fit_mlp_folds
from headstart.plots import epochs_figure
from headstart.records import Integers
from headstart.runs.files.checkpoints import State, load_state, save_state
from headstart.runs.fitting.logistic import LogisticFitting
from headstart.runs.fitting.task import FittedModel, FoldsOutcome, Task, out_of_fold
from headstart.runs.settings.run import mlp_settings

CHECKPOINT = "mlp_folds.bin"
FIGURES = ("train_loss", "train_accuracy", "held_loss", "held_accuracy")


class MlpFitting:
    """Dense layers with dropout; the number of epochs is chosen inside every fold."""

    def __init__(self, task: Task) -> None:
        """Keep the task; nothing is computed yet."""
        self.task = task
        self.settings = mlp_settings(task.settings)
        self.history: dict[str, torch.Tensor] = {}
        self.epochs = 0
        self.probe = LogisticFitting(task)

    def beside(self) -> dict[str, Any]:
        """Nothing more for `metrics.json`."""
        return {}

    def fit_folds(self) -> FoldsOutcome:
        """Every fold with a fresh head, its epochs chosen on its inner rows."""
        task = self.task
        layers, epochs = self._kept() or self._fit_and_keep()
        self.epochs = self._final_epochs(epochs)
        parts = [task.fold_logits(k, layers[k]) for k in range(task.split.num_folds)]
        return FoldsOutcome(
            logits=out_of_fold(task.num_classes, task.split.fold, parts),
            chosen=self.chosen(),
            columns={"epochs": list(epochs), **self._columns()},
            history=(["fold", "epoch", *FIGURES], list(self._rows())),
            scalars=[
                (f"folds/{name}", float(values.nanmean(0)[epoch]), epoch + 1)
                for name, values in self.history.items()
                for epoch in range(values.shape[1])
                if bool(torch.isfinite(values[:, epoch]).any())
            ],
        )

    def chosen(self) -> dict[str, object]:
        """What the folds decided for the final fit."""
        return {"epochs": self.epochs}

    def _final_epochs(self, epochs: list[int]) -> int:
        return statistics.median_low(epochs)

    def _columns(self) -> dict[str, list[object]]:
        """Further columns of `cv_results.csv`."""
        return {}

    def _fit_and_keep(self) -> tuple[list[Layers], list[int]]:
        task = self.task
        rounds = task.split.num_folds * self.settings.epochs * (1 + self.settings.choose_epochs)
        with task.progress.phase("Fitting the heads", rounds, "epochs") as advance:
            fit = fit_mlp_folds(
                torch.from_numpy(task.fit_features),
                task.fit_labels,
                task.fold_weights(),
                task.fit_inner,
                task.num_classes,
                self.settings,
                seed=task.settings.seed,
                on_epoch=lambda _done, _total: advance(),
            )
        layers = [fit.layers(k) for k in range(task.split.num_folds)]
        epochs = [int(count) for count in fit.epochs]
        history = fit.inner_history or fit.fit.history
        self.history = {name: getattr(history, name) for name in FIGURES}
        save_state(task.folder, CHECKPOINT, self.history | named_layers(layers), {"epochs": epochs})
        return layers, epochs

    def _kept(self) -> tuple[list[Layers], list[int]] | None:
        """The folds that an interrupted run has fitted already."""
        kept = load_state(self.task.folder, CHECKPOINT)
        if kept is None:
            return None
        tensors, chosen = kept
        self.history = {name: tensors[name] for name in FIGURES}
        layers = layers_by_name(tensors, self.task.split.num_folds)
        epochs = chosen["epochs"]
        assert isinstance(epochs, list)
        return layers, epochs

    def _rows(self) -> Iterator[list[object]]:
        """`history.csv`: a line a fold and epoch, as long as the fold was trained."""
        num_folds, num_epochs = self.history[FIGURES[0]].shape
        for fold, epoch in np.ndindex(num_folds, num_epochs):
            values = [float(self.history[name][fold, epoch]) for name in FIGURES]
            if not all(np.isnan(value) for value in values):
                yield [fold + 1, epoch + 1, *("" if np.isnan(v) else v for v in values)]

    def curves(self, title: str) -> Figure:
        """Loss and accuracy along the epochs, of what is learnt and of what is held out."""
        held = self.history
        return epochs_figure(
            {"training": held["train_loss"].numpy(), "inner held-out": held["held_loss"].numpy()},
            {
                "training": held["train_accuracy"].numpy(),
                "inner held-out": held["held_accuracy"].numpy(),
            },
            self.epochs,
            title,
        )

    def fit_final(self) -> FittedModel:
        """One head on all training images, for the median of the folds' epochs."""
        task = self.task
        with task.progress.phase("Fitting the final head", self.epochs, "epochs") as advance:
            fit = fit_mlp_final(
                torch.from_numpy(task.fit_features),
                task.fit_labels,
                task.final_weights()[0],
                task.num_classes,
                self.settings,
                self.epochs,
                seed=task.settings.seed,
                on_epoch=lambda _done, _total: advance(),
            )
        head = FittedHead(kind="mlp", layers=fit.layers(0), chosen=self.chosen())
        return FittedModel(network=task.extractor.network, head=head)

    def features(self, model: FittedModel, rows: Integers) -> npt.NDArray[np.floating]:
        """(n, A, D) features of some rows of the table; the network is the frozen one."""
        return self.task.answering(rows)


def named_layers(layers: Sequence[Layers]) -> State:
    """The heads of all folds as tensors by name."""
    named: State = {}
    for k, dense in enumerate(layers):
        for number, (weight, bias) in enumerate(dense):
            named[f"{k}.{number}.weight"], named[f"{k}.{number}.bias"] = weight, bias
    return named


def layers_by_name(tensors: State, num_folds: int) -> list[Layers]:
    """The inverse of `named_layers`; heads may have different numbers of layers."""
    found: list[Layers] = []
    for k in range(num_folds):
        numbers = itertools.takewhile(lambda n: f"{k}.{n}.weight" in tensors, itertools.count())  # noqa: B023
        found.append(tuple((tensors[f"{k}.{n}.weight"], tensors[f"{k}.{n}.bias"]) for n in numbers))
    return found
