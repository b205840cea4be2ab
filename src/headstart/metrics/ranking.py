"""Metrics of the order of scores: areas under ROC and precision-recall curves, with influences.

The AUC of a class is the share of pairs of a positive and a negative that its scores order
rightly, ties one half.  The average precision (AP) is the mean over the positives of the
precision among all images that score at least as high, which is scikit-learn's sum of steps.

Both come with influences: how much each image pulls the value, mean zero, scaled so that their
sum of squares over N^2 is the variance.  For the AUC they are the departures of the placements
(DeLong 1988, with his n / (n - 1)); for the AP the derivatives by the images' weights, the
infinitesimal jackknife (Efron 1982), in one sort.  Influences of a mean over classes are the
mean of the classes' influences, all covariances included.

A class without positives or without negatives is not scorable: its AUC and its AP are None.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from headstart.records import Floats, Integers

Bools = npt.NDArray[np.bool_]
Influences = tuple[float, Floats]
ClassInfluences = Callable[[Floats, Bools], Influences]


def scorable_classes(labels: Integers, num_classes: int) -> Integers:
    """Classes that have both positives and negatives."""
    support = np.bincount(labels, minlength=num_classes)
    return np.flatnonzero((support > 0) & (support < len(labels))).astype(np.int64)


def class_auc(scores: Floats, positive: Bools) -> Influences:
    """AUC of one class against the rest, and (N,) influences.

    Args:
        scores: (N,), higher where the class is likelier.
        positive: (N,), with at least one True and one False.
    """
    ups, downs = _placements(scores[positive], scores[~positive])
    influences = np.empty(len(scores))
    for mask, placed in ((positive, ups), (~positive, downs)):
        count = len(placed)
        unbiased = np.sqrt(count / (count - 1)) if count > 1 else 1.0
        influences[mask] = len(scores) / count * unbiased * (placed - placed.mean())
    return float(ups.mean()), influences


def class_average_precision(scores: Floats, positive: Bools) -> Influences:
    """AP of one class against the rest, and (N,) influences.

    With weights w, AP = sum_i w_i y_i P_i / sum_i w_i y_i, where P_i = TP_i / PP_i counts the
    images that score at least as high as i; the influence of k is N times its derivative by w_k.

    Args:
        scores: (N,), higher where the class is likelier.
        positive: (N,), with at least one True and one False.
    """
    order = np.argsort(-scores, kind="stable")
    hits = positive[order].astype(np.float64)
    _, last = np.unique(-scores[order], return_index=True)
    sizes = np.diff([*last, len(scores)])
    ends = np.repeat(np.cumsum(sizes) - 1, sizes)  # last row of each tie, whose counts all share
    starts = np.repeat(last, sizes)
    true, named = np.cumsum(hits)[ends], ends + 1.0
    precision = true / named
    value = float((hits * precision).sum() / hits.sum())
    # An image counts in the precision of every positive that scores as high or lower.
    gain = np.cumsum((hits / named)[::-1])[::-1][starts]
    loss = np.cumsum((hits * true / named**2)[::-1])[::-1][starts]
    influences = np.empty(len(scores))
    influences[order] = hits * (precision - value + gain) - loss
    return value, influences * len(scores) / hits.sum()


def macro_influences(
    of_class: ClassInfluences, probabilities: Floats, labels: Integers
) -> Influences | None:
    """Mean over the scorable classes and (N,) influences on it; None without such classes.

    Args:
        of_class: `class_auc` or `class_average_precision`.
        probabilities: (N, C) scores.
        labels: (N,) int64.
    """
    classes = scorable_classes(labels, probabilities.shape[1])
    if not len(classes):
        return None
    values, total = [], np.zeros(len(labels))
    for c in classes:
        value, influences = of_class(probabilities[:, c], labels == c)
        values.append(value)
        total += influences
    return float(np.mean(values)), total / len(classes)


def auc_influences(probabilities: Floats, labels: Integers) -> Influences | None:
    """The macro AUC and each image's influence on it.

    Args:
        probabilities: (N, C) scores.
        labels: (N,) int64.

    Returns:
        The AUC and (N,) influences with mean zero, scaled so that their sum of squares over
        N^2 is the variance; None where no class has both positives and negatives.
    """
    return macro_influences(class_auc, probabilities, labels)


def macro_auc(probabilities: Floats, labels: Integers) -> float | None:
    """Mean one-vs-rest area under the ROC curve over the scorable classes; None without any."""
    return _value(auc_influences(probabilities, labels))


def average_precision_influences(probabilities: Floats, labels: Integers) -> Influences | None:
    """The macro AP and (N,) influences on it; None where no class is scorable."""
    return macro_influences(class_average_precision, probabilities, labels)


def macro_average_precision(probabilities: Floats, labels: Integers) -> float | None:
    """Mean one-vs-rest AP over the scorable classes; None without any."""
    return _value(average_precision_influences(probabilities, labels))


def by_class(
    of_class: ClassInfluences, probabilities: Floats, labels: Integers
) -> list[float | None]:
    """AUC or AP of each of the C classes; None where a class is not scorable."""
    values: list[float | None] = [None] * probabilities.shape[1]
    for c in scorable_classes(labels, probabilities.shape[1]):
        values[c] = of_class(probabilities[:, c], labels == c)[0]
    return values


def _value(found: Influences | None) -> float | None:
    """The value without its influences."""
    return None if found is None else found[0]


def _placements(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Share of negatives below each positive, and of positives above each negative; ties half."""
    ranks = average_ranks(np.concatenate([positives, negatives]))
    count = len(positives)
    ups = (ranks[:count] - average_ranks(positives)) / len(negatives)
    downs = 1 - (ranks[count:] - average_ranks(negatives)) / count
    return ups, downs


def average_ranks(values: Floats) -> Floats:
    """(N,) ranks from 1; equals share the mean of theirs."""
    _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(sizes) - (sizes - 1) / 2)[place])
