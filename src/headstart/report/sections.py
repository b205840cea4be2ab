"""The sections of a run's page as plain values; the template puts them in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headstart.report.drawing.charts import heat_map
from headstart.report.drawing.pictures import Pictures, file_name
from headstart.report.judging.facts import INNER_PHASES, count_parts, follow_groups, phases
from headstart.report.judging.mistakes import Answer, Confused
from headstart.report.reading import StoredRun
from headstart.report.wording import estimate, heading, metric_label, value_text
from headstart.statistics import wilson

MOST_CELLS = 20  # classes up to which the confusion matrix is a table of numbers
MOST_BARS = 30  # classes up to which all are shown at once
MOST_TILES = 4
SUBGROUP_FIGURES = ("accuracy", "sensitivity", "specificity")
LEFT_OUT = "classes_left_out"
CLASS_COLUMNS = (
    "precision", "recall", "specificity", "f1", "auc", "average_precision", "ppv", "npv",
)  # fmt: skip
KNOWN_METRICS = frozenset(
    {
        *("cross_validation", "test", "baselines", "learning_curve", "calibration", "conformal"),
        *("outliers", "shortcuts", "leakage", "strategy", "training", "confidence"),
    }
)


def class_bars(run: StoredRun, pictures: Pictures) -> list[dict[str, Any]]:
    """Every class with its images by fold and in the test part, and a few thumbnails."""
    parts, names = count_parts(run), run.class_names
    folds = Counter((r["label"], r.get("fold", "")) for r in run.splits if r["part"] == "train")
    numbers = sorted({fold for _, fold in folds}, key=lambda f: (len(f), f))
    most = max(a + b for a, b in zip(parts.learnt, parts.tested, strict=True)) or 1
    shown = spread_paths(run, pictures)
    return [
        {
            "name": name,
            "learnt": parts.learnt[c],
            "tested": parts.tested[c],
            "folds": [100 * folds[name, f] / most for f in numbers]
            or [100 * parts.learnt[c] / most],
            "test": 100 * parts.tested[c] / most,
            "pictures": shown.get(name, []),
        }
        for c, name in enumerate(names)
    ]


def spread_paths(run: StoredRun, pictures: Pictures) -> dict[str, list[dict[str, str]]]:
    """A few pictures of each class, evenly over its sorted names."""
    if not pictures.at_hand:
        return {}
    count = 6 if len(run.class_names) <= 12 else 4 if len(run.class_names) <= 30 else 2
    by_class: dict[str, list[str]] = {}
    for row in run.splits:
        by_class.setdefault(row["label"], []).append(row["path"])
    shown = {}
    for name, paths in by_class.items():
        ordered = sorted(paths)
        places = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)
        shown[name] = thumbnails([ordered[i] for i in places], pictures)
    return shown


def thumbnails(paths: Sequence[str], pictures: Pictures) -> list[dict[str, str]]:
    """Pictures that can be shown, with their names."""
    made = [
        {"path": path, "file": file_name(path), "uri": pictures.thumbnail(path)} for path in paths
    ]
    return [entry for entry in made if entry["uri"]]


def class_table(run: StoredRun) -> dict[str, Any]:
    """Figures of every class, whatever of them the run has, in one order of columns."""
    entries = run.per_class
    present = {key for entry in entries for key in entry}
    columns = [name for name in CLASS_COLUMNS if name in present]
    alone = not follow_groups(run).total
    rows = []
    for entry in entries:
        cells = [{"name": n, "figure": class_figure(entry, n, alone=alone)} for n in columns]
        rows.append({"name": entry["class"], "cells": cells, "support": entry.get("support", "")})
    labels = {"f1": "F1", "auc": "AUC", "ppv": "PPV", "npv": "NPV"}
    return {"columns": [labels.get(n, heading(n)) for n in columns], "rows": rows}


def class_figure(entry: Mapping[str, Any], name: str, *, alone: bool) -> dict[str, Any]:
    """A class's figure; a recall without interval gets Wilson's where images are independent."""
    figure = estimate(entry.get(name))
    if figure["low"] is None and f"{name}_low" in entry:
        figure |= {
            "low": estimate(entry[f"{name}_low"])["value"],
            "high": estimate(entry.get(f"{name}_high"))["value"],
        }
    support = entry.get("support")
    ready = alone and name == "recall" and bool(support)
    if figure["low"] is None and figure["value"] is not None and ready:
        assert support is not None
        interval = wilson(figure["value"] * support, support)
        figure |= {"low": interval.low, "high": interval.high, "method": interval.method}
    return figure


def confusion(run: StoredRun) -> dict[str, Any] | None:
    """The confusion matrix: cells with counts and row shares, or a drawing for many classes."""
    stored = run.metrics["test"].get("confusion_matrix")
    if not stored:
        return None
    matrix = np.array(stored, dtype=np.int64)
    right = int(np.trace(matrix))
    title = (
        f"Confusion matrix of {len(matrix)} classes, rows true, columns predicted: "
        f"{right:,} of {int(matrix.sum()):,} on the diagonal"
    )
    if len(matrix) > MOST_CELLS:
        return {"drawing": heat_map(matrix, title=title), "title": title, "rows": []}
    sums = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares = matrix / sums
    rows = [
        {
            "name": run.class_names[i],
            "cells": [
                {"count": int(matrix[i, j]), "share": float(shares[i, j]), "right": i == j}
                for j in range(len(matrix))
            ],
        }
        for i in range(len(matrix))
    ]
    return {"drawing": None, "title": title, "rows": rows, "names": run.class_names}


def pairs_with_pictures(pairs: Sequence[Confused], pictures: Pictures) -> list[dict[str, Any]]:
    """Confused pairs and examples of them."""
    return [{"pair": pair, "pictures": thumbnails(pair.paths, pictures)} for pair in pairs]


def answers_with_pictures(answers: Sequence[Answer], pictures: Pictures) -> list[dict[str, Any]]:
    """Single answers, each with its picture where it is at hand."""
    return [
        {"answer": a, "uri": pictures.thumbnail(a.path), "file": file_name(a.path)} for a in answers
    ]


def phase_bars(times: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Seconds of every phase and its share of the longest."""
    found = phases(times)
    longest = max(found.values(), default=0.0) or 1.0
    return [
        {"name": phase_label(name), "seconds": value, "width": 100 * value / longest}
        for name, value in found.items()
    ]


