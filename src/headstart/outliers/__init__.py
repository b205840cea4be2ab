"""Is this image of a kind that the model has seen? A distance, its threshold, its judgement."""

from headstart.outliers.judging import (
    LeftOutClass,
    Separation,
    judge_separation,
    leave_classes_out,
    outlier_threshold,
)
from headstart.outliers.mahalanobis import (
    MahalanobisModel,
    cross_fit_scores,
    fit_mahalanobis,
    fit_with_cross_fit,
)
from headstart.outliers.scatter import unit_length

__all__ = [
    "LeftOutClass",
    "MahalanobisModel",
    "Separation",
    "cross_fit_scores",
    "fit_mahalanobis",
    "fit_with_cross_fit",
    "judge_separation",
    "leave_classes_out",
    "outlier_threshold",
    "unit_length",
]
