"""Shape and training of a multi-layer head, and the one that the tutorials use.

Learning rate before step t = 0, 1, ... of a problem, with first rate r:

    'constant'     r
    'keras-decay'  r / (1 + t r / epochs), what Keras' old `decay=lr / epochs` does
    'cosine'       r (1 + cos(pi t / all its steps)) / 2

A schedule spans `epochs` even where a fit is stopped at fewer, so the first epochs of a long fit
and a short one are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from headstart.errors import UsageError
from headstart.heads.multilayer.stacked import num_parameters

SCHEDULES = ("constant", "keras-decay", "cosine")
MAX_WIDTH = 65_536
MAX_HIDDEN = 16
# With its gradients and moments such a head takes 4 GiB.
MAX_PARAMETERS = 2**28


@dataclass(frozen=True, kw_only=True)
class MlpSettings:
    """Shape and training of a multi-layer head.

    Attributes:
        hidden: units of the hidden layers, from the features to the classes; () is linear. At
            most 16 layers of at most 65,536 units.
        dropout: share of hidden units dropped in training.
        lr: learning rate at the first step.
        schedule: 'constant', 'keras-decay' or 'cosine', see the module.
        epochs: passes over the training rows, at most where `choose_epochs`.
        batch_size: rows a step.
        weight_decay: decoupled, of weights, not of biases.
        optimizer: 'adam'.
        label_smoothing: share of a label spread evenly over all classes.
        standardise: centre and scale every feature by the problem's own rows.
        choose_epochs: folds choose their number of epochs on inner rows.
    """

    hidden: tuple[int, ...] = (512, 64)
    dropout: float = 0.5
    lr: float = 1e-3
    schedule: str = "cosine"
    epochs: int = 20
    batch_size: int = 64
    weight_decay: float = 0.0
    optimizer: str = "adam"
    label_smoothing: float = 0.0
    standardise: bool = True
    choose_epochs: bool = True

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: one that cannot be.
        """
        self._check_hidden()
        for name, choices in (("schedule", SCHEDULES), ("optimizer", ("adam",))):
            value = getattr(self, name)
            if value not in choices:
                raise UsageError(
                    f"`{name}` must be one of {', '.join(choices)}, got '{value}'. Correct it."
                )
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"`{name}` must be at least 1, got {getattr(self, name)}. Raise it."
                )
        for name in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"`{name}` must be from 0 to below 1, got {getattr(self, name)}. Correct it."
                )
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"`lr` must be a positive number, got {self.lr}. Correct it.")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UsageError(
                f"`weight_decay` must be 0 or a positive number, got {self.weight_decay}. "
                "Correct it."
            )

    def _check_hidden(self) -> None:
        """Refuse layers that cannot be, or that no memory holds."""
        if len(self.hidden) > MAX_HIDDEN:
            raise UsageError(
                f"`hidden` must have at most {MAX_HIDDEN} layers, got {len(self.hidden)}. "
                "Give fewer widths."
            )
        if not all(isinstance(width, int) and 1 <= width <= MAX_WIDTH for width in self.hidden):
            raise UsageError(
                f"`hidden` must be layers of 1 to {MAX_WIDTH:,} units, got {self.hidden}. "
                "Correct it."
            )
        check_size(self.hidden, "")

    def rate_at(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate before a step (0 is the first)."""
        if self.schedule == "keras-decay":
            return self.lr / (1 + step * self.lr / self.epochs)
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * step / (steps_per_epoch * self.epochs))) / 2
        return self.lr


def check_size(widths: Sequence[int], of: str) -> None:
    """Raise UsageError for a network of more than `MAX_PARAMETERS`.

    Args:
        widths: of all its layers, or of the hidden ones only.
        of: words for the message that tell what goes in and comes out, ending in a space.
    """
    count = num_parameters(widths)
    if count > MAX_PARAMETERS:
        raise UsageError(
            f"`hidden` must make a head of at most {MAX_PARAMETERS:,} numbers {of}"
            f"to fit into memory, got {count:,}. Give smaller widths."
        )


# The head of the tutorials: Keras, five fixed epochs, features as the network gives them.
E1_MLP = MlpSettings(
    lr=1e-4,
    schedule="keras-decay",
    epochs=5,
    batch_size=16,
    standardise=False,
    choose_epochs=False,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class FitPlan:
    """What may differ between K problems.

    Attributes:
        epochs: K numbers from 1 to the settings' epochs, None for all of them.
        numbers: K numbers that stand for the problems in the random streams, None for 0 to K - 1.
        score_rows: (K, N) bool, rows whose loss and accuracy follow each epoch; they do not
            change the fit.
        keep_best: answer with the state after the epoch of the lowest held loss, not the last.
        at_once: problems fitted together, None for what `problems_at_once` says.
    """

    epochs: Sequence[int] | None = None
    numbers: Sequence[int] | None = None
    score_rows: Tensor | None = None
    keep_best: bool = False
    at_once: int | None = None
