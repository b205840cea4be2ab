"""Metrics: how good predictions are, from probabilities and labels."""

from headstart.metrics.classification import (
    METRICS,
    MetricSpec,
    log_losses,
    macro_auc,
    per_class_table,
    predict,
    score,
    text_report,
)
from headstart.metrics.counts import confusion_matrix

__all__ = [
    "METRICS",
    "MetricSpec",
    "confusion_matrix",
    "log_losses",
    "macro_auc",
    "per_class_table",
    "predict",
    "score",
    "text_report",
]
