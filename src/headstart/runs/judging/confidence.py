"""Calibration, prediction sets and strangeness: fitted out of fold, judged on the test part.

Temperature. One number from the out-of-fold logits; shown before and after on images it was not
fitted on: out of fold with the temperature of the other folds, and on the test part. With fewer
than `FEWEST_WRONG` wrong answers there is nothing to learn one from, and it stays 1.

Sets. Thresholds come from out-of-fold probabilities of models that are then refitted on
everything, so they carry no finite-sample guarantee: the text says 'approximate', and the test
part shows what they cover. With a calibration part they come from answers of the final model to
images that it has not seen, and the guarantee holds. The temperature stays that of the
out-of-fold logits then: fitted on the calibration part, it would tie the scores of those images
together and make the guarantee approximate again.

Strangeness. Mahalanobis distance of the final network's features; the threshold accepts 95 % of
the training images, each scored by a model of the other folds, or of the calibration part. It is
judged by leaving classes out: far pictures are told reliably, near ones (another flower among
flowers) are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.bundle.confidence import Confidence
from headstart.calibration import (
    apply_temperature,
    calibration_figures,
    cross_fit_temperature,
    fit_temperature,
    reliability_bins,
)
from headstart.conformal import (
    APPROXIMATE,
    GROUPED,
    GUARANTEED,
    GUARANTEED_GROUPS,
    NOT_GUARANTEED,
    ConformalRule,
    evaluate_sets,
    fit_conformal,
)
from headstart.errors import DataError
from headstart.outliers import (
    MahalanobisModel,
    fit_mahalanobis,
    fit_with_cross_fit,
    leave_classes_out,
    outlier_threshold,
)
from headstart.records import Floats, Integers, Predictions
from headstart.runs.fitting.task import Task
from headstart.runs.judging.decision import decision_record
from headstart.runs.judging.evaluation import figure
from headstart.statistics import share_estimate

FEWEST_WRONG = 10
FEWEST_ACCEPTED = 19  # images that a threshold for 95 % of them needs
MOST_JUDGED = 5_000  # images and
MOST_CLASSES = 8  # classes for the judgement by leaving out, which costs a fit each
FAR_NOTE = (
    "tells pictures of another kind; a class that was never shown but looks like a known one is "
    "mostly not noticed, see the judgement by leaving classes out"
)

Logits = npt.NDArray[np.float64]


def calibrate(
    logits: Logits, labels: Integers, fold: Integers
) -> tuple[float, Logits, dict[str, Any]]:
    """A temperature, and out-of-fold probabilities by the temperatures of the other folds.

    Args:
        logits: (M, C), each row by the fold that did not learn from the image.
        labels: (M,).
        fold: (M,) fold of each row.

    Returns:
        The temperature of all rows, (M, C) probabilities, and what the record says.
    """
    wrong = int((logits.argmax(axis=1) != labels).sum())
    if wrong < FEWEST_WRONG:
        note = f"left at 1: only {wrong} of {len(labels)} out-of-fold answers are wrong"
        return 1.0, apply_temperature(logits, 1.0), {"temperature": 1.0, "note": note}
    found = fit_temperature(logits, labels)
    probabilities, each = cross_fit_temperature(logits, labels, fold, FEWEST_WRONG)
    note = "fitted to the out-of-fold logits; below 1 sharpens, above 1 softens"
    about = {
        "temperature": found.value,
        "by_fold": list(each),
        "at_bound": found.at_bound,
        "note": note,
    }
    return found.value, probabilities, about


def calibration_record(
    before: npt.NDArray[np.floating],
    after: npt.NDArray[np.floating],
    labels: Integers,
    *,
    groups: Integers | None,
    seed: int,
) -> dict[str, Any]:
    """Figures and reliability of answers before and after, both (N, C), of the same images."""
    return {
        name: calibration_part(values, labels, groups=groups, seed=seed)
        for name, values in (("before", before), ("after", after))
    }


def calibration_part(
    probabilities: Floats, labels: Integers, *, groups: Integers | None, seed: int
) -> dict[str, Any]:
    """Figures and reliability of answers, (N, C)."""
    return {
        **asdict(calibration_figures(probabilities, labels, groups=groups, seed=seed)),
        "reliability": bins_record(probabilities, labels, groups),
    }


def bins_record(
    probabilities: npt.NDArray[np.floating], labels: Integers, groups: Integers | None
) -> list[dict[str, float]]:
    """Confidence and accuracy of each bin that holds images."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    bins = reliability_bins(confidence, right, groups=groups)
    columns = {name: np.asarray(values) for name, values in vars(bins).items()}
    return [
        {name: values[i].item() for name, values in columns.items()}
        for i in range(len(bins.counts))
        if bins.counts[i]
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Aside:
    """What the final model says of the images kept aside for thresholds; none, mostly.

    Attributes:
        probabilities: (K, C) at the model's temperature.
        labels: (K,).
        features: (K, D).
        groups: (K,) codes of units that stay together, None where every image is by itself.
    """

    probabilities: Floats
    labels: Integers
    features: Floats
    groups: Integers | None


def fit_confidence(
    task: Task,
    temperature: float,
    probabilities: Floats,
    features: Floats,
    aside: Aside | None = None,
    *,
    frozen: bool,
) -> tuple[Confidence, dict[str, Any]]:
    """Everything beside the temperature, and what the record says of it before the test.

    Args:
        task: the run.
        temperature: from `calibrate`.
        probabilities: (M, C) out of fold, calibrated.
        features: (M, D) of the images learnt from, by the final network, means over the views that
            an answer averages.
        aside: the calibration part; None where out-of-fold answers set the thresholds.
        frozen: whether that network has not learnt from those images.
    """
    rule, sets_about = fit_sets(task, probabilities, aside)
    model, threshold, outliers_about = fit_outliers(task, features, aside)
    kept_aside = aside is not None and len(aside.labels) >= FEWEST_ACCEPTED
    if model is not None and not frozen and not kept_aside:
        outliers_about["note"] += (
            "; the network has learnt from the images that the threshold comes from, so more new "
            "ones than stated may be called unknown"
        )
    confidence = Confidence(
        temperature=temperature,
        sets=rule,
        outliers=model,
        outlier_threshold=threshold,
        tta=task.settings.tta,
    )
    return confidence, {"conformal": sets_about, "outliers": outliers_about}


def fit_sets(
    task: Task, probabilities: Floats, aside: Aside | None
) -> tuple[ConformalRule | None, dict[str, Any]]:
    """Thresholds, one for all classes or one a class, so that `1 - alpha` of the sets are right."""
    names, alpha, by_class = task.table.class_names, task.settings.alpha, sets_by_class(task)
    if aside is None:
        note = APPROXIMATE + (f"; {GROUPED}" if task.table.groups is not None else "")
    elif task.split.calibration_leaks:
        note = NOT_GUARANTEED
    else:
        note = GUARANTEED if aside.groups is None else GUARANTEED_GROUPS
    groups = None if aside is None else aside.groups
    labels = task.learnt_labels if aside is None else aside.labels
    scored = probabilities if aside is None else aside.probabilities
    try:
        rule = fit_conformal(scored, labels, names, alpha=alpha, by_class=by_class, groups=groups)
    except DataError as error:
        return None, {"note": str(error)}
    about: dict[str, Any] = {
        "alpha": alpha,
        "score": rule.score,
        "by_class_thresholds": by_class,
        "guaranteed": aside is not None and not task.split.calibration_leaks,
        "num_calibration": len(labels),
        "num_calibration_groups": None if groups is None else len(np.unique(groups)),
        "note": note,
    }
    if by_class:
        return rule, about | {"thresholds": dict(zip(names, rule.thresholds, strict=True))}
    return rule, about | {"threshold": rule.thresholds[0]}


def sets_by_class(task: Task) -> bool:
    """Whether every class has a threshold of its own."""
    return task.settings.sets == "by-class"


def fit_outliers(
    task: Task, features: Floats, aside: Aside | None
) -> tuple[MahalanobisModel | None, float | None, dict[str, Any]]:
    """The distance, its threshold, and how well it tells a class that was left out."""
    labels = task.learnt_labels
    try:
        if aside is not None and len(aside.labels) >= FEWEST_ACCEPTED:
            model = fit_mahalanobis(features, labels)
            scores = model.score(aside.features)
        else:
            model, scores = fit_with_cross_fit(features, labels, task.split.fold)
        threshold = outlier_threshold(scores)
    except DataError as error:
        return None, None, {"note": str(error)}
    about: dict[str, Any] = {"threshold": threshold, "accepted": 0.95, "note": FAR_NOTE}
    if task.num_classes > 2:
        about["classes_left_out"] = judge_left_out(task, features)
    return model, threshold, about


def judge_left_out(task: Task, features: Floats) -> list[dict[str, Any]]:
    """AUROC and FPR@95 of telling each of the first classes when it was never shown."""
    chosen = np.random.default_rng(task.settings.seed).permutation(len(features))[:MOST_JUDGED]
    names = task.table.class_names
    groups = task.drawn(task.split.train)
    found = leave_classes_out(
        features[chosen],
        task.learnt_labels[chosen],
        task.split.fold[chosen],
        names if len(names) <= MOST_CLASSES else names[:MOST_CLASSES],
        groups=None if groups is None else groups[chosen],
    )
    return [
        {
            "class": entry.name,
            "auroc": figure(entry.separation.auroc.value, entry.separation.auroc.interval),
            "fpr95": figure(
                entry.separation.accepted_at_95.value, entry.separation.accepted_at_95.interval
            ),
        }
        for entry in found
    ]


def judge_confidence(
    confidence: Confidence,
    predictions: Predictions,
    logits: Logits | None,
    *,
    groups: Integers | None,
    prevalences: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """What calibration, sets, strangeness and the decision are worth on labelled images.

    Args:
        confidence: locked.
        predictions: of images that had no part in the model, with sets and scores.
        logits: (n, C) of them, for the probabilities before the temperature; or None.
        groups: (n,) or None.
        prevalences: for predictive values of the decision.
        seed: of the resampling.
    """
    labels, after = predictions.labels, predictions.probabilities
    calibration = {"after": calibration_part(after, labels, groups=groups, seed=seed)}
    if logits is not None:
        before = apply_temperature(logits, 1.0)
        calibration["before"] = calibration_part(before, labels, groups=groups, seed=seed)
    found: dict[str, Any] = {"calibration": calibration}
    if predictions.sets is not None:
        names = predictions.class_names
        found["conformal"] = sets_record(predictions.sets, labels, names, groups, seed)
    if predictions.unknown is not None:
        share = share_estimate(predictions.unknown, groups=groups)
        found["outliers"] = {"unknown": figure(share.value, share.interval)}
    if confidence.decision is not None:
        found["decision"] = decision_record(
            confidence.decision, after, labels, prevalences, groups=groups, seed=seed
        )
    return found


def sets_record(
    sets: npt.NDArray[np.bool_],
    labels: Integers,
    class_names: tuple[str, ...],
    groups: Integers | None,
    seed: int,
) -> dict[str, Any]:
    """Coverage and size of prediction sets, in all and by class."""
    made = evaluate_sets(sets, labels, groups=groups, seed=seed)
    return {
        "num_images": made.num_images,
        "coverage": figure(made.coverage.value, made.coverage.interval),
        "group_coverage": figure(made.group_coverage.value, made.group_coverage.interval),
        "mean_size": figure(made.mean_size.value, made.mean_size.interval),
        "single_fraction": made.single_fraction,
        "empty_fraction": made.empty_fraction,
        "by_class": [
            {
                "class": name,
                "coverage": figure(held.value, held.interval),
                "mean_size": figure(size.value, size.interval),
            }
            for name, held, size in zip(
                class_names, made.class_coverage, made.class_mean_size, strict=True
            )
        ],
    }
