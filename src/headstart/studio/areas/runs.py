"""Runs: all of them side by side, and one of them from the verdict to the report."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from headstart.errors import HeadstartError, quoted
from headstart.report import sections
from headstart.report.judging.verdict import accuracy_bars, verdict
from headstart.report.page import charts_view, is_headline, reproduction
from headstart.report.papers.answers import read_answers
from headstart.report.papers.card import figure_rows
from headstart.report.reading import FINISHED
from headstart.studies.comparing import read_record
from headstart.studies.writing import PICTURE, comparison_text
from headstart.studio import caching
from headstart.studio.drawing import as_image, chart_image, put, put_html, render
from headstart.studio.lines import (
    LOCKED,
    alarms_of,
    comparisons,
    groups_of,
    leaderboard,
    line_of,
    unfit,
)
from headstart.studio.notices import is_bundle
from headstart.studio.places import Entry
from headstart.studio.plain import as_text

REPORT = "report.html"
REPORT_MIB = 20  # more is not sent into the page
REPORT_PX = 900
CLASS_FIGURES = ("precision", "recall", "f1")
SHOW_REPORT = "kept.runs.report"


def show(entry: Entry, entries: Sequence[Entry]) -> None:
    """Draw the area."""
    lines = leaderboard(entries)
    if len(lines) > 1:
        put("leaderboard.html", groups=groups_of(lines), chosen=entry.name, unfit=unfit(lines))
    for comparison in comparisons(entries):
        show_comparison(comparison)
    if is_bundle(entry):
        return
    line = line_of(entry)
    if line.state != FINISHED:
        if line.state == LOCKED or len(lines) == 1:
            put("unfit.html", line=line)
        else:
            told = f"'{entry.name}' is {line.state}: choose another run above to see it whole."
            st.info(as_text(told))
        return
    show_run(entry)


def show_run(entry: Entry) -> None:
    """One run: verdict, warnings, figures, classes, curves, report."""
    put_html(run_html(str(entry.folder), entry.name, caching.mark_of(entry.folder)))
    show_report(entry)


@st.cache_data(show_spinner="Drawing the run", max_entries=20)
def run_html(folder: str, name: str, mark: str) -> str:
    """Everything of a run that the page draws itself."""
    del mark
    run = caching.open_run(Path(folder))
    alarms = alarms_of(run)
    charts = charts_view(run)
    wanted = (charts["data_size"], *charts["history"], *charts["ranking"], charts["reliability"])
    drawn = [chart for chart in wanted if chart]
    confusion = sections.confusion(run)
    if confusion and confusion["drawing"]:
        confusion["drawing"] = as_image(confusion["drawing"])
    rows = [row for row in figure_rows(run) if is_headline(row["name"])]
    view: dict[str, Any] = {
        "name": name,
        "run": run,
        "alarms": alarms,
        "sentences": verdict(run, alarms),
        "bars": accuracy_bars(run),
        "tiles": sections.tiles(run),
        "figures": rows,
        "class_table": main_columns(sections.class_table(run)),
        "confusion": confusion,
        "charts": [chart_image(chart) for chart in drawn],
        "data_size_verdict": charts["data_size_verdict"],
        "facts": reproduction(run, read_answers(run.folder)),
    }
    return render("run_view.html", **view)


def main_columns(table: dict[str, Any]) -> dict[str, Any]:
    """The table of classes with the figures that most readers look for; the report has all."""
    cells = table["rows"][0]["cells"] if table["rows"] else []
    kept = [i for i, cell in enumerate(cells) if cell["name"] in CLASS_FIGURES]
    rows = [{**row, "cells": [row["cells"][i] for i in kept]} for row in table["rows"]]
    return {"columns": [table["columns"][i] for i in kept], "rows": rows}


def show_report(entry: Entry) -> None:
    """The run's own report: to take along, or inside the page."""
    path = entry.folder / REPORT
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= REPORT_MIB * 2**20 else ""
    except (OSError, ValueError):
        how = f"headstart report {quoted(entry.folder)}"
        st.caption(as_text(f"No report lies in the folder. Write it: {how}"))
        return
    put("heading.html", title="The whole report")
    if not text:
        where = f"open it from its folder: {path}"
        st.caption(as_text(f"The report has {size / 2**20:.0f} MiB; {where}"))
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button("Download report.html", text, f"{entry.folder.resolve().name}.html",
                           "text/html", on_click="ignore", icon=":material/download:")  # fmt: skip
        shown = st.toggle("Show it here", key=SHOW_REPORT)
    if shown:
        st.iframe(walled(text), height=REPORT_PX)


def walled(page: str) -> str:
    """A page inside a frame that runs no script and has no origin of its own.

    A run's folder may come from somebody else, and the frame around this one may run scripts.
    """
    inner = html.escape(page, quote=True)
    return (
        "<style>html,body{margin:0;height:100%}iframe{border:0;width:100%;height:100%}</style>"
        f'<iframe sandbox="" title="The report of the run" srcdoc="{inner}"></iframe>'
    )


def show_comparison(entry: Entry) -> None:
    """What a comparison recommends, its picture and its table."""
    with st.expander(as_text(f"Comparison '{entry.name}'")):
        try:
            record = read_record(entry.folder)
            advice = record.get("recommendation")
            text = comparison_text(record) if advice else ""
        except (HeadstartError, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = str(error) if isinstance(error, HeadstartError) else "it lacks a field"
            st.caption(as_text(f"It cannot be shown: {reason}"))
            return
        if not advice:
            how = f"headstart compare --resume --out {quoted(entry.folder)}"
            st.caption(as_text(f"Not finished. Go on with: {how}"))
            return
        _, _, table = text.partition("\n\n")  # the advice stands above it
        put("comparison_view.html", advice=advice, text=table)
        picture = entry.folder / PICTURE
        if picture.is_file():
            st.image(str(picture), width=720)
