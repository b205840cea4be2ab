"""From scores to a decision about one class: thresholds, and what their answers are worth.

An image is called positive where its score is at least the threshold.  A threshold lies midway
between the lowest score that it accepts and the highest that it refuses, so that new scores
beside either fall on their side.  Choose it on out-of-fold scores: on the images that are
judged it is too good, by as much as there are thresholds to choose from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from headstart.errors import UsageError
from headstart.records import Floats

Bools = npt.NDArray[np.bool_]
RuleKind = Literal["youden", "sensitivity", "specificity", "cost", "fixed"]
KINDS: tuple[RuleKind, ...] = ("youden", "sensitivity", "specificity", "cost", "fixed")
EXAMPLES = "'youden', 'sensitivity:0.95', 'specificity:0.9', 'cost:5' or a number such as 0.5"


@dataclass(frozen=True, kw_only=True)
class ThresholdRule:
    """How an operating threshold is chosen.

    Attributes:
        kind: 'youden' makes sensitivity + specificity largest (Youden 1950); 'sensitivity'
            reaches `target` sensitivity at the highest specificity; 'specificity' the reverse;
            'cost' makes the expected cost least where a missed positive costs `target` false
            alarms; 'fixed' is the threshold `target` itself, and nothing is chosen.
        target: above 0, for all but 'cost' at most 1; None for 'youden'.
    """

    kind: RuleKind = "youden"
    target: float | None = None

    def __post_init__(self) -> None:
        """Refuse a target that cannot be.

        Raises:
            UsageError: unknown kind, or a target that is missing, needless or out of range.
        """
        if self.kind not in KINDS:
            raise UsageError(f"A threshold rule is one of {', '.join(KINDS)}, got '{self.kind}'.")
        if self.kind == "youden":
            if self.target is not None:
                raise UsageError("The threshold rule 'youden' takes no target. Leave it away.")
            return
        most = math.inf if self.kind == "cost" else 1.0
        if self.target is None or not 0 < self.target <= most or math.isinf(self.target):
            ends = "above 0" if self.kind == "cost" else "above 0 and at most 1"
            example = 5 if self.kind == "cost" else 0.95
            raise UsageError(
                f"The threshold rule '{self.kind}' needs a target {ends}, got {self.target}. "
                f"Write for example {self.kind}:{example}."
            )

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """A rule from 'youden', 'sensitivity:0.95', 'specificity:0.9', 'cost:5' or '0.5'.

        An equals sign does instead of the colon.

        Raises:
            UsageError: it is none of these.
        """
        kind, _, number = text.strip().casefold().replace("=", ":").partition(":")
        if not number and kind[:1] in "0123456789.-" and kind:
            kind, number = "fixed", kind
        try:
            target = float(number) if number else None
        except ValueError:
            target = math.nan
        if kind not in KINDS or (target is not None and math.isnan(target)):
            raise UsageError(f"A threshold rule is {EXAMPLES}, got '{text}'.")
        return cls(kind=kind, target=target)

    def __str__(self) -> str:
        """As `parse` reads it."""
        if self.kind == "fixed":
            return f"{self.target:g}"
        return self.kind if self.target is None else f"{self.kind}:{self.target:g}"


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold and what it does to the images that it was chosen or judged on.

    Attributes:
        threshold: positive where the score is at least this; -inf accepts all, inf none.
        sensitivity: share of the positives that are called positive.
        specificity: share of the negatives that are called negative.
    """

    threshold: float
    sensitivity: float
    specificity: float


def choose_threshold(
    scores: Floats, labels: Bools, rule: ThresholdRule, *, prevalence: float | None = None
) -> OperatingPoint:
    """The threshold of a binary decision by a rule; of equals the one with more sensitivity.

    Args:
        scores: (N,) out-of-fold scores of the positive class, on one scale.
        labels: (N,) True for positives.
        rule: what to make best.
        prevalence: of the positives where the decision is to be used, for 'cost'; None takes
            their share of these images.

    Raises:
        ValueError: no positives or no negatives, or scores that are not finite.
    """
    thresholds, sensitivity, specificity = operating_points(scores, labels)
    if rule.kind == "fixed":
        assert rule.target is not None
        return apply_threshold(scores, labels, rule.target)
    if rule.kind in ("youden", "cost"):
        share = 0.5
        if rule.kind == "cost":
            assert rule.target is not None
            positives = float(labels.mean()) if prevalence is None else prevalence
            share = rule.target * positives / (rule.target * positives + 1 - positives)
        # Equal sums differ by rounding; the points run from low to high sensitivity.
        gain = np.round(share * sensitivity + (1 - share) * specificity, 12)
        best = len(gain) - 1 - int(np.argmax(gain[::-1]))
    else:
        assert rule.target is not None
        if rule.kind == "sensitivity":
            best = int(np.argmax(sensitivity >= rule.target - 1e-12))
        else:
            best = int(np.flatnonzero(specificity >= rule.target - 1e-12)[-1])
    return OperatingPoint(
        threshold=float(thresholds[best]),
        sensitivity=float(sensitivity[best]),
        specificity=float(specificity[best]),
    )


