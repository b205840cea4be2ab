"""Metrics: how good predictions are, from probabilities and labels."""

from headstart.metrics.classification import (
    HEADLINES,
    METRICS,
    MetricSpec,
    brier_scores,
    log_losses,
    per_class_table,
    predict,
    score,
    text_report,
)
from headstart.metrics.counts import confusion_matrix
from headstart.metrics.operating import (
    OperatingPoint,
    PredictiveValue,
    ThresholdRule,
    apply_threshold,
    choose_threshold,
    operating_points,
    predictive_intervals,
    predictive_values,
    sensitivity_at_specificity,
)
from headstart.metrics.ranking import macro_auc, macro_average_precision

__all__ = [
    "HEADLINES",
    "METRICS",
    "MetricSpec",
    "OperatingPoint",
    "PredictiveValue",
    "ThresholdRule",
    "apply_threshold",
    "brier_scores",
    "choose_threshold",
    "confusion_matrix",
    "log_losses",
    "macro_auc",
    "macro_average_precision",
    "operating_points",
    "per_class_table",
    "predict",
    "predictive_intervals",
    "predictive_values",
    "score",
    "sensitivity_at_specificity",
    "text_report",
]
