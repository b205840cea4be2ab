"""What a training leaves behind for tables and figures, and the verdict on it in words.

The rule of the verdict, on the losses of the training and of the inner part, epoch by epoch:

* no epoch was better than the start: fine-tuning did not help;
* the inner loss at the end is more than 5 % above its lowest, while the training loss went on
  falling since: overfitting, from the epoch of the lowest on;
* the inner loss at the chosen epoch is more than twice the training loss, and the accuracies
  differ by more than 10 points: a gap, the training part is learnt by heart;
* the inner loss still fell by more than 2 % and 0.01 in the last epoch: underfitting, more epochs
  or a higher rate would help;
* the training accuracy at the end is below 60 % and no better than the inner one: underfitting;
* else: no sign of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

RISE = 1.05
GAP_RATIO = 2.0
GAP_ACCURACY = 0.10
STILL_FALLING = 0.98
LEAST_FALL = 0.01
LOW_ACCURACY = 0.60
START = "start"


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of `history.csv`.

    Attributes:
        epoch: from 1 over all phases; 0 is the start, before any step.
        phase: its name.
        train_loss: mean of what was lowered, over the epoch; None at the start.
        train_accuracy: on the augmented pictures, in training mode; None at the start.
        inner: registered metrics on the inner part; empty where there is none.
        rate: the highest learning rate of the backbone or the classifier at the epoch's end.
        seconds: wall time, the inner part included.
        cpu_seconds: time of all threads.
    """

    epoch: int
    phase: str
    train_loss: float | None
    train_accuracy: float | None
    inner: dict[str, float | None] = field(default_factory=dict)
    rate: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        """Flat, for a table: the inner metrics with 'inner_' before their names."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "inner"}
        return plain | {f"inner_{name}": value for name, value in self.inner.items()}


def stored(history: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    """Plain values, for a checkpoint."""
    return [asdict(record) for record in history]


def verdict(history: Sequence[EpochRecord], best_epoch: int) -> str:
    """One sentence on over- or underfitting, by the rule at the top of this file.

    Args:
        history: all epochs, the start first where it was scored.
        best_epoch: the chosen one; 0 is the start.
    """
    trained = [record for record in history if record.epoch]
    scored = [(r.epoch, loss) for r in history if (loss := r.inner.get("log_loss")) is not None]
    if not trained:
        return "Nothing was trained."
    if not scored:
        return "No verdict: no part was held out to compare with."
    if best_epoch == 0:
        return "No epoch was better than the start: fine-tuning did not help here, lower the rate."
    lowest_epoch, lowest = min(scored, key=lambda pair: (pair[1], pair[0]))
    at_lowest = next((r for r in trained if r.epoch == lowest_epoch), trained[0])
    last = trained[-1]
    assert last.train_loss is not None
    assert at_lowest.train_loss is not None
    falling = last.train_loss < at_lowest.train_loss
    if lowest_epoch < last.epoch and scored[-1][1] > RISE * lowest and falling:
        return (
            f"Overfitting after epoch {lowest_epoch}: the training loss went on falling, the inner "
            f"loss rose from {lowest:.3f} to {scored[-1][1]:.3f}."
        )
    return gap_verdict(trained, [loss for _, loss in scored], best_epoch)


def gap_verdict(trained: list[EpochRecord], losses: list[float], best_epoch: int) -> str:
    """The rules after the first two."""
    best = next(record for record in trained if record.epoch == best_epoch)
    inner_loss, inner_accuracy = best.inner["log_loss"], best.inner["accuracy"]
    assert best.train_loss is not None
    assert best.train_accuracy is not None
    assert inner_loss is not None
    assert inner_accuracy is not None
    apart = best.train_accuracy - inner_accuracy
    if inner_loss > GAP_RATIO * best.train_loss and apart > GAP_ACCURACY:
        return (
            f"Overfitting: at the chosen epoch {best_epoch} the training accuracy is "
            f"{100 * apart:.0f} points above the inner one. Augment, or train fewer layers."
        )
    if len(losses) > 1 and losses[-1] < min(STILL_FALLING * losses[-2], losses[-2] - LEAST_FALL):
        return (
            f"Underfitting: the inner loss was still falling in the last epoch (to "
            f"{losses[-1]:.3f}). More epochs or a higher rate would help."
        )
    last = trained[-1]
    assert last.train_accuracy is not None
    if last.train_accuracy < LOW_ACCURACY and apart <= 0:
        return (
            f"Underfitting: even the training accuracy is only {last.train_accuracy:.0%}. "
            "Train more layers, longer or at a higher rate."
        )
    return "No sign of over- or underfitting."


def write_tensorboard(history: Sequence[EpochRecord], folder: Path) -> None:
    """Write the curves for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for record in history:
            for name, value in record.row().items():
                if isinstance(value, float):
                    writer.add_scalar(name, value, record.epoch)
