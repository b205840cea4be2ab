"""`--tune`: the multilayer head with settings of its own in every fold, by successive halving.

Inside the training part of each fold many settings are tried on its inner rows; the fold's head is
then trained on the whole part with the one it kept.  So the figures out of fold are those of the
whole procedure, the choice included, and not of a setting that was picked by them.
"""

from __future__ import annotations

from typing import Any

import torch

from headstart.files import write_csv
from headstart.heads import (
    HalvedSettings,
    Layers,
    MlpHistory,
    MlpSettings,
    fit_winners,
    rungs,
    successive_halving,
)
from headstart.runs.files.checkpoints import load_state, save_state
from headstart.runs.fitting.mlp import FIGURES, MlpFitting, layers_by_name, named_layers
from headstart.runs.fitting.task import Task
from headstart.runs.settings.run import settings_to_try

CHECKPOINT = "tuned_mlp_folds.bin"
TUNING = "tuning.csv"
TABLES = ("loss", "best_epoch", "epochs", "winner")
VARIED = ("hidden", "dropout", "lr", "weight_decay")


class SearchedMlpFitting(MlpFitting):
    """Dense layers whose shape, dropout, rate and decay are chosen inside every fold."""

    def __init__(self, task: Task) -> None:
        """Draw the settings to choose from."""
        super().__init__(task)
        self.candidates = settings_to_try(task.settings)
        self.found: HalvedSettings | None = None

    @property
    def halved(self) -> HalvedSettings:
        """What the search found; after `fit_folds`."""
        assert self.found is not None
        return self.found

    def beside(self) -> dict[str, Any]:
        """What was searched, for `metrics.json`."""
        found = self.halved
        return {
            "tuning": {
                "num_settings": len(self.candidates),
                "epochs": found.num_epochs,
                "epochs_of_the_full_grid": found.num_full_epochs,
                "kept_by_folds": [describe(self.candidates[k]) for k in found.winner.tolist()],
                "final": describe(self.settings),
            }
        }

    def chosen(self) -> dict[str, object]:
        """Setting and epochs of the final fit."""
        return super().chosen() | words(self.settings)

    def _final_epochs(self, epochs: list[int]) -> int:
        """Those of the folds that kept the final setting, which is found here too."""
        setting, number = self.halved.final
        self.settings = self.candidates[setting]
        write_csv(self.task.folder / TUNING, *tuning_table(self.halved))
        return number

    def _columns(self) -> dict[str, list[object]]:
        return {"setting": [describe(self.candidates[k]) for k in self.halved.winner.tolist()]}

    def _fit_and_keep(self) -> tuple[list[Layers], list[int]]:
        task = self.task
        data = torch.from_numpy(task.fit_features), task.fit_labels
        learns, seed = task.fold_weights(), task.settings.seed
        steps = rungs(len(self.candidates), self.settings.epochs)
        rounds = len(learns) * sum(rung.num_settings * rung.epochs for rung in steps)
        with task.progress.phase("Choosing settings", rounds, "epochs") as advance:
            told = 0

            def tell(done: int, total: int) -> None:
                nonlocal told
                advance(done - told)
                told = done

            found = successive_halving(
                *data,
                learns,
                task.fit_inner,
                task.num_classes,
                self.candidates,
                seed=seed,
                on_epoch=tell,
            )
        left = int(found.winning_epochs.sum())
        with task.progress.phase("Fitting the heads", left, "epochs") as advance:
            layers = fit_winners(
                *data,
                learns,
                task.num_classes,
                found,
                seed=seed,
                on_epoch=lambda _done, _total: advance(),
            )
        self._take(found)
        tensors = {name: getattr(found, name) for name in TABLES}
        counts: dict[str, object] = {"epochs": [found.num_epochs, found.num_full_epochs]}
        save_state(task.folder, CHECKPOINT, tensors | self.history | named_layers(layers), counts)
        return layers, found.winning_epochs.tolist()

    def _kept(self) -> tuple[list[Layers], list[int]] | None:
        """The folds that an interrupted run has searched and fitted already."""
        kept = load_state(self.task.folder, CHECKPOINT)
        if kept is None:
            return None
        tensors, chosen = kept
        counts = chosen["epochs"]
        assert isinstance(counts, list)
        found = HalvedSettings(
            candidates=self.candidates,
            **{name: tensors[name] for name in TABLES},
            history=MlpHistory(**{name: tensors[name] for name in FIGURES}),
            num_epochs=counts[0],
            num_full_epochs=counts[1],
        )
        self._take(found)
        return layers_by_name(tensors, self.task.split.num_folds), found.winning_epochs.tolist()

    def _take(self, found: HalvedSettings) -> None:
        self.found = found
        self.history = {name: getattr(found.history, name) for name in FIGURES}


def mlp_fitting(task: Task) -> MlpFitting:
    """A multilayer head, searched for where the settings say so."""
    return MlpFitting(task) if task.settings.tune is None else SearchedMlpFitting(task)


def words(settings: MlpSettings) -> dict[str, object]:
    """What is varied, for records and tables."""
    hidden = ",".join(str(width) for width in settings.hidden)
    return {name: getattr(settings, name) for name in VARIED} | {"hidden": hidden}


def describe(settings: MlpSettings) -> str:
    """'hidden=512,64 dropout=0.5 lr=0.001 weight_decay=0.0'."""
    return " ".join(f"{name}={value}" for name, value in words(settings).items())


def tuning_table(found: HalvedSettings) -> tuple[list[str], list[list[object]]]:
    """Header and rows of `tuning.csv`: a line a fold and setting."""
    header = ["fold", "setting", *VARIED, "epochs", "best_epoch", "inner_log_loss", "kept"]
    rows: list[list[object]] = []
    for fold in range(len(found.winner)):
        for k, settings in enumerate(found.candidates):
            told = words(settings)
            rows.append(
                [
                    fold + 1,
                    k + 1,
                    *(told[name] for name in VARIED),
                    int(found.epochs[fold, k]),
                    int(found.best_epoch[fold, k]),
                    float(found.loss[fold, k]),
                    "yes" if int(found.winner[fold]) == k else "no",
                ]
            )
    return header, rows
