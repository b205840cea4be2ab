"""A comparison of candidates as plain values: verdict, pictures, table, paired differences.

Everything comes from `comparison.json`, which was written and locked before a test part was
opened; nothing is ranked again here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import UsageError, quoted
from headstart.report.drawing.charts import Axis, Line, Point, line_chart, padded
from headstart.report.drawing.curves import Chart
from headstart.report.judging.facts import option_words, shell_words
from headstart.report.wording import counted, estimate, interval_text, listed, value_text
from headstart.studies.comparing import RECORD, RUNNING, read_record
from headstart.studies.writing import resampled

FASTER = 20.0  # ratio of times from which an axis is logarithmic
MOST_PAIRS = 30
COSTS = (
    ("training", "Accuracy against time to fit", "seconds of feature pass and training"),
    ("prediction", "Accuracy against time to answer", "milliseconds of one prediction"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredComparison:
    """A comparison that was locked.

    Attributes:
        folder: where it lies.
        record: the contents of `comparison.json`.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def opened(self) -> list[Path]:
        """Folders of the runs whose test part was opened, the recommended one first."""
        chosen = self.record["recommendation"]["chosen"]
        names = sorted(self.record["test"]["opened"], key=lambda name: name != chosen)
        return [self.folder / name for name in names]


def is_comparison(folder: Path) -> bool:
    """Whether a folder holds a comparison."""
    return (folder / RECORD).is_file()


def read_comparison(folder: Path) -> StoredComparison:
    """Read a comparison back.

    Raises:
        UsageError: it is damaged, or has not come to its choice.
    """
    record = read_record(folder)
    if record.get("status") == RUNNING:
        raise UsageError(
            f"The comparison '{folder}' has not come to its choice, so there is nothing to report. "
            f"Go on with: headstart compare --resume --out {quoted(folder)}"
        )
    missing = {"table", "pairs", "recommendation", "test"} - set(record)
    if missing:
        raise UsageError(
            f"'{folder / RECORD}' is damaged: it lacks {listed(sorted(missing))}. Begin the "
            "comparison anew with another --out."
        )
    return StoredComparison(folder=folder, record=record)


def study_view(stored: StoredComparison, anchors: Mapping[str, str]) -> dict[str, Any]:
    """What the page shows of a comparison.

    Args:
        stored: the comparison.
        anchors: place on the page of each run that is on it, by name.
    """
    record = stored.record
    advice, test = record["recommendation"], record["test"]
    settings = record["asked"]["settings"]
    rows = candidate_rows(record, anchors)
    return {
        "name": Path(str(settings["data"])).name or str(settings["data"]),
        "chosen": advice["chosen"],
        "reason": advice["reason"],
        "from": advice["from"],
        "locked": record["locked"],
        "rows": rows,
        "tested": [row for row in rows if row["tested"]["value"] is not None],
        "stamp": test["stamp"],
        "leaks": record.get("leaks") or [],
        "sentences": sentences(record),
        "charts": [c for c in (time_chart(record, *cost) for cost in COSTS) if c is not None],
        "pairs": pair_rows(record["pairs"]),
        "more_pairs": max(0, len(record["pairs"]) - MOST_PAIRS),
        "num_pairs": len(record["pairs"]),
        "warnings": warnings(record),
        "facts": facts(stored),
    }


def sentences(record: Mapping[str, Any]) -> list[str]:
    """How the comparison was made."""
    common, table = record["repeats_compared"], record["table"]
    unit = resampled(record)
    repeated = f", mean of {common} cross-validations with other folds" if common > 1 else ""
    return [
        f"{counted(len(table), 'candidate')} were judged out of fold on the same "
        f"{record['num_images']:,} training images and folds{repeated}.",
        f"Intervals resample {unit} and are conditional on the fitted models.",
    ]


