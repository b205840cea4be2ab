"""A run that stops where its model is locked, before the test part is opened.

The same phases as every run.  Beside them a probe is cross-validated again with other folds on
the features that are there, and what everything costs is measured.  Opened later, the run scores
the model that was locked then, read from its bundle, and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones import Network
from headstart.bundle import load_classifier
from headstart.bundle.classifier import MODEL_FOLDER
from headstart.errors import ResumeError
from headstart.files import read_json, write_json
from headstart.inference import FeatureExtractor
from headstart.inference.extractor import warm_decoders
from headstart.progress import Progress
from headstart.records import Features, ImageTable, Integers, Split
from headstart.runs.files.checkpoints import FOLDER as CHECKPOINTS
from headstart.runs.files.folder import FINISHED, LOCKED, owned_run
from headstart.runs.files.record import RUN_FILE
from headstart.runs.fitting.logistic import CHECKPOINT as LOGISTIC_FOLDS
from headstart.runs.fitting.mlp import CHECKPOINT as MLP_FOLDS
from headstart.runs.fitting.mlp_search import CHECKPOINT as SEARCHED_FOLDS
from headstart.runs.fitting.task import FittedModel, Fitting, FoldsOutcome
from headstart.runs.job import HEAD_FITTINGS, Job
from headstart.runs.parts.dividing import choosing_parts, read_table
from headstart.runs.parts.units import codes_of
from headstart.runs.settings.run import PROBE, RunSettings
from headstart.runs.settings.splits import TEST_FRACTION, Ratio, parse_ratio
from headstart.runs.views import learnt_views
from headstart.runtime import choose_execution
from headstart.splitting import stratified_folds
from headstart.studies import measuring
from headstart.studies.answers import FILE as ANSWERS
from headstart.studies.answers import Answers, write_answers
from headstart.studies.candidates import CandidateRun

MEASURED = "candidate.json"
COMPUTED, STORED, SHARED = "measured", "from the store, estimated", "as measured for"

Measured = dict[str, Any]


class TestPartClosedError(Exception):
    """The run stops here on purpose: its model is locked, its test part is not opened."""


class LockingJob(Job):
    """The main job up to the lock; or, where the model is locked already, what comes after it."""

    def prepare(
        self,
        *,
        name: str,
        repeats: int,
        earlier: Measured | None,
        interrupted: bool,
        memory_known: bool,
    ) -> None:
        """Say what is to be measured, before `run`.

        Args:
            name: of the candidate.
            repeats: cross-validations of a probe.
            earlier: what was measured of the same network with another head or strategy.
            interrupted: the run was begun before and did not reach its lock.
            memory_known: the peak of the memory was reset when the run began.
        """
        self.name, self.repeats, self.earlier = name, repeats, earlier
        self.interrupted, self.memory_known = interrupted, memory_known
        self.opens = self.run_file.record["status"] == LOCKED
        self.times = dict(self.run_file.record["times"])
        self.cpu_times = dict(self.run_file.record.get("cpu_times", {}))

    def read(self) -> tuple[ImageTable, Features]:
        """One pass over all images, and how many of them were computed."""
        warm_decoders(self.table, 0)  # else the first network alone would pay for their start
        table, self.kept = super().read()
        return table, self.kept

    def fit_folds(self, fitting: Fitting) -> FoldsOutcome:
        """Every fold with a fresh start; its columns say how long fine-tuning took."""
        self.outcome = super().fit_folds(fitting)
        return self.outcome

    def fit_final(self, fitting: Fitting) -> FittedModel:
        """A model from all training images; the locked one where there is one."""
        if not self.opens:
            return super().fit_final(fitting)
        execution = self.extractor.execution
        classifier = load_classifier(
            self.folder / MODEL_FOLDER,
            device=execution.device,
            expect_digest=self.run_file.record["choice"]["model_digest"],
        )
        network: Network = classifier.network
        if network.digest == self.network.digest:
            network = self.network
        return FittedModel(network=network, head=classifier.head)

    def lock(self, model: FittedModel, metrics: dict[str, Any]) -> None:
        """Write bundle, answers and costs down; a model that is locked stays what it is."""
        if self.opens:
            return
        super().lock(model, metrics)
        write_answers(self.folder, self.answers())
        write_json(self.folder / MEASURED, self.measure(model, metrics))
        self.run_file.update(
            status=LOCKED, times=dict(self.clock.seconds), cpu_times=dict(self.clock.cpu_seconds)
        )
        super().tell_profile()

    def test(self, fitting: Fitting, model: FittedModel) -> dict[str, Any]:
        """Open the test part, once, unless the model was locked only now.

        Raises:
            TestPartClosedError: it was.
        """
        if not self.opens:
            raise TestPartClosedError
        found = super().test(fitting, model)
        self.clock.seconds = {**self.times, "test": self.clock.seconds["test"]}
        cpu_seconds = {**self.cpu_times, "test": self.clock.cpu_seconds["test"]}
        self.clock.cpu_seconds = cpu_seconds
        return found

    def tell_profile(self) -> None:
        """Nothing: a run that is opened told it when it was locked."""

    def answers(self) -> Answers:
        """The run's own out-of-fold answers, and a probe's with other folds."""
        task = self.task
        learnt = task.table.take(task.split.train)
        folds: list[Integers] = [task.split.fold]
        predicted: list[Integers] = [self.out_of_fold.argmax(axis=1)]
        if self.settings.strategy == PROBE and task.split.scheme == "stratified":
            with self.clock.phase("repetitions"):
                for number in range(2, self.repeats + 1):
                    fold, answers = self.repetition(learnt, number)
                    folds.append(fold)
                    predicted.append(answers)
        return Answers(
            paths=learnt.paths,
            labels=learnt.labels,
            groups=task.drawn(task.split.train),
            folds=np.stack(folds),
            predicted=np.stack(predicted),
        )

    def repetition(self, learnt: ImageTable, number: int) -> tuple[Integers, Integers]:
        """(M,) folds of one more cross-validation, and (M,) what it answered."""
        task = replace(
            self.task,
            split=self.redrawn(learnt, (self.settings.seed + number - 1) % 2**32),
            folder=self.folder / CHECKPOINTS / f"repetition-{number}",
        )
        outcome = HEAD_FITTINGS[self.settings.head](task).fit_folds()
        return task.split.fold, outcome.logits.argmax(axis=1)

    def redrawn(self, learnt: ImageTable, seed: int) -> Split:
        """The run's split with other folds of the same training part."""
        split = self.task.split
        units = self.task.units
        kept = None if units is None else units.take(split.train)
        word = "image" if kept is None else kept.word
        ratio = self.settings.ratio
        shares = Ratio(test_fraction=TEST_FRACTION) if ratio is None else parse_ratio(ratio)
        fold = stratified_folds(
            learnt.labels,
            split.num_folds,
            class_names=learnt.class_names,
            groups=codes_of(kept),
            seed=seed,
            unit=word,
        )
        inner, inner_fold = choosing_parts(
            learnt, fold, kept, shares.inner_fraction, self.settings.inner_folds, seed=seed
        )
        return replace(split, fold=fold, inner=inner, inner_fold=inner_fold)

    def measure(self, model: FittedModel, metrics: dict[str, Any]) -> Measured:
        """What `candidate.json` says: figures of the run's own folds, and costs."""
        figures = metrics["cross_validation"]["figures"]
        device = self.extractor.execution.device
        peak = measuring.peak_memory_mib(device) if self.memory_known else None
        return {
            "name": self.name,
            "model": self.network.spec.name,
            "strategy": self.settings.strategy,
            "image_size": self.network.preprocessing.size,
            "weights": self.network.weights.source,
            "split": self.run_file.record["splits"]["digest"],
            "data": self.run_file.record["data"]["digest"],
            "model_digest": self.run_file.record["choice"]["model_digest"],
            "repeats": self.repeats,
            "accuracy": figures["accuracy"],
            "macro_f1": figures["macro_f1"],
            **self.seconds(model),
            "parameters": self.network.num_parameters + measuring.head_parameters(model.head),
            "peak_memory_mib": peak,
            "memory_of": "the GPU" if device == "cuda" else "the process",
            "interrupted": self.interrupted,
        }

    def seconds(self, model: FittedModel) -> Measured:
        """Of the pass, of training and of one prediction; alike for all with the same network."""
        clock = self.clock.seconds
        training = clock["folds"] + clock["final fit"]
        if self.interrupted:  # folds that were finished before took no time now
            told = self.outcome.columns.get("training_seconds", [])
            training = max(training, clock["final fit"] + sum(float(str(s)) for s in told))
        found: Measured = {"training_s": round(training, 3)}
        if self.earlier is not None:
            shared = {name: self.earlier[name] for name in ("pass_s", "prediction_ms")}
            known = ", estimated" if "estimated" in self.earlier["pass_is"] else ""
            return found | shared | {"pass_is": f"{SHARED} {self.earlier['name']}{known}"}
        train = self.task.split.train
        with self.clock.phase("timing"):
            if not self.kept.read_back:
                pass_s = clock["features"] - self.kept.seconds.get("audit", 0.0)
                found |= {"pass_s": round(pass_s, 3), "pass_is": COMPUTED}
            else:
                wanted = [*self.confidence.views, *learnt_views(self.settings)]
                estimate = measuring.estimated_pass_s(
                    self.extractor, self.task.table, train, list(dict.fromkeys(wanted))
                )
                found |= {"pass_s": estimate, "pass_is": STORED}
            extractor = FeatureExtractor(model.network, self.extractor.execution)
            found["prediction_ms"] = measuring.prediction_ms(
                extractor, model.head, self.task.table, train, self.confidence.views
            )
        return found


