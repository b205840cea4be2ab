"""What every fitted linear head answers with.

Products run in float64: they cost nothing beside the network, and an image then gets the same
probabilities alone and among thousands, whatever order a float32 product would sum in.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from torch import Tensor


def linear_logits(
    features: npt.NDArray[np.floating], coef: Tensor, intercept: Tensor
) -> npt.NDArray[np.float64]:
    """(N, D) features, (C, D) coefficients, (C,) intercepts -> (N, C) logits."""
    weights = coef.detach().cpu().numpy().astype(np.float64)
    shift = intercept.detach().cpu().numpy().astype(np.float64)
    logits = np.empty((len(features), len(shift)))
    for start in range(0, len(features), 8192):  # the float64 copy stays small
        rows = slice(start, start + 8192)
        logits[rows] = features[rows].astype(np.float64) @ weights.T + shift
    return logits


def linear_probabilities(
    features: npt.NDArray[np.floating], coef: Tensor, intercept: Tensor
) -> npt.NDArray[np.float32]:
    """(N, D) features -> (N, C) probabilities, rows summing to one."""
    logits = linear_logits(features, coef, intercept)
    probabilities: npt.NDArray[np.float32] = softmax(logits, axis=1).astype(np.float32)
    return probabilities
