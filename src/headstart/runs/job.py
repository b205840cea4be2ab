"""The main job: from a folder of pictures to a tested model.

    read -> features of every image, once -> folds and penalties, all at once -> figures of the
    folds -> final fit on all training images -> the choice is locked -> the test part is opened,
    once -> the run's files

Everything up to the lock sees training images only. What a phase finishes is written before the
next begins, so a killed run goes on where it stopped and ends with the same figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.audit import write_images
from headstart.backbones import AUTO, Network
from headstart.backbones.layers import layers_table, totals
from headstart.bundle import save_bundle
from headstart.bundle.classifier import MODEL_FOLDER, answer
from headstart.bundle.confidence import Confidence
from headstart.errors import DataError
from headstart.features import announced_files, extract_features, take_rows
from headstart.files import write_text
from headstart.heads import FIT_TOLERANCE, mean_logits, to_probabilities
from headstart.inference import FeatureExtractor
from headstart.plots import learning_curve_figure
from headstart.progress import Progress
from headstart.records import Features, ImageTable, Integers, Predictions, Split
from headstart.runs.auditing import audit_run, passing_extractor
from headstart.runs.backbone import build_backbone, check_strategy, make_extractor
from headstart.runs.files import outputs
from headstart.runs.files.contents import check_contents
from headstart.runs.files.folder import FINISHED, is_finished, owned_run
from headstart.runs.files.record import (
    RunFile,
    data_digest,
    describe_audit,
    describe_data,
    describe_engine,
    describe_network,
    describe_split,
    leaks_of,
    now,
)
from headstart.runs.fitting.layers import logistic_fitting
from headstart.runs.fitting.mlp_search import mlp_fitting
from headstart.runs.fitting.task import (
    Clock,
    FittedModel,
    Fitting,
    FoldsOutcome,
    Task,
    mean_over_views,
)
from headstart.runs.judging.baselines import accuracy_of, baseline_figures
from headstart.runs.judging.confidence import (
    Aside,
    calibrate,
    calibration_record,
    fit_confidence,
    judge_confidence,
)
from headstart.runs.judging.decision import choose_decision, fold_decision
from headstart.runs.judging.evaluation import evaluate_folds, evaluate_test
from headstart.runs.judging.far import far_scores, judge_far, load_far
from headstart.runs.judging.learning_curve import learning_curve
from headstart.runs.judging.subgroups import judge_subgroups, read_subgroups
from headstart.runs.parts.dividing import read_table, split_table, units_of
from headstart.runs.parts.given import CALIBRATION
from headstart.runs.profile import write_profile
from headstart.runs.settings.decisions import check_sets, parse_prevalences, rule_of
from headstart.runs.settings.run import PROBE, RunSettings
from headstart.runs.views import (
    RunViews,
    announced,
    describe_views,
    learnt_views,
    read_views,
    wanted_views,
)
from headstart.runtime import choose_execution, seed_everything

NAMED_FILES = 5
COORDINATE_BYTES = 4  # a feature of the largest array of a run
HEAD_FITTINGS: dict[str, Callable[[Task], Fitting]] = {
    "logistic": logistic_fitting,
    "mlp": mlp_fitting,
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
    with owned_run(settings, table, resume=resume) as (run_file, begun):
        if begun and is_finished(run_file):
            check_contents(folder, table, progress)
            progress.note(f"The run in '{folder}' is finished already; nothing was done again.")
            metrics = outputs.read_metrics(folder)
            return RunResult(out=folder, record=run_file.record, metrics=metrics)
        job = Job(settings, folder, table, run_file, progress)
        with job.clock.going_on(run_file):
            return job.run()


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
        self.prevalences = parse_prevalences(settings.prevalence)
        self.subgroups = read_subgroups(settings)
        far = settings.ood_data
        self.far = None if far is None else load_far(far, seed=settings.seed)
        execution = choose_execution(settings.device, settings.precision)
        with self.clock.phase("network"):
            self.network: Network = build_backbone(settings)
            self.extractor = make_extractor(settings, self.network, execution, len(table))
            check_strategy(settings, self.network, len(table.class_names))
        run_file.check_network(self.network.digest)
        run_file.check_engine(self.extractor.key)
        self.announce()

    def announce(self) -> None:
        """Tell what was chosen, and why, before the work begins."""
        table, network = self.table, self.network
        note = self.progress.note
        groups = "" if table.groups is None else f", {len(set(table.groups)):,} groups"
        count = f"{len(table):,} images, {len(table.class_names)} classes{groups}"
        note(f"Data       {table.name}: {count}")
        note(f"Backbone   {network.spec.name}, weights {network.weights.describe()}")
        if network.blocks:
            note(f"Blocks     {network.blocks.describe()}, {network.num_features:,} features")
        if network.layers:
            which = "as many of the last as the folds choose: " * (self.settings.layers == AUTO)
            named = ", ".join(f"{name} ({width})" for name, width in network.layers.items())
            note(f"Layers     {which}{named} features")
        boxes = f"cut out by box, margin {self.settings.crop_margin:g}; "
        policy = f"{boxes if table.boxes is not None else ''}{network.preprocessing.describe()}"
        note(f"Pictures   {policy}")
        names = [table.name, *table.class_names]
        learnt = len(self.planned.train)
        for line in announced(self.settings, names, learnt, network.num_features):
            note(f"Views      {line}")
        rows = max(len(table), learnt * (1 + len(learnt_views(self.settings))))
        in_files = announced_files(COORDINATE_BYTES * rows * network.num_features)
        if in_files:
            note(f"Memory     {in_files}")
        note(f"Engine     {self.extractor.describe()}")

    def run(self) -> RunResult:
        """All phases."""
        table, features = self.read()
        split = self.split(table)
        self.task = Task(
            settings=self.settings,
            table=table,
            features=features,
            split=split,
            views=self.look_again(table, features, split),
            extractor=self.extractor,
            folder=self.folder,
            clock=self.clock,
            progress=self.progress,
            units=units_of(table, self.linked),
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
            extractor = passing_extractor(self.settings, self.table, self.extractor)
            features = extract_features(
                self.table,
                extractor,
                progress=self.progress,
                views=wanted_views(self.settings, self.planned, len(self.table)),
            )
        seconds = features.seconds["read"] + features.seconds["compute"]
        copies = len(self.table) - features.computed - features.read_back
        self.progress.note(
            f"Features   {features.computed:,} computed, {features.read_back:,} read back, "
            f"{f'{copies:,} copies, ' * (copies > 0)}{seconds:.1f} s"
        )
        left_out = [record for record in features.facts if record.problem]
        if len(left_out) == len(self.table):
            raise DataError(
                f"None of the {len(self.table):,} images can be read, the first is "
                f"'{left_out[0].path}' ({left_out[0].problem}). Check the files."
            )
        if left_out:
            named = [f"{record.path} ({record.problem})" for record in left_out]
            name_left_out(named, len(self.table), self.progress, strict=self.settings.strict)
        digest = data_digest(self.table, features.facts)
        self.run_file.check_data(digest)
        self.run_file.update(
            data=describe_data(self.table, digest, features.facts),
            backbone=describe_network(self.network),
            preprocessing=vars(self.network.preprocessing),
            engine=describe_engine(self.extractor),
        )
        with self.clock.phase("audit"):
            audit = audit_run(self.settings, self.folder, self.table, features.facts, self.progress)
        columns = {} if audit is None else audit.columns
        write_images(self.folder, self.table, features.facts, columns)
        rows = np.flatnonzero(features.good)
        if audit is not None:
            self.linked = audit.linked[rows]
            self.shortcuts = list(audit.summary["shortcuts"])
            self.run_file.update(audit=describe_audit(audit))
        kept = replace(
            features,
            values=take_rows(features.values, rows),
            facts=tuple(features.facts[i] for i in rows),
            good=features.good[rows],
        )
        return self.table.take(rows), kept

    def split(self, table: ImageTable) -> Split:
        """Fix test part and folds, with what the audit found to belong together."""
        settings = self.settings
        check_test_part(self.table, table)
        split = self.planned
        if self.linked is not None or len(table) != len(self.table):
            split = split_with(settings, table, self.linked)
        outputs.write_splits(self.folder, table, split, self.table)
        self.run_file.check_split(describe_split(split))
        aside = f"{len(split.calibration):,} to set thresholds on, " * (len(split.calibration) > 0)
        self.progress.note(
            f"Parts      {len(split.train):,} to learn from in {split.folds_in_words}, {aside}"
            f"{len(split.test):,} to test on ({split.origin})"
        )
        for note in split.notes:
            self.progress.note(f"Note       {note}")
        return split

    def look_again(self, table: ImageTable, features: Features, split: Split) -> RunViews | None:
        """Views beside the whole pictures, which the pass has stored; None where none are used."""
        about = describe_views(self.settings)
        if about is None:
            return None
        with self.clock.phase("views"):
            views = read_views(self.settings, table, features, split, self.extractor, self.progress)
        self.run_file.update(views=about)
        self.progress.note(
            f"Views      {views.count:,} features beside the whole pictures, {views.computed:,} "
            "of them computed now"
        )
        return views

    def choose_fitting(self) -> Fitting:
        """The head on frozen features, or fine-tuning."""
        if self.settings.strategy == PROBE:
            frozen = f"{layers_table(self.network)}\n\n{totals(self.network, 0)}\n"
            write_text(self.folder / outputs.SUMMARY, frozen)
            return HEAD_FITTINGS[self.settings.head](self.task)
        from headstart.runs.fitting.tuned import TunedFitting

        return TunedFitting(self.task)

    def fit_folds(self, fitting: Fitting) -> FoldsOutcome:
        """Every fold with a fresh start; or what was kept of it."""
        with self.clock.phase("folds"):
            return fitting.fit_folds()

    def score_folds(self, fitting: Fitting, folds: FoldsOutcome) -> dict[str, Any]:
        """Score every training image by the fold that did not learn from it."""
        task = self.task
        learnt = task.table.take(task.split.train)
        labels, fold = learnt.labels, task.split.fold
        groups = task.drawn(task.split.train)
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
            if self.settings.positive is not None:
                figures["decision"] = fold_decision(
                    predictions.probabilities, labels, fold,
                    learnt.class_names.index(self.settings.positive),
                    rule_of(self.settings), self.prevalences,
                    groups=groups,
                )  # fmt: skip
        self.fold_logits = folds.logits
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
        """When not to answer, and where to say yes; before the test part is opened."""
        task = self.task
        with self.clock.phase("confidence"):
            self.confidence, about = fit_confidence(
                task,
                self.temperature,
                self.out_of_fold,
                mean_over_views(fitting.features(model, task.split.train)),
                self.answers_aside(fitting, model),
                frozen=self.settings.strategy == PROBE or model.network is self.network,
            )
            if self.settings.positive is not None:
                decision, about["decision"] = choose_decision(
                    self.confidence.probabilities(self.fold_logits),
                    task.learnt_labels,
                    task.table.class_names,
                    self.settings.positive,
                    rule_of(self.settings),
                    self.prevalences,
                )
                self.confidence = replace(self.confidence, decision=decision)
                self.progress.note(
                    f"Decision   '{decision.positive}' from {decision.threshold:.4g} on "
                    f"({decision.rule})"
                )
        return {"confidence": about}

    def answers_aside(self, fitting: Fitting, model: FittedModel) -> Aside | None:
        """What the final model says of the calibration part, None without one."""
        rows = self.task.split.calibration
        if not len(rows):
            return None
        features = fitting.features(model, rows)
        logits = mean_logits(features, model.head.layers)
        probabilities = Confidence(temperature=self.temperature).probabilities(logits)
        units = self.task.units
        groups = self.task.drawn(rows)
        if units is not None and self.task.table.groups is not None:
            groups = units.codes[rows]  # new ones come in groups, even if each has one image here
        return Aside(
            probabilities=probabilities,
            labels=self.task.table.labels[rows],
            features=mean_over_views(features),
            groups=groups,
        )

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
            logits = mean_logits(values, model.head.layers)
            predictions = answer(
                self.confidence,
                labelled(held_out, self.confidence.probabilities(logits)),
                self.confidence.outlier_scores(mean_over_views(values)),
            )
            groups, seed = self.task.drawn(split.test), self.settings.seed
            figures = evaluate_test(predictions, seed=seed, groups=groups)
            figures |= judge_confidence(
                self.confidence, predictions, logits,
                groups=groups, prevalences=self.prevalences, seed=seed,
            )  # fmt: skip
            if self.subgroups:
                figures["subgroups"] = judge_subgroups(
                    self.subgroups, self.task, predictions, self.confidence.decision
                )  # fmt: skip
            if self.far is not None and predictions.outlier_scores is not None:
                figures["outliers"]["far"] = [self.judge_far(model, predictions, groups)]
        figures["origin"] = split.origin
        leaks = leaks_of(self.run_file.record)
        outputs.write_test_files(self.folder, predictions, {"test": figures}, leaks)
        return figures

    def judge_far(
        self, model: FittedModel, predictions: Predictions, groups: Integers | None
    ) -> dict[str, Any]:
        """Whether pictures of other things are told to be unknown."""
        assert self.far is not None
        assert predictions.outlier_scores is not None
        extractor = self.extractor
        if model.network is not self.network:
            extractor = FeatureExtractor(model.network, extractor.execution)
        strange = far_scores(self.confidence, extractor, self.far, self.progress)
        known = predictions.outlier_scores
        return judge_far(self.confidence, self.far.name, strange, known, groups=groups)

    def finish(self, folds: FoldsOutcome, metrics: dict[str, Any]) -> RunResult:
        """Write the figures and close the record."""
        leaks = leaks_of(self.run_file.record)
        if leaks:
            metrics = {"leaks_allowed": leaks, **metrics}
        outputs.write_tensorboard(self.folder, folds.scalars, metrics)
        outputs.write_metrics(self.folder, metrics)
        self.run_file.update(
            status=FINISHED,
            finished=now(),
            times={**self.clock.seconds, **peak_memory()},
            cpu_times=self.clock.cpu_seconds,
        )
        self.tell_profile()
        return RunResult(out=self.folder, record=self.run_file.record, metrics=metrics)

    def tell_profile(self) -> None:
        """Where the seconds went, if that was asked for."""
        if self.settings.profile:
            write_profile(self.folder, self.clock, self.progress)


def split_with(settings: RunSettings, table: ImageTable, linked: Integers | None = None) -> Split:
    """The test part and the folds that the settings ask for."""
    split = split_table(
        table,
        folds=settings.folds,
        test_fraction=settings.test_fraction,
        seed=settings.seed,
        ratio=settings.ratio,
        splits=settings.splits,
        linked=linked,
        allow_leaks=settings.allow_leaks,
        calibration=settings.calibration_split,
        num_inner=settings.inner_folds,
    )
    check_sets(settings, table, split, units_of(table, linked))
    return split


def name_left_out(named: list[str], total: int, progress: Progress, *, strict: bool) -> None:
    """List unreadable images.

    Args:
        named: each with its reason.
        total: all images, the readable ones too.
        progress: told.
        strict: stop instead.

    Raises:
        DataError: with `strict`.
    """
    shown = "; ".join(named[:NAMED_FILES])
    more = f"; and {len(named) - NAMED_FILES} more" if len(named) > NAMED_FILES else ""
    if strict:
        raise DataError(
            f"{len(named)} of {total} images cannot be read: {shown}{more}. "
            "Repair or remove them, or leave --strict out to go on without them."
        )
    progress.note(f"Left out   {len(named)} unreadable: {shown}{more}")


def check_test_part(asked: ImageTable, readable: ImageTable) -> None:
    """Refuse to hold out training images where a given test or calibration part cannot be read.

    Raises:
        DataError: every image of one is unreadable.
    """
    tested = next((part for part in ("test", "val") if part in asked.splits), None)
    for part in (tested, CALIBRATION):
        if part in asked.splits and part not in readable.splits:
            raise DataError(
                f"None of the {asked.splits.count(part)} images of the {part} part of "
                f"'{asked.name}' can be read. Repair them, or leave the part out."
            )


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