def lock_candidate(
    candidate: CandidateRun, *, repeats: int, earlier: Measured | None, progress: Progress
) -> Measured:
    """Run a candidate up to its lock; what was measured before where it is locked already.

    Raises:
        UsageError: bad data, or a folder that holds something else.
        ResumeError: the run was begun with other settings or data.
    """
    found = read_measured(Path(candidate.settings.out))
    if found is not None:
        return found
    go_on(candidate, repeats=repeats, earlier=earlier, progress=progress)
    found = read_measured(Path(candidate.settings.out))
    assert found is not None
    return found


def open_candidate(candidate: CandidateRun, *, repeats: int, progress: Progress) -> None:
    """Score a locked candidate on the test part, unless that was done before."""
    record = read_json(Path(candidate.settings.out) / RUN_FILE)
    if record["status"] != FINISHED:
        go_on(candidate, repeats=repeats, earlier=None, progress=progress)


def go_on(
    candidate: CandidateRun, *, repeats: int, earlier: Measured | None, progress: Progress
) -> None:
    """Begin a candidate's run, or go on with it, until its lock or from there to its end."""
    settings, folder = candidate.settings, Path(candidate.settings.out)
    table = read_table(settings, progress)
    with owned_run(settings, table, resume=True) as (run_file, begun):
        closed = run_file.record["status"] == LOCKED
        if begun and not closed:
            forget_quick_folds(settings, folder)
        device = choose_execution(settings.device, settings.precision).device
        reset = measuring.reset_peak_memory(device)
        try:
            job = LockingJob(settings, folder, table, run_file, progress)
            job.prepare(
                name=candidate.name,
                repeats=repeats,
                earlier=earlier,
                interrupted=begun and not closed,
                memory_known=reset,
            )
            job.run()
        except TestPartClosedError:
            progress.note(f"Locked     {candidate.name}; its test part is closed")


def forget_quick_folds(settings: RunSettings, folder: Path) -> None:
    """A probe's folds are fitted again after an interruption, so that their time is the whole."""
    if settings.strategy == PROBE:
        for name in (LOGISTIC_FOLDS, MLP_FOLDS, SEARCHED_FOLDS):
            (folder / CHECKPOINTS / name).unlink(missing_ok=True)


def read_measured(folder: Path) -> Measured | None:
    """What is known of a candidate; None where it is not locked yet.

    Raises:
        ResumeError: the files of a locked one are damaged.
    """
    try:
        status = read_json(folder / RUN_FILE)["status"]
        if status not in (LOCKED, FINISHED):
            return None
        found: Mapping[str, Any] = read_json(folder / MEASURED)
        if not (folder / ANSWERS).is_file():
            raise ValueError(f"{ANSWERS} is missing")
        return dict(found)
    except FileNotFoundError as error:
        if not (folder / RUN_FILE).exists():
            return None
        missing: Exception = error
    except (ValueError, KeyError, TypeError) as error:
        missing = error
    raise ResumeError(
        f"The candidate in '{folder}' is damaged ({missing}). Remove that folder and go on with "
        "--resume."
    ) from missing
