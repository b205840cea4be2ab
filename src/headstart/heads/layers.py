"""What every fitted head answers with: dense layers, rectified in between.

A logistic head is one layer, the multilayer perceptron several; whatever was done to the features
while fitting (a shift, a scale) is folded into the first layer. Products run in float64: they
cost nothing beside the network, and an image then gets the same probabilities alone and among
thousands, whatever order a float32 product would sum in.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from torch import Tensor

# One (out, in) weight and one (out,) bias a layer; the last `out` is C.
Layers: TypeAlias = tuple[tuple[Tensor, Tensor], ...]

ROWS = 8192


def head_logits(features: npt.NDArray[np.floating], layers: Layers) -> npt.NDArray[np.float64]:
    """(N, D) features -> (N, C) logits."""
    arrays = [(as_float64(weight).T, as_float64(bias)) for weight, bias in layers]
    logits = np.empty((len(features), len(arrays[-1][1])))
    for start in range(0, len(features), ROWS):  # the float64 copy stays small
        rows = slice(start, start + ROWS)
        values = features[rows].astype(np.float64)
        for position, (weight, bias) in enumerate(arrays):
            if position:
                np.maximum(values, 0, out=values)
            values = values @ weight + bias
        logits[rows] = values
    return logits


def mean_logits(features: npt.NDArray[np.floating], layers: Layers) -> npt.NDArray[np.float64]:
    """(N, V, D) features of V views of each image -> (N, C) mean logits over the views."""
    count, views, width = features.shape
    logits = head_logits(features.reshape(count * views, width), layers)
    means: npt.NDArray[np.float64] = logits.reshape(count, views, logits.shape[1]).mean(axis=1)
    return means


def mean_features(features: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """(N, V, D) features of V views of each image -> (N, D) means: float32, as given for V = 1."""
    if features.shape[1] == 1:
        return features[:, 0]
    means: npt.NDArray[np.float32] = features.mean(axis=1, dtype=np.float32)
    return means


def head_probabilities(
    features: npt.NDArray[np.floating], layers: Layers
) -> npt.NDArray[np.float32]:
    """(N, D) features -> (N, C) probabilities, rows summing to one."""
    return to_probabilities(head_logits(features, layers))


def to_probabilities(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """(N, C) logits -> (N, C) probabilities, the softmax taken in float64."""
    probabilities: npt.NDArray[np.float32] = softmax(logits, axis=1).astype(np.float32)
    return probabilities


def as_float64(tensor: Tensor) -> npt.NDArray[np.float64]:
    """A NumPy copy in float64."""
    array: npt.NDArray[np.float64] = tensor.detach().cpu().numpy().astype(np.float64)
    return array
