"""Figures from numbers; files are the caller's business.

Colours are those of matplotlib's colour-blind safe 'viridis' and Okabe & Ito (2008).
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib

matplotlib.use("agg")  # no display needed, the same pixels everywhere

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
MOST_NUMBERS = 25  # classes up to which every cell of a confusion matrix gets its number
MOST_NAMES = 60


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


def shortened(name: str, longest: int = 24) -> str:
    """A class name that fits an axis, with mathematics signs made plain."""
    plain = name.replace("$", r"\$")
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"
