"""A finished model on other labelled data: a laboratory, a camera, a year it has not seen."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.bundle import Classifier
from headstart.bundle.classifier import WHOLE_PICTURES
from headstart.data import DATASETS, digest_of, load_table, load_unlabelled_or_labelled
from headstart.errors import DataError, UsageError
from headstart.files import check_vacant, make_folder
from headstart.progress import Progress
from headstart.records import ImageTable
from headstart.runs.files import outputs
from headstart.runs.files.record import RUN_FILE
from headstart.runs.judging.confidence import judge_confidence
from headstart.runs.judging.evaluation import evaluate_test
from headstart.runs.judging.far import far_scores, judge_far, load_far
from headstart.runs.parts.dividing import group_codes
from headstart.runs.settings.decisions import parse_prevalences

LEARNT = ("train", "calibration")  # parts that decided model, temperature or sets


def evaluate_model(
    classifier: Classifier,
    data: str,
    *,
    out: Path | None,
    seed: int,
    progress: Progress,
    prevalence: str | None = None,
    ood_data: str | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """Predict labelled pictures, score them, and write the files where `out` is given.

    Boxes are cut out with the margin that the model was made with.

    Args:
        classifier: the model; its temperature, sets and threshold answer as they are.
        data: labelled pictures.
        out: folder for the files.
        seed: of the resampling.
        progress: tells the user.
        prevalence: for predictive values of the decision; None takes those the run was given.
        ood_data: pictures of other things.
        **reading: `columns` and `group_by` of `load_table`.

    Raises:
        DataError: no labels, or labels that the model does not know.
    """
    if out is not None:
        check_vacant(out, RUN_FILE, "run", resume=False)
    shares = stated_prevalences(classifier, prevalence)
    far = None if ood_data is None else load_far(ood_data, seed=seed)
    if far is not None and classifier.confidence.outliers is None:
        raise UsageError(
            "`ood_data` cannot be judged: this model cannot tell strange pictures, because it "
            "learnt from too few images. Leave --ood-data out."
        )
    reading = {**reading, "crop_margin": crop_margin_of(classifier)}
    table = labelled_table(data, classifier.class_names, reading)
    for note in table.notes:
        progress.note(f"Note       {note}")
    tell_of_boxes(classifier, table, progress)
    predictions = classifier.predict_source(table, progress=progress, labels=table.labels)
    good = np.flatnonzero(predictions.good)
    if len(good) < len(table):
        progress.note(f"Left out   {len(table) - len(good)} unreadable images")
    if not len(good):
        raise DataError(f"No image of '{data}' can be read. Check the folder.")
    kept = table.take(good)
    scored = predictions.take(good)
    groups, confidence = group_codes(kept), classifier.confidence
    figures = evaluate_test(scored, seed=seed, groups=groups)
    figures |= judge_confidence(
        confidence, scored, None, groups=groups, prevalences=shares, seed=seed
    )
    if far is not None and scored.outlier_scores is not None:
        strange = far_scores(confidence, classifier.extractor, far, progress)
        known = scored.outlier_scores
        judged = judge_far(confidence, far.name, strange, known, groups=groups)
        figures["outliers"]["far"] = [judged]
    figures["model_digest"] = classifier.root_digest
    figures["num_learnt_from"] = count_learnt(classifier.folder, kept)
    if figures["num_learnt_from"]:
        progress.note(
            f"Warning    the model has learnt from {figures['num_learnt_from']:,} of these "
            f"{len(kept):,} images: the figures are too good"
        )
    named = {table.name: figures}
    if out is not None:
        make_folder(out)
        outputs.write_test_files(out, scored, {"test": figures})
        outputs.write_metrics(out, named)
    return named


def crop_margin_of(classifier: Classifier) -> float:
    """The margin around boxes that a model was made with."""
    settings = classifier.about["about"].get("settings", {})
    return float(settings.get("crop_margin", 0.0))


def tell_of_boxes(classifier: Classifier, table: ImageTable, progress: Progress) -> None:
    """Warn of whole pictures for a model that has seen cut out ones only."""
    if table.boxes is None and classifier.learnt_on_boxes:
        progress.note(f"Warning    {WHOLE_PICTURES}")


def stated_prevalences(classifier: Classifier, text: str | None) -> tuple[float, ...]:
    """Those that the caller names, else those that the model's run was given.

    Raises:
        UsageError: prevalences of a model that decides about no class.
    """
    if text is not None and classifier.confidence.decision is None:
        raise UsageError(
            "`prevalence` is about the positive class, and this model was made without one. "
            "Leave --prevalence out, or run again with --positive CLASS."
        )
    stored = classifier.about["about"].get("settings", {}).get("prevalence")
    return parse_prevalences(stored if text is None else text)


def count_learnt(model: Path, table: ImageTable) -> int | None:
    """How many of these images the model has learnt from, by content.

    None where the model does not lie in its run, whose `images.csv` and `splits.csv` tell.
    """
    run = model.parent
    if not all((run / name).is_file() for name in (outputs.IMAGES, outputs.SPLITS)):
        return None
    with (run / outputs.SPLITS).open(newline="", encoding="utf-8") as file:
        learnt = {row["path"] for row in csv.DictReader(file) if row["part"] in LEARNT}
    with (run / outputs.IMAGES).open(newline="", encoding="utf-8") as file:
        digests = {row["digest"] for row in csv.DictReader(file) if row["path"] in learnt}
    return sum(digest_of(table.read(row)) in digests for row in range(len(table)))


def labelled_table(
    data: str, class_names: tuple[str, ...], reading: dict[str, Any] | None = None
) -> ImageTable:
    """The labelled images of `data` in the model's class order; the test part where there is one.

    Args:
        data: folder, manifest or built-in name.
        class_names: of the model.
        reading: `columns`, `group_by`, `crop_margin` of `load_table`.

    Raises:
        DataError: there are no labels, or one the model does not know.
    """
    reading = reading or {}
    if data in DATASETS:
        return in_class_order(load_table(data, **reading).labelled(), class_names)
    table = load_unlabelled_or_labelled(data, class_names, **reading).labelled()
    if len(table) and (reading.get("group_by") is None or table.groups is not None):
        return table
    return in_class_order(load_table(data, **reading).labelled(), class_names)


def in_class_order(table: ImageTable, class_names: tuple[str, ...]) -> ImageTable:
    """Labels mapped by name to the model's order; the test part, else val, where there is one."""
    unknown = sorted(set(table.class_names) - set(class_names))
    if unknown:
        raise DataError(
            f"The model does not know the class '{unknown[0]}' of '{table.name}'; it knows "
            f"{', '.join(class_names[:8])}{', ...' if len(class_names) > 8 else ''}. "
            "Rename or remove the folder."
        )
    position = np.array([class_names.index(name) for name in table.class_names])
    table = replace(table, labels=position[table.labels], class_names=class_names)
    splits = np.array(table.splits)
    for part in ("test", "val"):
        rows = np.flatnonzero(splits == part)
        if len(rows):
            return table.take(rows)
    return table
