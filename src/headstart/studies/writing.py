"""The files of a comparison: a table for machines, one for people, and the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.files import write_csv, write_text
from headstart.runs.files.outputs import write_figure
from headstart.studies.pareto import comparison_figure

TABLE, TEXT, PICTURE = "comparison.csv", "comparison.txt", "comparison.png"
COLUMNS = ("name", "model", "strategy", "image_size", "weights", "pass_s", "pass_is", "training_s",
           "prediction_ms", "parameters", "peak_memory_mib", "memory_of", "interrupted", "repeats",
           "repeats_mean", "repeats_std", "p_to_best_holm", "within_noise", "front_training",
           "front_prediction")  # fmt: skip
ESTIMATES = ("accuracy", "macro_f1", "behind_best")
MOST_PAIRS = 15


def write_files(folder: Path, record: Mapping[str, Any]) -> None:
    """Table, text and picture of a comparison that is locked."""
    write_table(folder / TABLE, record)
    write_text(folder / TEXT, comparison_text(record))
    chosen = record["recommendation"]["chosen"]
    write_figure(folder / PICTURE, comparison_figure(record["table"], chosen))


def write_table(path: Path, record: Mapping[str, Any]) -> None:
    """A line a candidate, the most accurate first; the test figures only where opened."""
    tested = record["test"]["figures"]
    header = [f"{name}{end}" for name in ESTIMATES for end in ("", "_low", "_high")]
    rows = []
    for row in record["table"]:
        cells = [row[name][part] for name in ESTIMATES for part in ("value", "low", "high")]
        test = tested.get(row["name"], {}).get("accuracy", {})
        chosen = row["name"] == record["recommendation"]["chosen"]
        values = [row[name] for name in COLUMNS]
        values += [*cells, chosen, *(test.get(part) for part in ("value", "low", "high"))]
        rows.append([cell_of(value) for value in values])
    last = ["recommended", "test_accuracy", "test_accuracy_low", "test_accuracy_high"]
    write_csv(path, [*COLUMNS, *header, *last], rows)


def cell_of(value: object) -> object:
    """Nothing for what is not known, words for true and false."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else value


def comparison_text(record: Mapping[str, Any]) -> str:
    """The whole comparison for people."""
    advice, test = record["recommendation"], record["test"]
    lines = [
        f"Recommended: {advice['chosen']}",
        f"  {advice['reason']}",
        f"  Chosen from {advice['from']}; locked {record['locked']}.",
        "",
        *candidate_lines(record),
        "",
        *notes(record),
        "",
        *pair_lines(record["pairs"]),
    ]
    if test["opened"]:
        lines += ["", "Test part, opened after the choice was locked"]
        lines += [
            f"  {name}: accuracy {told(entry['accuracy'])}, macro F1 {told(entry['macro_f1'])} "
            f"({entry['num_images']:,} images)"
            for name, entry in test["figures"].items()
        ]
    lines += [f"  LEAKS ALLOWED (--allow-leaks): {leak}" for leak in record.get("leaks", ())]
    if test["stamp"]:
        lines.append(f"  {test['stamp']}")
    return "\n".join(lines) + "\n"


def candidate_lines(record: Mapping[str, Any]) -> list[str]:
    """The table: a line a candidate, the most accurate first."""
    header = ["", "candidate", "accuracy", "macro F1", "pass", "training", "one", "parameters",
              "memory"]  # fmt: skip
    rows = [header]
    for row in record["table"]:
        mark = "*" if row["name"] == record["recommendation"]["chosen"] else ""
        mark = mark or ("=" if row["within_noise"] else "")
        memory = row["peak_memory_mib"]
        rows.append(
            [
                mark,
                row["name"],
                told(row["accuracy"]),
                f"{row['macro_f1']['value']:.3f}",
                f"{'~' if 'estimated' in row['pass_is'] else ''}{row['pass_s']:.1f} s",
                f"{row['training_s']:.1f} s",
                f"{row['prediction_ms']:.1f} ms",
                f"{row['parameters']:,}",
                "not known" if memory is None else f"{memory:,.0f} MiB",
            ]
        )
    return aligned(rows)


def resampled(record: Mapping[str, Any]) -> str:
    """What intervals resample."""
    number = record["num_groups"]
    return "images" if number is None else f"{number:,} independent groups"


def notes(record: Mapping[str, Any]) -> list[str]:
    """What the table's words mean, and what is unusual about it."""
    common, table = record["repeats_compared"], record["table"]
    unit = resampled(record)
    found = [
        "* recommended   = within noise of the most accurate   ~ estimated from a part, because "
        "the features were in the store",
        f"Accuracy: out of fold on {record['num_images']:,} training images, 95 % interval over "
        f"{unit}, conditional on the fitted models"
        + (f"; mean of {common} repetitions." if common > 1 else "."),
        "pass: features of all images, measured once a network; training: all folds and the final "
        "fit; one: from the encoded picture to its answer; memory: peak of the process or the GPU.",
    ]
    spread = [row for row in table if row["repeats_std"] is not None]
    if spread:
        found.append("Cross-validation repeated with other folds (mean and standard deviation):")
        found += [
            f"  {row['name']}: {row['repeats_mean']:.3f} +- {row['repeats_std']:.3f} over "
            f"{row['repeats']} repetitions"
            for row in spread
        ]
    interrupted = [row["name"] for row in table if row["interrupted"]]
    if interrupted:
        found.append(
            f"Interrupted once, so times and memory may be incomplete: {', '.join(interrupted)}."
        )
    return found


def pair_lines(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every pair with its tests, as long as they are few."""
    if not pairs:
        return ["One candidate: there is nothing to test."]
    header = ["difference in points", "", "sign flips, Holm", "resampled t (heuristic), Holm"]
    rows = [
        [
            f"{pair['first']} - {pair['second']}",
            told(pair["difference"], scale=100, places=1, sign="+"),
            p_value(pair["sign_flip_p_holm"]),
            p_value(pair.get("t_p_holm")),
        ]
        for pair in pairs[:MOST_PAIRS]
    ]
    lines = [f"Pairs, p adjusted by Holm over {len(pairs)}", *aligned([header, *rows])]
    if len(pairs) > MOST_PAIRS:
        lines.append(f"  and {len(pairs) - MOST_PAIRS} more in comparison.json")
    lines.append(
        "The corrected resampled t of Nadeau and Bengio is a heuristic: no unbiased estimate of "
        "that variance exists."
    )
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, two blanks between."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def told(figure: Mapping[str, Any], *, scale: float = 1.0, places: int = 3, sign: str = "") -> str:
    """'0.912 [0.901, 0.922]'; without brackets where there is no interval."""
    if figure["value"] is None:
        return "not defined"
    shown = f"{scale * figure['value']:{sign}.{places}f}"
    if figure["low"] is None:
        return shown
    low, high = scale * figure["low"], scale * figure["high"]
    return f"{shown} [{low:{sign}.{places}f}, {high:{sign}.{places}f}]"


def p_value(value: float | None) -> str:
    """Three places, or that there is none: differences without spread have no t."""
    if value is None:
        return "not defined"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
