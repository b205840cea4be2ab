"""`--layers auto`: how many stages a logistic head takes features of, chosen inside every fold.

The network of the pass gives the features of all candidates side by side, the own ones last; a
candidate is the last columns of them. So the choice costs no further pass, and the final network
is cut to what was chosen: strangeness, ONNX and every caller then see the head's features and
nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from headstart.backbones import AUTO, keep_last_layers
from headstart.files import write_csv
from headstart.heads import (
    ChosenFit,
    NestedFit,
    RotatedFeatures,
    fit_on_columns,
    fit_with_chosen_columns,
    penalty_path,
)
from headstart.records import Integers
from headstart.runs.files.checkpoints import load_state, save_state
from headstart.runs.fitting import logistic
from headstart.runs.fitting.logistic import LogisticFitting, coordinates, final_head
from headstart.runs.fitting.task import FittedModel, FoldsOutcome, Task

LAYERS = "layers.csv"
HEADS, FINAL = "heads", "final"


class LayeredFitting(LogisticFitting):
    """Multinomial logistic regression; layers and penalty are chosen inside every fold."""

    def __init__(self, task: Task) -> None:
        """Name the candidates, own features first; nothing is computed yet."""
        super().__init__(task)
        names = list(task.extractor.network.layers)
        self.candidates = [",".join(names[-count:]) for count in range(1, len(names) + 1)]
        widths = list(task.extractor.network.layers.values())
        self.columns = [sum(widths[-count:]) for count in range(1, len(names) + 1)]
        self.nested: NestedFit | None = None
        self._all_rotated: list[RotatedFeatures] = []

    @property
    def chosen(self) -> NestedFit:
        """What the folds found; after `fit_folds`."""
        assert self.nested is not None
        return self.nested

    @property
    def all_rotated(self) -> list[RotatedFeatures]:
        """The training features of every candidate in coordinates of its own, found once a run."""
        if not self._all_rotated:
            features = torch.from_numpy(self.task.fit_features)
            self._all_rotated = [coordinates(features[:, -n:]) for n in self.columns]
        return self._all_rotated

    def fit_folds(self) -> FoldsOutcome:
        """All folds and all penalties of a candidate at once, each fold with its own choice."""
        self.nested = nested = self.nested or self._kept_choice() or self._choose()
        self.fit = nested.heads
        outcome = super().fit_folds()
        by_fold = [self.candidates[k] for k in nested.candidate.tolist()]
        write_csv(self.task.folder / LAYERS, *self._table())
        final = self.candidates[nested.final]
        self.task.progress.note(f"Layers     chosen: {final}; {self._told(by_fold)}")
        return replace(
            outcome,
            chosen=outcome.chosen | {"layers": final},
            columns={"layers": list(by_fold), **outcome.columns},
        )

    def _choose(self) -> NestedFit:
        task = self.task
        nested = fit_with_chosen_columns(
            self.all_rotated,
            task.fit_labels,
            task.fold_weights(),
            task.penalty_inner,
            penalty_path(task.settings.num_penalties),
            task.num_classes,
        )
        tensors, chosen = logistic.stored(nested.heads)
        own = {name: getattr(nested, name) for name in own_tensors()}
        kept = {f"{HEADS}.{name}": tensor for name, tensor in tensors.items()}
        save_state(task.folder, logistic.CHECKPOINT, own | kept, chosen | {FINAL: nested.final})
        return nested

    def _kept_choice(self) -> NestedFit | None:
        """The folds that an interrupted run has fitted already."""
        kept = load_state(self.task.folder, logistic.CHECKPOINT)
        if kept is None:
            return None
        tensors, chosen = kept
        penalty = float(str(chosen[logistic.FINAL_PENALTY]))
        heads = {n.removeprefix(f"{HEADS}."): t for n, t in tensors.items() if n.startswith(HEADS)}
        return NestedFit(
            heads=ChosenFit(final_penalty=penalty, **heads),
            final=int(str(chosen[FINAL])),
            **{name: tensors[name] for name in own_tensors()},
        )

    def _told(self, by_fold: Sequence[str]) -> str:
        """'inner log loss 0.612 (head, no fold), 0.598 (stage3,head, 5 folds)'."""
        counts, parts = Counter(by_fold), []
        for name, loss in zip(self.candidates, self.chosen.mean_log_loss.tolist(), strict=True):
            folds = "1 fold" if counts[name] == 1 else f"{counts[name] or 'no'} folds"
            parts.append(f"{loss:.4f} ({name}: {folds})")
        return f"inner log loss {', '.join(parts)}"

    def _table(self) -> tuple[list[str], list[list[object]]]:
        """Header and rows of `layers.csv`: a line a fold and candidate, at its best penalty."""
        found = self.chosen
        rows: list[list[object]] = [
            [
                fold + 1,
                name,
                self.columns[number],
                float(found.penalty[number, fold]),
                float(found.log_loss[number, fold]),
                float(found.accuracy[number, fold]),
                "yes" if int(found.candidate[fold]) == number else "no",
            ]
            for fold in range(len(found.candidate))
            for number, name in enumerate(self.candidates)
        ]
        header = ["fold", "layers", "features", "penalty", "inner_log_loss", "inner_accuracy"]
        return [*header, "kept"], rows

    def beside(self) -> dict[str, Any]:
        """What was chosen from, for `metrics.json`; the log losses are means over the folds."""
        found = self.chosen
        return {
            "layers": {
                "candidates": [
                    {"layers": name, "num_features": width, "inner_log_loss": loss}
                    for name, width, loss in zip(
                        self.candidates, self.columns, found.mean_log_loss.tolist(), strict=True
                    )
                ],
                "kept_by_folds": [self.candidates[k] for k in found.candidate.tolist()],
                "final": self.candidates[found.final],
            }
        }

    def refit(
        self, folds: torch.Tensor, weights: torch.Tensor, penalties: torch.Tensor, tolerance: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """More heads, each on the layers of its fold; see `LogisticFitting.refit`."""
        heads = self.chosen.heads
        found = fit_on_columns(
            self.all_rotated,
            self.chosen.candidate[folds],
            self.task.fit_labels,
            weights,
            penalties,
            self.task.num_classes,
            tolerance=tolerance,
            start=(heads.coef[folds], heads.intercept[folds]),
        )
        return found.coef, found.intercept

    def curves(self, title: str) -> Figure:
        """The inner log loss along the penalties, of the layers that each fold chose."""
        return super().curves(f"{title} ({self.candidates[self.chosen.final]})")

    def fit_final(self) -> FittedModel:
        """One head on all training images, with the layers and penalty the folds agreed on."""
        final = self.chosen.final
        head = final_head(self.task, self.all_rotated[final], self.chosen.heads)
        return FittedModel(
            network=keep_last_layers(self.task.extractor.network, final + 1),
            head=replace(head, chosen={**head.chosen, "layers": self.candidates[final]}),
        )

    def features(self, model: FittedModel, rows: Integers) -> npt.NDArray[np.floating]:
        """(n, A, D) features of some rows of the table, those that the final network gives."""
        return self.task.answering(rows)[..., -model.network.num_features :]


def logistic_fitting(task: Task) -> LogisticFitting:
    """A logistic head, its layers searched for where the settings say so."""
    return LayeredFitting(task) if task.settings.layers == AUTO else LogisticFitting(task)


def own_tensors() -> list[str]:
    """Names of what a `NestedFit` holds beside its heads."""
    return [field.name for field in fields(NestedFit) if field.name not in (HEADS, FINAL)]
