"""The main job: from a folder of pictures to a tested model.

    read -> features of every image, once -> folds and penalties, all at once -> figures of the
    folds -> final fit on all training images -> the choice is locked -> the test part is opened,
    once -> the run's files

Everything up to the lock sees training images only. What a phase finishes is written before the
next begins, so a killed run goes on where it stopped and ends with the same figures.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.audit import Audit, write_images
from headstart.backbones import Network, build_network, find_backbone
from headstart.bundle import save_bundle
from headstart.bundle.classifier import MODEL_FOLDER, answer
from headstart.bundle.format import read_bundle
from headstart.errors import DataError, OutputError, UsageError
from headstart.features import extract_features
from headstart.files import LOCK_NAME, digest_bytes, locked, make_folder
from headstart.heads import FIT_TOLERANCE, head_logits, to_probabilities
from headstart.inference import FeatureExtractor
from headstart.plots import learning_curve_figure
from headstart.progress import Progress
from headstart.records import Features, ImageTable, Integers, Predictions, Split
from headstart.runs import outputs
from headstart.runs.auditing import audit_run
from headstart.runs.baselines import accuracy_of, baseline_figures
from headstart.runs.checkpoints import FOLDER as CHECKPOINTS
from headstart.runs.confidence import (
    calibrate,
    calibration_record,
    fit_confidence,
    judge_confidence,
)
from headstart.runs.contents import check_contents
from headstart.runs.evaluation import evaluate_folds, evaluate_test
from headstart.runs.learning_curve import learning_curve
from headstart.runs.logistic import LogisticFitting
from headstart.runs.mlp import MlpFitting
from headstart.runs.parts import group_codes, read_table, split_table
from headstart.runs.record import (
    RUN_FILE,
    RunFile,
    data_digest,
    describe_data,
    describe_execution,
    describe_network,
    leaks_of,
    now,
    table_digest,
)
from headstart.runs.settings import RunSettings
from headstart.runs.task import Clock, FittedModel, Fitting, FoldsOutcome, Task
from headstart.runtime import choose_execution, seed_everything

FINISHED = "finished"
NAMED_FILES = 5
AUDIT_FILES = ("audit.json", "audit.txt", "duplicates.png")
HEAD_FITTINGS: dict[str, Callable[[Task], Fitting]] = {
    "logistic": LogisticFitting,
    "mlp": MlpFitting,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class RunResult:
    """A finished run.

    Attributes:
        out: its folder.
        record: the contents of `run.json`.
        metrics: the contents of `metrics.json`.
    """

    out: Path
    record: dict[str, Any]
    metrics: dict[str, Any]


def run_job(
    settings: RunSettings, *, resume: bool = False, progress: Progress | None = None
) -> RunResult:
    """Run the main job, or go on with one that was interrupted.

    Args:
        settings: what the user decided.
        resume: go on in `settings.out`; a folder that is not there is begun.
        progress: silent where None.

    Raises:
        UsageError: bad settings or bad data; nothing is left behind then.
        StorageError: the disk is full; what was finished stays whole.
    """
    progress = progress or Progress()
    folder = Path(settings.out)
    table = read_table(settings, progress)
    check_folder(folder, resume=resume)
    existed = folder.exists()
    make_folder(folder)
    with locked(folder):  # only its owner looks what is in it, writes and removes
        check_folder(folder, resume=resume)
        if (folder / RUN_FILE).exists():
            run_file = RunFile.reopen(folder, settings)
            run_file.check_table(table_digest(table))
            if is_finished(run_file):
                check_contents(folder, table, progress)
                progress.note(f"The run in '{folder}' is finished already; nothing was done again.")
                metrics = outputs.read_metrics(folder)
                return RunResult(out=folder, record=run_file.record, metrics=metrics)
            return Job(settings, folder, table, run_file, progress).run()
        try:
            run_file = RunFile.begin(folder, settings)
            run_file.update(table_digest=table_digest(table))
            return Job(settings, folder, table, run_file, progress).run()
        except UsageError:
            remove_begun(folder, existed=existed)
            raise


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse to write into a folder that holds something else.

    Raises:
        OutputError: it is a file, holds a run already, or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"`--out` must be a folder, '{folder}' is a file. Choose another --out.")
    if (folder / RUN_FILE).exists():
        if not resume:
            raise OutputError(
                f"The folder '{folder}' holds a run already. Choose another --out, or go on with "
                "it by --resume."
            )
    elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise OutputError(
            f"The folder '{folder}' holds other files and no run. Choose a new or empty --out."
        )


def remove_begun(folder: Path, *, existed: bool) -> None:
    """Take away what a refused run wrote, and nothing else; the folder where the run made it."""
    for name in (outputs.IMAGES, outputs.SPLITS, *AUDIT_FILES, RUN_FILE, LOCK_NAME):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    if not existed:
        with suppress(OSError):  # somebody put a file there meanwhile
            folder.rmdir()


def is_finished(run_file: RunFile) -> bool:
    """Whether the record says so and the model and the figures are there."""
    if run_file.record["status"] != FINISHED:
        return False
    try:
        read_bundle(run_file.folder / MODEL_FOLDER)
        outputs.read_metrics(run_file.folder)
    except UsageError:  # a BundleError is one
        return False
    return True


class Job:
    """One run on its way; its methods are the phases, in order."""

    def __init__(
        self,
        settings: RunSettings,
        folder: Path,
        table: ImageTable,
        run_file: RunFile,
        progress: Progress,
    ) -> None:
        """Choose device and precision, and build the network."""
        self.settings = settings
        self.folder = folder
        self.table = table
        self.run_file = run_file
        self.progress = progress
        self.clock = Clock()
        self.shortcuts: list[dict[str, Any]] = []  # what else than the content tells the label
        self.linked: Integers | None = None  # units of the audit, in the order of what is readable
        seed_everything(settings.seed)
        # Too small a class is refused here, before a long pass over the images.
        self.planned = split_with(settings, table)
        execution = choose_execution(settings.device, settings.precision)
        run_file.check_execution(execution)
        with self.clock.phase("network"):
            self.network: Network = build_network(
                find_backbone(settings.model),
                weights=settings.weights,
                image_size=settings.image_size,
                seed=settings.seed,
            )
            self.extractor = FeatureExtractor(self.network, execution)
        self.announce()

    def announce(self) -> None:
        """Tell what was chosen, and why, before the work begins."""
        table, network = self.table, self.network
        note = self.progress.note
        groups = "" if table.groups is None else f", {len(set(table.groups)):,} groups"
        count = f"{len(table):,} images, {len(table.class_names)} classes{groups}"
        note(f"Data       {table.name}: {count}")
        note(f"Backbone   {network.spec.name}, weights {network.weights.describe()}")
        boxes = f"cut out by box, margin {self.settings.crop_margin:g}; "
        policy = f"{boxes if table.boxes is not None else ''}{network.preprocessing.describe()}"
        note(f"Pictures   {policy}")
        note(f"Engine     {self.extractor.execution.describe()}")

    def run(self) -> RunResult:
        """All phases."""
        table, features = self.read()
        self.task = Task(
            settings=self.settings,
            table=table,
            features=features,
            split=self.split(table),
            extractor=self.extractor,
            folder=self.folder,
            clock=self.clock,
            progress=self.progress,
        )
        fitting = self.choose_fitting()
        folds = self.fit_folds(fitting)
        metrics: dict[str, Any] = {"cross_validation": self.score_folds(fitting, folds)}
        metrics.update(fitting.beside())
        if self.shortcuts:
            metrics["shortcuts"] = self.shortcuts
        metrics.update(self.look_beside(fitting))
        model = self.fit_final(fitting)
        metrics.update(self.doubt(fitting, model))
        self.lock(model, metrics)
        metrics["test"] = self.test(fitting, model)
        return self.finish(folds, metrics)

    def read(self) -> tuple[ImageTable, Features]:
        """One pass over all images; the unreadable ones are named and left out."""
        with self.clock.phase("features"):
            features = extract_features(self.table, self.extractor, progress=self.progress)
        seconds = self.clock.seconds["features"]
        stored = len(self.table) - features.computed
        self.progress.note(
            f"Features   {features.computed:,} computed, {stored:,} read back, {seconds:.1f} s"
        )
        left_out = [record for record in features.facts if record.problem]
        if len(left_out) == len(self.table):
            raise DataError(
                f"None of the {len(self.table):,} images can be read, the first is "
                f"'{left_out[0].path}' ({left_out[0].problem}). Check the files."
            )
        if left_out:
            self.name_left_out([f"{record.path} ({record.problem})" for record in left_out])
        digest = data_digest(self.table, features.facts)
        self.run_file.check_data(digest)
        self.run_file.update(
            data=describe_data(self.table, digest, features.facts),
            backbone=describe_network(self.network),
            preprocessing=vars(self.network.preprocessing),
            engine=describe_execution(self.extractor.execution, self.extractor.batch_size),
        )
        with self.clock.phase("audit"):
            audit = audit_run(self.settings, self.folder, self.table, features.facts, self.progress)
        columns = {} if audit is None else audit.columns
        write_images(self.folder, self.table, features.facts, columns)
        rows = np.flatnonzero(features.good)
        if audit is not None:
            self.linked = audit.linked[rows]
            self.shortcuts = list(audit.summary["shortcuts"])
            self.run_file.update(audit=stamp(audit))
        kept = Features(
            values=features.values[rows],
            facts=tuple(features.facts[i] for i in rows),
            good=features.good[rows],
            computed=features.computed,
        )
        return self.table.take(rows), kept

    def name_left_out(self, named: list[str]) -> None:
        """List unreadable images, or stop with --strict."""
        shown = "; ".join(named[:NAMED_FILES])
        more = f"; and {len(named) - NAMED_FILES} more" if len(named) > NAMED_FILES else ""
        if self.settings.strict:
            raise DataError(
                f"{len(named)} of {len(self.table)} images cannot be read: {shown}{more}. "
                "Repair or remove them, or leave --strict out to go on without them."
            )
        self.progress.note(f"Left out   {len(named)} unreadable: {shown}{more}")

    def split(self, table: ImageTable) -> Split:
        """Fix test part and folds, with what the audit found to belong together."""
        settings = self.settings
        check_test_part(self.table, table)
        split = self.planned
        if self.linked is not None or len(table) != len(self.table):
            split = split_with(settings, table, self.linked)
        outputs.write_splits(self.folder, table, split, self.table)
        self.run_file.update(splits=describe_split(split))
        self.progress.note(
            f"Parts      {len(split.train):,} to learn from in {split.folds_in_words}, "
            f"{len(split.test):,} to test on ({split.origin})"
        )
        for note in split.notes:
            self.progress.note(f"Note       {note}")
        return split

    def choose_fitting(self) -> Fitting:
        """The head on frozen features, or fine-tuning."""
        if self.settings.strategy == "probe":
            return HEAD_FITTINGS[self.settings.head](self.task)
        from headstart.runs.tuned import TunedFitting

        return TunedFitting(self.task)

    def fit_folds(self, fitting: Fitting) -> FoldsOutcome:
        """Every fold with a fresh start; or what was kept of it."""
        with self.clock.phase("folds"):
            return fitting.fit_folds()

    def score_folds(self, fitting: Fitting, folds: FoldsOutcome) -> dict[str, Any]:
        """Score every training image by the fold that did not learn from it."""
        task = self.task
        learnt = task.table.take(task.split.train)
        labels, fold, groups = learnt.labels, task.split.fold, group_codes(learnt)
        with self.clock.phase("fold figures"):
            self.temperature, self.out_of_fold, about = calibrate(folds.logits, labels, fold)
            predictions = labelled(learnt, self.out_of_fold.astype(np.float32))
            figures = evaluate_folds(predictions, fold, seed=self.settings.seed, groups=groups)
            figures["calibration"] = about | calibration_record(
                to_probabilities(folds.logits),
                self.out_of_fold,
                labels,
                groups=groups,
                seed=self.settings.seed,
            )
        outputs.write_predictions(self.folder / outputs.OUT_OF_FOLD, predictions)
        outputs.write_cv_results(self.folder, figures, folds.columns)
        outputs.write_history(self.folder, folds.history)
        title = f"{task.table.name}, {self.network.spec.name}"
        outputs.write_figure(self.folder / outputs.CURVES, fitting.curves(title))
        return figures

    def look_beside(self, fitting: Fitting) -> dict[str, Any]:
        """What the cached features tell for nearly nothing: simple rivals, parts of the data."""
        if self.network.weights.source == "none":
            return {}  # features of a random network are no rival
        task, probe = self.task, fitting.probe
        found: dict[str, Any] = {}
        with self.clock.phase("baselines"):
            found["baselines"] = baseline_figures(task)
            if probe is not fitting:
                answers = probe.fit_folds().logits.argmax(axis=1)
                found["baselines"]["logistic probe"] = accuracy_of(task, answers)
        if self.settings.learning_curve:
            with self.clock.phase("learning curve"):
                found["learning_curve"] = curve = learning_curve(task, probe)
            figure = learning_curve_figure(curve["points"], f"{task.table.name}: how many images?")
            outputs.write_figure(self.folder / outputs.LEARNING_CURVE, figure)
        return found

    def fit_final(self, fitting: Fitting) -> FittedModel:
        """One model from all training images, with what the folds agreed on."""
        with self.clock.phase("final fit"):
            return fitting.fit_final()

    def doubt(self, fitting: Fitting, model: FittedModel) -> dict[str, Any]:
        """When not to answer: prediction sets and strangeness, before the test part is opened."""
        task = self.task
        with self.clock.phase("confidence"):
            self.confidence, about = fit_confidence(
                task,
                self.temperature,
                self.out_of_fold,
                fitting.features(model, task.split.train),
                same_network=model.network is self.network,
            )
        return {"confidence": about}

    def lock(self, model: FittedModel, metrics: dict[str, Any]) -> None:
        """Write the bundle and the choice down, before the test part is looked at."""
        about = {
            "data": self.run_file.record["data"],
            "settings": self.run_file.record["settings"],
            "cross_validation": metrics["cross_validation"]["figures"],
            "leaks_allowed": leaks_of(self.run_file.record),
            "created": now(),
        }
        with self.clock.phase("bundle"):
            root_digest = save_bundle(
                self.folder / MODEL_FOLDER,
                network=model.network,
                head=model.head,
                class_names=self.table.class_names,
                about=about,
                confidence=self.confidence,
            )
        self.run_file.update(
            choice={
                "backbone": self.network.spec.name,
                "head": model.head.kind,
                **model.head.chosen,
                "gradient_tolerance": FIT_TOLERANCE,
                "model_digest": root_digest,
                "locked": now(),
            }
        )

    def test(self, fitting: Fitting, model: FittedModel) -> dict[str, Any]:
        """Open the test part, once, and score the locked model on it."""
        self.run_file.update(test_openings=self.run_file.record["test_openings"] + 1)
        split = self.task.split
        with self.clock.phase("test"):
            held_out = self.task.table.take(split.test)
            values = fitting.features(model, split.test)
            logits = head_logits(values, model.head.layers)
            predictions = answer(
                self.confidence,
                labelled(held_out, self.confidence.probabilities(logits)),
                self.confidence.outlier_scores(values),
            )
            figures = evaluate_test(
                predictions, seed=self.settings.seed, groups=group_codes(held_out)
            )
            figures |= judge_confidence(self.task, self.confidence, predictions, logits)
        figures["origin"] = split.origin
        leaks = leaks_of(self.run_file.record)
        outputs.write_test_files(self.folder, predictions, {"test": figures}, leaks)
        return figures

    def finish(self, folds: FoldsOutcome, metrics: dict[str, Any]) -> RunResult:
        """Write the figures and close the record."""
        leaks = leaks_of(self.run_file.record)
        if leaks:
            metrics = {"leaks_allowed": leaks, **metrics}
        outputs.write_tensorboard(self.folder, folds.scalars, metrics)
        outputs.write_metrics(self.folder, metrics)
        self.run_file.update(
            status=FINISHED, finished=now(), times={**self.clock.seconds, **peak_memory()}
        )
        return RunResult(out=self.folder, record=self.run_file.record, metrics=metrics)


def stamp(audit: Audit) -> dict[str, Any]:
    """What the record says of an audit; leaks that were allowed stand there for good."""
    return {
        "leaks_allowed": [finding.message for finding in audit.errors],
        "findings": [
            {"code": f.code, "severity": f.severity, "message": f.message} for f in audit.findings
        ],
    }


def split_with(settings: RunSettings, table: ImageTable, linked: Integers | None = None) -> Split:
    """The test part and the folds that the settings ask for."""
    return split_table(
        table,
        folds=settings.folds,
        test_fraction=settings.test_fraction,
        seed=settings.seed,
        ratio=settings.ratio,
        splits=settings.splits,
        linked=linked,
        allow_leaks=settings.allow_leaks,
    )


def check_test_part(asked: ImageTable, readable: ImageTable) -> None:
    """Refuse to hold out training images where the data's own test part cannot be read.

    Raises:
        DataError: every image of it is unreadable.
    """
    for part in ("test", "val"):
        if part in asked.splits:
            if part not in readable.splits:
                raise DataError(
                    f"None of the {asked.splits.count(part)} images of the {part} part of "
                    f"'{asked.name}' can be read. Repair them, or leave the part out."
                )
            return


def describe_split(split: Split) -> dict[str, Any]:
    """What the record says of the split; leaks that were allowed stand there for good."""
    return {
        "origin": split.origin,
        "scheme": split.scheme,
        "num_folds": split.num_folds,
        "fold_names": list(split.fold_names),
        "leaks": split.leaks,
        "fold_leaks": split.fold_leaks,
        "digest": digest_bytes(split.train.tobytes(), split.fold.tobytes(), split.inner.tobytes()),
    }


def labelled(table: ImageTable, probabilities: Any) -> Predictions:
    """Predictions of images whose labels are known."""
    return Predictions(
        paths=table.paths,
        class_names=table.class_names,
        probabilities=probabilities,
        labels=table.labels,
        problems=("",) * len(table),
    )


def peak_memory() -> dict[str, float]:
    """The largest resident set of this process so far, where the system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return {}
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"peak_memory_mib": round(peak / 2**20, 1)}
