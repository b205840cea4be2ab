"""`headstart compare --quick`: every backbone once over a part of the training images.

    data read and split as a run would -> a sample of the training part -> each backbone in turn:
    built, one pass (or the store), neighbours, probe, LogME -> table, recommendation, files

A backbone whose weights cannot be had is named and left out.  The features stay in the store, so
the same command again takes seconds, and a run finds the sample's images there.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.audit.findings import counted
from headstart.audit.writing import AUDIT_JSON, AUDIT_TEXT, IMAGES, PAIRS_PICTURE
from headstart.backbones import Network
from headstart.errors import DataError, OutputError, UsageError, WeightsError
from headstart.files import locked, make_folder, write_csv, write_json
from headstart.heads.baselines import NUM_NEIGHBOURS
from headstart.progress import Progress
from headstart.records import ImageTable, Integers
from headstart.runs.backbone import build_backbone, make_extractor
from headstart.runs.files.record import describe_engine, now, versions
from headstart.runs.job import split_with
from headstart.runs.parts.dividing import read_table
from headstart.runs.parts.units import Bools
from headstart.runtime import Execution, choose_execution, seed_everything
from headstart.studies.candidates import CandidateRun
from headstart.studies.quick.judging import Row, judge_quickly
from headstart.studies.quick.sample import Sample, draw_sample, fold_sample, tell_unreadable
from headstart.studies.quick.scoring import Scores, score_features, timed_pass
from headstart.studies.quick.settings import QuickSettings
from headstart.studies.quick.writing import PICTURE, RECORD, SAMPLE, TABLE, TEXT, write_files

SCHEMA_VERSION = 1
# Left by a choice that was interrupted; its record is written last.
UNFINISHED = {AUDIT_JSON, AUDIT_TEXT, IMAGES, PAIRS_PICTURE, TABLE, TEXT, PICTURE, SAMPLE}


@dataclass(frozen=True, kw_only=True, eq=False)
class QuickResult:
    """A finished quick choice.

    Attributes:
        out: its folder.
        record: the contents of `quick.json`.
    """

    out: Path
    record: dict[str, Any]


def choose_quickly(settings: QuickSettings, *, progress: Progress | None = None) -> QuickResult:
    """Try every backbone on the same training images and folds, and recommend one.

    Args:
        settings: what the user decided.
        progress: silent where None.

    Raises:
        UsageError: bad settings or data.
        WeightsError: no backbone's weights can be had.
        StorageError: the disk is full; features that were stored stay.
    """
    progress, folder = progress or Progress(), Path(settings.out)
    check_folder(folder)
    seed_everything(settings.reading.seed)
    table = read_table(settings.reading, progress)
    split_with(settings.reading, table)  # too small a class is refused before any work
    trial = Trial(settings, progress)
    networks = trial.networks()
    first = next(networks, None)
    if first is None:
        raise trial.none_left()
    make_folder(folder)
    with locked(folder):
        check_folder(folder)
        begun = time.perf_counter()
        trial.prepare(table, folder)
        for candidate, network, build_s in itertools.chain([first], networks):
            trial.measure(candidate, network, build_s)
        record = trial.record(round(time.perf_counter() - begun, 3))
        write_files(folder, record)
        trial.write_images(folder)
        write_json(folder / RECORD, record)
    return QuickResult(out=folder, record=record)


def check_folder(folder: Path) -> None:
    """Refuse to write into a folder that holds something else.

    Raises:
        OutputError: it is a file, holds a finished choice, or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"`--out` must be a folder, '{folder}' is a file. Choose another --out.")
    if not folder.is_dir():
        return
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    if names - UNFINISHED:
        held = "a quick choice already" if RECORD in names else "other files"
        raise OutputError(f"The folder '{folder}' holds {held}. Choose a new or empty --out.")


