"""Which score is strange, and how well strange images are told: thresholds and judgements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.errors import DataError
from headstart.outliers.mahalanobis import cross_fit
from headstart.outliers.scatter import Rows, principal_components, scatter_by
from headstart.records import Floats, Integers
from headstart.statistics import (
    Estimate,
    Groups,
    auc_influences,
    auc_interval,
    share_estimate,
)

ACCEPTED = 0.95
MOST_DIRECTIONS = 512  # in which classes are left out


def outlier_threshold(scores: Floats, accepted: float = ACCEPTED) -> float:
    """The score up to which an image counts as known: the ceil((n + 1) accepted)-th smallest.

    Of new images of the known kind at least this share is accepted on average, if the scores
    come from images that the model was not fitted on; approximately, if from cross-fitted ones.

    Args:
        scores: (n,) of images of the known kind.
        accepted: share of them that is to be accepted.

    Raises:
        DataError: too few scores for this share.
    """
    if not 0 < accepted < 1:
        raise ValueError(f"`accepted` must be between 0 and 1, got {accepted}.")
    rank, needed = (
        math.ceil((len(scores) + 1) * accepted - 1e-9),
        math.ceil(1 / (1 - accepted) - 1e-9) - 1,
    )
    if rank > len(scores):
        raise DataError(
            f"A threshold that accepts {accepted:.0%} of the known images needs at least {needed} "
            f"of them, got {len(scores)}. Give more images, or accept a smaller share."
        )
    return float(np.sort(scores)[rank - 1])


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well scores tell strange images from known ones.

    Attributes:
        num_known: images of the known kind.
        num_strange: images of another kind.
        auroc: chance that a strange image scores higher than a known one.
        accepted_at_95: FPR@95, share of strange images accepted where 95 % of the known ones are.
    """

    num_known: int
    num_strange: int
    auroc: Estimate
    accepted_at_95: Estimate


def judge_separation(
    known: Floats,
    strange: Floats,
    *,
    known_groups: Groups | None = None,
    strange_groups: Groups | None = None,
) -> Separation:
    """AUROC and FPR@95 of scores, with intervals.

    Args:
        known: (n,) scores of images that the model was not fitted on.
        strange: (m,) scores of images of another kind.
        known_groups: (n,) or None; give both or neither.
        strange_groups: (m,) or None.
    """
    if not len(known) or not len(strange):
        raise ValueError(f"Nothing to judge with {len(known)} known and {len(strange)} strange.")
    labels = np.repeat(np.array([0, 1], dtype=np.int64), [len(known), len(strange)])
    scores = np.concatenate([known, strange])
    groups = None
    if known_groups is not None and strange_groups is not None:
        groups = np.concatenate([known_groups, strange_groups])
    columns = np.column_stack([-scores, scores])
    found = auc_influences(columns, labels)
    accepted = strange <= np.quantile(known, ACCEPTED, method="higher")
    return Separation(
        num_known=len(known),
        num_strange=len(strange),
        auroc=Estimate(
            value=None if found is None else found[0],
            interval=auc_interval(columns, labels, groups=groups),
        ),
        accepted_at_95=share_estimate(accepted, groups=None if groups is None else strange_groups),
    )


@dataclass(frozen=True, kw_only=True)
class LeftOutClass:
    """One class treated as unknown.

    Attributes:
        name: the class.
        separation: the known classes' held-out images against all images of this class.
    """

    name: str
    separation: Separation


def leave_classes_out(
    features: Floats,
    labels: Integers,
    folds: Integers,
    class_names: Sequence[str],
    *,
    relative: bool = False,
    groups: Groups | None = None,
) -> list[LeftOutClass]:
    """Each class once as the unknown one: an honest, hard judgement of the score.

    Known images are scored across folds, the left-out class by a model of all known images.  With
    many classes this costs C times (folds + 1) fits; give the images of a few.

    Args:
        features: (N, D).
        labels: (N,) int64.
        folds: (N,) fold of each image.
        class_names: C names; the list lacks those without images, and those without which the
            others are too few or too alike to be fitted on across folds.
        relative: as in `fit_mahalanobis`.
        groups: (N,) patient or the like of each image, the sample of the intervals; or None.
    """
    judged = []
    rows, num_classes = _leading(Rows.of_length_one(features)), int(labels.max()) + 1
    for c, name in enumerate(class_names):
        out = labels == c
        if not out.any() or len(np.unique(folds[~out])) < 2:
            continue
        try:
            _, scores = cross_fit(rows, labels, num_classes, folds, ~out, relative=relative)
        except DataError:  # nothing to say about this class; the rest of a run does not hang on it
            continue
        separation = judge_separation(
            scores[~out],
            scores[out],
            known_groups=None if groups is None else groups[~out],
            strange_groups=None if groups is None else groups[out],
        )
        judged.append(LeftOutClass(name=name, separation=separation))
    return judged


def _leading(rows: Rows) -> Rows:
    """The rows along their `MOST_DIRECTIONS` leading components, where they have more."""
    if rows.width <= MOST_DIRECTIONS:
        return rows
    nothing = np.zeros(len(rows.values), dtype=np.int64)
    covariance = scatter_by(rows, nothing, nothing, 1, 1)[0].covariance()
    return rows.along(principal_components(covariance, MOST_DIRECTIONS))
