"""How good probabilities are, in numbers.

All functions take `probabilities` (N, C), rows summing to one, and `labels` (N,) from 0 to
C - 1.  The prediction is the most probable class, the first of equals.  A metric that is not
defined, or is trivially one, is None: top k with C <= k, an area under a curve without
positives or negatives, specificity without negatives.

Registered metrics say how their interval is made (`headstart.statistics` makes it): 'wilson'
for a share of images, 'bootstrap' for what is not a plain share, 'influence' for the areas under
curves.  `HEADLINES` are those that tables for people show; records keep all of `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from headstart.metrics import counts as by_counts
from headstart.metrics import ranking
from headstart.metrics.counts import ClassCounts, count_classes
from headstart.records import Floats, Integers
from headstart.registry import Registry

IntervalKind = Literal["wilson", "bootstrap", "influence"]
SMALLEST_PROBABILITY = 1e-15
REPORTED = ("precision", "recall", "f1-score", "support")


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: its key in records.
        label: its heading in tables.
        function: (probabilities, labels) to a value, None where undefined.
        bigger_is_better: False for losses.
        interval: how its interval is made.
        from_counts: the same metric from class counts, where it needs no more.
        per_image: (probabilities, labels) to (N,) values whose mean the metric is, if it is one.
        influences: (probabilities, labels) to the value and (N,) influences on it, for metrics of
            the order of scores: these are averaged over folds, never pooled.
        headline: whether tables for people show it.
        lowest: its smallest possible value.
    """

    name: str
    label: str
    function: Callable[[Floats, Integers], float | None]
    bigger_is_better: bool = True
    interval: IntervalKind
    from_counts: Callable[[ClassCounts], Floats] | None = None
    per_image: Callable[[Floats, Integers], Floats] | None = None
    influences: Callable[[Floats, Integers], ranking.Influences | None] | None = None
    headline: bool = False
    lowest: float = 0.0

    @property
    def averages_classes(self) -> bool:
        """Whether it is made of classes' figures, at most 1, and not a mean over images."""
        return self.per_image is None


METRICS: Registry[MetricSpec] = Registry("metric")


def score(probabilities: Floats, labels: Integers, num_classes: int) -> dict[str, float | None]:
    """Every registered metric by name.

    Args:
        probabilities: (N, C), finite.
        labels: (N,) int64, 0 to C - 1.
        num_classes: C.

    Raises:
        ValueError: no images, shapes that do not fit, values out of range.
    """
    check_scored(probabilities, labels, num_classes)
    return {spec.name: spec.function(probabilities, labels) for spec in METRICS}


def check_scored(probabilities: Floats, labels: Integers, num_classes: int) -> None:
    """Raise ValueError where there is nothing that can be scored."""
    if probabilities.shape != (len(labels), num_classes) or not len(labels):
        raise ValueError(
            f"`probabilities` must be (N, {num_classes}) with one row a label and N > 0, "
            f"got {probabilities.shape} for {len(labels)} labels."
        )
    if not np.isfinite(probabilities).all():
        raise ValueError("`probabilities` must be finite. Leave unreadable images out.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"`labels` must be 0 to {num_classes - 1}. Leave unlabelled images out.")


def predict(probabilities: Floats) -> Integers:
    """(N,) most probable class, the first of equals."""
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def hits(probabilities: Floats, labels: Integers) -> Floats:
    """(N,) one where the prediction is right, else zero."""
    return np.asarray(predict(probabilities) == labels, dtype=np.float64)


def top_k_hits(probabilities: Floats, labels: Integers, *, k: int) -> Floats:
    """(N,) one where the label is among the k most probable; of equals the first come first."""
    own = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    rank = ((probabilities > own) | ((probabilities == own) & before)).sum(axis=1)
    return np.asarray(rank < k, dtype=np.float64)


def top_k_accuracy(probabilities: Floats, labels: Integers, *, k: int) -> float | None:
    """Share of images whose label is among the k most probable; None where C <= k."""
    if probabilities.shape[1] <= k:
        return None
    return float(top_k_hits(probabilities, labels, k=k).mean())


def log_losses(probabilities: Floats, labels: Integers) -> Floats:
    """(N,) minus natural logarithm of the label's probability, clipped from below at 1e-15."""
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(own, SMALLEST_PROBABILITY, 1.0))


def log_loss(probabilities: Floats, labels: Integers) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(probabilities, labels).mean())


def brier_scores(probabilities: Floats, labels: Integers) -> Floats:
    """(N,) squared distance of the probabilities from the truth, sum_c (p_c - y_c)^2.

    From 0 to 2 as Brier (1950) has it; halved for two classes, where that is the usual
    (p - y)^2.  scikit-learn does the same.
    """
    wrong = probabilities.astype(np.float64)
    wrong[np.arange(len(labels)), labels] -= 1.0
    squares = (wrong**2).sum(axis=1)
    return np.asarray(squares / 2 if probabilities.shape[1] == 2 else squares)


def brier_score(probabilities: Floats, labels: Integers) -> float:
    """Mean of `brier_scores`."""
    return float(brier_scores(probabilities, labels).mean())


def macro_specificity(probabilities: Floats, labels: Integers) -> float | None:
    """Mean specificity over the classes that occur; None where all labels are equal."""
    if (labels == labels[0]).all():
        return None
    return _from_counts(by_counts.macro_specificity, probabilities, labels)


