"""Metrics that need only counts, for one table or for a thousand resampled ones at once.

Three counts a class say it all: how often it was rightly predicted (hits), how often it was
there (support), how often it was predicted.  Every function takes a `ClassCounts` with any
leading axes and reduces the last one, so that a point value and its bootstrap are one
definition.  A ratio without denominator counts as zero (scikit-learn's zero_division=0).

Macro averages go over the classes that occur in labels or predictions (scikit-learn's
labels=None): a class that nobody has or names is no failure, least of all in a resample that
happens to miss it.  A class that is only predicted counts as zero; balanced accuracy leaves
it out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.records import Floats, Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassCounts:
    """Counts by class, each (..., C)."""

    hits: npt.NDArray[np.number]
    support: npt.NDArray[np.number]
    predicted: npt.NDArray[np.number]


def confusion_matrix(labels: Integers, predictions: Integers, num_classes: int) -> Integers:
    """(C, C) int64 counts, true classes in rows, predicted ones in columns."""
    cells = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return np.asarray(cells.reshape(num_classes, num_classes), dtype=np.int64)


def count_classes(labels: Integers, predictions: Integers, num_classes: int) -> ClassCounts:
    """The three counts of each class."""
    hits = labels[labels == predictions]
    return ClassCounts(
        hits=np.bincount(hits, minlength=num_classes),
        support=np.bincount(labels, minlength=num_classes),
        predicted=np.bincount(predictions, minlength=num_classes),
    )


def divide(numerator: npt.NDArray[np.number], denominator: npt.NDArray[np.number]) -> Floats:
    """Numerator / denominator, zero where the denominator is zero."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.asarray(
        np.divide(numerator, denominator, out=np.zeros(shape), where=denominator != 0)
    )


def accuracy(counts: ClassCounts) -> Floats:
    """(...) share of right predictions."""
    return divide(counts.hits.sum(-1), counts.support.sum(-1))


def balanced_accuracy(counts: ClassCounts) -> Floats:
    """(...) mean recall over the classes that are present."""
    recall = divide(counts.hits, counts.support)
    return divide(recall.sum(-1), (counts.support > 0).sum(-1))


def precision(counts: ClassCounts) -> Floats:
    """(..., C) hits / predicted."""
    return divide(counts.hits, counts.predicted)


def recall(counts: ClassCounts) -> Floats:
    """(..., C) hits / support."""
    return divide(counts.hits, counts.support)


def specificity(counts: ClassCounts) -> Floats:
    """(..., C) share of the other classes' images that are not predicted as the class."""
    negatives, wrong = others(counts)
    return divide(negatives - wrong, negatives)


def others(counts: ClassCounts) -> tuple[Floats, Floats]:
    """(..., C) images of the other classes, and how many of them are predicted as the class."""
    support = np.asarray(counts.support, dtype=np.float64)
    return support.sum(-1, keepdims=True) - support, np.asarray(
        counts.predicted - counts.hits, dtype=np.float64
    )


def f1(counts: ClassCounts) -> Floats:
    """(..., C) harmonic mean of precision and recall, 2 hits / (support + predicted)."""
    return divide(2 * counts.hits, counts.support + counts.predicted)


def macro_precision(counts: ClassCounts) -> Floats:
    """(...) mean precision over the classes that occur."""
    return _macro(precision(counts), counts)


def macro_recall(counts: ClassCounts) -> Floats:
    """(...) mean recall over the classes that occur, those only predicted as zero."""
    return _macro(recall(counts), counts)


def macro_f1(counts: ClassCounts) -> Floats:
    """(...) mean F1 over the classes that occur."""
    return _macro(f1(counts), counts)


def macro_specificity(counts: ClassCounts) -> Floats:
    """(...) mean specificity over the classes that occur and are not all there is."""
    negatives, _ = others(counts)
    scored = (counts.support + counts.predicted > 0) & (negatives > 0)
    return divide((specificity(counts) * scored).sum(-1), scored.sum(-1))


def weighted_precision(counts: ClassCounts) -> Floats:
    """(...) mean precision, each class weighted by its images."""
    return _weighted(precision(counts), counts)


def weighted_recall(counts: ClassCounts) -> Floats:
    """(...) mean recall, each class weighted by its images: the accuracy."""
    return _weighted(recall(counts), counts)


def weighted_specificity(counts: ClassCounts) -> Floats:
    """(...) mean specificity, each class weighted by its images."""
    return _weighted(specificity(counts), counts)


def weighted_f1(counts: ClassCounts) -> Floats:
    """(...) mean F1, each class weighted by its images."""
    return _weighted(f1(counts), counts)


def matthews(counts: ClassCounts) -> Floats:
    """(...) Matthews correlation for C classes, zero where labels or predictions are constant.

    (n h - sum_c t_c p_c) / sqrt((n^2 - sum_c t_c^2) (n^2 - sum_c p_c^2)) with n images, h hits,
    support t and predictions p (Gorodkin 2004).
    """
    support = np.asarray(counts.support, dtype=np.float64)
    predicted = np.asarray(counts.predicted, dtype=np.float64)
    n = support.sum(-1)
    covariance = n * counts.hits.sum(-1) - (support * predicted).sum(-1)
    squares = (n**2 - (support**2).sum(-1)) * (n**2 - (predicted**2).sum(-1))
    return divide(covariance, np.sqrt(np.maximum(squares, 0.0)))


def _weighted(values: Floats, counts: ClassCounts) -> Floats:
    """(...) mean of (..., C) values with the support as weights."""
    return divide((values * counts.support).sum(-1), counts.support.sum(-1))


def _macro(values: Floats, counts: ClassCounts) -> Floats:
    """(...) mean of (..., C) values over the classes in labels or predictions; else they are 0."""
    return divide(values.sum(-1), (counts.support + counts.predicted > 0).sum(-1))
