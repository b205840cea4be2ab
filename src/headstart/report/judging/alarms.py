"""What must be said before the figures are believed, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headstart.report.judging.decision import missed_target
from headstart.report.judging.facts import (
    best_rival,
    count_parts,
    find_duplicates,
    follow_groups,
    rival_label,
    rival_sample,
)
from headstart.report.reading import AUDIT, StoredRun
from headstart.report.wording import (
    counted,
    estimate,
    interval_text,
    listed,
    percent,
    with_interval,
)
from headstart.runs.files.record import has_leaking_test, leaks_of

CONFLICTS = frozenset({"labels-exact", "labels-near"})
FEW_TO_LEARN = 10  # images of a class
FEW_TO_TEST = 30
WIDE = 0.10  # of the interval of the test accuracy
DOMINANT = 0.7  # share of one class
NO_TEST = "These figures are no honest test; do not compare or publish them as one."
CROSSING = ("leak-exact", "leak-near", "leak-groups")
FEW_LEAKS = 0.01  # of the test part; fewer move no figure by more than a rounding
NO_GROUPING = "No grouping can separate source from class"  # in the note of a shortcut
LEVELS = ("alarm", "warning", "note")
AUDIT_TITLES = {
    "wrong-extension": "files with the wrong ending",
    "blank": "blank pictures",
    "small": "very small pictures",
    "unreadable": "unreadable files",
    "duplicates-exact": "copies of the same picture",
    "duplicates-near": "near-duplicates",
    "duplicates-suspect": "pictures that look alike",
    "labels-exact": "the same picture under two labels",
    "labels-near": "near-duplicates under two labels",
    "leak-exact": "test pictures that training has too",
    "leak-near": "test pictures with a near-duplicate in training",
    "leak-groups": "groups on both sides of the split",
    "leak-suspects": "look-alikes across the split",
    "sources-shared": "sources in both parts",
    "sources-coincide": "a class from one source only",
    "sources-associated": "source and class go together",
    "groups-mixed": "groups with several labels",
    "classes-tiny": "classes with few images",
    "imbalance": "classes of unequal size",
    "label-file-facts": "file facts give the label away",
    "label-border": "the border gives the label away",
    "animated": "files with several frames",
    "turned": "pictures turned upright",
    "sixteen-bit": "pictures of 16 bits",
    "transparent": "transparent pictures",
    "dicom-window": "scans without a window",
}


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One warning.

    Attributes:
        level: 'alarm' (the figures mislead), 'warning' (look at it), 'note' (good to know).
        title: a few words.
        text: what, how many, what to do.
        paths: names of some images it concerns.
    """

    level: str
    title: str
    text: str
    paths: tuple[str, ...] = ()


def find_alarms(run: StoredRun, *, medical: bool) -> list[Alarm]:
    """Every warning about a run, the gravest first."""
    found = [
        *allowed_alarms(run),
        *shortcut_alarms(run),
        *unasked_alarms(run),
        *audit_alarms(run),
        *leak_alarms(run, medical=medical),
        *size_alarms(run),
        *figure_alarms(run),
        *licence_alarms(run),
    ]
    return sorted(found, key=lambda alarm: LEVELS.index(alarm.level))


def allowed_alarms(run: StoredRun) -> Iterator[Alarm]:
    """Leaks that the user chose to go on with."""
    leaks = leaks_of(run.record)
    if leaks:
        yield Alarm(
            level="alarm",
            title="Leaks were allowed (--allow-leaks)",
            text=" ".join([*leaks, NO_TEST] if has_leaking_test(run.record) else leaks),
        )


def shortcut_alarms(run: StoredRun) -> Iterator[Alarm]:
    """Labels that something beside the picture's content gives away."""
    for entry in shortcuts_of(run):
        if entry["alarm"]:
            ends = interval_text(entry["figure"])
            yield Alarm(
                level="alarm",
                title=shortcut_title(entry),
                text=(
                    f"Balanced accuracy {percent(entry['figure']['value'])}"
                    f"{f' [{ends}]' if ends else ''} without seeing what the picture is about; "
                    f"chance is {percent(entry['chance'])}. The model may have learnt this instead "
                    f"of what you mean. {entry['note']}".strip()
                ),
            )


def shortcut_title(entry: dict[str, Any]) -> str:
    """What gives the labels away; and, of a source, that no split can help."""
    title = f"The labels can be told from {entry['name']}"
    if NO_GROUPING in entry["note"]:
        return f"{title}, and no grouping can separate source from class here"
    return title


