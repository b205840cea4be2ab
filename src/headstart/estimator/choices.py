"""The estimator's parameters, checked when they are used and not before.

scikit-learn's contract: a constructor only keeps its parameters, and `set_params` may bring any
combination; what cannot be is told by `fit`.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

import numpy as np

from headstart.backbones import AUTO, WEIGHT_CHOICES, check_layers, find_backbone
from headstart.errors import UsageError
from headstart.heads import HEADS, MlpSettings
from headstart.progress import Progress, for_terminal

# Parameters of what is trained by steps, and what brings NumPy's numbers to Python's.
KINDS: dict[str, Callable[[Any], Any]] = {
    "hidden": lambda widths: tuple(operator.index(width) for width in widths),
    "dropout": float,
    "lr": float,
    "epochs": operator.index,
    "batch_size": operator.index,
}
STEP_PARAMETERS = tuple(KINDS)
# What brings the names that a user types to those of the registries. Strategies and class weights
# are lists, whose unknown names are told where they are used.
CANONICAL: dict[str, Callable[[str], str]] = {
    "backbone": lambda name: find_backbone(name).name,
    "strategy": str.casefold,
    "head": lambda name: HEADS.get(name).name,
    "class_weights": str.casefold,
}
RECORDED = ("backbone", "strategy", "head", "class_weights", "image_size", "layers",
            "random_state")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NetworkRequest:
    """Everything by which a network is built and placed; equal requests share one."""

    backbone: str
    weights: str
    image_size: int | None
    layers: str | None
    seed: int
    device: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The estimator's parameters, checked; see `ImageClassifier` for what they mean.

    Names are matched without regard to case; here they stand as they are registered.
    """

    backbone: str
    strategy: str
    head: str
    penalty: float | None
    hidden: tuple[int, ...] | None
    dropout: float | None
    lr: float | None
    epochs: int | None
    batch_size: int | None
    class_weights: str
    weights: str | os.PathLike[str]
    image_size: int | None
    layers: str | int | None
    random_state: int
    device: str
    precision: str
    cache: bool
    verbose: bool

    def __post_init__(self) -> None:
        """Check what needs no image; the rest is checked where it is used.

        Raises:
            UsageError: a value that cannot be.
        """
        for name, canonical in CANONICAL.items():
            given = getattr(self, name)
            if not isinstance(given, str):
                raise UsageError(f"`{name}` must be a name, got {given!r}. Correct it.")
            object.__setattr__(self, name, canonical(given))
        if not isinstance(self.weights, str | os.PathLike):
            raise UsageError(
                f"`weights` must be one of {', '.join(WEIGHT_CHOICES)} or a file, got "
                f"{self.weights!r}. Correct it."
            )
        seed, size = self.random_state, self.image_size
        if not (_is_whole(seed) and 0 <= seed < 2**32):
            raise UsageError(
                f"`random_state` must be a whole number from 0 to {2**32 - 1}, got {seed!r}: every "
                "random choice hangs on it. Give a number."
            )
        if size is not None and not _is_whole(size):
            raise UsageError(
                f"`image_size` must be a whole number of px, or None for the network's own, got "
                f"{size!r}. Correct it."
            )
        object.__setattr__(self, "layers", _checked_layers(self.layers))
        self._check_head()

    def _check_head(self) -> None:
        """Refuse parameters that the head would pass over in silence."""
        spec = HEADS.get(self.head)
        if spec.has_epochs:
            _ = self.mlp_settings
        unused = [] if spec.has_epochs else list(STEP_PARAMETERS)
        unused += [] if spec.has_penalty else ["penalty"]
        given = [name for name in unused if getattr(self, name) is not None]
        if given:
            raise UsageError(
                f"`{given[0]}` means nothing to the {spec.name} head, got "
                f"{getattr(self, given[0])!r}. Leave it out, or choose another head."
            )
        penalty = self.penalty
        if penalty is not None and not (_is_number(penalty) and penalty > 0):
            raise UsageError(
                "`penalty` must be a positive number, or None to choose it on a part of the "
                f"training images, got {penalty!r}. Correct it."
            )

    @property
    def mlp_settings(self) -> MlpSettings:
        """Those of an mlp head, its own where the parameters leave them open."""
        given = {name: getattr(self, name) for name in STEP_PARAMETERS}
        try:
            chosen = {name: KINDS[name](v) for name, v in given.items() if v is not None}
            return MlpSettings(**chosen)
        except (TypeError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            listed = ", ".join(f"{name}={v!r}" for name, v in given.items() if v is not None)
            raise UsageError(
                "The mlp head must have numbers, and whole ones in `hidden`, `epochs` and "
                f"`batch_size`, got {listed}. Correct them."
            ) from error

    @property
    def request(self) -> NetworkRequest:
        """The network that is asked for; the seed counts for random weights only."""
        weights = os.fspath(self.weights)
        if weights not in WEIGHT_CHOICES:
            weights = os.path.abspath(weights)  # a pickle may wake up in another folder
        return NetworkRequest(
            backbone=self.backbone,
            weights=weights,
            image_size=None if self.image_size is None else int(self.image_size),
            layers=None if self.layers is None else str(self.layers),
            seed=int(self.random_state) if weights == "none" else 0,
            device=self.device,
            precision=self.precision,
        )

    @property
    def record(self) -> dict[str, Any]:
        """What a bundle tells of them, as JSON holds it: NumPy's numbers as Python's."""
        found = {name: getattr(self, name) for name in RECORDED}
        return {k: v.item() if isinstance(v, np.generic) else v for k, v in found.items()}

    @property
    def progress(self) -> Progress:
        """Where progress is told."""
        return progress_of(verbose=self.verbose)

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Choices:
        """The choices among an estimator's parameters; a subclass may have others besides."""
        return cls(**{field.name: parameters[field.name] for field in fields(cls)})


def _checked_layers(given: object) -> str | None:
    """Names or a number as a network takes them.

    Raises:
        UsageError: something else, or 'auto', for which there is nothing to choose on here.
    """
    words = str(given) if _is_whole(given) else given
    if not isinstance(words, str | None):
        raise UsageError(
            f"`layers` must be names of stages as in 'stage3,head', or a number of them, got "
            f"{given!r}. Correct it."
        )
    if words is None or (words := check_layers(words)) != AUTO:
        return words
    raise UsageError(
        "`layers` must be names of stages or a number of them here, got 'auto'. Let GridSearchCV "
        "choose: {'layers': [None, 2, 3]}."
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def progress_of(*, verbose: bool) -> Progress:
    """A bar or lines where asked for, else silence."""
    return for_terminal() if verbose else Progress()