def candidate_rows(record: Mapping[str, Any], anchors: Mapping[str, str]) -> list[dict[str, Any]]:
    """A line a candidate, the most accurate first, as the record ranks them."""
    tested, chosen = record["test"]["figures"], record["recommendation"]["chosen"]
    rows = []
    for number, row in enumerate(record["table"], start=1):
        name = row["name"]
        state = "recommended" if name == chosen else ""
        if not state and row["within_noise"]:
            state = "within noise of the best"
        rows.append(
            {
                "number": number,
                "name": name,
                "anchor": anchors.get(name, ""),
                "state": state,
                "chosen": name == chosen,
                "weights": "random weights" if row["weights"] == "none" else "",
                "accuracy": estimate(row["accuracy"]),
                "macro_f1": estimate(row["macro_f1"]),
                "behind": points_text(row["behind_best"]) if row["behind_best"]["value"] else "",
                "p": p_text(row["p_to_best_holm"]) if row["behind_best"]["value"] else "",
                "spread": ""
                if row["repeats_std"] is None
                else f"{100 * row['repeats_mean']:.1f} \u00b1 {100 * row['repeats_std']:.1f} % in "
                f"{row['repeats']} repeats",
                "pass_s": row["pass_s"],
                "pass_is": row["pass_is"],
                "estimated": "estimated" in row["pass_is"],
                "training_s": row["training_s"],
                "prediction_ms": row["prediction_ms"],
                "parameters": row["parameters"],
                "memory": row["peak_memory_mib"],
                "tested": estimate(tested.get(name, {}).get("accuracy")),
                "tested_f1": estimate(tested.get(name, {}).get("macro_f1")),
            }
        )
    return rows


