"""The results of `benchmarks/gpu.py` as Markdown, for docs/benchmarks.md.

    scripts/bench gpu_tables FILE.jsonl

Of results with the same name the last one counts, so parts may be measured again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]
# Seconds of the final training alone that E1's authors report, on their GPU.
E1_S = {"VGG16": 611.52, "VGG19": 768.43, "ResNet50": 429.78, "DenseNet121": 500.70,
        "EfficientNetB0": 319.07}  # fmt: skip
PHASES = ("network", "features", "audit", "folds", "fold figures", "final fit", "confidence",
          "bundle", "test")  # fmt: skip


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; '' without rows."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    if not lines:
        return ""
    rule = f"|{'---|' * len(head)}"
    return "\n".join([f"\n**{title}**\n", f"| {' | '.join(head)} |", rule, *lines])


def spread(record: Record) -> str:
    """Median [least, most], or why there is none."""
    if "failed" in record:
        return str(record["failed"])
    parts = [f"{record[key]:,.5g}" if record[key] < 1e5 else f"{record[key]:,.0f}"
             for key in ("median", "least", "most")]  # fmt: skip
    return f"{parts[0]} [{parts[1]}, {parts[2]}]"


def limits_table(found: Sequence[Record]) -> str:
    rows = [(r["name"], r.get("unit", ""), spread(r)) for r in found]
    return table("Limits", ("", "unit", "median [least, most], n = 10"), rows)


def forward_table(found: Sequence[Record], limits: Sequence[Record]) -> str:
    """Images/s, and TFLOP/s as a share of the product's in the same precision."""
    peaks = {r["name"].removeprefix("product "): r.get("median") for r in limits}
    gflop = {r["name"]: r["gflop"] for r in found if "gflop" in r}
    rows = []
    for record in found:
        if "gflop" in record:
            continue
        if "form" not in record:
            rows.append((record["name"], "", "", spread(record), "", ""))
            continue
        name = record["network"]
        work = record["median"] * gflop.get(name, float("nan")) / 1e3
        precision = str(record.get("precision", ""))
        peak = peaks.get(record["form"] if "TF32" in record["form"] else precision)
        share = f"{work / peak:.1%}" if peak and precision else ""
        told = f"{work:.3g}" if precision else ""
        rows.append((name, record["form"], record["batch"], spread(record), told, share))
    counted = ", ".join(f"{name} {work:.2f}" for name, work in gflop.items())
    head = ("network", "form", "batch", "images/s", "TFLOP/s", "share of the product")
    return table(f"Networks alone, n = 10 (GFLOP an image: {counted})", head, rows)


def job_table(found: Sequence[Record]) -> str:
    """Seconds by phase; 'rest' is reading the data, writing, and what has no phase."""
    rows = []
    for record in found:
        name = record["name"]
        if "times" not in record:
            told = record.get("failed") or record["seconds"]
            rows.append((name, told, *[""] * (len(PHASES) + 3)))
            continue
        times, whole = record["times"], record["seconds"]
        spent = [times.get(phase, 0.0) for phase in PHASES]
        e1 = E1_S.get(name, float("nan"))
        phases = [f"{seconds:.1f}" for seconds in (*spent, whole - sum(spent))]
        rows.append((name, f"{whole:.1f}", *phases, e1, f"{e1 / whole:.1f}"))
    head = ("network", "whole job, s", *PHASES, "rest", "E1's final training, s", "ratio")
    return table("E1's job", head, rows)


def decode_table(found: Sequence[Record]) -> str:
    rows = []
    for record in found:
        if "above_2" in record:
            told = (f"mean {record['mean']}, most {record['most']} of 255; "
                    f"{record['above_2']:.2%} of values more than 2 apart")  # fmt: skip
        else:
            told = spread(record)
        rows.append((record["name"], told, record.get("kib", "")))
    return table("Decoding and resizing", ("", "images/s", "KiB a file"), rows)


def heads_table(found: Sequence[Record]) -> str:
    keys = ("rotation_s", "fit_s", "rounds", "converged", "of_largest", "failed")
    rows = [(r["name"], *[r.get(key, "") for key in keys]) for r in found]
    head = ("tensors on", "rotation, s", "fits, s", "rounds", "converged", "difference", "")
    return table("Logistic heads, 60,000 rows", head, rows)


def compile_table(found: Sequence[Record]) -> str:
    rows = [(r["name"], r.get("compile_s", ""), spread(r)) for r in found]
    return table("torch.compile, folded", ("", "compile, s", "images/s"), rows)


def start_table(found: Sequence[Record]) -> str:
    keys = ("imports_s", "device_s")
    rows = [(r["name"], *[r.get(key, "") for key in keys]) for r in found]
    head = ("process of", "interpreter and imports, s", "device's context, s")
    return table("Starts", head, rows)


def tables(path: str | Path) -> str:
    """All tables of a file of results."""
    latest: dict[tuple[str, str, str], Record] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["part"] == "start":  # measured again: older failures count no more
            latest = {
                key: old
                for key, old in latest.items()
                if key[0] != record["name"] or "failed" not in old
            }
        latest[record["part"], record["name"], record.get("form", "")] = record
    of: dict[str, list[Record]] = {}
    for record in latest.values():
        of.setdefault(record["part"], []).append(record)
    machines = [f"{r['name']}, torch {r['torch']}, {r['load']}" for r in of.get("machine", [])]
    took = [f"{r['name']} {r['seconds']} s" for r in of.get("took", [])]
    parts = [
        "; ".join(machines),
        limits_table(of.get("limits", [])),
        forward_table(of.get("forward", []), of.get("limits", [])),
        job_table(of.get("job", [])),
        decode_table(of.get("decode", [])),
        heads_table(of.get("heads", [])),
        compile_table(of.get("compile", [])),
        start_table(of.get("start", [])),
        f"\nParts: {', '.join(took)}" if took else "",
    ]
    return "\n".join(part for part in parts if part)


if __name__ == "__main__":
    print(tables(sys.argv[1]))
