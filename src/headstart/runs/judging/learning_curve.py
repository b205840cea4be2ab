"""How many images do I need? Accuracy over the share of the data, from cached features.

In every fold the training part is halved again and again by class (and whole groups), the head is
fitted on each part, and the images that the fold scores are predicted. All folds and shares are one
computation. The penalty of the full fit is a prior of fixed strength, so on a share s of the images
it weighs 1/s against their mean loss.

Whether more images would help is judged by the last doubling: the paired difference in accuracy
between all of the data and half of it, with a bootstrap interval over images or groups. That is a
statement about this range of sizes; beyond the data at hand it is a guess, and called one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.records import Integers
from headstart.runs.fitting.logistic import LogisticFitting
from headstart.runs.fitting.task import Task
from headstart.splitting import hold_out
from headstart.statistics import mean_estimate, share_estimate

HALVINGS = 3
SMALLEST_CLASS = 2  # images of every class that the smallest share must keep
TOLERANCE = 2e-3  # gradient; accuracies are the same as with the heads' own 1e-3
SMALL_GAIN = 0.01  # a doubling that surely brings less than a point is called flat
NOTE = "a logistic head on frozen features; other heads and strategies may gain more or less"


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares:
    """Which images each problem learns from.

    Attributes:
        learns: (S, F, M) bool, smallest share first; the last is everything.
        fractions: (S,) shares of the training part.
    """

    learns: npt.NDArray[np.bool_]
    fractions: tuple[float, ...]


def learning_curve(task: Task, fitting: LogisticFitting) -> dict[str, Any]:
    """The curve as `metrics.json` keeps it.

    Args:
        task: the run.
        fitting: its logistic folds, fitted.

    Returns:
        `points` (share, images learnt from, accuracy with interval), `last_doubling` (difference
        with interval) and `verdict`, one sentence.
    """
    learnt = task.table.take(task.split.train)
    groups = task.drawn(task.split.train)
    shares = nested_shares(learnt.labels, task.split.fold, groups, seed=task.settings.seed)
    correct = score_shares(task, fitting, shares)  # (S, M) bool
    points = []
    for fraction, learns, right in zip(shares.fractions, shares.learns, correct, strict=True):
        found = share_estimate(right, groups=groups)
        points.append(
            {
                "fraction": fraction,
                "num_images": round(float(learns.sum(axis=1).mean())),
                "accuracy": found.value,
                "low": None if found.interval is None else found.interval.low,
                "high": None if found.interval is None else found.interval.high,
            }
        )
    curve: dict[str, Any] = {"points": points, "note": NOTE}
    if len(points) > 1:
        differences = correct[-1].astype(np.float64) - correct[-2]
        found = mean_estimate(differences, groups=groups, seed=task.settings.seed)
        gain = float(differences.mean())
        low, high = (found.interval.low, found.interval.high) if found.interval else (gain, gain)
        if not differences.any():  # none of n changed: up to 3 / n may (the rule of three)
            units = len(differences) if groups is None else len(np.unique(groups))
            low, high = -min(1.0, 3 / units), min(1.0, 3 / units)
        curve["last_doubling"] = {"gain": gain, "low": low, "high": high}
        curve["verdict"] = verdict(gain, low, high, points)
    return curve


def nested_shares(
    labels: Integers, fold: Integers, groups: Integers | None, *, seed: int
) -> Shares:
    """Halve the training part of every fold again and again; a half lies inside its whole.

    Args:
        labels: (M,).
        fold: (M,) fold in which each image is scored.
        groups: (M,) codes kept whole, or None.
        seed: of the draws.
    """
    num_folds = int(fold.max()) + 1
    learns = [np.stack([fold != k for k in range(num_folds)])]
    fractions = [1.0]
    num_classes = int(labels.max()) + 1
    for step in range(1, HALVINGS + 1):
        halves = np.zeros_like(learns[0])
        for k in range(num_folds):
            rows = np.flatnonzero(learns[0][k])
            part = None if groups is None else groups[rows]
            draw = (seed + 7919 * step + 104_729 * k) % 2**32
            halves[k, rows[hold_out(labels[rows], 0.5, groups=part, seed=draw)]] = True
        counts = np.stack([np.bincount(labels[half], minlength=num_classes) for half in halves])
        if counts.min() < SMALLEST_CLASS:
            break
        learns.insert(0, halves)
        fractions.insert(0, fractions[0] / 2)
    return Shares(learns=np.stack(learns), fractions=tuple(fractions))


def score_shares(task: Task, fitting: LogisticFitting, shares: Shares) -> npt.NDArray[np.bool_]:
    """(S, M) whether each image is predicted rightly by the fold that did not learn from it."""
    fit = fitting.fit
    assert fit is not None
    num_shares, num_folds, count = shares.learns.shape
    parts = shares.learns[:-1].reshape(-1, count)  # the whole is fitted already
    coef, intercept = fit.coef[None], fit.intercept[None]
    if num_shares > 1:
        stronger = torch.tensor([1 / f for f in shares.fractions[:-1]], dtype=torch.float64)
        more = fitting.refit(  # each fold's own whole fit is no more than a start
            torch.arange(num_folds).repeat(num_shares - 1),
            task.weighted(torch.from_numpy(parts).float()),
            (stronger[:, None] * fit.penalty[None]).flatten(),
            TOLERANCE,
        )
        shape = (num_shares - 1, num_folds)
        coef = torch.cat([more[0].view(*shape, *fit.coef.shape[1:]), coef])
        intercept = torch.cat([more[1].view(*shape, -1), intercept])
    correct = np.zeros((num_shares, count), dtype=bool)
    for s, k in np.ndindex(num_shares, num_folds):
        scored = task.split.fold == k
        logits = task.fold_logits(k, ((coef[s, k], intercept[s, k]),))
        correct[s, scored] = logits.argmax(axis=1) == task.learnt_labels[scored]
    return correct


def verdict(gain: float, low: float, high: float, points: list[dict[str, Any]]) -> str:
    """One sentence on whether more images of the same kind would help.

    Args:
        gain: change in accuracy from the last doubling.
        low: lower end of its 95 % interval.
        high: upper end.
        points: of the curve.
    """
    half, whole = points[-2]["num_images"], points[-1]["num_images"]
    change = f"{100 * gain:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    rise = f"from {half:,} to {whole:,} images accuracy changed by {change}"
    if low > 0:
        return f"Still rising: {rise}. More images of the same kind would probably help."
    if high < SMALL_GAIN:
        return f"Flat: {rise}. More images of the same kind would hardly help."
    return f"Not clear: {rise}. There are too few images to tell."