def phase_label(name: str) -> str:
    """A phase in words."""
    return f"{heading(name)} (within the fits)" if name in INNER_PHASES else heading(name)


def calibration_rows(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Calibration errors and losses before and after, as far as the run has them."""
    before, after = stored.get("before") or {}, stored.get("after") or {}
    labels = {
        "ece": "Expected calibration error",
        "ece_debiased": "The same, debiased",
        "ece_equal_mass": "The same, bins of equal size",
        "classwise_ece": "Class by class",
        "log_loss": "Log loss",
        "brier": "Brier score",
    }
    rows = []
    for name, label in labels.items():
        if name in before or name in after:
            pair = [beside(part, name) for part in (before, after)]
            rows.append({"name": name, "label": label, "before": pair[0], "after": pair[1]})
    return rows


def beside(part: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A figure whose ends stand under their own names ('ece', 'ece_low', 'ece_high')."""
    figure = estimate(part.get(name))
    if figure["low"] is None:
        for end in ("low", "high"):
            figure[end] = estimate(part.get(f"{name}_{end}"))["value"]
    return figure


def conformal_rows(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Coverage and size of the answer sets; a line where there are any."""
    if "coverage" not in stored:
        return []
    return [
        {
            "coverage": estimate(stored["coverage"]),
            "groups": estimate(stored.get("group_coverage")),
            "size": estimate(stored.get("mean_size")),
            "single": estimate(stored.get("single_fraction"))["value"],
            "empty": estimate(stored.get("empty_fraction"))["value"],
        }
    ]


def class_coverage(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Coverage of every class, where the run has it."""
    return [
        {
            "name": str(entry.get("class", "")),
            "coverage": estimate(entry.get("coverage")),
            "size": estimate(entry.get("mean_size")),
        }
        for entry in stored.get("by_class") or []
        if isinstance(entry, Mapping)
    ]


def outlier_rows(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How well strange images are told from ordinary ones, a line a judgement."""
    judged = [(f"class {e.get('class', '')} left out", e) for e in in_list(stored, LEFT_OUT)]
    judged += [(far_name(e), e) for e in in_list(stored, "far")]
    if "auroc" in stored:
        judged.append(("images unlike the training images", stored))
    return [
        {"against": name, "auroc": beside(entry, "auroc"), "fpr95": beside(entry, "fpr95")}
        for name, entry in judged
    ]


def subgroup_tables(run: StoredRun) -> list[dict[str, Any]]:
    """A table a column: images of every part and figures of the test part by its values."""
    tables = []
    for entry in in_list(run.metrics["test"], "subgroups"):
        parts = in_list(entry, "parts")
        columns = [n for n in SUBGROUP_FIGURES if any(n in part for part in parts)]
        rows = [
            {
                "name": str(part.get("name", "")),
                "counts": dict(part.get("counts") or {}),
                "cells": [estimate(part.get(name)) for name in columns],
            }
            for part in parts
        ]
        names = [heading(name) for name in columns]
        tables.append({"column": str(entry.get("column", "")), "columns": names, "rows": rows})
    return tables


def far_name(entry: Mapping[str, Any]) -> str:
    """A far pack and how many of its images were judged."""
    count = entry.get("num_images")
    return f"{entry.get('name', '')}{f', {count:,} images' if isinstance(count, int) else ''}"


def in_list(stored: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The mappings of a list in a record, none where there is no such list."""
    entries = stored.get(name)
    if not isinstance(entries, list | tuple):
        return []
    return [entry for entry in entries if isinstance(entry, Mapping)]


def strategy_phases(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The phases as a table, and what else is said of the strategy as lines."""
    found = [entry for entry in stored.get("phases") or [] if isinstance(entry, Mapping)]
    columns = list(dict.fromkeys(key for entry in found for key in entry))
    rows = [[plain_value(entry.get(key, "")) for key in columns] for entry in found]
    verdicts = [(f"Fold {i + 1}", str(text)) for i, text in enumerate(stored.get("verdicts") or [])]
    apart = ("phases", "verdicts")
    lines = flat({key: value for key, value in stored.items() if key not in apart}) + verdicts
    return {"columns": columns, "rows": rows, "lines": lines}


def further_figures(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Whatever else the run measured, as plain lines, so that nothing is lost."""
    found = []
    for key, value in metrics.items():
        if key not in KNOWN_METRICS:
            lines = flat(value)
            if lines:
                found.append({"title": heading(key), "lines": lines})
    return found


def flat(value: Any, path: str = "", most: int = 60) -> list[tuple[str, str]]:
    """Names and values of a nest of mappings and lists; a figure with an interval is one line."""
    if isinstance(value, Mapping):
        if number_like(value):
            figure = estimate(value)
            ends = ""
            if figure["low"] is not None and figure["high"] is not None:
                ends = f" [{figure['low']:.4g}, {figure['high']:.4g}]"
            return [(heading(path), f"{figure['value']:.4g}{ends}")]
        inner = [flat(v, f"{path} {k}" if path else str(k)) for k, v in value.items()]
        return [line for lines in inner for line in lines][:most]
    if isinstance(value, list | tuple):
        if all(not isinstance(v, Mapping | list | tuple) for v in value):
            return [(heading(path), ", ".join(plain_value(v) for v in value[:12]))] if value else []
        inner = [flat(v, f"{path} {i + 1}") for i, v in enumerate(value)]
        return [line for lines in inner for line in lines][:most]
    return [] if value is None else [(heading(path), plain_value(value))]


def number_like(value: Mapping[str, Any]) -> bool:
    """Whether a mapping is one figure with its interval."""
    return "value" in value and estimate(value)["value"] is not None


def plain_value(value: Any) -> str:
    """A number or a word."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def tiles(run: StoredRun) -> list[dict[str, Any]]:
    """The numbers that most readers look for first; of a decision, those of its threshold."""
    found = []
    decided = (run.metrics["test"].get("decision") or {}).get("figures", {})
    for name in ("sensitivity", "specificity"):
        if name in decided:
            told = estimate(decided[name])
            label = f"{heading(name)} at the threshold"
            ends = {key: told[key] for key in ("low", "high")}
            found.append({"label": label, "value": value_text(told), "name": name} | ends)
    for name in ("balanced_accuracy", "macro_f1", "macro_auc", "log_loss"):
        entry = run.figure("test", name)
        if entry is not None:
            found.append(
                {"label": metric_label(name), "value": value_text(entry, name), "name": name}
                | {key: entry.get(key) for key in ("low", "high")}
            )
    return found[:MOST_TILES]
