"""Two finished models on the same labelled pictures: each one's figures, and their difference.

Every difference is first minus second, image by image, so that what is hard for both counts for
neither.  Accuracy and log loss are means over images: paired bootstrap and a sign-flip test (for
right or wrong on independent images that is McNemar's exact one).  Macro F1 is no mean: both
models' counts are resampled with the same draws, and there is no test.  With groups the groups are
drawn and flipped whole.  All of it is about these two fitted models, not about how they were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.bundle import Classifier
from headstart.comparison import paired_bootstrap, sign_flip_test
from headstart.errors import DataError
from headstart.files import check_vacant, make_folder, write_csv, write_json
from headstart.metrics import log_losses
from headstart.metrics.counts import count_classes, macro_f1
from headstart.progress import Progress
from headstart.records import Floats, ImageTable, Integers, Predictions
from headstart.runs.external import count_learnt, crop_margin_of, labelled_table, tell_of_boxes
from headstart.runs.files import outputs
from headstart.runs.files.record import RUN_FILE
from headstart.runs.judging.evaluation import evaluate_test, figure
from headstart.runs.parts.dividing import group_codes
from headstart.statistics import LEVEL, Groups, bootstrap_several, percentile_interval

COMPARISON = "comparison.json"
PAIRED = "paired_predictions.csv"
FOLDERS = ("first", "second")
FIRST_MINUS_SECOND = "first minus second, on the same images"


def evaluate_pair(
    classifiers: Sequence[Classifier],
    names: Sequence[str],
    data: str,
    *,
    out: Path | None,
    seed: int,
    progress: Progress,
    columns: str | None = None,
    group_by: str | None = None,
) -> dict[str, Any]:
    """Predict with both, score both, compare them, and write the files where `out` is given.

    Args:
        classifiers: two, which know the same classes, in whatever order.
        names: what they are called.
        data: labelled pictures.
        out: new or empty folder, or None.
        seed: of resampling and signs.
        progress: silent where None.
        columns: of a manifest.
        group_by: groups of images.

    Raises:
        DataError: the models know different classes; no labels, or unknown ones.
    """
    if out is not None:
        check_vacant(out, RUN_FILE, "run", resume=False)
    check_classes(classifiers, names)
    tables = [
        labelled_table(
            data,
            classifiers[0].class_names,
            {"columns": columns, "group_by": group_by, "crop_margin": crop_margin_of(model)},
        )
        for model in classifiers
    ]
    for note in tables[0].notes:
        progress.note(f"Note       {note}")
    answers = []
    for name, model, table in zip(names, classifiers, tables, strict=True):
        progress.note(f"Model      {name}")
        tell_of_boxes(model, table, progress)
        found = model.predict_source(table, progress=progress, labels=table.labels)
        answers.append(in_order(found, classifiers[0].class_names))
    rows = np.flatnonzero(answers[0].good & answers[1].good)
    if len(rows) < len(tables[0]):
        progress.note(f"Left out   {len(tables[0]) - len(rows)} unreadable images")
    if not len(rows):
        raise DataError(f"No image of '{data}' can be read. Check the folder.")
    kept = tables[0].take(rows)
    scored = [scored_rows(a, kept, rows) for a in answers]
    groups = group_codes(kept)
    record = {
        "data": tables[0].name,
        "num_images": len(rows),
        "num_groups": None if groups is None else len(np.unique(groups)),
        "class_names": list(classifiers[0].class_names),
        "models": [
            describe_model(model, name, one, kept, groups, seed, progress)
            for model, name, one in zip(classifiers, names, scored, strict=True)
        ],
        "paired": compare_scored(scored[0], scored[1], groups=groups, seed=seed),
    }
    if out is not None:
        write_pair(out, record, scored)
    return record


def check_classes(classifiers: Sequence[Classifier], names: Sequence[str]) -> None:
    """Refuse models that know different classes.

    Raises:
        DataError: with one class that only one of them knows.
    """
    known = [set(classifier.class_names) for classifier in classifiers]
    alone = sorted(known[0] ^ known[1])
    if alone:
        owner = names[0] if alone[0] in known[0] else names[1]
        raise DataError(
            f"The models '{names[0]}' and '{names[1]}' cannot be compared: they know different "
            f"classes, as '{alone[0]}', which only '{owner}' knows. Evaluate each on its own."
        )


def in_order(predictions: Predictions, class_names: tuple[str, ...]) -> Predictions:
    """The answers with their columns in another order of the same classes."""
    if predictions.class_names == class_names:
        return predictions
    columns = [predictions.class_names.index(name) for name in class_names]
    return replace(
        predictions,
        class_names=class_names,
        probabilities=predictions.probabilities[:, columns],
        sets=None if predictions.sets is None else predictions.sets[:, columns],
    )


def scored_rows(answers: Predictions, kept: ImageTable, rows: Integers) -> Predictions:
    """The answers to the images that both models could read, with their labels."""
    return Predictions(
        paths=kept.paths,
        class_names=answers.class_names,
        probabilities=answers.probabilities[rows],
        labels=kept.labels,
        problems=("",) * len(rows),
    )


def describe_model(
    classifier: Classifier,
    name: str,
    scored: Predictions,
    kept: ImageTable,
    groups: Integers | None,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """One model's figures, and whether it has learnt from these images."""
    learnt = count_learnt(classifier.folder, kept)
    if learnt:
        progress.note(
            f"Warning    '{name}' has learnt from {learnt:,} of these {len(kept):,} images: its "
            "figures are too good, and so is the comparison for it"
        )
    return {
        "name": name,
        "model_digest": classifier.root_digest,
        "backbone": classifier.about["backbone"]["name"],
        "engine": classifier.engine,
        "num_learnt_from": learnt,
        **evaluate_test(scored, seed=seed, groups=groups),
    }


