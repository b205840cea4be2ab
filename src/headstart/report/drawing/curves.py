"""Curves of a run's predictions: ROC, precision-recall, reliability, training, data size.

ROC and precision-recall are one class against the rest. With up to six classes each has its own
colour; with more there is their mean and a band, because forty colours say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from headstart.records import Predictions
from headstart.report.drawing.charts import Axis, Line, Point, line_chart, padded
from headstart.report.reading import Row
from headstart.report.wording import heading
from headstart.statistics import wilson

MOST_COLOURS = 6
NUM_BINS = 10
GRID = 101  # places of an averaged curve
MIDDLE = (0.1, 0.9)
MOST_HISTORY_CHARTS = 4
STEPS = ("penalty", "epoch", "step", "trial")
PointsOf = Callable[[np.ndarray, np.ndarray], list[Point]]
Kind = tuple[str, str, str]  # look, words, column
INNER, TRAINED = "inner held-out part, mean of the folds", "training, mean"
FOLLOWED: tuple[tuple[str, tuple[Kind, ...]], ...] = tuple(
    (
        title,
        (
            ("accent", INNER, f"inner_{inner}"),
            ("accent", INNER, f"held_{plain}"),
            ("c2 d2", TRAINED, f"train_{plain}"),
        ),
    )
    for title, inner, plain in (("Log loss", "log_loss", "loss"), ("Accuracy", *["accuracy"] * 2))
)
SHARES = ("accuracy", "f1", "auc", "precision", "recall")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing and what belongs beside it.

    Attributes:
        drawing: the SVG.
        title: a line above.
        legend: (CSS class, name) of every line.
        note: a line below.
    """

    drawing: Markup
    title: str
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""


def good_part(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, C) and labels (n,) of the images with an answer and a label."""
    kept = predictions.good & (predictions.labels >= 0)
    return predictions.probabilities[kept].astype(np.float64), predictions.labels[kept]


def roc_points(scores: np.ndarray, positive: np.ndarray) -> list[Point]:
    """False and true positive rate at every threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    true = np.cumsum(positive[order])[ends] / positive.sum()
    false = np.cumsum(~positive[order])[ends] / (~positive).sum()
    return [(0.0, 0.0), *zip(false.tolist(), true.tolist(), strict=True)]


