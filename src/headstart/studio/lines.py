"""The leaderboard: one line a run, whatever state its folder is in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

from headstart.errors import HeadstartError, quoted
from headstart.files import read_json
from headstart.report.judging.alarms import Alarm, find_alarms
from headstart.report.judging.facts import looks_medical, total_seconds
from headstart.report.papers.answers import read_answers
from headstart.report.reading import FINISHED, StoredRun, read_stored_run
from headstart.report.wording import estimate
from headstart.runs.files.record import read_run
from headstart.studio.caching import mark_of
from headstart.studio.places import BUNDLE, COMPARISON, RUN, Entry

LOCKED = "locked"
UNFINISHED, DAMAGED = "not finished", "damaged"
COMPARISON_FILE = "comparison.json"
NO_FIGURE: dict[str, Any] = estimate(None)


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """What the leaderboard shows of a run.

    Attributes:
        name: of the entry.
        state: 'finished', 'locked', 'not finished' or 'damaged'.
        problem: why there is nothing more to show, '' for a finished run.
        data: what the data are called.
        digest: of the data; runs on other data are not compared.
        model: backbone in words.
        strategy: 'probe', 'full', ...
        image_size: px, None where not known.
        num_images: of the data, None where not known.
        crossed: out-of-fold accuracy with its interval.
        tested: test accuracy with its interval.
        seconds: in all.
        alarms: what misleads.
        warnings: what to look at.
        titles: of both, the gravest first.
        finished: when.
    """

    name: str
    state: str
    problem: str = ""
    data: str = ""
    digest: str = ""
    model: str = ""
    strategy: str = ""
    image_size: int | None = None
    num_images: int | None = None
    crossed: dict[str, Any] = field(default_factory=lambda: dict(NO_FIGURE))
    tested: dict[str, Any] = field(default_factory=lambda: dict(NO_FIGURE))
    seconds: float | None = None
    alarms: int = 0
    warnings: int = 0
    titles: str = ""
    finished: str = ""


def alarms_of(run: StoredRun) -> list[Alarm]:
    """Every warning about a run, as its report has them."""
    return find_alarms(run, medical=looks_medical(run, read_answers(run.folder)))


def line_of(entry: Entry) -> RunLine:
    """The line of a run; a bundle or a damaged folder gets one as well."""
    mark = mark_of(entry.folder) + mark_of(entry.folder.parent)
    return _line_of(entry.name, entry.kind, str(entry.folder), mark)


@st.cache_data(show_spinner="Reading the runs", max_entries=1000)
def _line_of(name: str, kind: str, folder: str, mark: str) -> RunLine:
    del mark
    place = Path(folder)
    if kind == BUNDLE:
        return RunLine(name=name, state=BUNDLE, problem="A bundle: the model without its run.")
    try:
        record = read_run(place)
        if record["status"] == FINISHED:
            return finished_line(name, read_stored_run(place))
        return begun_line(name, place, record)
    except HeadstartError as error:
        return RunLine(name=name, state=DAMAGED, problem=str(error))
    except Exception as error:  # a record of the right kind with the wrong content
        kind_of_error = type(error).__name__
        problem = f"Its records are damaged ({kind_of_error}: {error}). Begin the run anew."
        return RunLine(name=name, state=DAMAGED, problem=problem)


def finished_line(name: str, run: StoredRun) -> RunLine:
    """The line of a finished run."""
    alarms = alarms_of(run)
    loud = [alarm for alarm in alarms if alarm.level != "note"]
    return RunLine(
        name=name,
        state=FINISHED,
        crossed=estimate(run.figure("cross_validation", "accuracy")),
        tested=estimate(run.figure("test", "accuracy")),
        seconds=total_seconds(run.record.get("times") or {}),
        alarms=sum(alarm.level == "alarm" for alarm in loud),
        warnings=sum(alarm.level == "warning" for alarm in loud),
        titles="; ".join(alarm.title for alarm in loud),
        finished=str(run.record.get("finished") or "")[:10],
        model=run.model,
        **asked(run.record),
    )


def begun_line(name: str, folder: Path, record: dict[str, Any]) -> RunLine:
    """The line of a run that is on its way, was interrupted, or stopped at its lock."""
    known = asked(record)
    model = str((record.get("backbone") or {}).get("name") or record["settings"].get("model", ""))
    if record["status"] == LOCKED:
        return RunLine(
            name=name,
            state=LOCKED,
            problem="A candidate of a comparison: its model is locked, its test part closed.",
            model=model,
            crossed=compared_figure(folder),
            **known,
        )
    return RunLine(
        name=name,
        state=UNFINISHED,
        problem="Still at work, or interrupted. Go on with: headstart run --resume --out "
        f"{quoted(folder)}",
        model=model,
        **known,
    )


def asked(record: dict[str, Any]) -> dict[str, Any]:
    """Data and settings of a run, as far as its record has them."""
    data, settings = record.get("data") or {}, record["settings"]
    size = (record.get("preprocessing") or {}).get("size") or settings.get("image_size")
    return {
        "data": str(data.get("name") or Path(str(settings.get("data", ""))).name),
        "digest": str(data.get("digest") or ""),
        "strategy": str(settings.get("strategy") or "probe"),
        "image_size": size if isinstance(size, int) else None,
        "num_images": data.get("num_images"),
    }


def compared_figure(folder: Path) -> dict[str, Any]:
    """Out-of-fold accuracy of a candidate, from the comparison around it."""
    try:
        rows = read_json(folder.parent / COMPARISON_FILE)["table"]
    except (OSError, ValueError, KeyError, TypeError):
        return dict(NO_FIGURE)
    return next((estimate(r.get("accuracy")) for r in rows if r.get("name") == folder.name),
                dict(NO_FIGURE))  # fmt: skip


def groups_of(lines: Sequence[RunLine]) -> list[dict[str, Any]]:
    """Lines of the same data together, the highest out-of-fold accuracy first."""
    by_data: dict[tuple[str, str], list[RunLine]] = {}
    for line in lines:
        if line.state in (FINISHED, LOCKED):
            by_data.setdefault((line.data, line.digest), []).append(line)
    found: list[dict[str, Any]] = []
    for members in by_data.values():
        ranked = sorted(members, key=lambda line: (-(line.crossed["value"] or 0.0), line.name))
        found.append({"data": ranked[0].data, "lines": ranked, "digest": ranked[0].digest,
                      "num_images": ranked[0].num_images})  # fmt: skip
    alike = Counter((group["data"], group["num_images"]) for group in found)
    for group in found:
        several = alike[group["data"], group["num_images"]] > 1
        group["which"] = group["digest"][:6] if several else ""
    return sorted(found, key=lambda group: (group["data"], -(group["num_images"] or 0)))


def unfit(lines: Sequence[RunLine]) -> list[RunLine]:
    """Folders without figures: unfinished and damaged runs."""
    return [line for line in lines if line.state in (UNFINISHED, DAMAGED)]


def leaderboard(entries: Sequence[Entry]) -> list[RunLine]:
    """A line for every run and candidate."""
    return [line_of(entry) for entry in entries if entry.kind == RUN]


def comparisons(entries: Sequence[Entry]) -> list[Entry]:
    """The comparisons among some entries."""
    return [entry for entry in entries if entry.kind == COMPARISON]
