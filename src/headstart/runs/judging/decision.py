"""A yes or no about the positive class: its threshold, and what its answers are worth.

The threshold comes from out-of-fold answers at the temperature of the final model, before the
lock.  Its cross-validated figures take for every fold the threshold of the other folds; those of
the test part take the locked one.  The scores of the folds' models and of the final one are not
on quite the same scale, which is why only the test part can say what the threshold reaches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.bundle.confidence import Decision
from headstart.metrics import ThresholdRule, choose_threshold
from headstart.records import Floats, Integers
from headstart.runs.judging.evaluation import figure
from headstart.statistics import Estimate, class_estimates, decision_estimates, sensitivity_estimate

SPECIFICITIES = (0.9, 0.95)  # at which the sensitivity is told, whatever the threshold is
CHOSEN_NOTE = (
    "chosen on out-of-fold answers of the training part, before the test part was opened; its "
    "figures there are those of the images it was chosen on, in cross-validation each fold takes "
    "the threshold of the other folds"
)
GIVEN_NOTE = "given beforehand, nothing was chosen"

Bools = npt.NDArray[np.bool_]


def choose_decision(
    probabilities: Floats,
    labels: Integers,
    class_names: Sequence[str],
    positive: str,
    rule: ThresholdRule,
    prevalences: Sequence[float],
) -> tuple[Decision, dict[str, Any]]:
    """The threshold, and what the record says of it before the test.

    Args:
        probabilities: (M, C) out of fold, at the temperature of the final model.
        labels: (M,).
        class_names: C names.
        positive: one of them.
        rule: how to choose.
        prevalences: that were stated; the first weighs costs.
    """
    index = list(class_names).index(positive)
    is_positive = labels == index
    threshold = threshold_of(probabilities[:, index], is_positive, rule, prevalences)
    decision = Decision(positive=positive, index=index, threshold=threshold, rule=str(rule))
    called = decision.called(probabilities)
    about: dict[str, Any] = {
        "positive": positive,
        "rule": str(rule),
        "threshold": threshold,
        "prevalences": list(prevalences),
        "chosen_at": {
            "sensitivity": float(called[is_positive].mean()),
            "specificity": float((~called[~is_positive]).mean()),
        },
        "note": GIVEN_NOTE if rule.kind == "fixed" else CHOSEN_NOTE,
    }
    return decision, about


def threshold_of(
    scores: Floats, positive: Bools, rule: ThresholdRule, prevalences: Sequence[float]
) -> float:
    """The threshold as bundles keep it: 0 accepts all, just above 1 nothing.

    Args:
        scores: (M,) probabilities of the positive class.
        positive: (M,) whether an image is of that class.
        rule: how to choose.
        prevalences: the first weighs costs; without one it is that of these images.
    """
    stated = prevalences[0] if prevalences else None
    found = choose_threshold(scores.astype(np.float64), positive, rule, prevalence=stated)
    return float(np.clip(found.threshold, 0.0, np.nextafter(1.0, 2.0)))


def cross_fit_called(
    probabilities: Floats,
    labels: Integers,
    fold: Integers,
    index: int,
    rule: ThresholdRule,
    prevalences: Sequence[float],
) -> tuple[Bools, list[float]]:
    """(M,) calls of every fold at the threshold of the others, and those thresholds.

    Args:
        probabilities: (M, C) out of fold.
        labels: (M,).
        fold: (M,) fold of each row.
        index: of the positive class.
        rule: how to choose.
        prevalences: as in `choose_decision`.
    """
    scores, positive = probabilities[:, index].astype(np.float64), labels == index
    called, thresholds = np.zeros(len(labels), dtype=bool), []
    for number in range(int(fold.max()) + 1):
        own = fold == number
        # Folds that score a class which the others lack are refused when they are made.
        thresholds.append(threshold_of(scores[~own], positive[~own], rule, prevalences))
        called[own] = scores[own] >= thresholds[-1]
    return called, thresholds


def fold_decision(
    probabilities: Floats,
    labels: Integers,
    fold: Integers,
    index: int,
    rule: ThresholdRule,
    prevalences: Sequence[float],
    *,
    groups: Integers | None,
) -> dict[str, Any]:
    """Cross-validated figures of the decision; arguments as in `cross_fit_called`."""
    called, thresholds = cross_fit_called(probabilities, labels, fold, index, rule, prevalences)
    found = called_figures(called, labels == index, prevalences, groups=groups)
    return {"by_fold": thresholds} | found


def decision_record(
    decision: Decision,
    probabilities: Floats,
    labels: Integers,
    prevalences: Sequence[float],
    *,
    groups: Integers | None,
    seed: int,
) -> dict[str, Any]:
    """What a locked decision is worth on images that had no part in it.

    Args:
        decision: of the model.
        probabilities: (N, C) as the model gives them.
        labels: (N,).
        prevalences: for predictive values there.
        groups: (N,) or None.
        seed: of the resampling.
    """
    positive = labels == decision.index
    scores = probabilities[:, decision.index].astype(np.float64)
    found = called_figures(decision.called(probabilities), positive, prevalences, groups=groups)
    found["sensitivity_at_specificity"] = [
        {
            "specificity": specificity,
            "sensitivity": told(
                sensitivity_estimate(scores, positive, specificity, groups=groups, seed=seed)
            ),
        }
        for specificity in SPECIFICITIES
    ]
    ranked = np.column_stack([1 - scores, scores])
    curves = class_estimates(ranked, positive.astype(np.int64), 2, groups=groups)[1]
    found["figures"] |= {name: told(curves[name]) for name in ("auc", "average_precision")}
    return {
        "positive": decision.positive, "rule": decision.rule, "threshold": decision.threshold,
    } | found  # fmt: skip


def called_figures(
    called: Bools,
    positive: Bools,
    prevalences: Sequence[float],
    *,
    groups: Integers | None,
) -> dict[str, Any]:
    """Counts, figures and predictive values of calls, with intervals.

    Args:
        called: (N,) what was called positive.
        positive: (N,) what is.
        prevalences: for predictive values there, beside those of these images.
        groups: (N,) or None.
    """
    here = decision_estimates(called, positive, groups=groups)
    at = []
    for prevalence in prevalences:
        made = decision_estimates(called, positive, groups=groups, prevalence=prevalence)
        values = {name: told(made[name]) for name in ("ppv", "npv")}
        at.append({"prevalence": prevalence, **values})
    return {
        "num_images": len(called),
        "prevalence_here": float(positive.mean()) if len(positive) else math.nan,
        "counts": {
            "hits": int((called & positive).sum()),
            "misses": int((~called & positive).sum()),
            "false_alarms": int((called & ~positive).sum()),
            "rejections": int((~called & ~positive).sum()),
        },
        "figures": {name: told(estimate) for name, estimate in here.items()},
        "at_prevalence": at,
    }


def told(estimate: Estimate) -> dict[str, Any]:
    """A figure as records keep it."""
    return figure(estimate.value, estimate.interval)
