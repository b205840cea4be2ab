"""One temperature for all classes.

A temperature T divides the logits: softmax(z / T).  It changes no answer and no order of an
image's classes, only how sure they sound (Guo et al. 2017).  It is fitted on out-of-fold logits
and shown on images that it was not fitted on (`cross_fit_temperature`).  Logarithms of
probabilities are logits too, since softmax ignores what is added to all classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

from headstart.records import Floats, Integers

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """One number that divides the logits.

    Attributes:
        value: above 1 makes answers less sure, below 1 surer.
        num_images: how many it was fitted on.
        log_loss_before: mean log loss of those at temperature 1.
        log_loss_after: at this temperature.
        at_bound: whether it stands at the end of what is allowed, because the images are told
            apart without error (lower end), or logits say nothing of the labels (upper end).
    """

    value: float
    num_images: int
    log_loss_before: float
    log_loss_after: float
    at_bound: bool

    def apply(self, logits: Floats) -> npt.NDArray[np.float64]:
        """(N, C) probabilities at this temperature."""
        return apply_temperature(logits, self.value)


def apply_temperature(logits: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """(N, C) softmax(logits / temperature)."""
    return np.asarray(softmax(logits.astype(np.float64) / temperature, axis=1))


def fit_temperature(logits: Floats, labels: Integers, weights: Floats | None = None) -> Temperature:
    """The temperature with the least log loss, between 0.05 and 20.

    The loss is convex in b = 1 / T with slope E_w[sum_c p_c z_c - z_label], which Brent's method
    brings to zero.  Where the slope has one sign throughout, the nearer bound is the answer.

    Args:
        logits: (N, C) of images that the model did not learn from.
        labels: (N,) int64.
        weights: (N,) not negative, or None for equal ones.

    Raises:
        ValueError: no images, shapes that do not fit, values that are not finite.
    """
    shares = _check(logits, labels, weights)
    rows = logits.astype(np.float64)
    # By class, so that sums over the few classes run along the many images; the largest of an
    # image is taken off once, which holds for every b > 0.
    columns = np.ascontiguousarray((rows - rows.max(axis=1, keepdims=True)).T)
    own = columns[labels, np.arange(len(labels))]
    parts = np.empty_like(columns)

    def slope(log_b: float) -> float:
        np.exp(np.multiply(columns, np.exp(log_b), out=parts), out=parts)
        expected = np.einsum("cn,cn->n", parts, columns) / parts.sum(axis=0)
        return float(shares @ (expected - own))

    low, high = -np.log(HIGHEST_TEMPERATURE), -np.log(LOWEST_TEMPERATURE)
    at_bound = True
    if slope(low) >= 0:
        log_b = low
    elif slope(high) <= 0:
        log_b = high
    else:
        from scipy.optimize import brentq  # here: who predicts fits none, and need not load it

        log_b, at_bound = float(brentq(slope, low, high, xtol=1e-10)), False
    value = float(np.exp(-log_b))
    before, after = (
        float(-shares @ log_softmax(rows / t, axis=1)[np.arange(len(labels)), labels])
        for t in (1.0, value)
    )
    return Temperature(
        value=value,
        num_images=len(labels),
        log_loss_before=before,
        log_loss_after=after,
        at_bound=at_bound,
    )


def cross_fit_temperature(
    logits: Floats, labels: Integers, folds: Integers, fewest_wrong: int = 0
) -> tuple[npt.NDArray[np.float64], tuple[float, ...]]:
    """Probabilities of every fold at the temperature of the other folds' images.

    Args:
        logits: (N, C) out of fold.
        labels: (N,) int64.
        folds: (N,) 0 to K - 1; at least two of them.
        fewest_wrong: where the other folds hold fewer wrong answers, the temperature is 1: next
            to nothing can be learnt from them, and the optimum would run to its bound.

    Returns:
        (N, C) probabilities, none calibrated on its own fold, and K temperatures.
    """
    numbers = np.unique(folds)
    if len(numbers) < 2:
        raise ValueError("A temperature is cross-fitted over at least 2 folds, got 1.")
    calibrated = np.empty(logits.shape, dtype=np.float64)
    wrong = logits.argmax(axis=1) != labels
    found = []
    for fold in numbers:
        rows = folds == fold
        enough = wrong[~rows].sum() >= fewest_wrong
        found.append(fit_temperature(logits[~rows], labels[~rows]).value if enough else 1.0)
        calibrated[rows] = apply_temperature(logits[rows], found[-1])
    return calibrated, tuple(found)


def _check(logits: Floats, labels: Integers, weights: Floats | None) -> Floats:
    """(N,) weights that sum to one; ValueError where nothing can be fitted."""
    if logits.ndim != 2 or len(logits) != len(labels) or not len(labels):
        raise ValueError(
            f"`logits` must be (N, C) with one row a label and N > 0, got {logits.shape} for "
            f"{len(labels)} labels."
        )
    if not np.isfinite(logits).all():
        raise ValueError("`logits` must be finite. Leave unreadable images out.")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"`labels` must be 0 to {logits.shape[1] - 1}.")
    shares = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    if shares.shape != labels.shape or shares.min() < 0 or not shares.sum() > 0:
        raise ValueError("`weights` must be (N,), not negative, and not all zero.")
    return np.asarray(shares / shares.sum())