def compare_scored(
    first: Predictions, second: Predictions, *, groups: Groups | None, seed: int
) -> dict[str, Any]:
    """Differences of two models on the same labelled images, and where they disagree.

    Args:
        first: with labels, every image answered.
        second: the same images in the same order, the same class order.
        groups: (N,) or None.
        seed: of resampling and signs.
    """
    labels = first.labels
    rights = [(p.indices == labels).astype(float) for p in (first, second)]
    losses = [log_losses(p.probabilities, labels) for p in (first, second)]
    both, neither = rights[0] * rights[1], (1 - rights[0]) * (1 - rights[1])
    return {
        "of": FIRST_MINUS_SECOND,
        "accuracy": mean_difference(rights[0], rights[1], groups, seed),
        "log_loss": mean_difference(losses[0], losses[1], groups, seed),
        "macro_f1": f1_difference(first, second, groups, seed),
        "same_answer": int((first.indices == second.indices).sum()),
        "both_right": int(both.sum()),
        "only_first_right": int((rights[0] - both).sum()),
        "only_second_right": int((rights[1] - both).sum()),
        "neither_right": int(neither.sum()),
    }


def mean_difference(
    first: Floats, second: Floats, groups: Groups | None, seed: int
) -> dict[str, Any]:
    """Difference of two means over the same images, its interval and its test."""
    found = paired_bootstrap(first, second, groups=groups, seed=seed)
    return {
        **figure(found.value, found.interval),
        "value": found.value,
        "p_value": sign_flip_test(first, second, groups=groups, seed=seed),
        "test": "sign flips" if groups is None else "sign flips of groups",
    }


def f1_difference(
    first: Predictions, second: Predictions, groups: Groups | None, seed: int
) -> dict[str, Any]:
    """Difference of macro F1 with an interval from the same resamples of both."""
    labels, answers = first.labels, [first.indices, second.indices]
    count = len(first.class_names)
    values = [float(macro_f1(count_classes(labels, one, count))) for one in answers]
    drawn = bootstrap_several(
        labels, answers, count, groups=groups, generator=np.random.default_rng(seed)
    )
    draws = [macro_f1(counts) for counts in drawn]
    value = values[0] - values[1]
    interval = percentile_interval(
        draws[0] - draws[1], value, LEVEL,
        units=len(labels) if groups is None else len(np.unique(groups)),
        method="paired bootstrap", grouped=groups is not None,
    )  # fmt: skip
    return {**figure(value, interval), "value": value}


def write_pair(out: Path, record: dict[str, Any], scored: Sequence[Predictions]) -> None:
    """A folder a model as `evaluate` writes it, and what concerns both beside them."""
    make_folder(out)
    for folder, model, one in zip(FOLDERS, record["models"], scored, strict=True):
        make_folder(out / folder)
        outputs.write_test_files(out / folder, one, {"test": model})
        outputs.write_metrics(out / folder, {record["data"]: model})
    names = scored[0].class_names
    rows = zip(
        scored[0].paths,
        (names[label] for label in scored[0].labels),
        scored[0].names,
        scored[1].names,
        strict=True,
    )
    write_csv(out / PAIRED, ["path", "true", *FOLDERS], rows)
    write_json(out / COMPARISON, record)
