"""Heads: classifiers on features that are already there, many fitted at once."""

from headstart.heads.linear import linear_logits, linear_probabilities
from headstart.heads.logistic import (
    LogisticFit,
    RotatedFeatures,
    fit_logistic,
    predict_logits,
    rotate_features,
)
from headstart.heads.penalties import (
    FIT_TOLERANCE,
    ChosenFit,
    fit_scaled_logistic,
    fit_with_chosen_penalty,
    penalty_path,
)
from headstart.heads.registered import HEADS, HeadSpec

__all__ = [
    "FIT_TOLERANCE",
    "HEADS",
    "ChosenFit",
    "HeadSpec",
    "LogisticFit",
    "RotatedFeatures",
    "fit_logistic",
    "fit_scaled_logistic",
    "fit_with_chosen_penalty",
    "linear_logits",
    "linear_probabilities",
    "penalty_path",
    "predict_logits",
    "rotate_features",
]
