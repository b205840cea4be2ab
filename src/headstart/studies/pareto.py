"""Accuracy against time: who is beaten by nobody in both?

Candidates are numbered and named in a list below, so that no two names lie on each other; those
at nearly the same time stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from headstart.comparison import pareto_front
from headstart.plots import BLUE, ORANGE

GREY = "#8A8A8A"
FASTER = 10.0  # ratio of times from which an axis is logarithmic
SIDE_BY_SIDE = 0.045  # of the axis; candidates closer than that are moved apart
STEP = 0.05  # of the axis, about the width of a marker
ROOM = 1.8  # factor at both ends of a logarithmic axis
LONGEST = 46

Row = Mapping[str, Any]


def comparison_figure(table: Sequence[Row], chosen: str) -> Figure:
    """Two panels: accuracy over the time of training and over that of one prediction.

    Args:
        table: a row a candidate, the most accurate first, as `comparison.json` keeps them.
        chosen: name of the recommended one.
    """
    lines = -(-len(table) // 2)
    figure = Figure(figsize=(11, 5.2 + 0.24 * lines), layout="constrained")
    figure.suptitle("Accuracy against time, out of fold on the training images")
    left, right = figure.subplots(1, 2, sharey=True)
    training = [row["pass_s"] + row["training_s"] for row in table]
    draw_panel(left, table, training, chosen, "seconds of feature pass and training")
    predictions = [row["prediction_ms"] for row in table]
    draw_panel(right, table, predictions, chosen, "milliseconds of one prediction")
    left.set_ylabel("accuracy, 95 % interval")
    add_names(figure, table, chosen)
    return figure


def add_names(figure: Figure, table: Sequence[Row], chosen: str) -> None:
    """The names behind the numbers, below everything."""
    figure.legend(
        handles=name_list(table, chosen),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
        handlelength=0,
        handletextpad=0,
    )


def draw_panel(
    axes: Axes, table: Sequence[Row], times: Sequence[float], chosen: str, label: str
) -> None:
    """Every candidate with its interval, and the line of those that nobody beats in both."""
    accuracies = [row["accuracy"]["value"] for row in table]
    front = pareto_front(times, accuracies)
    logarithmic = min(times) > 0 and max(times) / min(times) > FASTER
    steps = side_steps(times, logarithmic=logarithmic)
    places = moved(times, steps, logarithmic=logarithmic)
    set_time_axis(axes, times, logarithmic=logarithmic)
    axes.plot(
        [places[i] for i in front],
        [accuracies[i] for i in front],
        color=GREY,
        linewidth=1.2,
        linestyle="--",
        zorder=1,
        drawstyle="steps-post",
    )
    for index, row in enumerate(table):
        picked = row["name"] == chosen
        colour = ORANGE if picked else (BLUE if index in front else GREY)
        low, high = row["accuracy"]["low"], row["accuracy"]["high"]
        if low is not None:
            axes.plot([places[index]] * 2, [low, high], color=colour, zorder=2)
        axes.plot(
            places[index],
            accuracies[index],
            marker="s" if picked else "o",
            markersize=14,
            color=colour,
            markeredgecolor="white",
            zorder=3,
        )
        axes.text(
            places[index],
            accuracies[index],
            str(index + 1),
            color="white",
            fontsize=8.5,
            fontweight="bold",
            ha="center",
            va="center_baseline",
            zorder=4,
        )
    beside = " (alike ones stand side by side)" if any(steps) else ""
    axes.set_xlabel(f"{label}{beside}")
    axes.grid(alpha=0.3)
    axes.set_ylim(*accuracy_ends(table))


def set_time_axis(axes: Axes, times: Sequence[float], *, logarithmic: bool) -> None:
    """Limits with room at the sides; plain numbers on a logarithmic axis."""
    low, high = min(times), max(times)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(low / ROOM, high * ROOM)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, ends_of(times, logarithmic=False)[1])


def ends_of(times: Sequence[float], *, logarithmic: bool) -> tuple[float, float]:
    """Ends of the axis; logarithms where it is logarithmic."""
    if logarithmic:
        return float(np.log(min(times) / ROOM)), float(np.log(max(times) * ROOM))
    return 0.0, 1.15 * max(times) or 1.0


def moved(times: Sequence[float], steps: Sequence[float], *, logarithmic: bool) -> list[float]:
    """Where the candidates are drawn: their times, moved by shares of the axis."""
    low, high = ends_of(times, logarithmic=logarithmic)
    if logarithmic:
        return [float(t * np.exp(s * (high - low))) for t, s in zip(times, steps, strict=True)]
    return [t + s * (high - low) for t, s in zip(times, steps, strict=True)]


def side_steps(times: Sequence[float], *, logarithmic: bool) -> list[float]:
    """Shares of the axis by which candidates at one time are moved apart."""
    places = np.log(times) if logarithmic else np.asarray(times, dtype=np.float64)
    low, high = ends_of(times, logarithmic=logarithmic)
    order = sorted(range(len(times)), key=lambda i: (places[i], i))
    shifts = [0.0] * len(times)
    begin = 0
    for end in range(1, len(order) + 1):
        together = end < len(order) and (
            places[order[end]] - places[order[begin]] < SIDE_BY_SIDE * (high - low)
        )
        if not together:
            members = order[begin:end]
            for step, index in enumerate(members):
                shifts[index] = STEP * (step - (len(members) - 1) / 2)
            begin = end
    return shifts


def accuracy_ends(table: Sequence[Row]) -> tuple[float, float]:
    """Limits that show every interval, with a little room."""
    found = [
        value
        for row in table
        for value in (row["accuracy"][part] for part in ("value", "low", "high"))
        if value is not None
    ]
    room = 0.08 * (max(found) - min(found)) + 0.005
    return max(0.0, min(found) - room), min(1.02, max(found) + room)


def name_list(table: Sequence[Row], chosen: str) -> list[Line2D]:
    """'1  mini-probe 0.91 (recommended)' for every candidate; the colours are the panel's."""
    made = []
    for index, row in enumerate(table):
        name = row["name"]
        name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        words = f"{index + 1}   {name}, {row['accuracy']['value']:.3f}"
        note = " (recommended)" if row["name"] == chosen else ""
        made.append(Line2D([], [], linestyle="none", label=words + note))
    made.append(Line2D([], [], linestyle="none", label="- -  beaten by nobody in both"))
    return made