def precision_recall_points(scores: np.ndarray, positive: np.ndarray) -> list[Point]:
    """Recall and precision at every threshold, from the strictest on."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    hits = np.cumsum(positive[order])[ends]
    precision, recall = hits / (ends + 1), hits / positive.sum()
    return [(0.0, float(precision[0])), *zip(recall.tolist(), precision.tolist(), strict=True)]


def ranking_charts(
    predictions: Predictions, decision: tuple[str, float, float] | None = None
) -> list[Chart]:
    """ROC and precision-recall, one class against the rest; none where no class can be scored.

    Args:
        predictions: of the test part.
        decision: a class with the false and true positive rate of the decision about it, drawn
            as a dot; of two classes its curve is the one that is drawn. None for no such class.
    """
    probabilities, labels = good_part(predictions)
    names = predictions.class_names
    classes = [c for c in range(len(names)) if 0 < (labels == c).sum() < len(labels)]
    if len(names) == 2:  # the other class's curve is its mirror image
        wanted = None if decision is None else names.index(decision[0])
        classes = [c for c in classes if c == wanted] or classes[-1:]
    if not classes:
        return []
    kinds: tuple[tuple[str, PointsOf, str, str, bool], ...] = (
        ("ROC", roc_points, "false positive rate", "true positive rate", True),
        ("Precision and recall", precision_recall_points, "recall", "precision", False),
    )
    charts = []
    for title, points_of, x_label, y_label, diagonal in kinds:
        curves = [(names[c], points_of(probabilities[:, c], labels == c)) for c in classes]
        lines = class_lines(curves)
        if decision is not None and diagonal:
            told = f"where \u2018{decision[0]}\u2019 is decided"
            dot = Line(name=told, points=[decision[1:]], look="mark", dots=True, joined=False)
            lines.append(dot)
        charts.append(
            Chart(
                title=title,
                drawing=line_chart(
                    lines,
                    title=f"{title} curve of each class against the rest, on the test images",
                    x=Axis(label=x_label, low=0, high=1, share=True),
                    y=Axis(label=y_label, low=0, high=1, share=True),
                    diagonal=diagonal,
                ),
                legend=legend_of(lines),
                note="The thin diagonal is guessing." if diagonal else "",
            )
        )
    return charts


def class_lines(curves: Sequence[tuple[str, Sequence[Point]]]) -> list[Line]:
    """A coloured line a class; of many classes the mean, and a band where most of them run."""
    if len(curves) <= MOST_COLOURS:
        return [
            Line(name=name, points=points, look=f"c{i + 1} d{i + 1}")
            for i, (name, points) in enumerate(curves)
        ]
    grid = np.linspace(0, 1, GRID)
    heights = np.array([heights_at(points, grid) for _, points in curves])
    low, high = np.quantile(heights, MIDDLE, axis=0)
    mean = Line(
        name=f"mean of {len(curves)} classes, band: the middle 80 % of them",
        points=list(zip(grid.tolist(), heights.mean(axis=0).tolist(), strict=True)),
        band=list(zip(low.tolist(), high.tolist(), strict=True)),
    )
    return [mean]


def heights_at(points: Sequence[Point], grid: np.ndarray) -> np.ndarray:
    """(G,) height of a drawn curve at each place of a grid: its highest where it is upright.

    Args:
        points: from left to right, the first at 0 and the last at 1.
        grid: (G,) places from 0 to 1.
    """
    x, y = np.array(points).T
    last = np.searchsorted(x, grid, side="right") - 1
    following = np.minimum(last + 1, len(x) - 1)
    width = np.maximum(x[following] - x[last], 1e-12)
    sloped = y[last] + (y[following] - y[last]) * (grid - x[last]) / width
    places, starts = np.unique(x, return_index=True)
    highest = np.maximum.reduceat(y, starts)
    found = np.minimum(np.searchsorted(places, grid), len(places) - 1)
    return np.where(x[last] == grid, highest[found], sloped)


def legend_of(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Colour and name of every line."""
    return [(line.look, line.name) for line in lines]


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> list[dict[str, float]]:
    """Ten bins of the answers' confidence: how sure the model was, how often it was right."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    found = []
    for b in np.unique(bins).tolist():
        inside = bins == b
        interval = wilson(float(right[inside].sum()), int(inside.sum()))
        found.append(
            {
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(right[inside].mean()),
                "low": interval.low,
                "high": interval.high,
            }
        )
    return found


def reliability_chart(predictions: Predictions, stored: Mapping[str, Any]) -> Chart:
    """How often answers of each confidence are right.

    Args:
        predictions: of the test part.
        stored: `calibration` of `metrics.json`, whose `reliability` before and after wins over
            what is computed here.
    """
    curves: list[tuple[str, str, list[dict[str, float]]]] = []
    for word, look in (("before", "faint"), ("after", "accent")):
        bins = stored_bins((stored.get(word) or {}).get("reliability"))
        if bins:
            curves.append((f"{word} calibration", look, bins))
    if not curves:
        curves = [("the model's answers", "accent", reliability(*good_part(predictions)))]
    lines = [
        Line(
            name=name,
            points=[(b["confidence"], b["accuracy"]) for b in bins],
            band=[(b["low"], b["high"]) for b in bins] if all("low" in b for b in bins) else (),
            look=look,
            dots=True,
            joined=False,
        )
        for name, look, bins in curves
    ]
    return Chart(
        title="Reliability",
        drawing=line_chart(
            lines,
            title="How often answers of each confidence are right; on the diagonal both agree",
            x=Axis(label="how sure the model is", low=0, high=1, share=True),
            y=Axis(label="how often it is right", low=0, high=1, share=True),
            diagonal=True,
        ),
        legend=legend_of(lines),
        note="Below the dashed line the model is too sure of itself, above it too modest. Each dot "
        "stands for answers of about that confidence, its line for the 95 % interval.",
    )


def stored_bins(bins: Any) -> list[dict[str, float]]:
    """Bins as records keep them, empty ones left out."""
    kept = []
    for row in bins or ():
        if row.get("confidence") is None or row.get("accuracy") is None:
            continue
        entry = {"confidence": float(row["confidence"]), "accuracy": float(row["accuracy"])}
        if row.get("accuracy_low") is not None and row.get("accuracy_high") is not None:
            entry |= {"low": float(row["accuracy_low"]), "high": float(row["accuracy_high"])}
        kept.append(entry)
    return kept


def history_charts(history: Sequence[Row], chosen: Any) -> list[Chart]:
    """What `history.csv` follows over penalties or epochs: loss and accuracy, else what there is.

    Args:
        history: its lines.
        chosen: the penalty or epoch of the final fit, where there is one.
    """
    step = next((name for name in STEPS if history and name in history[0]), None)
    if step is None:
        return []
    followed = [
        (title, tuple((look, word, c) for look, word, c in kinds if has_numbers(history, c)))
        for title, kinds in FOLLOWED
    ]
    if not any(kinds for _, kinds in followed):
        columns = [c for c in history[0] if c not in (step, "fold") and has_numbers(history, c)]
        followed = [(heading(c), (("accent", "mean of the folds", c),)) for c in columns]
    charts = (history_chart(history, step, t, kinds, chosen) for t, kinds in followed if kinds)
    return [chart for chart in charts if chart is not None][:MOST_HISTORY_CHARTS]


def has_numbers(history: Sequence[Row], name: str) -> bool:
    """Whether a column follows a quantity."""
    values = [as_float(row[name]) for row in history if row.get(name)]
    return bool(values) and all(value is not None for value in values)


def as_float(text: str) -> float | None:
    """A finite number, None for other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def history_chart(
    history: Sequence[Row], step: str, title: str, kinds: Sequence[Kind], chosen: Any
) -> Chart | None:
    """Thin lines of the folds and their mean, None where nothing varies along x.

    Args:
        history: lines of `history.csv`.
        step: the column along x.
        title: of the chart.
        kinds: look, words and column of each mean; the folds of the first are drawn too.
        chosen: a value of x to mark, or None.
    """
    lines: list[Line] = []
    for look, words, column in kinds:
        folds = fold_points(history, step, column)
        if look == "accent":
            lines += [Line(name="each fold", points=fold, look="faint") for fold in folds]
        lines.append(Line(name=words, points=mean_points(folds), look=look))
    points = [point for line in lines for point in line.points]
    steps = sorted({x for x, _ in points})
    if len(steps) < 2:
        return None
    share = any(word in kinds[0][2] for word in SHARES)
    low, high = padded([y for _, y in points], floor=0.0, ceiling=1.0 if share else None)
    log = step == "penalty" and steps[0] > 0
    mark = as_float(str(chosen)) if chosen is not None else None
    inside = mark is not None and steps[0] <= mark <= steps[-1]
    x = Axis(label=f"{step} (logarithmic)" if log else step, low=steps[0], high=steps[-1], log=log,
             ticks=whole_ticks(steps) if step == "epoch" else ())  # fmt: skip
    drawing = line_chart(
        lines,
        title=f"{title} over the {step}, each fold and the mean",
        x=x,
        y=Axis(label=title.lower(), low=low, high=high, share=share),
        mark=mark if inside else None,
    )
    means = [(line.look, line.name) for line in lines if line.look != "faint"]
    return Chart(
        title=title,
        drawing=drawing,
        legend=[*means, *([("faint", "each fold")] if len(lines) > len(means) else [])],
        note=f"Dashed: the {step} of the final fit." if inside else "",
    )


