"""Templates of the package: HTML with every value escaped, Markdown through a filter of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from headstart.report import wording


def environment(*, markdown: Callable[[object], str] | None = None) -> Environment:
    """Where templates come from and how values get into them.

    Args:
        markdown: makes a value plain for Markdown, and is used for every value; None makes the
            environment of HTML, which escapes.
    """
    options: dict[str, Any] = {"finalize": markdown} if markdown else {"autoescape": True}
    found = Environment(
        loader=PackageLoader("headstart.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    found.filters.update(
        percent=wording.percent,
        stated=wording.stated,
        value=wording.value_text,
        interval=wording.interval_text,
        seconds=wording.seconds_text,
        heading=wording.heading,
        metric=wording.metric_label,
    )
    found.globals.update(counted=wording.counted, times=wording.times_text, nothing=wording.NOTHING)
    return found
