"""Figures of a training: what trains, its curves, and what an augmentation does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headstart.finetune.batches.augmentation import Augmenter
from headstart.finetune.records.history import EpochRecord
from headstart.finetune.strategies import Plan, StageShare
from headstart.plots import BLUE, GREEN, ORANGE, shortened

FROZEN = "#c9ced6"


def learning_curves(history: Sequence[EpochRecord], best_epoch: int, title: str) -> Figure:
    """Loss and accuracy by epoch, training and inner part, all phases on one figure.

    Args:
        history: of one fit.
        best_epoch: the chosen one; 0 is the start.
        title: one line.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    trained = [record for record in history if record.epoch]
    scored = [record for record in history if record.inner]
    epochs = [record.epoch for record in trained]
    marker = "o" if len(history) <= 30 else None
    style = {"marker": marker, "markersize": 4, "linewidth": 1.8}
    for axes, key, metric in (
        (loss, "train_loss", "log_loss"),
        (accuracy, "train_accuracy", "accuracy"),
    ):
        values = [getattr(record, key) for record in trained]
        axes.plot(epochs, values, color=BLUE, label="training", **style)
        if scored:
            inner = [record.inner[metric] for record in scored]
            places = [record.epoch for record in scored]
            axes.plot(places, inner, color=ORANGE, label="inner part", **style)
            chosen = "the start is kept" if best_epoch == 0 else f"chosen: epoch {best_epoch}"
            axes.axvline(best_epoch, color=GREEN, linestyle="--", linewidth=1.2, label=chosen)
        mark_phases(axes, trained)
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")
    loss.set(ylabel="loss")
    loss.set_ylim(bottom=0)
    accuracy.set(ylabel="accuracy")
    accuracy.set_ylim(top=1.02)
    loss.legend(frameon=False)
    figure.suptitle(title)
    return figure


def mark_phases(axes: Axes, trained: Sequence[EpochRecord]) -> None:
    """A dotted line where the phase changes, the phases' names above the axes."""
    begins = [i for i, r in enumerate(trained) if i == 0 or r.phase != trained[i - 1].phase]
    if len(begins) < 2:
        return
    for place, index in enumerate(begins):
        end = begins[place + 1] if place + 1 < len(begins) else len(trained)
        if index:
            axes.axvline(trained[index].epoch - 0.5, color="black", linestyle=":", linewidth=1)
        middle = (trained[index].epoch + trained[end - 1].epoch) / 2
        axes.text(
            middle,
            1.01,
            shortened(trained[index].phase, 14),
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=8,
        )


def augmentation_figure(
    pixels: torch.Tensor, names: Sequence[str], policy: str, *, views: int = 5, seed: int = 0
) -> Figure:
    """A row an image: as it is, then some of its augmented views.

    Args:
        pixels: (N, H, W, 3) uint8.
        names: N names.
        policy: a name or a list of steps.
        views: how many draws.
        seed: of the draws.
    """
    augmenter = Augmenter(policy, seed)
    rows = range(len(pixels))
    columns = [pixels, *(augmenter(pixels, rows, fold=0, view=view) for view in range(views))]
    figure = Figure(figsize=(1.6 * (views + 1), 1.75 * len(pixels) + 0.5), layout="constrained")
    grid = figure.subplots(len(pixels), views + 1, squeeze=False)
    for row in rows:
        for column, pictures in enumerate(columns):
            axes = grid[row, column]
            axes.imshow(pictures[row].numpy())
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title("as it is" if column == 0 else f"view {column}", fontsize=9)
        grid[row, 0].set_ylabel(shortened(names[row], 18), fontsize=8)
    figure.suptitle(f"Augmentation '{policy}'")
    return figure


def rate_figure(
    rates: Sequence[float], losses: Sequence[float], chosen: float, title: str
) -> Figure:
    """Training loss by learning rate, the chosen rate marked.

    Args:
        rates: ascending.
        losses: smoothed, one a rate.
        chosen: the suggestion.
        title: one line.
    """
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, losses, color=BLUE, linewidth=1.8)
    axes.axvline(chosen, color=GREEN, linestyle="--", label=f"suggested: {chosen:.1e}")
    axes.set_xscale("log")
    axes.set(xlabel="learning rate", ylabel="loss of a batch, smoothed", title=title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def plan_figure(plan: Plan, title: str) -> Figure:
    """What trains: a panel a phase, a bar a stage, as long as its share of the parameters.

    Args:
        plan: with at least one phase.
        title: one line, before the strategy's name.
    """
    rows = len(plan.shares[0])
    columns = len(plan.phases)
    figure = Figure(figsize=(4.2 + 3.4 * (columns - 1), 1.4 + 0.32 * rows), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False, sharey=True)[0]
    for axes, phase, shares in zip(panels, plan.phases, plan.shares, strict=True):
        draw_shares(axes, shares)
        learning = sum(share.num_trainable for share in shares)
        total = sum(share.num_parameters for share in shares)
        of_backbone = f"{learning:,} of {total:,} learn ({learning / max(total, 1):.0%})"
        axes.set_title(
            f"{shortened(phase.name)}: {phase.epochs} epoch{'' if phase.epochs == 1 else 's'}\n"
            f"backbone: {of_backbone if learning else 'rests'}\n"
            f"classifier at {phase.head_rate:.2g}",
            fontsize=9,
        )
    panels[0].legend(loc="lower right", frameon=False, fontsize=8)
    figure.suptitle(f"{title}, {plan.strategy}: what learns")
    return figure


def draw_shares(axes: Axes, shares: Sequence[StageShare]) -> None:
    """A bar a stage, first stage on top: what learns of it, and the rest."""
    whole = max(sum(share.num_parameters for share in shares), 1)
    places = range(len(shares))
    learning = [share.num_trainable / whole for share in shares]
    frozen = [(share.num_parameters - share.num_trainable) / whole for share in shares]
    axes.barh(places, learning, color=BLUE, label="learns")
    axes.barh(places, frozen, left=learning, color=FROZEN, label="frozen")
    for place, share in enumerate(shares):
        words = f"{share.num_parameters:,}"
        if share.num_trainable:
            words += (
                f", {share.num_trainable / share.num_parameters:.0%} at {share.highest_rate:.2g}"
            )
        axes.text(share.num_parameters / whole + 0.01, place, words, va="center", fontsize=7)
    axes.set_yticks(list(places), [shortened(share.stage, 16) for share in shares])
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.set_xlim(0, 1.45)
    axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines["bottom"].set_bounds(0, 1)  # the room for words beside the bars is no share
    axes.set_xlabel("share of the parameters", fontsize=8)
