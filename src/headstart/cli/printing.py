"""Tables and JSON for every command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headstart.files import without_nan
from headstart.metrics import HEADLINES

INTERVAL = "95 %"
WIDEST = 120


def print_json(value: object) -> None:
    """JSON on standard output, and nothing else there."""
    print(json.dumps(without_nan(value), indent=2, ensure_ascii=False))


def print_pairs(title: str, pairs: Sequence[tuple[str, str]]) -> None:
    """A title and aligned lines; long values are not cut, so that paths can be copied."""
    width = max(len(name) for name, _ in pairs)
    print(f"\n{title}")
    for name, value in pairs:
        print(f"  {name:<{width}}  {value}")


def print_figures(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """A line a metric, a column a part, each figure with its interval."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("", no_wrap=True)
    for title in parts:
        table.add_column(Text(title), no_wrap=True)
    for metric in HEADLINES:
        cells = [describe(f[metric.name]) if metric.name in f else "" for f in parts.values()]
        if any(cells):
            table.add_row(metric.label, *cells)
    console = Console(highlight=False)
    console.width = max(console.width, WIDEST)  # a narrow window wraps lines but loses no figure
    console.print()
    console.print(table)
    console.print(f"In brackets: {INTERVAL} intervals.", style="dim")


def print_decision(title: str, part: Mapping[str, Any]) -> None:
    """The yes or no about the positive class, where a part has one."""
    decision = part.get("decision")
    if not decision:
        return
    counts, figures = decision["counts"], decision["figures"]
    named = {"sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "PPV", "npv": "NPV"}
    pairs = [(label, describe(figures[name])) for name, label in named.items()]
    for entry in decision["at_prevalence"]:
        at = f"at prevalence {entry['prevalence']:g}"
        pairs += [(f"{named[n]} {at}", describe(entry[n])) for n in ("ppv", "npv")]
    for entry in decision.get("sensitivity_at_specificity", ()):
        label = f"Sensitivity at specificity {entry['specificity']:g}"
        pairs.append((label, describe(entry["sensitivity"])))
    pairs.append(
        (
            "Images",
            f"{counts['hits']} hits, {counts['misses']} misses, {counts['false_alarms']} false "
            f"alarms, {counts['rejections']} rightly rejected",
        )
    )
    about = ""
    if "threshold" in decision:
        about = f": '{decision['positive']}' from {decision['threshold']:.4g} on"
    elif by_fold := decision.get("by_fold"):
        low, high = f"{min(by_fold):.4g}", f"{max(by_fold):.4g}"
        about = f": every fold at the threshold of the others, {span(low, high)}"
    print_pairs(f"Decision, {title}{about}", [(k, v or "not defined") for k, v in pairs])


def span(low: str, high: str) -> str:
    """'0.2 to 0.4', or '0.2' where both are the same."""
    return low if low == high else f"{low} to {high}"


def describe(figure: Mapping[str, Any]) -> str:
    """'0.912 [0.901, 0.922]', or '' where there is no figure."""
    if figure["value"] is None:
        return ""
    text = f"{figure['value']:.3f}"
    if figure["low"] is None:
        return text
    return f"{text} [{figure['low']:.3f}, {figure['high']:.3f}]"
