"""The yes or no about the positive class, as a page and papers show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.report.reading import StoredRun
from headstart.report.wording import counted, estimate, in_brackets, stated, with_interval

TOTAL, MOST = 1_000, 1_000_000  # images that a sentence in natural frequencies speaks of
FEWEST_FOUND = 10  # of them with the rare class
ROWS = (
    ("sensitivity", "Sensitivity"),
    ("specificity", "Specificity"),
    ("ppv", "Positive predictive value"),
    ("npv", "Negative predictive value"),
    ("f1", "F1"),
    ("auc", "AUC"),
    ("average_precision", "Average precision"),
)


def decision_view(run: StoredRun) -> dict[str, Any] | None:
    """Everything the page shows of the decision, None for a run without one."""
    tested = run.metrics["test"].get("decision")
    if not isinstance(tested, Mapping):
        return None
    crossed = run.metrics["cross_validation"].get("decision") or {}
    about = (run.metrics.get("confidence") or {}).get("decision") or {}
    counts = tested["counts"]
    return {
        "positive": tested["positive"],
        "threshold": tested["threshold"],
        "rule": rule_text(tested["rule"], tested["positive"]),
        "chosen": bool(about) and "given" not in str(about.get("note", "")),
        "missed_target": missed_target(tested, crossed),
        "counts": counts,
        "num_positive": counts["hits"] + counts["misses"],
        "num_negative": counts["false_alarms"] + counts["rejections"],
        "rows": figure_rows(tested, crossed),
        "prevalence_here": tested["prevalence_here"],
        "frequencies": [frequencies(tested, entry) for entry in tested["at_prevalence"]],
    }


def rule_text(rule: str, positive: str) -> str:
    """A rule in words."""
    kind, _, target = rule.partition(":")
    if kind == "youden":
        return "sensitivity and specificity together are highest (Youden)"
    if kind in ("sensitivity", "specificity"):
        other = "specificity" if kind == "sensitivity" else "sensitivity"
        return f"{kind} is at least {stated(float(target))} and {other} as high as that allows"
    if kind == "cost":
        return f"a missed \u2018{positive}\u2019 costs as much as {target} false alarms"
    return f"the probability is at least {rule}, as was asked"


def missed_target(tested: Mapping[str, Any], crossed: Mapping[str, Any]) -> str:
    """A sentence where test part or folds lie clearly below what the rule asked for."""
    kind, _, target = str(tested["rule"]).partition(":")
    if kind not in ("sensitivity", "specificity"):
        return ""
    for figures, where in (
        (tested["figures"], "on the test part"),
        (crossed.get("figures") or {}, "in cross-validation"),
    ):
        figure = estimate(figures.get(kind))
        if figure["high"] is not None and figure["high"] < float(target):
            return (
                f"The threshold was to reach a {kind} of {stated(float(target))}; {where} it is "
                f"{with_interval(figure)}. Choose a stricter target, or more images."
            )
    return ""


def figure_rows(tested: Mapping[str, Any], crossed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line a figure: test part and cross-validation."""
    pairs: list[tuple[str, Any, Any]] = []
    over = crossed.get("figures") or {}
    for name, label in ROWS:
        if name in tested["figures"]:
            pairs.append((label, tested["figures"][name], over.get(name)))
    crossed_at = {e["prevalence"]: e for e in crossed.get("at_prevalence") or ()}
    for entry in tested["at_prevalence"]:
        other = crossed_at.get(entry["prevalence"], {})
        at = f"at a prevalence of {stated(entry['prevalence'])}"
        pairs.append((f"Positive predictive value {at}", entry["ppv"], other.get("ppv")))
        pairs.append((f"Negative predictive value {at}", entry["npv"], other.get("npv")))
    for entry in tested.get("sensitivity_at_specificity") or ():
        label = f"Sensitivity where specificity is {stated(entry['specificity'])}"
        pairs.append((label, entry["sensitivity"], None))
    return [
        {"label": label, "test": estimate(one), "crossed": estimate(other)}
        for label, one, other in pairs
    ]


def frequencies(tested: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """What predictive values mean, counted: of 1,000 images, how many found, how many alarms."""
    prevalence, positive = entry["prevalence"], tested["positive"]
    found = {n: estimate(tested["figures"][n])["value"] for n in ("sensitivity", "specificity")}
    if None in found.values():
        return ""
    total = TOTAL
    while total * prevalence < FEWEST_FOUND and total < MOST:
        total *= 10
    sick = round(total * prevalence)
    hits = round(sick * found["sensitivity"])
    alarms = round((total - sick) * (1 - found["specificity"]))
    return (
        f"At a prevalence of {stated(prevalence)}, of {total:,} images {sick:,} would be "
        f"\u2018{positive}\u2019: about {hits:,} found and {sick - hits:,} missed, beside about "
        f"{counted(alarms, 'false alarm')}."
    )


def decision_sentence(run: StoredRun) -> str:
    """The decision in the verdict, '' where there is none."""
    tested = run.metrics["test"].get("decision")
    if not isinstance(tested, Mapping):
        return ""
    counts, figures = tested["counts"], tested["figures"]
    return (
        f"At its threshold it found {counts['hits']} of {counts['hits'] + counts['misses']} "
        f"\u2018{tested['positive']}\u2019 (sensitivity {in_brackets(figures['sensitivity'])}) "
        f"and let {counts['rejections']} of {counts['false_alarms'] + counts['rejections']} others "
        f"pass (specificity {in_brackets(figures['specificity'])})."
    )


def operating_point(run: StoredRun) -> tuple[str, float, float] | None:
    """Positive class, false and true positive rate of the decision; None where undefined."""
    tested = run.metrics["test"].get("decision")
    if not isinstance(tested, Mapping):
        return None
    found = [estimate(tested["figures"][name])["value"] for name in ("specificity", "sensitivity")]
    if None in found:
        return None
    return str(tested["positive"]), 1 - found[0], found[1]
