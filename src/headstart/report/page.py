"""`report.html`: one file with everything in it, no scripts, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from headstart.report import sections
from headstart.report.drawing.curves import (
    data_size_chart,
    history_charts,
    ranking_charts,
    reliability_chart,
)
from headstart.report.drawing.pictures import Pictures
from headstart.report.judging.alarms import Alarm, shortcuts_of
from headstart.report.judging.decision import decision_view, operating_point
from headstart.report.judging.facts import (
    follow_groups,
    looks_medical,
    shell_words,
    time_in_all,
    total_seconds,
)
from headstart.report.judging.glossary import GLOSSARY
from headstart.report.judging.leakage import SOURCE, leakage_table
from headstart.report.judging.mistakes import (
    MOST_GROUPS,
    confidently_wrong,
    confused_pairs,
    scores_by,
    torn,
)
from headstart.report.judging.verdict import accuracy_bars, verdict
from headstart.report.papers.card import NOT_MEDICAL_DEVICE, figure_rows
from headstart.report.papers.claim import BY_NOBODY, NOTICE, ClaimItem, command_of
from headstart.report.reading import StoredRun
from headstart.report.rendering import environment
from headstart.report.several.comparison import comparison_rows, same_question, time_chart
from headstart.report.several.quick import StoredQuick, quick_view
from headstart.report.several.study import StoredComparison, study_view, tested_sentence
from headstart.report.wording import encodable, estimate, seconds_text, sentence

MOST_DOUBTFUL = 8


def render_page(
    views: Sequence[dict[str, Any]],
    comparison_of: StoredComparison | None = None,
    choice: StoredQuick | None = None,
) -> str:
    """The whole page of one run, of several, of a comparison, or of a quick choice.

    Args:
        views: from `view_of`, one a run; none for a quick choice.
        comparison_of: what the runs are candidates of, before them on the page; or None.
        choice: a quick choice, which stands alone; or None.
    """
    pages = environment()
    style, _, _ = pages.loader.get_source(pages, "style.css")  # type: ignore[union-attr]
    runs = [view["run"] for view in views]
    several = len(views) > 1 or comparison_of is not None
    comparison, study, version = {}, None, ""
    if choice is not None:
        version = str(choice.record["versions"].get("headstart", ""))
    elif comparison_of is not None:
        anchors = {view["run"].folder.name: f"r{i + 1}-verdict" for i, view in enumerate(views)}
        study = study_view(comparison_of, anchors)
        study["tested_sentence"] = tested_sentence(study)
        version = str(comparison_of.record["versions"].get("headstart", ""))
    elif several:
        rows = comparison_rows(runs, [view["label"] for view in views])
        same, sentence = same_question(runs)
        comparison = {"rows": rows, "same": same, "sentence": sentence, "chart": time_chart(rows)}
    text = pages.get_template("page.html").render(
        views=views, several=several, comparison=comparison, style=Markup(style),
        glossary=GLOSSARY, study=study, quick=None if choice is None else quick_view(choice),
        version=version or str(runs[0].record["versions"].get("headstart", "")),
    )  # fmt: skip
    return encodable(text)


def view_of(
    run: StoredRun,
    label: str,
    *,
    pictures: Pictures,
    answers: Mapping[str, str],
    alarms: Sequence[Alarm],
    items: Sequence[ClaimItem],
) -> dict[str, Any]:
    """Everything the template shows of one run.

    Args:
        run: the run.
        label: what it is called among several.
        pictures: its thumbnails.
        answers: of the author.
        alarms: its warnings.
        items: of the checklist.
    """
    figures = figure_rows(run)
    return {
        "run": run,
        "label": label,
        "medical": NOT_MEDICAL_DEVICE if looks_medical(run, answers) else "",
        "sentences": verdict(run, alarms),
        "bars": accuracy_bars(run),
        "tiles": sections.tiles(run),
        "alarms": alarms,
        "headlines": [row for row in figures if is_headline(row["name"])],
        "figures": [row for row in figures if not is_headline(row["name"])],
        "methods": sorted({row["test_method"] for row in figures} - {""}),
        "pictures_note": pictures.note,
        "classes": sections.class_bars(run, pictures),
        "many": len(run.class_names) > sections.MOST_BARS,
        "class_table": sections.class_table(run),
        "decision": decision_view(run),
        "subgroups": sections.subgroup_tables(run),
        "num_aside": sum(row["part"] == "calibration" for row in run.splits),
        "confusion": sections.confusion(run),
        "leakage": leakage_table(run),
        "leakage_source": SOURCE,
        "claim": {
            "answered": sum(item.answered_by != BY_NOBODY for item in items),
            "items": items,
            "notice": NOTICE,
        },
        "facts": reproduction(run, answers),
        **mistakes_view(run, pictures),
        **charts_view(run),
        **measured_view(run),
        **times_view(run),
    }


def is_headline(name: str) -> bool:
    """Whether a figure belongs into the short table."""
    from headstart.metrics import METRICS

    return name not in METRICS or METRICS.get(name).headline


def mistakes_view(run: StoredRun, pictures: Pictures) -> dict[str, Any]:
    """Confused pairs, single images, groups and sources."""
    tested = run.tested
    if tested is None:
        empty: list[Any] = []
        return dict.fromkeys(("pairs", "wrong", "torn", "doubtful", "groups", "sources"), empty)
    doubtful = [] if run.learnt is None else confidently_wrong(run.learnt, MOST_DOUBTFUL)
    groups = scores_by("group", tested, run.splits)
    return {
        "pairs": sections.pairs_with_pictures(confused_pairs(tested), pictures),
        "wrong": sections.answers_with_pictures(confidently_wrong(tested), pictures),
        "torn": sections.answers_with_pictures(torn(tested), pictures),
        "doubtful": sections.answers_with_pictures(doubtful, pictures),
        "groups": {
            "total": len(groups),
            "flawed": sum(score.right < score.num_images for score in groups),
            "worst": [score for score in groups if score.right < score.num_images][:MOST_GROUPS],
        }
        if groups
        else [],
        "sources": scores_by("source", tested, run.splits, run.images),
    }


def charts_view(run: StoredRun) -> dict[str, Any]:
    """Every drawing that comes from numbers."""
    choice = run.record.get("choice") or {}
    curve = run.metrics.get("learning_curve") or {}
    ranking = [] if run.tested is None else ranking_charts(run.tested, operating_point(run))
    calibration = run.measured("calibration")
    return {
        "ranking": ranking,
        "reliability": None if run.tested is None else reliability_chart(run.tested, calibration),
        "history": history_charts(run.history, choice.get("penalty", choice.get("epochs"))),
        "data_size": data_size_chart(curve.get("points") or []),
        "data_size_verdict": curve.get("verdict", ""),
        "data_size_note": curve.get("note", ""),
    }


def measured_view(run: StoredRun) -> dict[str, Any]:
    """Calibration, answer sets, strange images, shortcuts and whatever else was measured."""
    metrics = run.metrics
    calibration, conformal = run.measured("calibration"), run.measured("conformal")
    outliers = run.measured("outliers")
    temperature = calibration.get("temperature")
    if isinstance(temperature, Mapping):
        temperature = temperature.get("value")
    return {
        "calibration": {
            "rows": sections.calibration_rows(calibration),
            "temperature": temperature,
            "note": sentence(calibration.get("note")),
        },
        "conformal": {
            "rows": sections.conformal_rows(conformal),
            "alpha": conformal.get("alpha"),
            "guaranteed": bool(conformal.get("guaranteed")),
            "by_class": bool(conformal.get("by_class_thresholds")),
            "note": sentence(conformal.get("note")),
            "classes": sections.class_coverage(conformal),
        },
        "outliers": {
            "rows": sections.outlier_rows(outliers),
            "threshold": outliers.get("threshold"),
            "method": str(outliers.get("method") or ""),
            "unknown": estimate(outliers.get("unknown")),
            "note": sentence(outliers.get("note")),
        },
        "shortcuts": shortcuts_of(run),
        "strategy": sections.strategy_phases(run.measured("strategy") or run.measured("training")),
        "further": sections.further_figures(metrics),
    }


def times_view(run: StoredRun) -> dict[str, Any]:
    """Seconds a phase, their sum, the memory."""
    times = run.record.get("times") or {}
    bars = sections.phase_bars(times)
    return {
        "times": bars,
        "total_time": seconds_text(total_seconds(times)) if bars else "",
        "time_is": time_in_all(run.record),
        "memory": times.get("peak_memory_mib"),
    }


def again(run: StoredRun) -> str:
    """The command that repeats the run, from where it was begun."""
    folder = str(run.record["settings"].get("out") or run.folder.name)
    return shell_words(["headstart", "run", "--from", f"{folder}/run.json", "--out", "NEW"])


def reproduction(run: StoredRun, answers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names and values of what it takes to get the same figures again."""
    record = run.record
    weights = record["backbone"].get("weights") or {}
    choice = record.get("choice") or {}
    engine = record.get("engine") or {}
    groups = follow_groups(run)
    views = record.get("views") or {}
    told = f"learnt from {views.get('learnt')}; answers of {views.get('answers')}" if views else ""
    pairs = [
        ("Command", command_of(run)),
        ("Again", again(run)),
        ("Seed", str(record.get("seed"))),
        ("Folds", str(run.metrics["cross_validation"].get("num_folds", ""))),
        ("Views of each image", told),
        ("Groups", f"{groups.total:,}" if groups.total else "none given"),
        ("Test part", str(run.metrics["test"].get("origin", "held out"))),
        ("Test part opened", f"{record['test_openings']} \u00d7"),
        ("Choice locked", str(choice.get("locked") or "")),
        ("Begun, finished", f"{record.get('begun')}, {record.get('finished')}"),
        ("Machine", str(record.get("machine") or "")),
        ("Engine", f"{engine.get('key', '')} ({engine.get('reason', '')})" if engine else ""),
        ("Versions", ", ".join(f"{n} {v}" for n, v in record["versions"].items())),
        ("Digest of the data", str(record["data"].get("digest") or "")),
        ("Digest of the model", str(choice.get("model_digest") or "")),
        ("Digest of the weights", str(weights.get("file_digest") or "")),
        ("Licence of the network's code", str(record["backbone"].get("code_licence") or "")),
        ("Licence of its weights", str(weights.get("licence") or "")),
        ("Licence of the images", answers.get("data_licence") or "not provided"),
    ]
    return [(name, value) for name, value in pairs if value]
