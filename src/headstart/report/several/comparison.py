"""Several runs side by side: one table, accuracy against time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headstart.report.drawing.charts import Axis, Line, Point, line_chart, padded
from headstart.report.drawing.curves import Chart
from headstart.report.judging.facts import FEATURE_PHASES, TRAINING_PHASES, seconds_of
from headstart.report.reading import StoredRun
from headstart.report.wording import estimate

FASTER = 20.0  # ratio of times from which the axis is logarithmic


def comparison_rows(runs: Sequence[StoredRun], labels: Sequence[str]) -> list[dict[str, Any]]:
    """A line a run, the best in cross-validation first."""
    rows = []
    for index, (run, label) in enumerate(zip(runs, labels, strict=True)):
        times = run.record.get("times") or {}
        rows.append(
            {
                "index": index,
                "label": label,
                "data": run.name,
                "model": run.model,
                "strategy": str(run.settings.get("strategy") or "probe"),
                "crossed": estimate(run.figure("cross_validation", "accuracy")),
                "tested": estimate(run.figure("test", "accuracy")),
                "macro_f1": estimate(run.figure("test", "macro_f1")),
                "features": seconds_of(times, FEATURE_PHASES),
                "training": seconds_of(times, TRAINING_PHASES),
                "parameters": run.record["backbone"].get("num_parameters"),
            }
        )
    return sorted(rows, key=lambda row: (-(row["crossed"]["value"] or 0.0), row["index"]))


def same_question(runs: Sequence[StoredRun]) -> tuple[bool, str]:
    """Whether the runs learnt from and were tested on the same images, and a sentence."""
    digests = {run.record["data"].get("digest") for run in runs}
    tests = {frozenset(row["path"] for row in r.splits if row["part"] == "test") for r in runs}
    folds = {tuple((r["path"], r["part"], r.get("fold")) for r in run.splits) for run in runs}
    if len(digests) > 1:
        return False, (
            "The runs used different data, so their figures answer different questions: "
            "do not rank them."
        )
    if len(tests) > 1 or len(folds) > 1:
        return False, (
            "The runs used the same data but different splits, so part of every difference is the "
            "draw of the split. Use the same seed and folds."
        )
    return True, "All runs used the same images, the same folds and the same test part."


def time_chart(rows: Sequence[dict[str, Any]]) -> Chart | None:
    """Cross-validated accuracy over seconds, with the runs that no other beats in both."""
    points = [
        (row["label"], (row["features"] or 0.0) + (row["training"] or 0.0), row["crossed"])
        for row in rows
        if row["crossed"]["value"] is not None
    ]
    points = [point for point in points if point[1] > 0]
    if len(points) < 2:
        return None
    front = undominated([(seconds, figure["value"]) for _, seconds, figure in points])
    lines = [Line(name="", points=front, look="faint")]
    for label, seconds, figure in points:
        ends = (figure["low"], figure["high"])
        known = None not in ends
        lines.append(
            Line(
                name=label,
                points=[(seconds, figure["value"])],
                band=[ends] if known else (),
                dots=True,
                joined=False,
            )
        )
    times = [seconds for _, seconds, _ in points]
    log = max(times) / min(times) > FASTER
    low, high = (min(times) / 2, max(times) * 2) if log else padded(times, floor=0.0, share=0.25)
    shown = [v for _, _, f in points for v in (f["low"], f["high"], f["value"]) if v is not None]
    bottom, top = padded(shown, floor=0.0, ceiling=1.0)
    return Chart(
        title="Accuracy against time",
        drawing=line_chart(
            lines,
            title="Cross-validated accuracy of every run over the seconds of pass and training",
            x=Axis(label="seconds of feature pass and training", low=low, high=high, log=log),
            y=Axis(label="accuracy", low=bottom, high=top, share=True),
            names=True,
        ),
        note="The grey line joins the runs that no other beats in both time and accuracy. "
        "A pass whose features were read back from the store costs nearly nothing.",
    )


def undominated(points: Sequence[Point]) -> list[Point]:
    """Points that no other is at least as good as in both, the quickest first."""
    front: list[Point] = []
    for seconds, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((seconds, value))
    return front