def shortcuts_of(run: StoredRun) -> list[dict[str, Any]]:
    """The battery of shortcuts as the page shows it."""
    stored = run.metrics.get("shortcuts") or []
    entries = stored.get("probes", []) if isinstance(stored, dict) else stored
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or "name" not in entry:
            continue
        figure = estimate(entry.get("balanced_accuracy", entry.get("value")))
        if figure["low"] is None:
            figure |= {name: estimate(entry.get(name))["value"] for name in ("low", "high")}
        found.append(
            {
                "name": str(entry["name"]),
                "figure": figure,
                "chance": estimate(entry.get("chance"))["value"],
                "alarm": bool(entry.get("alarm")),
                "note": str(entry.get("note") or ""),
            }
        )
    return found


def unasked_alarms(run: StoredRun) -> Iterator[Alarm]:
    """A run that could have looked for duplicates and shortcuts and did not."""
    asked = run.settings.get("audit")
    if asked is None or (run.folder / AUDIT).exists():
        return
    why = "as was asked (--audit none)" if asked == "none" else "because the data are large"
    yield Alarm(
        level="warning",
        title="Not audited",
        text=f"Duplicates, leaks and shortcuts were not looked for, {why}. What makes figures too "
        "good would not be seen here: run again with --audit full before you rely on them.",
    )


def audit_alarms(run: StoredRun) -> Iterator[Alarm]:
    """What the audit of the data found."""
    level = {"error": "alarm", "warning": "warning"}
    for entry in run.findings:
        code = str(entry.get("code", "finding"))
        title = AUDIT_TITLES.get(code, code.replace("-", " "))
        loud, effect = level.get(str(entry.get("severity")), "note"), ""
        if code in CROSSING:
            few, effect = leak_effect(run)
            loud = "warning" if few else loud
        yield Alarm(
            level=loud,
            title=title[:1].upper() + title[1:],
            text=f"{entry['message']} {effect}".strip(),
            paths=tuple(str(path) for path in entry.get("paths") or ()),
        )


def leak_effect(run: StoredRun) -> tuple[bool, str]:
    """Whether leaks that were allowed are too few to matter, and what they can do at most."""
    leaks = (run.record.get("splits") or {}).get("leaks")
    tested = run.metrics["test"].get("num_images")
    if not leaks or not tested:
        return False, ""
    points = 100 * leaks / tested
    return leaks / tested < FEW_LEAKS, (
        f"{counted(leaks, 'test image')} of {tested:,} are concerned, which can have raised the "
        f"test accuracy by at most {points:.2g} points."
    )


def leak_alarms(run: StoredRun, *, medical: bool) -> Iterator[Alarm]:
    """Images, groups or looks that cross from the training to the test part."""
    twins, groups = find_duplicates(run), follow_groups(run)
    audited = {str(entry.get("code", "")) for entry in run.findings}
    if twins.across and "leak-exact" not in audited:
        yield Alarm(
            level="alarm",
            title="The same picture in both parts",
            text=f"{counted(len(twins.across), 'test image')} also in the training part, byte for "
            "byte: the test accuracy is too high. Remove the copies and run again.",
            paths=twins.across[:10],
        )
    if twins.labels and not audited & CONFLICTS:
        yield Alarm(
            level="warning",
            title="The same picture under two labels",
            text=f"{counted(len(twins.labels), 'image')} byte for byte like another one with "
            "another label. One of the labels is wrong; correct it and run again.",
            paths=twins.labels[:10],
        )
    if groups.across and "leak-groups" not in audited:
        yield Alarm(
            level="alarm",
            title="Groups in both parts",
            text=f"{counted(len(groups.across), 'group')} with images to learn from and to test "
            f"on: {listed(list(groups.across))}. The test accuracy is too high.",
        )
    if groups.aside and "leak-groups" not in audited:
        yield Alarm(
            level="warning",
            title="Groups in the calibration part and elsewhere",
            text=f"{counted(len(groups.aside), 'group')} with images to set thresholds on and in "
            f"another part: {listed(list(groups.aside))}. Sets and thresholds promise nothing "
            "then.",
        )
    if medical and not groups.total:
        yield Alarm(
            level="warning",
            title="Patients are not known",
            text="The data look medical and no groups were given. If a patient has several "
            "images, some may be in both parts. Name the patients by --group-by.",
        )
    openings = run.record["test_openings"]
    if openings > 1:
        yield Alarm(
            level="warning",
            title=f"The test part was opened {openings} times",
            text="Figures are honest on the first look only. If anything was changed between the "
            "looks, test on new images.",
        )


