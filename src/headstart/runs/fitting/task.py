"""What every way of fitting works on, and what it gives back to the job."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from headstart.backbones import Network
from headstart.bundle import FittedHead
from headstart.features import new_array, row_slices, take_rows
from headstart.heads import InnerRows, Layers, apply_class_weights, mean_features, mean_logits
from headstart.inference import FeatureExtractor
from headstart.progress import Progress
from headstart.records import Features, ImageTable, Integers, Split
from headstart.runs.files.folder import FINISHED
from headstart.runs.parts.units import Units
from headstart.runs.settings.run import RunSettings

TIMING = "timing"  # in a record: somebody counts the seconds, or was killed over it
ANSWERED_ROWS = 8192  # images whose features are in memory at once

if TYPE_CHECKING:
    from headstart.finetune.records.profiling import Span
    from headstart.runs.files.record import RunFile
    from headstart.runs.fitting.logistic import LogisticFitting
    from headstart.runs.views import RunViews


@dataclass
class Clock:
    """Wall seconds of each phase, seconds of all threads, and the parts of a training's steps."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    parts: Mapping[str, Span] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a block."""
        begun = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
            self.seconds[name] = round(self.seconds.get(name, 0.0) + wall, 3)
            self.cpu_seconds[name] = round(self.cpu_seconds.get(name, 0.0) + cpu, 3)

    @contextmanager
    def going_on(self, run_file: RunFile) -> Iterator[None]:
        """Add what a run took until it was interrupted, and keep the sum where it is again.

        A run that was killed kept nothing of its last part, and its record says so.
        """
        record = run_file.record
        if record.get(TIMING):
            run_file.update(times_lost=True)
        earlier = {} if record["status"] == FINISHED else record["times"]
        pairs = ((self.seconds, earlier), (self.cpu_seconds, record.get("cpu_times") or {}))
        for seconds, before in pairs if earlier else ():
            for name, value in before.items():
                seconds[name] = round(seconds.get(name, 0.0) + value, 3)
        run_file.update(**{TIMING: True})
        try:
            yield
        except BaseException:
            with suppress(Exception):  # what is raised matters more
                kept = {"times": dict(self.seconds), "cpu_times": dict(self.cpu_seconds)}
                run_file.update(**kept, **{TIMING: False})
            raise
        run_file.update(**{TIMING: False})


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A run whose images are read and split; N images, of which M are learnt from.

    A head is fitted on R = M (1 + V) rows: the M whole pictures, then each of V views of them.

    Attributes:
        settings: what the user decided.
        table: N readable, labelled images.
        features: of the frozen backbone, in the table's order.
        split: who is learnt from and how it is folded.
        extractor: the frozen backbone on its device.
        folder: of the run.
        clock: takes the seconds of phases.
        progress: tells the user.
        views: features of views beside the whole pictures; None without any.
        units: of the table, groups and what the audit linked; None where every image is by itself.
    """

    settings: RunSettings
    table: ImageTable
    features: Features
    split: Split
    extractor: FeatureExtractor
    folder: Path
    clock: Clock
    progress: Progress
    views: RunViews | None = None
    units: Units | None = None

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.table.class_names)

    def drawn(self, rows: Integers) -> Integers | None:
        """(n,) codes of images that intervals and tests draw whole; None of independent ones."""
        return None if self.units is None else self.units.drawn(rows)

    @property
    def learnt_labels(self) -> Integers:
        """(M,) labels of the images that are learnt from."""
        return self.table.labels[self.split.train]

    @cached_property
    def learnt_features(self) -> npt.NDArray[np.float16]:
        """(M, D) features of the images that are learnt from."""
        return take_rows(self.features.values, self.split.train)

    @property
    def num_views(self) -> int:
        """1 + V: rows of an image that a head is fitted on."""
        return 1 if self.views is None else 1 + self.views.learnt.shape[1]

    @cached_property
    def fit_features(self) -> npt.NDArray[np.float16]:
        """(R, D) features that a head is fitted on."""
        if self.views is None or self.num_views == 1:
            return self.learnt_features
        parts = [self.learnt_features, *np.moveaxis(self.views.learnt, 1, 0)]  # 1 + V of (M, D)
        rows = new_array((len(parts), *parts[0].shape), np.float16)
        for place, part in zip(rows, parts, strict=True):
            place[:] = part
        return rows.reshape(-1, rows.shape[-1])

    @property
    def fit_labels(self) -> torch.Tensor:
        """(R,) int64 labels of the rows that a head is fitted on."""
        return torch.from_numpy(self.learnt_labels).repeat(self.num_views)

    @property
    def fit_inner(self) -> InnerRows:
        """Of F folds over R rows: whole pictures choose, all views of them are left out."""
        return self._over_views(torch.from_numpy(self.split.inner))

    @property
    def penalty_inner(self) -> InnerRows:
        """The same of J parts of each fold: what penalties are chosen on."""
        return self._over_views(torch.from_numpy(self.split.chooses_penalty))

    def _over_views(self, inner: torch.Tensor) -> InnerRows:
        """(..., M) images that choose as rows (..., R)."""
        left_out = torch.cat([inner] * self.num_views, dim=-1)
        chooses = torch.zeros_like(left_out)
        chooses[..., : inner.shape[-1]] = inner
        return InnerRows(chooses=chooses, left_out=left_out)

    def answering(self, rows: Integers) -> npt.NDArray[np.float16]:
        """(n, A, D) features of some rows of the table, of the A views that an answer averages."""
        whole, mirrored = self.features.values, None if self.views is None else self.views.mirrored
        if mirrored is None:
            taken = self.learnt_features if rows is self.split.train else take_rows(whole, rows)
            return taken[:, None]
        both = new_array((len(rows), 2, whole.shape[1]), np.float16)
        for part in row_slices(both):
            both[part, 0], both[part, 1] = whole[rows[part]], mirrored[rows[part]]
        return both

    def fold_logits(self, fold: int, layers: Layers) -> npt.NDArray[np.float64]:
        """(m, C) mean logits over those views, of the images that a fold scores."""
        rows = self.split.train[self.split.fold == fold]
        logits = np.empty((len(rows), self.num_classes))
        for start in range(0, len(rows), ANSWERED_ROWS):
            part = slice(start, start + ANSWERED_ROWS)
            logits[part] = mean_logits(self.answering(rows[part]), layers)
        return logits

    def fold_weights(self) -> torch.Tensor:
        """(F, R) float32: what each row weighs in each fold, 0 where the fold scores its image."""
        fold = torch.from_numpy(self.split.fold)
        learns = (fold[None, :] != torch.arange(self.split.num_folds)[:, None]).float()
        return self.weighted(learns)

    def final_weights(self) -> torch.Tensor:
        """(1, R) float32: what each row weighs in the final fit."""
        return self.weighted(torch.ones(1, len(self.split.train)))

    def weighted(self, learns: torch.Tensor) -> torch.Tensor:
        """(K, M) 0 and 1 -> (K, R) the same, times the class weights of each problem's own images.

        The rows of an image share its weight.
        """
        labels = torch.from_numpy(self.learnt_labels)
        kind = self.settings.class_weights
        weights = apply_class_weights(kind, labels, learns, self.num_classes)
        return weights.repeat(1, self.num_views) / self.num_views


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldsOutcome:
    """What cross-validation left.

    Attributes:
        logits: (M, C) float64 of the images learnt from, each by the fold that did not learn it.
        chosen: what the folds decided for the final fit ('penalty', 'epochs').
        columns: further columns of `cv_results.csv`, F values each.
        history: header and rows of `history.csv`.
        scalars: name, value, step of what TensorBoard shows.
    """

    logits: npt.NDArray[np.float64]
    chosen: dict[str, object]
    columns: dict[str, list[object]]
    history: tuple[list[str], list[list[object]]]
    scalars: list[tuple[str, float, int]]


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedModel:
    """What goes into the bundle."""

    network: Network
    head: FittedHead


class Fitting(Protocol):
    """One way from features or pixels to a model: a head on a frozen backbone, or fine-tuning."""

    @property
    def probe(self) -> LogisticFitting:
        """The logistic head on the frozen features, itself or to compare with."""

    def beside(self) -> dict[str, Any]:
        """Further entries of `metrics.json`; after `fit_folds`."""

    def fit_folds(self) -> FoldsOutcome:
        """Fit every fold afresh and predict what it did not learn from; or read what was kept."""

    def curves(self, title: str) -> Figure:
        """The figure that shows how choices were made; after `fit_folds`."""

    def fit_final(self) -> FittedModel:
        """Fit on everything that may be learnt from; after `fit_folds`."""

    def features(self, model: FittedModel, rows: Integers) -> npt.NDArray[np.floating]:
        """(n, A, D) features of some rows of the table by the final network.

        Of the A views that an answer averages: the whole picture first, mostly alone.
        """


def mean_over_views(features: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """(n, A, D) features of A views of each image -> (n, D) means, as `mean_features`."""
    count, views, width = features.shape
    if views == 1:
        return mean_features(features)
    means = new_array((count, width), np.float32)
    for part in row_slices(means):
        means[part] = mean_features(features[part])
    return means


def out_of_fold(
    num_classes: int, fold: Integers, parts: Sequence[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """(M, C) from the scored rows of every fold, each (m_k, C) in the order of the rows."""
    logits = np.empty((len(fold), num_classes))
    for k, part in enumerate(parts):
        logits[fold == k] = part
    return logits
