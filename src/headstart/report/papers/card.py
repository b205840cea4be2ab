"""Papers of one run: `model_card.md`, `claim.md`, `claim.csv`.

Names of classes, files and folders come from anywhere, so every one of them is written such that
Markdown takes it for plain text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.files import write_csv, write_text
from headstart.report.judging.alarms import Alarm
from headstart.report.judging.facts import count_parts, looks_medical
from headstart.report.judging.verdict import verdict
from headstart.report.papers.claim import NOTICE, ClaimItem
from headstart.report.reading import StoredRun
from headstart.report.rendering import environment
from headstart.report.wording import (
    encodable,
    estimate,
    interval_text,
    metric_label,
    value_text,
)

CARD = "model_card.md"
CLAIM_TEXT = "claim.md"
CLAIM_TABLE = "claim.csv"
NOT_MEDICAL_DEVICE = (
    "Not a medical device. This model was made for research and teaching; it has not been assessed "
    "for diagnosis or treatment and must not decide on patients."
)
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$])")


def plain(text: object) -> str:
    """Text that Markdown and HTML show as it is: on one line, every sign of theirs escaped."""
    one_line = " ".join(str(text).split())
    escaped = _SPECIAL.sub(r"\\\1", one_line)
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        escaped = escaped.replace(sign, name)
    return re.sub(r"^(\d*)([-+=.)])(?=\s|$)", r"\1\\\2", escaped)


def write_papers(
    run: StoredRun,
    folder: Path,
    *,
    answers: Mapping[str, str],
    alarms: Sequence[Alarm],
    items: Sequence[ClaimItem],
) -> None:
    """Write the three papers whole."""
    context = card_context(run, answers, alarms)
    papers = environment(markdown=plain)
    write_text(folder / CARD, encodable(papers.get_template("model_card.md").render(context)))
    write_text(
        folder / CLAIM_TEXT,
        encodable(
            papers.get_template("claim.md").render(name=run.name, notice=NOTICE, items=items)
        ),
    )
    write_csv(
        folder / CLAIM_TABLE,
        ["item", "section", "title", "answered_by", "answer"],
        [[item.number, item.section, item.title, item.answered_by, item.answer] for item in items],
    )


def card_context(
    run: StoredRun, answers: Mapping[str, str], alarms: Sequence[Alarm]
) -> dict[str, Any]:
    """What the model card's template is filled with."""
    parts = count_parts(run)
    record = run.record
    return {
        "run": run,
        "record": record,
        "sentences": verdict(run, alarms),
        "answers": answers,
        "alarms": [alarm for alarm in alarms if alarm.level != "note"],
        "medical": NOT_MEDICAL_DEVICE if looks_medical(run, answers) else "",
        "weights": record["backbone"].get("weights") or {},
        "classes": list(zip(run.class_names, parts.learnt, parts.tested, strict=True)),
        "figures": figure_rows(run),
        "digest": (record.get("choice") or {}).get("model_digest", ""),
    }


def figure_rows(run: StoredRun) -> list[dict[str, str]]:
    """Every figure of both parts as text."""
    tested = run.metrics["test"]["figures"]
    crossed = run.metrics["cross_validation"]["figures"]
    rows = []
    for name in dict.fromkeys([*tested, *crossed]):
        pair = [estimate(part.get(name)) for part in (tested, crossed)]
        if all(figure["value"] is None for figure in pair):
            continue
        rows.append(
            {
                "name": name,
                "label": metric_label(name),
                "test": value_text(pair[0], name),
                "test_interval": interval_text(pair[0], name),
                "test_method": pair[0]["method"],
                "crossed": value_text(pair[1], name),
                "crossed_interval": interval_text(pair[1], name),
                "fold_std": fold_deviation(crossed.get(name), name),
            }
        )
    return rows


def fold_deviation(entry: Any, name: str) -> str:
    """Standard deviation over the folds, '' where there is none."""
    deviation = estimate((entry or {}).get("fold_std"))
    return "" if deviation["value"] is None else value_text(deviation, name)
