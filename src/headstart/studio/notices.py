"""Sentences that several areas say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from headstart.progress import Advance, Progress
from headstart.studio.places import BUNDLE, Entry
from headstart.studio.plain import as_text


def is_bundle(entry: Entry) -> bool:
    """Whether it is a bundle without its run; says what that means."""
    if entry.kind == BUNDLE:
        st.info(
            as_text(
                f"'{entry.name}' is a bundle: the model alone, without the records of its run. "
                "Start the studio on the run's folder to see curves, figures and data."
            )
        )
    return entry.kind == BUNDLE


class PageProgress(Progress):
    """A bar in the page."""

    @contextmanager
    def phase(self, title: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """Draw a bar while the block runs; one step needs none."""
        bar, done = (st.progress(0.0, text=title) if total > 1 else None), 0

        def advance(steps: int = 1) -> None:
            nonlocal done
            done += steps
            if bar is not None:
                bar.progress(min(done / total, 1.0), text=f"{title}: {done:,} of {total:,} {unit}")

        try:
            yield advance
        finally:
            if bar is not None:
                bar.empty()


def pages(key: str, total: int, size: int, unit: str) -> range:
    """Which of `total` rows to show; buttons to turn pages where they do not fit on one.

    Args:
        key: of the state that holds the page, begins with 'kept.'.
        total: rows.
        size: rows a page.
        unit: what is counted, in the plural.
    """
    count = max(1, -(-total // size))
    page = min(max(int(st.session_state.get(key, 0)), 0), count - 1)
    st.session_state[key] = page
    rows = range(page * size, min((page + 1) * size, total))
    if count > 1:
        buttons(key, page, count, f"{unit.capitalize()} {rows[0] + 1:,} to {rows[-1] + 1:,} "
                f"of {total:,}", "above")  # fmt: skip
    return rows


def turn_below(key: str, total: int, size: int) -> None:
    """The buttons of `pages` once more, below what they turn."""
    count = -(-total // size)
    if count > 1:
        page = int(st.session_state[key])
        buttons(key, page, count, f"Page {page + 1:,} of {count:,}", "below")


def buttons(key: str, page: int, count: int, words: str, where: str) -> None:
    """Back, Next, and where one is."""
    with st.container(horizontal=True, vertical_alignment="center"):
        for label, step, end in (("Back", -1, 0), ("Next", 1, count - 1)):
            st.button(label, key=f"turn.{key}.{label}.{where}", disabled=page == end,
                      on_click=turn, args=(key, step))  # fmt: skip
        st.caption(words, width="content")


def turn(key: str, step: int) -> None:
    """Turn some pages."""
    st.session_state[key] = int(st.session_state.get(key, 0)) + step