def per_class_table(probabilities: Floats, labels: Integers) -> dict[str, Floats | Integers]:
    """Columns precision, recall, specificity, f1 and support, each (C,); zero where undefined."""
    counts = count_classes(labels, predict(probabilities), probabilities.shape[1])
    return {
        "precision": by_counts.precision(counts),
        "recall": by_counts.recall(counts),
        "specificity": by_counts.specificity(counts),
        "f1": by_counts.f1(counts),
        "support": np.asarray(counts.support, dtype=np.int64),
    }


def text_report(probabilities: Floats, labels: Integers, class_names: tuple[str, ...]) -> str:
    """scikit-learn's classification report with four digits, letter by letter.

    It lists all C classes, and its averages count those that never occur as zero, which the
    registered macro metrics leave out.
    """
    table = per_class_table(probabilities, labels)
    support = table["support"]
    figures = np.stack([table["precision"], table["recall"], table["f1"]], axis=1)  # (C, 3)
    total, right = len(labels), float(hits(probabilities, labels).mean())
    width = max(len(name) for name in (*class_names, "weighted avg"))

    def row(name: str, values: Iterable[float], count: int) -> str:
        cells = "".join(f" {value:>9.4f}" for value in values)
        return f"{name:>{width}} {cells} {count:>9}\n"

    return (
        f"{'':>{width}} " + "".join(f" {word:>9}" for word in REPORTED) + "\n\n"
        + "".join(row(*line) for line in zip(class_names, figures, support, strict=True))
        + f"\n{'accuracy':>{width}} {'':>20} {right:>9.4f} {total:>9}\n"
        + row("macro avg", figures.mean(axis=0), total)
        + row("weighted avg", support @ figures / total, total)
    )  # fmt: skip


def _from_counts(
    function: Callable[[ClassCounts], Floats], probabilities: Floats, labels: Integers
) -> float:
    """The value of a count metric."""
    counts = count_classes(labels, predict(probabilities), probabilities.shape[1])
    return float(function(counts))


def _register_count_metric(
    name: str,
    label: str,
    of_counts: Callable[[ClassCounts], Floats],
    *,
    headline: bool = False,
    lowest: float = 0.0,
    function: Callable[[Floats, Integers], float | None] | None = None,
) -> None:
    """Register a metric of class counts with a bootstrap interval."""
    METRICS.register(
        MetricSpec(
            name=name,
            label=label,
            function=function or partial(_from_counts, of_counts),
            interval="bootstrap",
            from_counts=of_counts,
            headline=headline,
            lowest=lowest,
        )
    )


METRICS.register(
    MetricSpec(
        name="accuracy",
        label="Accuracy",
        function=partial(_from_counts, by_counts.accuracy),
        interval="wilson",
        from_counts=by_counts.accuracy,
        per_image=hits,
        headline=True,
    )
)
_register_count_metric(
    "balanced_accuracy", "Balanced accuracy", by_counts.balanced_accuracy, headline=True
)
for _k in (3, 5):
    METRICS.register(
        MetricSpec(
            name=f"top{_k}_accuracy",
            label=f"Top-{_k} accuracy",
            function=partial(top_k_accuracy, k=_k),
            interval="wilson",
            per_image=partial(top_k_hits, k=_k),
            headline=True,
        )
    )
_register_count_metric(
    "macro_precision", "Macro precision", by_counts.macro_precision, headline=True
)
_register_count_metric("macro_recall", "Macro recall", by_counts.macro_recall, headline=True)
_register_count_metric("macro_f1", "Macro F1", by_counts.macro_f1, headline=True)
METRICS.register(
    MetricSpec(
        name="macro_auc",
        label="Macro AUC",
        function=ranking.macro_auc,
        interval="influence",
        influences=ranking.auc_influences,
        headline=True,
    )
)
METRICS.register(
    MetricSpec(
        name="log_loss",
        label="Log loss",
        function=log_loss,
        bigger_is_better=False,
        interval="bootstrap",
        per_image=log_losses,
        headline=True,
    )
)
METRICS.register(
    MetricSpec(
        name="brier_score",
        label="Brier score",
        function=brier_score,
        bigger_is_better=False,
        interval="bootstrap",
        per_image=brier_scores,
    )
)
METRICS.register(
    MetricSpec(
        name="macro_average_precision",
        label="Macro average precision",
        function=ranking.macro_average_precision,
        interval="influence",
        influences=ranking.average_precision_influences,
    )
)
_register_count_metric("matthews", "Matthews correlation", by_counts.matthews, lowest=-1.0)
_register_count_metric(
    "macro_specificity",
    "Macro specificity",
    by_counts.macro_specificity,
    function=macro_specificity,
)
_register_count_metric("weighted_precision", "Weighted precision", by_counts.weighted_precision)
_register_count_metric("weighted_recall", "Weighted recall", by_counts.weighted_recall)
_register_count_metric(
    "weighted_specificity", "Weighted specificity", by_counts.weighted_specificity
)
_register_count_metric("weighted_f1", "Weighted F1", by_counts.weighted_f1)

HEADLINES = tuple(spec for spec in METRICS if spec.headline)
