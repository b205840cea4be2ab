"""Sets of classes that hold the right one as often as promised (Vovk et al. 2005).

Split conformal prediction: images that the model did not learn from get a score of how badly
their true class fits.  The threshold is the k-th smallest of n scores, k = ceil((n + 1)(1 -
alpha)); a new image's set is every class whose score is at most the threshold.  If calibration
images and new ones are exchangeable, the set holds the true class with a chance of at least
1 - alpha, on average over calibration sets, whatever the model.

'lac' scores 1 - p_y and gives the smallest sets on average (Sadinle, Lei and Wasserman 2019).
'aps' scores the probability of all classes at least as likely as y (Romano, Sesia and Candes
2020, not randomised): larger sets, meant to be more even over easy and hard images.  Sets of
either may be empty: no class fits as well as those of the calibration images did.

By class (Mondrian, Vovk 2012) each class has its own threshold from its own images, and the
promise holds for each class; a class needs at least ceil(1 / alpha) - 1 images.

Images of one group (a patient, a video) are not exchangeable with those of another; groups are.
Given groups, every group weighs the same, its images share that weight, and the threshold is the
smallest score that holds (1 - alpha) of the weight, one further group of the worst score counted
in: the promise then is for an image drawn at random from a new group (hierarchical conformal
prediction, Lee, Barber and Willett 2023). Groups of one image each give the rank above.

What the promise does and does not cover is said in `APPROXIMATE`, `GROUPED`, `GUARANTEED`,
`GUARANTEED_GROUPS` and `NOT_GUARANTEED`, which reports print beside the figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError, UsageError
from headstart.records import Floats, Integers
from headstart.statistics import LEVEL, Estimate, Groups, mean_estimate, share_estimate

ScoreName = Literal["lac", "aps"]
Bools = npt.NDArray[np.bool_]

APPROXIMATE = (
    "approximate: the thresholds come from out-of-fold scores, the answers from a model fitted "
    "again on all training images; there is no finite-sample guarantee"
)
GUARANTEED = (
    "guaranteed: the thresholds come from images kept aside that neither the model nor its "
    "temperature has seen; for new images from the same source the promise holds in finite "
    "samples, on average over such calibration images"
)
GUARANTEED_GROUPS = (
    "guaranteed: the thresholds come from images kept aside that neither the model nor its "
    "temperature has seen, every group weighing the same; for an image drawn at random from a new "
    "group the promise holds in finite samples, on average over such calibration groups. Images "
    "of one group are not exchangeable with those of another, so it is none for each single group"
)
NOT_GUARANTEED = (
    "not guaranteed: images kept aside for the thresholds belong together with images that the "
    "model has learnt from, so they tell too much for sure"
)
GROUPED = (
    "images of one group resemble each other, so single images are not exchangeable with those of "
    "a new group: for new groups the coverage is approximate, and its interval on the test part "
    "is one over whole groups"
)


@dataclass(frozen=True, kw_only=True)
class ConformalRule:
    """How sets of classes are made.

    Attributes:
        alpha: share of sets that may miss the true class.
        score: 'lac' or 'aps'.
        by_class: whether each class has a threshold of its own.
        thresholds: C thresholds, all equal unless `by_class`.
        num_images: C images that each threshold comes from.
    """

    alpha: float
    score: ScoreName = "lac"
    by_class: bool = False
    thresholds: tuple[float, ...]
    num_images: tuple[int, ...]

    def sets(self, probabilities: Floats) -> Bools:
        """(N, C) True where a class belongs to the image's set."""
        return class_scores(probabilities, self.score) <= np.array(self.thresholds)


