"""Figures from numbers; files are the caller's business.

Colours are those of matplotlib's colour-blind safe 'viridis' and Okabe & Ito (2008).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("agg")  # no display needed, the same pixels everywhere

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
MOST_NUMBERS = 25  # classes up to which every cell of a confusion matrix gets its number
MOST_NAMES = 60


def save_png(figure: Figure, target: Any, *, dpi: int) -> None:
    """Write a figure; letters that no font at hand has become boxes, without matplotlib's word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(target, format="png", dpi=dpi)


def confusion_matrix_figure(
    matrix: npt.NDArray[np.int64], class_names: Sequence[str], title: str
) -> Figure:
    """Rows are true classes, columns predicted ones; shade is the share of the row.

    Args:
        matrix: (C, C) counts.
        class_names: C names in the order of the matrix.
        title: one line.
    """
    count = len(class_names)
    side = float(np.clip(2.2 + 0.42 * count, 4.0, 16.0))
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    if count <= MOST_NUMBERS:
        for row, column in np.ndindex(count, count):
            if matrix[row, column]:
                colour = "white" if shares[row, column] > 0.5 else "black"
                text = f"{matrix[row, column]:d}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    if count <= MOST_NAMES:
        names = [shortened(name) for name in class_names]
        axes.set_xticks(range(count), names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(count), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def penalty_figure(
    penalties: npt.NDArray[np.floating],
    log_loss: npt.NDArray[np.floating],
    chosen: float,
    title: str,
) -> Figure:
    """How the inner log loss of each fold depends on the L2 penalty.

    Args:
        penalties: (P,) in any order.
        log_loss: (F, P), one row a fold.
        chosen: the penalty of the final fit.
        title: one line.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    order = np.argsort(penalties)
    for fold, losses in enumerate(log_loss):
        label = "each fold" if fold == 0 else None
        axes.plot(penalties[order], losses[order], color=BLUE, alpha=0.35, label=label)
    mean = log_loss.mean(axis=0)[order]
    axes.plot(penalties[order], mean, color=BLUE, linewidth=2, marker="o", label="mean")
    axes.axvline(chosen, color=ORANGE, linestyle="--", label=f"chosen: {chosen:.2g}")
    axes.set_xscale("log")
    axes.set(xlabel="L2 penalty", ylabel="log loss on the inner held-out part", title=title)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return figure


def epochs_figure(
    losses: Mapping[str, npt.NDArray[np.floating]],
    accuracies: Mapping[str, npt.NDArray[np.floating]],
    chosen: int,
    title: str,
    marks: Mapping[int, str] | None = None,
) -> Figure:
    """Loss and accuracy by epoch, a thin line a fold and a thick one for their mean.

    Args:
        losses: name to (F, E); NaN where a fold was not trained so long.
        accuracies: the same names to (F, E).
        chosen: epochs of the final fit.
        title: one line.
        marks: last epoch of a phase to the name of the next one.
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    figure.suptitle(title)
    panels = ((losses, "log loss"), (accuracies, "accuracy"))
    for axes, (curves, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for colour, (name, values) in zip((BLUE, GREEN), curves.items(), strict=False):
            if np.isnan(values).all():
                continue
            epochs = np.arange(1, values.shape[1] + 1)
            for fold in values:
                axes.plot(epochs, fold, color=colour, alpha=0.25, linewidth=1)
            known = ~np.isnan(values).all(axis=0)
            mean = np.nanmean(values[:, known], axis=0)
            axes.plot(epochs[known], mean, color=colour, linewidth=2, label=f"{name}, mean")
        axes.axvline(chosen, color=ORANGE, linestyle="--", label=f"final fit: {chosen}")
        for epoch, name in (marks or {}).items():
            axes.axvline(epoch + 0.5, color="grey", linestyle=":")
            axes.annotate(
                f"{name} →", (epoch + 0.5, 0.01), (3, 0), xycoords=("data", "axes fraction"),
                textcoords="offset points", fontsize=8, color="grey",
            )  # fmt: skip
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    return figure


def learning_curve_figure(points: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Accuracy over the number of images learnt from, with its interval.

    Args:
        points: `num_images`, `accuracy`, `low`, `high` of each share, smallest first.
        title: one line.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    counts, middle, low, high = (
        np.array([point[name] for point in points])
        for name in ("num_images", "accuracy", "low", "high")
    )
    axes.fill_between(counts, low, high, color=BLUE, alpha=0.2, label="95 % interval")
    axes.plot(counts, middle, color=BLUE, linewidth=2, marker="o", label="accuracy")
    for count, value in zip(counts, middle, strict=True):
        axes.annotate(f"{value:.3f}", (count, value), (0, 8), textcoords="offset points",
                      ha="center", fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{int(count):,}" for count in counts])
    axes.minorticks_off()
    axes.margins(y=0.2)
    axes.set(xlabel="images learnt from (in each fold)", ylabel="out-of-fold accuracy", title=title)
    axes.legend(frameon=False, loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def preview_figure(
    pairs: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]],
    boxes: Sequence[tuple[float, float, float, float] | None],
    captions: Sequence[str],
    title: str,
) -> Figure:
    """Pictures as they are, upright, each beside what the network sees of it.

    Args:
        pairs: K of (H, W, 3) uint8 picture and (S, S, 3) uint8 input.
        boxes: K left, top, right, bottom as shares of the picture, drawn there; None for none.
        captions: K captions, a line or more each.
        title: one line.
    """
    pairs_a_row = 1 if len(pairs) == 1 else 2
    num_rows = -(-len(pairs) // pairs_a_row)
    figure = Figure(figsize=(5.2 * pairs_a_row + 0.4, 2.75 * num_rows + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    blocks = figure.subfigures(num_rows, pairs_a_row, squeeze=False).ravel()
    for block, (picture, seen), box, caption in zip(blocks, pairs, boxes, captions, strict=False):
        lines = [shortened(line, 64) for line in caption.split("\n")]
        block.suptitle("\n".join(lines), fontsize=8)
        whole, made = block.subplots(1, 2)
        height, width = picture.shape[:2]
        whole.imshow(picture)
        whole.set_xlabel(f"as it is, {width} x {height} px", fontsize=8)
        if box is not None:
            corner = (box[0] * width - 0.5, box[1] * height - 0.5)  # pixels are drawn centred
            sides = ((box[2] - box[0]) * width, (box[3] - box[1]) * height)
            frame = Rectangle(corner, *sides, fill=False, edgecolor=ORANGE, linewidth=2)
            whole.add_patch(frame).set_clip_on(False)  # along the edge it would be half hidden
        made.imshow(seen)
        made.set_xlabel(f"as the network sees it, {len(seen)} x {len(seen)} px", fontsize=8)
        for axes in (whole, made):
            axes.set(xticks=[], yticks=[])
    return figure


def shortened(name: str, longest: int = 24) -> str:
    """A class name that fits an axis, with mathematics signs made plain."""
    plain = name.replace("$", r"\$")
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def pretraining_figure(*, loss: Sequence[float], accuracy: Sequence[float], title: str) -> Figure:
    """Training loss and accuracy on held-out pictures over epochs.

    Args:
        loss: (E,) mean training loss of each epoch.
        accuracy: (E,) after each epoch; NaN where it was not measured.
        title: one line.
    """
    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    axes = figure.add_subplot()
    epochs = np.arange(1, len(loss) + 1)
    (falling,) = axes.plot(epochs, loss, color=ORANGE, label="training loss (left)")
    axes.set(xlabel="epoch", ylabel="training loss", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    beside = axes.twinx()
    (rising,) = beside.plot(
        epochs, accuracy, color=BLUE, marker=".", label="accuracy, held out (right)"
    )
    beside.set(ylabel="accuracy", ylim=(0, 1))
    axes.legend(handles=[falling, rising], loc="upper right", fontsize=8)
    return figure