def fold_points(history: Sequence[Row], step: str, column: str) -> list[list[Point]]:
    """What each fold's lines say of one column, from left to right."""
    by_fold: dict[str, list[Point]] = {}
    for row in history:
        x, y = as_float(row[step]), as_float(row.get(column, ""))
        if x is not None and y is not None:
            by_fold.setdefault(row.get("fold", ""), []).append((x, y))
    return [sorted(points) for points in by_fold.values()]


def mean_points(folds: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean of the folds that are there at each step."""
    at: dict[float, list[float]] = {}
    for x, y in (point for fold in folds for point in fold):
        at.setdefault(x, []).append(y)
    return [(x, float(np.mean(at[x]))) for x in sorted(at)]


def whole_ticks(steps: Sequence[float], most: int = 7) -> tuple[float, ...]:
    """Whole steps, thinned."""
    return tuple(steps[:: math.ceil(len(steps) / most)])


def data_size_chart(points: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Accuracy over the number of images learnt from, None with fewer than two sizes."""
    if len(points) < 2:
        return None
    counts = [float(point["num_images"]) for point in points]
    values = [float(point["accuracy"]) for point in points]
    band = [(float(p["low"]), float(p["high"])) for p in points]
    low, high = padded([end for pair in band for end in pair], floor=0.0, ceiling=1.0)
    drawing = line_chart(
        [Line(name="", points=list(zip(counts, values, strict=True)), band=band, dots=True)],
        title="Out-of-fold accuracy over the number of images learnt from",
        x=Axis(label="images learnt from", low=counts[0], high=counts[-1], log=True,
               ticks=tuple(counts)),
        y=Axis(label="accuracy", low=low, high=high, share=True),
    )  # fmt: skip
    return Chart(
        title="Accuracy over data size",
        drawing=drawing,
        legend=[("accent", "accuracy in cross-validation, with its 95 % interval")],
    )
