"""Fine-tuning: every fold trains a network of its own, from the fitted probe where that is asked.

    pictures, once -> in every fold: a probe without the inner rows -> training, the epoch chosen
    on the inner rows -> the fold's scored images -> all images, for the median of the epochs

A finished fold is kept as a checkpoint, an unfinished one goes on at its last epoch.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from headstart.bundle import FittedHead
from headstart.features import check_unchanged, new_array
from headstart.files import write_text
from headstart.finetune import (
    STRATEGIES,
    PreparedImages,
    TrainingData,
    TunedNetwork,
    fit_network,
    flip_note,
    median_drops,
    median_epochs,
    plan_network,
    predict_logits,
    prepare_images,
    refit,
    summary,
)
from headstart.finetune.records.pictures import plan_figure
from headstart.finetune.records.profiling import added
from headstart.heads import Layers, fit_scaled_logistic
from headstart.inference import FeatureExtractor
from headstart.plots import epochs_figure
from headstart.records import Integers
from headstart.runs.files.checkpoints import FOLDER
from headstart.runs.files.outputs import SUMMARY, TRAINS, write_figure
from headstart.runs.fitting.logistic import LogisticFitting
from headstart.runs.fitting.task import FittedModel, FoldsOutcome, Task, out_of_fold
from headstart.runs.settings.training import train_settings
from headstart.runtime import interrupted_later


class TunedFitting:
    """A network that learns, by one of the strategies."""

    def __init__(self, task: Task) -> None:
        """Check that the strategy suits the network; nothing is computed yet."""
        self.task = task
        self.network = task.extractor.network
        self.settings = train_settings(task.settings)
        self.strategy = STRATEGIES.get(task.settings.strategy)
        self.plan = plan_network(self.network, self.settings)
        self.probe = LogisticFitting(task)
        self.folds: list[TunedNetwork] = []
        self._images: PreparedImages | None = None
        for line in self.plan.describe().splitlines():
            task.progress.note(f"Trains     {line}")
        formats = {f"{facts.format} files" for facts in task.features.facts}
        names = [task.table.name, *task.table.class_names, *sorted(formats)]
        mirrored = flip_note(self.settings.augmentation, names)
        if mirrored:
            task.progress.note(f"Augment    {mirrored}")

    @property
    def starts_from_probe(self) -> bool:
        """Whether the head begins as a fitted probe; a new head of several layers cannot."""
        return self.strategy.from_probe and not self.settings.hidden

    @property
    def images(self) -> torch.Tensor:
        """(N, S, S, 3) uint8, decoded once.

        Raises:
            DataError: one is not what it was when its features were computed.
        """
        if self._images is None:
            task = self.task
            with task.clock.phase("pictures"):
                found = prepare_images(task.table, task.extractor, progress=task.progress)
            for record, known in zip(found.facts, task.features.facts, strict=True):
                check_unchanged(record, known.digest)
            self._images = found
        return self._images.pixels

    def fit_folds(self) -> FoldsOutcome:
        """A fresh copy of the network a fold."""
        task, split = self.task, self.task.split
        write_text(task.folder / SUMMARY, summary(self.network, self.plan))
        write_figure(task.folder / TRAINS, plan_figure(self.plan, self.network.spec.name))
        starts = self._fold_starts()
        parts = []
        for k in range(split.num_folds):
            learnt = split.fold != k
            with task.clock.phase("training"):
                tuned = fit_network(
                    self.network,
                    self._data(learnt & ~split.inner[k], split.inner[k]),
                    self.settings,
                    execution=task.extractor.execution,
                    start_head=starts[k],
                    checkpoint_dir=task.folder / FOLDER,
                    progress=task.progress,
                    fold=k + 1,
                )
            parts.append(self._predict(tuned, split.train[~learnt]))
            self.folds.append(without_weights(tuned))
            task.clock.parts = added([task.clock.parts, tuned.profile])
            task.progress.note(f"Fold {k + 1}     {tuned.verdict}")
        return FoldsOutcome(
            logits=out_of_fold(task.num_classes, split.fold, parts),
            chosen={
                "strategy": self.strategy.name, "epochs": list(median_epochs(self.folds))
            },
            columns={
                "epochs": [fit.best_epoch for fit in self.folds],
                "training_seconds": [round(fit.seconds, 1) for fit in self.folds],
            },
            history=history_table(self.folds),
            scalars=list(scalars(self.folds)),
        )  # fmt: skip

    def _fold_starts(self) -> Sequence[Layers | None]:
        """A head a fold, fitted on its training part without the inner rows; None for new ones."""
        task = self.task
        if not self.starts_from_probe:
            return [None] * task.split.num_folds
        self.probe.fit_folds()
        fit = self.probe.fit
        assert fit is not None
        inner = torch.from_numpy(task.split.inner)
        found = fit_scaled_logistic(
            self.probe.rotated,
            torch.from_numpy(task.learnt_labels),
            task.fold_weights() * ~inner,
            fit.penalty,
            task.num_classes,
        )
        return [
            ((found.coef[k].float(), found.intercept[k].float()),)
            for k in range(task.split.num_folds)
        ]

    def _data(self, learnt: npt.NDArray[np.bool_], inner: npt.NDArray[np.bool_]) -> TrainingData:
        """The pictures of the table with these of its training rows (M,) to learn from."""
        train = self.task.split.train
        return TrainingData(
            images=self.images,
            labels=self.task.table.labels,
            train_rows=train[learnt],
            inner_rows=train[inner],
            num_classes=self.task.num_classes,
        )

    def _predict(self, tuned: TunedNetwork, rows: Integers) -> npt.NDArray[np.float64]:
        execution = self.task.extractor.execution
        return predict_logits(tuned, self.images, rows, execution=execution)

    def curves(self, title: str) -> Figure:
        """Loss and accuracy by epoch, the change of phase marked."""
        return epochs_figure(
            {
                "training": history_array(self.folds, "train_loss"),
                "inner held-out": history_array(self.folds, "inner_log_loss"),
            },
            {
                "training": history_array(self.folds, "train_accuracy"),
                "inner held-out": history_array(self.folds, "inner_accuracy"),
            },
            sum(median_epochs(self.folds)),
            f"{title}, {self.strategy.name}",
            marks=phase_changes(self.folds),
        )

    def fit_final(self) -> FittedModel:
        """All training images, for the median of the folds' epochs."""
        task = self.task
        everything = np.ones(len(task.split.train), dtype=bool)
        start = self.probe.fit_final().head.layers if self.starts_from_probe else None
        settings = self.settings
        if settings.schedule == "plateau":
            settings = replace(settings, drop_after=median_drops(self.folds))
        with task.clock.phase("training"):
            tuned = refit(
                self.network,
                self._data(everything, ~everything),
                settings,
                epochs=median_epochs(self.folds),
                execution=task.extractor.execution,
                start_head=start,
                checkpoint_dir=task.folder / FOLDER,
                progress=task.progress,
            )
        task.clock.parts = added([task.clock.parts, tuned.profile])
        head = FittedHead(
            kind="tuned",
            layers=tuned.head,
            chosen={"strategy": self.strategy.name, "epochs": list(median_epochs(self.folds))},
        )
        return FittedModel(network=tuned.network, head=head)

    def features(self, model: FittedModel, rows: Integers) -> npt.NDArray[np.floating]:
        """(n, 1, D) features of some rows of the table, through the tuned network.

        Raises:
            DataError: a picture is not what it was when its features were computed.
        """
        extractor = FeatureExtractor(model.network, self.task.extractor.execution)
        source = self.task.table.take(rows)
        made = new_array((len(source), 1, extractor.num_features), np.float16)
        known = self.task.features.facts
        for batch, facts, values in extractor.extract(source, range(len(source))):
            for place, record in zip(batch, facts, strict=True):
                check_unchanged(record, known[rows[place]].digest)
            made[batch, 0] = values
        return made

    def beside(self) -> dict[str, Any]:
        """For `metrics.json`: what trained, and a verdict a fold."""
        return {
            "training": {
                "strategy": self.strategy.name,
                "plan": self.plan.describe(),
                "verdicts": [fit.verdict for fit in self.folds],
            }
        }


