"""Text for Streamlit's own boxes, which read Markdown."""

from __future__ import annotations

import re

MARKS = re.compile(r"[\\`*_{}\[\]<>#|~$!]|:(?=\S)")


def as_text(text: str) -> str:
    """Text that is shown as it is.

    Names come from strangers' files: an image among them would be fetched, and a colon before a
    word can be a directive.
    """
    return MARKS.sub(r"\\\g<0>", text)