def size_alarms(run: StoredRun) -> Iterator[Alarm]:
    """Too few images to learn from or to judge by."""
    parts, names = count_parts(run), run.class_names
    few = [n for n, count in zip(names, parts.learnt, strict=True) if count < FEW_TO_LEARN]
    if few:
        yield Alarm(
            level="warning",
            title="Hardly anything to learn from",
            text=f"{counted(len(few), 'class', 'classes')} with fewer than {FEW_TO_LEARN} training "
            f"images: {listed(few)}. Add images, or join classes.",
        )
    thin = [n for n, count in zip(names, parts.tested, strict=True) if count < FEW_TO_TEST]
    if thin:
        yield Alarm(
            level="note",
            title="Few test images a class",
            text=f"{counted(len(thin), 'class', 'classes')} with fewer than {FEW_TO_TEST} test "
            f"images ({listed(thin)}): figures of a single class are rough there.",
        )
    total = sum(parts.learnt)
    largest = max(range(len(names)), key=lambda c: parts.learnt[c])
    if total and parts.learnt[largest] / total > DOMINANT:
        yield Alarm(
            level="warning",
            title="One class dominates",
            text=f"{percent(parts.learnt[largest] / total, 0)} of the images are "
            f"'{names[largest]}', so that accuracy flatters. Read balanced accuracy and the "
            "table of classes.",
        )
    left_out = run.record["data"].get("num_left_out", 0)
    if left_out:
        named = [row["path"] for row in run.images if row.get("problem")]
        yield Alarm(
            level="warning",
            title="Unreadable images left out",
            text=f"{counted(left_out, 'image')} could not be read and took no part. "
            "The reasons are in images.csv.",
            paths=tuple(named[:10]),
        )


def figure_alarms(run: StoredRun) -> Iterator[Alarm]:
    """Figures that say less than they seem to."""
    tested = estimate(run.figure("test", "accuracy"))
    crossed = estimate(run.figure("cross_validation", "accuracy"))
    if tested["low"] is not None and tested["high"] - tested["low"] > WIDE:
        yield Alarm(
            level="warning",
            title="A wide interval",
            text=f"The true accuracy may lie anywhere in {interval_text(tested)}. "
            "More test images would narrow it.",
        )
    if tested["low"] is not None and crossed["low"] is not None:
        above = (
            " (The final model learnt from more images than each fold, which explains a little.)"
        )
        apart = tested["high"] < crossed["low"] or tested["low"] > crossed["high"]
        if apart:
            yield Alarm(
                level="warning",
                title="Test part and cross-validation disagree",
                text=f"Test {with_interval(tested)}, cross-validation {with_interval(crossed)}: "
                "further apart than their intervals. Look how they were made."
                + above
                * (tested["low"] > crossed["high"]),
            )
    decided = run.metrics["test"].get("decision")
    folded = run.metrics["cross_validation"].get("decision") or {}
    if decided and (missed := missed_target(decided, folded)):
        yield Alarm(level="warning", title="The threshold misses its target", text=missed)
    rival = best_rival(run.metrics.get("baselines") or {})
    if rival and crossed["value"] is not None and crossed["value"] <= rival[1]["accuracy"]:
        yield Alarm(
            level="warning",
            title="No better than a simple rival",
            text=f"In cross-validation '{rival_label(rival[0])}' on frozen features reaches "
            f"{percent(rival[1]['accuracy'])}{rival_sample(rival[1])}, this model "
            f"{percent(crossed['value'])}.",
        )


def licence_alarms(run: StoredRun) -> Iterator[Alarm]:
    """Weights that may not be used for everything, or that know nothing."""
    weights = run.record["backbone"].get("weights") or {}
    licence = str(weights.get("licence") or "")
    if weights.get("source") == "none":
        yield Alarm(
            level="warning",
            title="Random weights",
            text="The network began without pretrained weights, as asked (--weights none).",
        )
    elif any(word in licence.lower() for word in ("research", "non-commercial", "noncommercial")):
        yield Alarm(
            level="note",
            title="Weights for research",
            text=f"Licence of the backbone's weights: {licence}.",
        )