def sensitivity_at_specificity(scores: Floats, labels: Bools, specificity: float) -> float:
    """Highest sensitivity among the thresholds whose specificity is at least this."""
    rule = ThresholdRule(kind="specificity", target=specificity)
    return choose_threshold(scores, labels, rule).sensitivity


def apply_threshold(scores: Floats, labels: Bools, threshold: float) -> OperatingPoint:
    """What a given threshold does to other images; NaN where there are none of a kind."""
    called = scores >= threshold
    shares = [
        float(kind.mean()) if len(kind) else math.nan for kind in (called[labels], ~called[~labels])
    ]
    return OperatingPoint(threshold=threshold, sensitivity=shares[0], specificity=shares[1])


def operating_points(scores: Floats, labels: Bools) -> tuple[Floats, Floats, Floats]:
    """Every threshold that differs: (M,) thresholds falling, sensitivities, specificities.

    The first accepts nothing, the last everything.

    Raises:
        ValueError: no positives or no negatives, or scores that are not finite.
    """
    if not labels.any() or labels.all():
        raise ValueError("`labels` must hold positives and negatives to choose a threshold.")
    if not np.isfinite(scores).all():
        raise ValueError("`scores` must be finite. Leave unreadable images out.")
    values, place = np.unique(-scores.astype(np.float64), return_inverse=True)
    values = -values
    hits, alarms = (np.append(0, np.cumsum(np.bincount(place, k))) for k in (labels, ~labels))
    sensitivity, specificity = hits / hits[-1], (alarms[-1] - alarms) / alarms[-1]
    middle = (values[:-1] + values[1:]) / 2
    middle = np.where(middle > values[1:], middle, values[:-1])  # neighbours have no middle
    thresholds = np.concatenate([[np.inf], middle, [-np.inf]])
    return thresholds, sensitivity, specificity


@dataclass(frozen=True, kw_only=True)
class PredictiveValue:
    """A predictive value at a stated prevalence, with its ends; NaN where undefined."""

    value: float
    low: float
    high: float


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> tuple[float, float]:
    """PPV and NPV by Bayes' rule; NaN where nobody is called positive, or negative.

    PPV = se p / (se p + (1 - sp) (1 - p)), NPV = sp (1 - p) / (sp (1 - p) + (1 - se) p).

    Raises:
        UsageError: a prevalence that is not between 0 and 1.
    """
    check_prevalence(prevalence)
    right = sensitivity * prevalence, specificity * (1 - prevalence)
    wrong = (1 - specificity) * (1 - prevalence), (1 - sensitivity) * prevalence
    sums = [r + w for r, w in zip(right, wrong, strict=True)]
    ppv, npv = (r / s if s > 0 else math.nan for r, s in zip(right, sums, strict=True))
    return ppv, npv


def predictive_intervals(
    hits: float,
    positives: float,
    rejected: float,
    negatives: float,
    prevalence: float,
    quantile: float,
) -> tuple[PredictiveValue, PredictiveValue]:
    """PPV and NPV of independent images with intervals on the logit scale.

    Variance of logit PPV: (1 - se) / (se n+) + sp / ((1 - sp) n-), of logit NPV with se and sp
    changed about (Mercaldo, Lau and Zhou 2007), both from counts with one half added, so that
    shares of 0 and 1 have ends too.  In simulations this covered 0.94 to 0.95, the z^2 / 2 that
    the reference adds 0.75 to 0.91 where false alarms are few.

    Args:
        hits: positives called positive; counts need not be whole.
        positives: how many there are, above 0.
        rejected: negatives called negative.
        negatives: how many there are, above 0.
        prevalence: of the positive class where the test is to be used, 0 to 1.
        quantile: how many standard errors to each side.
    """
    values = predictive_values(hits / positives, rejected / negatives, prevalence)
    count = positives + 1, negatives + 1
    se, sp = (hits + 0.5) / count[0], (rejected + 0.5) / count[1]
    odds = prevalence / (1 - prevalence)
    centres = math.log(se * odds / (1 - sp)), math.log(sp / ((1 - se) * odds))
    spreads = (
        math.sqrt((1 - se) / (se * count[0]) + sp / ((1 - sp) * count[1])),
        math.sqrt(se / ((1 - se) * count[0]) + (1 - sp) / (sp * count[1])),
    )
    return (
        _around(values[0], centres[0], quantile * spreads[0]),
        _around(values[1], centres[1], quantile * spreads[1]),
    )


def check_prevalence(prevalence: float) -> None:
    """Refuse a prevalence that is not between 0 and 1.

    Raises:
        UsageError: it is not.
    """
    if not 0 < prevalence < 1:
        raise UsageError(
            f"A prevalence lies between 0 and 1, ends excluded, got {prevalence}. Give the share "
            "of the class among the images that the model will see."
        )


def _around(value: float, centre: float, half: float) -> PredictiveValue:
    """Ends on the logit scale, moved so that they hold the value."""
    low, high = float(expit(centre - half)), float(expit(centre + half))
    if not math.isnan(value):
        low, high = min(low, value), max(high, value)
    return PredictiveValue(value=value, low=low, high=high)
