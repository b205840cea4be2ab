"""One visit of the page: header, which run, which area, and no traceback whatever happens.

Streamlit runs `show` again for every click. What was chosen lives in `st.session_state` under names
that begin with `KEPT`; Streamlit forgets the state of a widget that one rerun does not draw, so
`keep_state` touches those names each time. Area and run also stand in the address, so that a page
that is loaded again shows the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from headstart.errors import HeadstartError
from headstart.studio.places import COMPARISON, HOW, RUN, Entry, find_entries, newest
from headstart.studio.plain import as_text

KEPT = "kept."
AREA, CHOSEN = f"{KEPT}area", f"{KEPT}run"
PREDICT, RUNS, DATA = AREAS = ("Predict", "Runs", "Data")
ICON = Path(__file__).with_name("icon.svg")
LOG = logging.getLogger("headstart.studio")


def show(place: Path) -> None:
    """Draw the page once."""
    st.set_page_config(page_title="Headstart Studio", page_icon=str(ICON), layout="wide",
                       initial_sidebar_state="collapsed")  # fmt: skip
    keep_state()
    with guarded():
        draw(place)


def draw(place: Path) -> None:
    """Header, then the chosen area."""
    entries = find_entries(place) if place.is_dir() else ()
    area, entry = header(entries)
    if entry is None:
        told = f"There is no run and no bundle in '{place}' any more. {HOW.format(place=place)}"
        st.info(as_text(told))
        return
    with st.spinner("Loading what answers and draws, a few seconds the first time"):
        from headstart.studio.areas import data, predict, runs
        from headstart.studio.drawing import put_style
    put_style()
    with guarded():
        if area == PREDICT:
            predict.show(entry)
        elif area == RUNS:
            runs.show(entry, entries)
        else:
            data.show(entry)


def header(entries: Sequence[Entry]) -> tuple[str, Entry | None]:
    """Title, area and run; what was chosen."""
    from_address(AREA, "area", AREAS, PREDICT)
    shown = [entry for entry in entries if entry.kind != COMPARISON]
    names = [entry.name for entry in shown]
    from_address(CHOSEN, "run", names, newest(shown))
    title, choice, picker = st.columns([2.2, 3, 3], vertical_alignment="bottom")
    title.markdown("### Headstart Studio", anchors=False)
    with choice:
        area = st.segmented_control("Area", AREAS, key=AREA, required=True,
                                    label_visibility="collapsed", width="stretch")  # fmt: skip
    if not names:
        return str(area), None
    with picker:
        labels = {e.name: e.name if e.kind == RUN else f"{e.name} (bundle)" for e in shown}
        name = st.selectbox("Run or bundle", names, key=CHOSEN, format_func=labels.__getitem__,
                            label_visibility="collapsed")  # fmt: skip
    st.query_params.update({"area": str(area).lower(), "run": str(name)})
    return str(area), shown[names.index(str(name))]


def from_address(key: str, parameter: str, options: Sequence[str], usual: str) -> None:
    """Begin with what the address names, else the usual; drop what is not there any more."""
    if st.session_state.get(key) in options:
        return
    st.session_state.pop(key, None)
    wanted = str(st.query_params.get(parameter, "")).lower()
    chosen = next((option for option in options if option.lower() == wanted), None)
    if options:
        st.session_state[key] = chosen or usual


def keep_state() -> None:
    """Keep what was chosen in areas that are not drawn now."""
    for key in list(st.session_state):
        if str(key).startswith(KEPT):
            st.session_state[key] = st.session_state[key]


@contextmanager
def guarded() -> Iterator[None]:
    """Show errors as one sentence; what nobody expected goes to the terminal in full."""
    try:
        yield
    except HeadstartError as error:
        st.error(as_text(str(error)))
    except Exception as error:
        LOG.exception("A defect in Headstart Studio")
        st.error(
            as_text(
                f"A defect in Headstart: {type(error).__name__}: {error}. Please report it; the "
                "terminal that the page was started from shows where it happened."
            )
        )