def images_needed(alpha: float) -> int:
    """Fewest calibration images for which a threshold exists: ceil(1 / alpha) - 1.

    Raises:
        UsageError: alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise UsageError(
            f"`alpha`, the share of sets that may miss, lies between 0 and 1, ends excluded, got "
            f"{alpha}. Give for example 0.1."
        )
    return math.ceil(1 / alpha - 1e-9) - 1


def conformal_threshold(scores: Floats, alpha: float, groups: Groups | None = None) -> float:
    """The k-th smallest of n scores, k = ceil((n + 1)(1 - alpha)); or its like over groups.

    Args:
        scores: (n,) finite scores of the true classes of calibration images.
        alpha: share that may be missed.
        groups: (n,) group of each image; None where images are independent.

    Raises:
        UsageError: alpha is not between 0 and 1.
        DataError: too few scores or groups; the message has the number needed.
    """
    needed = images_needed(alpha)
    _, codes, sizes = np.unique(
        np.arange(len(scores)) if groups is None else groups,
        return_inverse=True,
        return_counts=True,
    )
    n, word = len(sizes), "images" if groups is None else "groups"
    if n < needed:
        raise DataError(
            f"A threshold that misses at most {alpha:g} needs at least {needed} {word}, got {n}. "
            f"Give more {word}, or a larger alpha."
        )
    order = np.argsort(scores, kind="stable")
    weight = np.cumsum(1 / sizes[codes[order]])  # of n + 1 groups, the last one of any score
    enough = np.flatnonzero(weight >= (n + 1) * (1 - alpha) - 1e-9)  # 20 x 0.95 is above 19
    return float(scores[order[enough[0] if len(enough) else -1]])


def class_scores(probabilities: Floats, score: ScoreName) -> npt.NDArray[np.float64]:
    """(N, C) how badly each class fits each image, from (N, C) probabilities."""
    fit = probabilities.astype(np.float64)
    if score == "lac":
        return 1 - fit
    order = np.argsort(-fit, axis=1, kind="stable")
    ranked = np.take_along_axis(fit, order, axis=1)
    scores = np.empty_like(fit)
    summed = np.cumsum(ranked, axis=1)
    summed[:, -1] = 1.0  # all classes, whatever rounding makes of the sum
    np.put_along_axis(scores, order, np.minimum(summed, 1.0), axis=1)
    return scores


def fit_conformal(
    probabilities: Floats,
    labels: Integers,
    class_names: Sequence[str],
    *,
    alpha: float = 0.1,
    score: ScoreName = "lac",
    by_class: bool = False,
    groups: Groups | None = None,
) -> ConformalRule:
    """Thresholds from images that the model did not learn from.

    Args:
        probabilities: (N, C), calibrated ones where there is a temperature.
        labels: (N,) int64.
        class_names: C names, for messages.
        alpha: share of sets that may miss.
        score: 'lac' or 'aps'.
        by_class: a threshold for each class.
        groups: (N,) group of each image, None where images are independent.

    Raises:
        UsageError: alpha or the score cannot be.
        DataError: too few images or groups, of a class or in all; the message has the number
            needed.
    """
    if score not in ("lac", "aps"):
        raise UsageError(f"A conformal score is 'lac' or 'aps', got '{score}'.")
    own = class_scores(probabilities, score)[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=len(class_names))
    if by_class:
        rows = [labels == c for c in range(len(counts))]
        if groups is None:
            units = counts
        else:
            units = np.array([len(np.unique(groups[r])) for r in rows], dtype=np.int64)
        _check_classes(units, class_names, alpha, "images" if groups is None else "groups")
        thresholds = [conformal_threshold(own[r], alpha, _groups_of(groups, r)) for r in rows]
    else:
        thresholds = [conformal_threshold(own, alpha, groups)] * len(class_names)
        counts = np.full(len(class_names), len(labels))
    return ConformalRule(
        alpha=alpha,
        score=score,
        by_class=by_class,
        thresholds=tuple(thresholds),
        num_images=tuple(int(count) for count in counts),
    )


@dataclass(frozen=True, kw_only=True)
class SetFigures:
    """What sets of classes are worth on labelled images.

    Attributes:
        num_images: how many were judged.
        coverage: share of sets that hold the true class.
        group_coverage: the same with every group weighing the same; no value without groups.
        mean_size: classes in a set.
        single_fraction: share of sets of one class: the answers that need no second look.
        empty_fraction: share of sets of none.
        class_coverage: C coverages of the images of each class.
        class_mean_size: C mean sizes of the sets of each class's images.
    """

    num_images: int
    coverage: Estimate
    group_coverage: Estimate
    mean_size: Estimate
    single_fraction: float
    empty_fraction: float
    class_coverage: tuple[Estimate, ...]
    class_mean_size: tuple[Estimate, ...]


def evaluate_sets(
    sets: Bools,
    labels: Integers,
    *,
    groups: Groups | None = None,
    seed: int,
    level: float = LEVEL,
) -> SetFigures:
    """Coverage and size of sets, in all and by class, with intervals.

    Args:
        sets: (N, C) from `ConformalRule.sets`, of images that no threshold comes from.
        labels: (N,) int64.
        groups: (N,) or None; drawn whole where given.
        seed: of the resampling.
        level: coverage of the intervals.
    """
    if sets.ndim != 2 or len(sets) != len(labels) or not len(labels):
        raise ValueError(
            f"`sets` must be (N, C) with one row a label and N > 0, got {sets.shape} for "
            f"{len(labels)} labels."
        )
    held = sets[np.arange(len(labels)), labels]
    sizes = sets.sum(axis=1).astype(np.float64)
    classes = range(sets.shape[1])
    return SetFigures(
        num_images=len(labels),
        coverage=share_estimate(held, groups=groups, level=level),
        group_coverage=_group_coverage(held, groups, seed, level),
        mean_size=mean_estimate(sizes, groups=groups, seed=seed, level=level),
        single_fraction=float((sizes == 1).mean()),
        empty_fraction=float((sizes == 0).mean()),
        class_coverage=tuple(
            share_estimate(held[labels == c], groups=_groups_of(groups, labels == c), level=level)
            for c in classes
        ),
        class_mean_size=tuple(
            mean_estimate(
                sizes[labels == c], groups=_groups_of(groups, labels == c), seed=seed, level=level
            )
            for c in classes
        ),
    )


def _group_coverage(held: Bools, groups: Groups | None, seed: int, level: float) -> Estimate:
    """Mean over groups of the share of their sets that hold the true class."""
    if groups is None:
        return Estimate(value=None, interval=None)
    codes = np.unique(groups, return_inverse=True)[1]
    shares = np.bincount(codes, weights=held) / np.bincount(codes)
    if ((shares == 0) | (shares == 1)).all():
        return share_estimate(shares == 1, level=level)
    return mean_estimate(shares, seed=seed, level=level)


def _groups_of(groups: Groups | None, rows: Bools) -> Groups | None:
    """The groups of some images."""
    return None if groups is None else groups[rows]


def _check_classes(counts: Integers, class_names: Sequence[str], alpha: float, word: str) -> None:
    """Refuse thresholds by class where a class is too small, and name it with its number."""
    needed = images_needed(alpha)
    small = [
        f"'{name}' has {count}"
        for name, count in zip(class_names, counts, strict=True)
        if count < needed
    ]
    if small:
        listed = ", ".join(small[:5]) + (", ..." if len(small) > 5 else "")
        raise DataError(
            f"Sets by class that miss at most {alpha:g} need at least {needed} {word} of every "
            f"class, but {listed}. Add {word}, give a larger alpha, or make sets for all classes "
            "together."
        )
