"""Heads: classifiers on features that are already there, many fitted at once."""

from headstart.heads.baselines import (
    BASELINES,
    BaselineSpec,
    cosine_class_mean,
    k_nearest_neighbours,
    nearest_class_mean,
    score_baselines,
)
from headstart.heads.class_weights import (
    CLASS_WEIGHTS,
    apply_class_weights,
    balanced_weights,
    balancing_factors,
)
from headstart.heads.inner import InnerRows
from headstart.heads.layers import (
    Layers,
    head_logits,
    head_probabilities,
    mean_features,
    mean_logits,
    to_probabilities,
)
from headstart.heads.linear.logistic import LogisticFit, SharedWeights, fit_logistic, predict_logits
from headstart.heads.linear.nested import NestedFit, fit_on_columns, fit_with_chosen_columns
from headstart.heads.linear.penalties import (
    FIT_TOLERANCE,
    LOOK_TOLERANCE,
    SEARCH_TOLERANCE,
    ChosenFit,
    fit_scaled_logistic,
    fit_with_chosen_penalty,
    penalty_path,
)
from headstart.heads.linear.rotation import RotatedFeatures, rotate_features
from headstart.heads.logme import logme
from headstart.heads.multilayer.folds import MlpFolds, fit_mlp_final, fit_mlp_folds
from headstart.heads.multilayer.halving import (
    HalvedSettings,
    draw_settings,
    fit_winners,
    rungs,
    successive_halving,
)
from headstart.heads.multilayer.mlp import MlpFit, MlpHistory, fit_mlps, problems_at_once
from headstart.heads.multilayer.settings import E1_MLP, SCHEDULES, FitPlan, MlpSettings
from headstart.heads.registered import HEADS, HeadSpec

__all__ = [
    "BASELINES",
    "CLASS_WEIGHTS",
    "E1_MLP",
    "FIT_TOLERANCE",
    "HEADS",
    "LOOK_TOLERANCE",
    "SCHEDULES",
    "SEARCH_TOLERANCE",
    "BaselineSpec",
    "ChosenFit",
    "FitPlan",
    "HalvedSettings",
    "HeadSpec",
    "InnerRows",
    "Layers",
    "LogisticFit",
    "MlpFit",
    "MlpFolds",
    "MlpHistory",
    "MlpSettings",
    "NestedFit",
    "RotatedFeatures",
    "SharedWeights",
    "apply_class_weights",
    "balanced_weights",
    "balancing_factors",
    "cosine_class_mean",
    "draw_settings",
    "fit_logistic",
    "fit_mlp_final",
    "fit_mlp_folds",
    "fit_mlps",
    "fit_on_columns",
    "fit_scaled_logistic",
    "fit_winners",
    "fit_with_chosen_columns",
    "fit_with_chosen_penalty",
    "head_logits",
    "head_probabilities",
    "k_nearest_neighbours",
    "logme",
    "mean_features",
    "mean_logits",
    "nearest_class_mean",
    "penalty_path",
    "predict_logits",
    "problems_at_once",
    "rotate_features",
    "rungs",
    "score_baselines",
    "successive_halving",
    "to_probabilities",
]
