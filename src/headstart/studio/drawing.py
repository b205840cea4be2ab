"""HTML for the page from templates, every value escaped, in the look of the report.

The report's style sheet is put inside `.hs`, so that it touches nothing of Streamlit's own. Its
colours become `light-dark()` pairs, because the page is light or dark as Streamlit says
(`color-scheme`), not as the system says.
"""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from functools import cache
from typing import Any

import streamlit as st
from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup, escape

from headstart.report.drawing.curves import Chart
from headstart.report.rendering import environment

SVG = "http://www.w3.org/2000/svg"
MARGIN = 5
COLOUR = re.compile(r"--([a-z0-9-]+):\s*(#[0-9a-f]+);")


@cache
def templates() -> Environment:
    """Templates of the page, with the report's pieces and filters."""
    found = environment()
    assert found.loader is not None
    found.loader = ChoiceLoader([PackageLoader("headstart.studio", "templates"), found.loader])
    return found


def render(template: str, **values: Any) -> str:
    """HTML of a template."""
    return templates().get_template(template).render(**values)


def put(template: str, **values: Any) -> None:
    """Draw a template."""
    put_html(render(template, **values))


def put_html(text: str) -> None:
    """Draw HTML that was rendered here."""
    st.html(f'<div class="hs">{text}</div>')


def source_of(name: str) -> str:
    """The text of a file among the templates."""
    pages = templates()
    assert pages.loader is not None
    text, _, _ = pages.loader.get_source(pages, name)
    return text


@cache
def style() -> str:
    """The style sheet of the page."""
    report = source_of("style.css")
    light, dark = (dict(COLOUR.findall(block)) for block in roots(report))
    pairs = "".join(f"--{n}: light-dark({light[n]}, {dark[n]});" for n in light if n in dark)
    return f".hs {{ {pairs} {report} }}\n{source_of('studio.css')}"


@cache
def drawing_style() -> str:
    """The rules of the report's style sheet that a drawing needs, colours included."""
    report = source_of("style.css")
    light, dark = roots(report)
    rules = "".join(
        line for line in report.splitlines() if line.startswith("svg ") and "display" not in line
    )
    return (
        f":root {{{light}}} @media (prefers-color-scheme: dark) {{ :root {{{dark}}} }} "
        f"{rules}".replace("color-scheme: light dark;", "")
    )


def as_image(drawing: Markup) -> Markup:
    """A drawing as an image, because Streamlit lets no SVG through; its words stay for readers."""
    found = re.search(r'aria-label="([^"]*)"', drawing)
    words = Markup(found.group(1)) if found else ""  # escaped where it was made
    opened, _, rest = str(drawing).removeprefix("<svg").partition(">")
    opened = re.sub(r'viewBox="0 0 (\d+) (\d+)"', with_margin, opened)
    text = f'<svg xmlns="{SVG}"{opened}><style>{drawing_style()}</style>{rest}'
    coded = base64.b64encode(text.encode()).decode("ascii")
    return Markup(
        f'<img class="drawing" alt="{escape(words)}" src="data:image/svg+xml;base64,{coded}">'
    )


def with_margin(found: re.Match[str]) -> str:
    """A view box with room for numbers that reach over the edge, which an image would cut."""
    width, height = (int(side) for side in found.groups())
    return f'viewBox="{-MARGIN} {-MARGIN} {width + 3 * MARGIN} {height + 2 * MARGIN}"'


def chart_image(chart: Chart) -> Chart:
    """A chart whose drawing is an image."""
    return replace(chart, drawing=as_image(chart.drawing))


def roots(text: str) -> list[str]:
    """The contents of the two `:root` blocks, light before dark."""
    blocks = re.findall(r":root\s*\{([^}]*)\}", text)
    assert len(blocks) >= 2
    return blocks[:2]


def put_style() -> None:
    """Put the style sheet into the page; it takes no room."""
    st.html(f"<style>{style()}</style>")