def pair_rows(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Paired differences, the largest first."""
    ranked = sorted(pairs, key=lambda pair: -abs(pair["difference"]["value"]))
    rows = []
    for pair in ranked[:MOST_PAIRS]:
        ahead = pair["difference"]["value"] >= 0
        better, worse = (pair["first"], pair["second"])[:: 1 if ahead else -1]
        rows.append(
            {
                "better": better,
                "worse": worse,
                "difference": points_text(pair["difference"], 1 if ahead else -1),
                "p": p_text(pair["sign_flip_p_holm"]),
                "t": p_text(pair.get("t_p_holm")),
                "real": pair["sign_flip_p_holm"] < 0.05,
            }
        )
    return rows


def points_text(figure: Mapping[str, Any], sign: int = 1) -> str:
    """'+4.0 points [1.2, 6.8]'."""
    found = estimate(figure)
    if found["value"] is None:
        return ""
    text = f"{100 * sign * found['value']:+.1f} points"
    if found["low"] is None:
        return text
    low, high = sorted((100 * sign * found["low"], 100 * sign * found["high"]))
    return f"{text} [{low:.1f}, {high:.1f}]"


def p_text(value: float | None) -> str:
    """Three places, or that there is none."""
    if value is None:
        return "not defined"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def time_chart(record: Mapping[str, Any], cost: str, title: str, label: str) -> Chart | None:
    """Accuracy over one of the two times of a comparison; None for a single candidate."""
    table = record["table"]
    return accuracy_over_time(
        table,
        [seconds_of(row, cost) for row in table],
        [bool(row[f"front_{cost}"]) for row in table],
        chosen=record["recommendation"]["chosen"],
        title=title,
        label=label,
    )


def accuracy_over_time(
    table: Sequence[Mapping[str, Any]],
    times: Sequence[float],
    front: Sequence[bool],
    *,
    chosen: str,
    title: str,
    label: str,
) -> Chart | None:
    """Accuracy with interval over a time, numbered as in the table.

    Args:
        table: rows with `name` and `accuracy`.
        times: of each row.
        front: whether nobody beats it in both.
        chosen: name of the recommended one.
        title: of the chart.
        label: of the times.

    Returns:
        None for a single row, or a time that is not positive.
    """
    if len(table) < 2 or min(times) <= 0:
        return None
    values = [row["accuracy"]["value"] for row in table]
    shown = [v for row in table for v in ends_of(row["accuracy"])]
    bottom, top = padded(shown, floor=0.0, ceiling=1.0)
    log = max(times) / min(times) > FASTER
    low, high = (min(times) / 2, max(times) * 2) if log else padded(times, floor=0.0, share=0.25)
    unbeaten = sorted(
        (time, value) for time, value, kept in zip(times, values, front, strict=True) if kept
    )
    lines = [Line(name="", points=steps(unbeaten), look="faint")]
    for number, (row, seconds, value) in enumerate(zip(table, times, values, strict=True), 1):
        ends = ends_of(row["accuracy"])
        lines.append(
            Line(
                name=str(number),
                points=[(seconds, value)],
                band=[(min(ends), max(ends))] if len(ends) > 1 else (),
                look="c2" if row["name"] == chosen else "accent",
                dots=True,
                joined=False,
            )
        )
    drawing = line_chart(
        lines,
        title=f"{title} of every candidate, numbered as in the table",
        x=Axis(label=label + (" (logarithmic)" if log else ""), low=low, high=high, log=log),
        y=Axis(label="accuracy, out of fold", low=bottom, high=top, share=True),
        names=True,
    )
    return Chart(
        title=title,
        drawing=drawing,
        legend=[("c2", "recommended"), ("accent", "others"), ("faint", "beaten by none in both")],
    )


def steps(front: Sequence[Point]) -> list[Point]:
    """The corners of a front: an accuracy is to be had from its time on."""
    corners: list[Point] = []
    for time, value in front:
        if corners:
            corners.append((time, corners[-1][1]))
        corners.append((time, value))
    return corners


def seconds_of(row: Mapping[str, Any], cost: str) -> float:
    """The time that an axis shows."""
    if cost == "prediction":
        return float(row["prediction_ms"])
    return float(row["pass_s"]) + float(row["training_s"])


def ends_of(figure: Mapping[str, Any]) -> list[float]:
    """Value and interval, as far as they are known."""
    found = estimate(figure)
    return [found[key] for key in ("value", "low", "high") if found[key] is not None]


def warnings(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Title and text of what makes the comparison weaker than it looks."""
    table, found = record["table"], []
    random = [row["name"] for row in table if row["weights"] == "none"]
    if random and len(random) < len(table):
        found.append(
            (
                "Random weights beside pretrained ones",
                f"{listed(random, 6)} began with random weights, as asked. They say nothing of "
                "what these networks are worth with pretrained weights.",
            )
        )
    if not record["pairs"]:
        return found
    undecided = [p for p in record["pairs"] if p["sign_flip_p_holm"] >= 0.05]
    if undecided:
        found.append(
            (
                "Not every difference is real",
                f"{len(undecided)} of {counted(len(record['pairs']), 'pair')} cannot be told apart "
                "with these images (adjusted p of at least 0.05). A rank between them is luck.",
            )
        )
    interrupted = [row["name"] for row in table if row["interrupted"]]
    if interrupted:
        found.append(
            (
                "Interrupted",
                f"{listed(interrupted, 6)} was interrupted once: times and memory may be "
                "incomplete.",
            )
        )
    return found


def facts(stored: StoredComparison) -> list[tuple[str, str]]:
    """What it takes to get the same comparison again."""
    record = stored.record
    asked = record["asked"]
    settings = {k: v for k, v in asked["settings"].items() if k != "data"}
    words = ["headstart", "compare", "--data", str(asked["settings"]["data"])]
    words += ["--model", ",".join(asked["models"]), "--strategy", ",".join(asked["strategies"])]
    words += option_words(settings)
    for name, values in asked["vary"].items():
        words += ["--vary", f"{name}={','.join(str(v) for v in values)}"]
    words += ["--repeats", str(asked["repeats"]), "--fast", asked["fast"], "--out", "NEW"]
    pairs = [
        ("Command", shell_words(words)),
        ("Begun, locked, finished", f"{record['begun']}, {record['locked']}, {record['finished']}"),
        ("Test part opened for", listed(record["test"]["opened"], 20) or "none"),
        ("Versions", ", ".join(f"{n} {v}" for n, v in record["versions"].items())),
        *((f"Digest of {name}", digest) for name, digest in (record.get("models") or {}).items()),
    ]
    return [(name, value) for name, value in pairs if value]


def tested_sentence(view: Mapping[str, Any]) -> str:
    """What the test part said of the recommended candidate."""
    row = next((row for row in view["tested"] if row["chosen"]), None)
    if row is None:
        return "Its test part has not been opened."
    ends = interval_text(row["tested"])
    inside = f" (95\u00a0% interval {ends})" if ends else ""
    return f"Opened after that, its test part gave {value_text(row['tested'])}{inside}."
