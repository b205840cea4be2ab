"""Heads for one set of labelled features, their settings chosen on an inner split of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.bundle import FittedHead
from headstart.errors import DataError, UsageError
from headstart.estimator.choices import Choices
from headstart.heads import (
    apply_class_weights,
    fit_mlp_folds,
    fit_scaled_logistic,
    fit_with_chosen_penalty,
    penalty_path,
)
from headstart.inference import ImageList
from headstart.records import Integers
from headstart.splitting import hold_out

INNER_FRACTION = 0.2
NUM_PENALTIES = 10

Half = npt.NDArray[np.float16]


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """What is learnt from.

    Attributes:
        images: N images.
        labels: (N,) int64, 0 to C - 1.
        groups: (N,) or None; a group is never on both sides of an inner split.
        num_classes: C.
    """

    images: ImageList
    labels: Integers
    groups: npt.NDArray[Any] | None
    num_classes: int


def fit_logistic_head(choices: Choices, examples: Examples, values: Half) -> FittedHead:
    """Multinomial logistic regression, its penalty given or chosen on an inner split."""
    features = torch.from_numpy(values).float()
    labels = torch.from_numpy(examples.labels)
    weights = training_weights(choices, examples)
    if choices.penalty is not None:
        penalties = torch.tensor([float(choices.penalty)], dtype=torch.float64)
        fit = fit_scaled_logistic(features, labels, weights, penalties, examples.num_classes)
        return FittedHead.linear(fit.coef[0], fit.intercept[0], penalty=float(choices.penalty))
    inner = torch.from_numpy(inner_part(choices, examples))[None]
    chosen = fit_with_chosen_penalty(
        features, labels, weights, inner, penalty_path(NUM_PENALTIES), examples.num_classes
    )
    return FittedHead.linear(chosen.coef[0], chosen.intercept[0], penalty=float(chosen.penalty[0]))


def inner_part(choices: Choices, examples: Examples) -> npt.NDArray[np.bool_]:
    """(N,) True where an image is held out to choose settings on.

    Raises:
        DataError: no class has two images, or two groups.
    """
    held = hold_out(
        examples.labels,
        INNER_FRACTION,
        groups=examples.groups,
        seed=int(choices.random_state),
    )
    if not held.any():
        unit = "images" if examples.groups is None else "groups"
        raise DataError(
            f"Choosing settings needs a class with 2 {unit}, got none such. Add images, or set "
            "the `penalty` of a logistic head to a number."
        )
    return held


def training_weights(choices: Choices, examples: Examples) -> torch.Tensor:
    """(1, N) what each image weighs."""
    labels = torch.from_numpy(examples.labels)
    everything = torch.ones(1, len(labels))
    return apply_class_weights(choices.class_weights, labels, everything, examples.num_classes)


def fit_mlp_head(choices: Choices, examples: Examples, values: Half) -> FittedHead:
    """Dense layers with dropout: the inner split says for how many epochs, then all images."""
    settings = choices.mlp_settings
    rounds = 2 * settings.epochs
    with choices.progress.phase("Fitting the head", rounds, "epochs") as advance:
        fit = fit_mlp_folds(
            torch.from_numpy(values),
            torch.from_numpy(examples.labels),
            training_weights(choices, examples),
            torch.from_numpy(inner_part(choices, examples))[None],
            examples.num_classes,
            settings,
            seed=int(choices.random_state),
            on_epoch=lambda _done, _total: advance(),
        )
    return FittedHead(kind="mlp", layers=fit.layers(0), chosen={"epochs": int(fit.epochs[0])})


HEAD_FITS: dict[str, Callable[[Choices, Examples, Half], FittedHead]] = {
    "logistic": fit_logistic_head,
    "mlp": fit_mlp_head,
}


def refuse_not_finite(head: FittedHead) -> None:
    """Refuse a head that would answer with NaN, and that no bundle would be read with.

    Raises:
        UsageError: it is such a head.
    """
    if not all(bool(torch.isfinite(numbers).all()) for layer in head.layers for numbers in layer):
        chosen = ", ".join(f"{name} {value}" for name, value in head.chosen.items())
        raise UsageError(
            f"The {head.kind} head must be finite, got numbers that are not finite ({chosen}): "
            "its training failed. Fit it again with other settings."
        )
