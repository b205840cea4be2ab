"""Data: what the audit found, pictures that are alike, and every label to look through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from headstart.audit.writing import PAIRS_PICTURE
from headstart.errors import UsageError
from headstart.files import read_json
from headstart.report.drawing.pictures import file_name
from headstart.report.judging.alarms import audit_alarms, shortcuts_of
from headstart.report.reading import AUDIT, FINISHED, StoredRun
from headstart.report.wording import counted
from headstart.studio import browsing, caching
from headstart.studio.browsing import Labelled
from headstart.studio.drawing import put
from headstart.studio.lines import line_of
from headstart.studio.notices import is_bundle, pages, turn_below
from headstart.studio.places import Entry

PAIRS, PICTURES = 6, 24  # a page
ABOUT_ANSWERS = (
    "Training pictures carry the answer of the fold that did not learn from them, test pictures "
    "that of the final model. A confident wrong answer may be a wrong label."
)
KINDS = {
    "exact": "the same pixels",
    "near": "near-duplicates",
    "suspect": "alike by one of two tests",
}


def show(entry: Entry) -> None:
    """Draw the area."""
    if is_bundle(entry):
        return
    line = line_of(entry)
    if line.state != FINISHED:
        put("unfit.html", line=line)
        return
    run = caching.open_run(entry.folder)
    pictures = caching.open_pictures(entry.folder)
    put("data_view.html", name=entry.name, run=run,
        gone=pictures.note, audited=(run.folder / AUDIT).is_file(),
        alarms=list(audit_alarms(run)), shortcuts=shortcuts_of(run))  # fmt: skip
    show_pairs(entry, run, at_hand=pictures.at_hand)
    browse(entry, at_hand=pictures.at_hand)


def audit_pairs(run: StoredRun) -> list[dict[str, Any]]:
    """Pairs of pictures that are alike, from the audit of the run.

    Raises:
        UsageError: the file is damaged.
    """
    path = run.folder / AUDIT
    if not path.is_file():
        return []
    try:
        content = read_json(path)
    except ValueError as error:
        raise UsageError(f"'{path}' is damaged: it is not JSON. Run the audit again.") from error
    stored = content.get("pairs") if isinstance(content, dict) else None
    return [pair for pair in stored or [] if {"first", "second"} <= set(pair)]


def show_pairs(entry: Entry, run: StoredRun, *, at_hand: bool) -> None:
    """Pairs side by side, or the picture that the audit drew of them."""
    pairs = audit_pairs(run)
    if not pairs:
        return
    put("heading.html", title="Pictures that are alike",
        note=f"{counted(len(pairs), 'pair')}. Those that are the same or near-duplicates "
        "stay on one side of every split.")  # fmt: skip
    if not at_hand:
        drawn = run.folder / PAIRS_PICTURE
        if drawn.is_file():
            st.image(str(drawn))
            return
    known = {picture.path: picture for picture in all_pictures(entry.folder)}
    rows = pages(f"kept.pairs.{entry.name}", len(pairs), PAIRS, "pairs")
    put("pairs.html", pairs=[pair_view(entry, pairs[i], known) for i in rows])


def pair_view(entry: Entry, pair: dict[str, Any], known: dict[str, Labelled]) -> dict[str, Any]:
    """A pair with its pictures, labels and parts."""
    kind = str(pair.get("kind", ""))
    sides = []
    for name in ("first", "second"):
        path = str(pair[name])
        picture = known.get(path)
        sides.append(
            {
                "path": path,
                "label": picture.label if picture else "",
                "part": part_words(picture) if picture else "",
                "uri": caching.thumbnail(entry.folder, path),
            }
        )
    tests = str(pair.get("tests") or "")
    return {
        "kind": KINDS.get(kind, kind),
        "tests": f" ({tests})" if tests and kind == "suspect" else "",
        "sides": sides,
        "torn": len({side["label"] for side in sides}) > 1,
    }


def browse(entry: Entry, *, at_hand: bool) -> None:
    """All labels, filtered and sorted, page by page."""
    put("heading.html", title="Labels", note=ABOUT_ANSWERS)
    everything = all_pictures(entry.folder)
    label, part, shown, order = choose(entry, everything)
    found = browsing.chosen(everything, label=label, part=part, shown=shown, order=order)
    if not found:
        st.caption("No picture is so.")
        return
    rows = pages(f"kept.page.{entry.name}", len(found), PICTURES, "pictures")
    cards = [picture_view(entry, found[i]) for i in rows]
    put("browser.html", cards=cards, at_hand=at_hand)
    turn_below(f"kept.page.{entry.name}", len(found), PICTURES)


def choose(entry: Entry, everything: list[Labelled]) -> tuple[str, str, str, str]:
    """Class, part, right or wrong, and order; the page begins anew when one of them changes."""
    labels = [browsing.EVERY, *sorted({picture.label for picture in everything})]
    parts = [part for part in browsing.PARTS
             if part == browsing.EVERY or any(p.part == part for p in everything)]  # fmt: skip
    columns = st.columns(4)

    def begin() -> None:
        st.session_state[f"kept.page.{entry.name}"] = 0

    def pick(where: int, title: str, options: list[str], words: dict[str, str]) -> str:
        with columns[where]:
            return str(
                st.selectbox(title, options, key=f"kept.{title}.{entry.name}", on_change=begin,
                             format_func=lambda option: words.get(option, option))
            )  # fmt: skip

    return (
        pick(0, "Class", labels, {browsing.EVERY: "all classes"}),
        pick(1, "Part", parts, browsing.PARTS),
        pick(2, "Answers", list(browsing.SHOWN), browsing.SHOWN),
        pick(3, "Order", list(browsing.ORDERS), {}),
    )


def all_pictures(folder: Path) -> list[Labelled]:
    """Every picture of a run, listed once."""
    return _all_pictures(str(folder), caching.mark_of(folder))


@st.cache_resource(show_spinner="Listing the pictures", max_entries=3)
def _all_pictures(folder: str, mark: str) -> list[Labelled]:
    del mark
    return browsing.labelled_pictures(caching.open_run(Path(folder)))


def picture_view(entry: Entry, picture: Labelled) -> dict[str, Any]:
    """One thumbnail with what is known of it."""
    return {
        "picture": picture,
        "file": file_name(picture.path),
        "part": part_words(picture),
        "uri": caching.thumbnail(entry.folder, picture.path),
    }


def part_words(picture: Labelled) -> str:
    """'training, fold 2'."""
    if picture.part == browsing.TRAIN:
        return f"training, fold {picture.fold}" if picture.fold else "training"
    return browsing.PARTS.get(picture.part, picture.part)