class Trial:
    """Backbones on their way through the same images."""

    def __init__(self, settings: QuickSettings, progress: Progress) -> None:
        """Choose device and precision."""
        self.settings, self.progress = settings, progress
        self.execution: Execution = choose_execution(
            settings.reading.device, settings.reading.precision
        )
        self.left_out: list[dict[str, str]] = []
        self.rows: list[Row] = []
        self.scores: list[Scores] = []
        self.folds: tuple[Integers, Bools] | None = None
        self.engine: dict[str, Any] = {}
        self.warnings: list[str] = []

    def networks(self) -> Iterator[tuple[CandidateRun, Network, float]]:
        """One backbone after the other with the seconds of building it, those that can be had."""
        for candidate in self.settings.candidates:
            begun = time.perf_counter()
            try:
                network = build_backbone(candidate.settings)
            except UsageError as error:
                self.leave_out(candidate.name, str(error))
                continue
            yield candidate, network, time.perf_counter() - begun

    def leave_out(self, name: str, reason: str) -> None:
        """Name a backbone that cannot be tried."""
        self.left_out.append({"name": name, "reason": reason})
        self.progress.note(f"Left out   {name}: {reason}")

    def none_left(self) -> WeightsError:
        """What to raise where there is no backbone to try."""
        first = self.left_out[0]
        if len(self.left_out) == 1:
            return WeightsError(first["reason"])
        names = ", ".join(one["name"] for one in self.left_out)
        return WeightsError(
            f"None of {len(self.left_out)} backbones can be tried: {names}. {first['name']}: "
            f"{first['reason']}"
        )

    def prepare(self, table: ImageTable, folder: Path) -> None:
        """Draw the sample, and tell what is done."""
        reading, progress = self.settings.reading, self.progress
        count = self.settings.count(len(table.class_names))
        progress.note(f"Data       {table.name}: {len(table):,} images")
        progress.note(f"Engine     {self.execution.describe()}")
        self.sample: Sample = draw_sample(reading, table, count, folder, progress)
        groups = self.sample.groups
        whole = "" if groups is None else f", {len(np.unique(groups)):,} independent groups"
        progress.note(
            f"Sample     {len(self.sample):,} of {self.sample.num_train:,} training images{whole}; "
            f"the test part stays closed ({self.sample.origin})"
        )

    def measure(self, candidate: CandidateRun, network: Network, build_s: float) -> None:
        """One pass and what it is worth; left out where the features are no numbers."""
        begun = time.perf_counter()
        name, progress = candidate.name, self.progress
        num_all = self.sample.num_all
        extractor = make_extractor(candidate.settings, network, self.execution, num_all)
        try:
            features, rate, how = timed_pass(extractor, self.sample.table, progress)
        except WeightsError as error:
            self.leave_out(name, str(error))
            return
        values, good = features.values, features.good
        if self.folds is None:
            values = values[good]
            tell_unreadable(self.sample.table, features.facts, self.settings.reading, progress)
            self.settle(good)
        elif not good.all():
            problem = next(record for record in features.facts if record.problem)
            self.leave_out(
                name, f"'{problem.path}' could not be read this time ({problem.problem})."
            )
            return
        assert self.folds is not None
        labels = self.sample.table.labels
        scores = score_features(values, labels, *self.folds, len(self.sample.table.class_names))
        self.engine = self.engine or describe_engine(extractor)
        self.scores.append(scores)
        self.rows.append(
            {
                "name": name,
                "model": network.spec.name,
                "weights": network.weights.source,
                "weights_licence": network.weights.licence,
                "image_size": network.preprocessing.size,
                "parameters": network.num_parameters,
                "num_features": network.num_features,
                "images_per_s": round(rate, 3),
                "rate_is": how,
                "seconds": round(build_s + time.perf_counter() - begun, 3),
                "all_images_s": round(num_all / rate, 3),
                "engine": extractor.engine.name,
            }
        )
        share = float((scores.probe == labels).mean())
        progress.note(f"Tried      {name}: {rate:,.0f} images/s, probe {share:.3f}")

    def settle(self, good: Bools) -> None:
        """Leave unreadable images out and draw the folds, the same for all backbones.

        Raises:
            DataError: nothing can be read, or too little for the folds.
        """
        if not good.any():
            raise DataError(
                f"None of the {len(good):,} images of the sample can be read. Check the files."
            )
        if not good.all() and self.sample.test_drawn:
            lost = counted(int((~good).sum()), "image")
            self.warnings.append(
                f"{lost} of the sample cannot be read. A run leaves them out "
                "before it draws its test part, so some images tried here may be tested on there; "
                "--audit full finds them first."
            )
        self.sample = self.sample.take(good)
        self.folds = fold_sample(self.sample, self.settings.reading)

    def record(self, seconds: float) -> dict[str, Any]:
        """The contents of `quick.json`.

        Raises:
            WeightsError: every backbone was left out.
        """
        if self.folds is None:
            raise self.none_left()
        seed, sample = self.settings.reading.seed, self.sample
        groups = sample.groups
        judged = judge_quickly(self.rows, self.scores, sample, seed=seed)
        return {
            "schema_version": SCHEMA_VERSION,
            "created": now(),
            "versions": versions(),
            "asked": self.settings.asked(),
            "engine": self.engine,
            "data": sample.table.name,
            "num_images": len(sample),
            "num_train": sample.num_train,
            "num_all": sample.num_all,
            "num_classes": len(sample.table.class_names),
            "num_groups": None if groups is None else len(np.unique(groups)),
            "num_folds": len(self.folds[1]),
            "num_neighbours": NUM_NEIGHBOURS,
            "test_part": f"closed: {sample.origin}",
            "seconds": seconds,
            **judged,
            "warnings": [*self.warnings, *judged["warnings"]],
            "left_out": self.left_out,
        }

    def write_images(self, folder: Path) -> None:
        """Every image of the sample: name, class, group, fold, and what each probe answered."""
        assert self.folds is not None
        table = self.sample.table
        named = np.array(table.class_names, dtype=object)
        columns = {
            "path": table.paths,
            "label": named[table.labels],
            "group": table.groups or ("",) * len(table),
            "fold": (self.folds[0] + 1).tolist(),
            **{row["name"]: named[s.probe] for row, s in zip(self.rows, self.scores, strict=True)},
        }
        write_csv(folder / SAMPLE, list(columns), zip(*columns.values(), strict=True))