def without_weights(tuned: TunedNetwork) -> TunedNetwork:
    """The fit for tables only; its network's memory is given back."""
    kept = replace(tuned, network=None, head=())  # type: ignore[arg-type]
    with interrupted_later():  # an interruption inside of a finalizer would be swallowed
        gc.collect()
    return kept


def history_table(folds: Sequence[TunedNetwork]) -> tuple[list[str], list[list[object]]]:
    """Header and rows of `history.csv`: a line a fold and epoch."""
    lines = [
        {"fold": number + 1, **record.row()}
        for number, fit in enumerate(folds)
        for record in fit.history
    ]
    header = list(dict.fromkeys(name for line in lines for name in line))
    rows = [["" if line.get(n) is None else line[n] for n in header] for line in lines]
    return header, rows


def history_array(folds: Sequence[TunedNetwork], name: str) -> npt.NDArray[np.float64]:
    """(F, E) of one number of the history, NaN where a fold has none; the start is left out."""
    longest = max(record.epoch for fit in folds for record in fit.history)
    values = np.full((len(folds), longest), np.nan)
    for number, fit in enumerate(folds):
        for record in fit.history:
            value = record.row().get(name)
            if record.epoch and value is not None:
                values[number, record.epoch - 1] = value
    return values


def phase_changes(folds: Sequence[TunedNetwork]) -> dict[int, str]:
    """Last epoch of each phase but the last to the name of the next, of the first fold."""
    trained = [record for record in folds[0].history if record.epoch]
    return {
        before.epoch: after.phase
        for before, after in pairwise(trained)
        if before.phase != after.phase
    }


def scalars(folds: Sequence[TunedNetwork]) -> list[tuple[str, float, int]]:
    """Every number of every epoch, for TensorBoard."""
    found = []
    for number, fit in enumerate(folds):
        for record in fit.history:
            for name, value in record.row().items():
                if isinstance(value, int | float) and name != "epoch":
                    found.append((f"fold {number + 1}/{name}", float(value), record.epoch))
    return found
