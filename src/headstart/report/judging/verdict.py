"""The verdict: one paragraph in plain words, before any table."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.report.judging.alarms import Alarm
from headstart.report.judging.decision import decision_sentence
from headstart.report.judging.facts import (
    COMMONEST,
    best_rival,
    commonest_share,
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
)
from headstart.runs.files.record import has_leaking_test
from headstart.runs.settings.run import is_logistic_probe

Bars = list[dict[str, object]]


def verdict(run: StoredRun, alarms: Sequence[Alarm]) -> list[str]:
    """Sentences: what was learnt, how well, against what, more data, the loudest warnings."""
    return [
        sentence
        for sentence in (
            what_was_learnt(run),
            how_well(run),
            decision_sentence(run),
            against_what(run),
            more_data(run),
            loudest(alarms, run),
        )
        if sentence
    ]


def what_was_learnt(run: StoredRun) -> str:
    """What from what."""
    parts, names = count_parts(run), list(run.class_names)
    shown = listed([f"\u2018{name}\u2019" for name in names], 5)
    return (
        f"From {counted(sum(parts.learnt), 'labelled image')} of {run.name}, {run.model} learnt to "
        f"tell {len(names)} classes apart: {shown}."
    )


def how_well(run: StoredRun) -> str:
    """Test accuracy in words."""
    figure = estimate(run.figure("test", "accuracy"))
    if figure["value"] is None:
        return ""
    count = run.metrics["test"]["num_images"]
    ends = interval_text(figure)
    leaking = has_leaking_test(run.record)
    crossing = find_duplicates(run).across or follow_groups(run).across
    seen = (
        "but images stand on both sides (leaks were allowed), so this is no test"
        if leaking
        else "some of which it has learnt from"
        if crossing
        else "images it had never seen"
    )
    inside = f" (95\u00a0% interval {ends})" if ends else ""
    return (
        f"It named {percent(figure['value'])} of {counted(count, 'test image')} rightly{inside}, "
        f"{seen}."
    )


def against_what(run: StoredRun) -> str:
    """The commonest class and the best simple rival."""
    largest, share = commonest_share(count_parts(run))
    name = run.class_names[largest]
    text = f"Always answering \u2018{name}\u2019 would have been right for {percent(share)}"
    rival = best_rival(run.metrics.get("baselines") or {})
    crossed = estimate(run.figure("cross_validation", "accuracy"))["value"]
    if rival is None or crossed is None:
        return text + "."
    return (
        f"{text}; in cross-validation the best simple rival on frozen features "
        f"({rival_label(rival[0])}) reached {percent(rival[1]['accuracy'])}"
        f"{rival_sample(rival[1])}, this model {percent(crossed)}."
    )


def more_data(run: StoredRun) -> str:
    """Whether more images would help."""
    told = str((run.metrics.get("learning_curve") or {}).get("verdict") or "")
    if not told:
        return ""
    of = "" if is_logistic_probe(run.settings) else "(A logistic head on frozen features.) "
    return f"Would more images help? {of}{told}"


def loudest(alarms: Sequence[Alarm], run: StoredRun) -> str:
    """The gravest warnings by title; without any, what was not looked at."""
    loud = [alarm for alarm in alarms if alarm.level == "alarm"]
    chosen = loud or [alarm for alarm in alarms if alarm.level == "warning"]
    if not chosen:
        unasked = [
            word
            for word, asked in (
                ("near-duplicates", (run.folder / AUDIT).exists()),
                ("shortcuts", bool(run.metrics.get("shortcuts"))),
            )
            if not asked
        ]
        rest = f"; {' and '.join(unasked)} were not looked for" if unasked else ""
        return f"Nothing that was checked speaks against these figures{rest}."
    titles = [alarm.title[:1].lower() + alarm.title[1:] for alarm in chosen]
    if loud:
        return f"Do not trust these figures yet: {'; '.join(titles[:3])}."
    return f"Read with care: {'; '.join(titles[:3])}."


def accuracy_bars(run: StoredRun) -> Bars:
    """Accuracies side by side: the model on the test part and in cross-validation, its rivals."""
    crossed = "cross-validation"
    rows: list[tuple[str, str, object, str]] = [
        ("This model", "test images", run.figure("test", "accuracy"), "accent"),
        ("This model", crossed, run.figure("cross_validation", "accuracy"), "accent"),
    ]
    baselines = run.metrics.get("baselines") or {}
    ranked = sorted(
        baselines, key=lambda name: (name == COMMONEST, -baselines[name]["accuracy"], name)
    )
    for name in ranked:
        label = rival_label(name)
        where = crossed + rival_sample(baselines[name])
        rows.append((label[:1].upper() + label[1:], where, baselines[name], "plain"))
    if COMMONEST not in baselines:
        share = commonest_share(count_parts(run))[1]
        rows.append(("Commonest class", "test images", {"value": share}, "plain"))
    return [
        {"name": name, "where": where, "figure": estimate(entry), "look": look}
        for name, where, entry, look in rows
        if entry is not None
    ]
