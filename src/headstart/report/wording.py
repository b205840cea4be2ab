"""Numbers as people read them: shares as per cents, intervals, seconds, counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SPACE = "\u00a0"  # keeps a number and its unit on one line
DASH = "\u2013"
NOTHING = "\u2014"
# Figures that are no shares, and how many digits they are worth.
DIGITS = {"log_loss": 3, "brier": 3, "brier_score": 3, "matthews": 3, "set_size": 2}


def percent(share: float | None, digits: int = 1) -> str:
    """0.9123 -> '91.2 %'."""
    return NOTHING if share is None else f"{100 * share:.{digits}f}{SPACE}%"


def estimate(entry: Any) -> dict[str, Any]:
    """A figure as value, low, high and method, from any of the forms that records keep.

    Args:
        entry: a number, a mapping with 'value' and the ends beside it or under 'interval', or
            None.
    """
    if isinstance(entry, Mapping):
        ends = entry.get("interval") if isinstance(entry.get("interval"), Mapping) else entry
        assert isinstance(ends, Mapping)
        return {
            "value": number(entry.get("value", entry.get("accuracy"))),
            "low": number(ends.get("low")),
            "high": number(ends.get("high")),
            "method": str(ends.get("method") or ""),
        }
    return {"value": number(entry), "low": None, "high": None, "method": ""}


def number(value: Any) -> float | None:
    """A number, None for everything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def value_text(entry: Any, name: str = "") -> str:
    """'91.2 %', or '0.312' for what is no share."""
    value = estimate(entry)["value"]
    if value is None:
        return NOTHING
    digits = DIGITS.get(name)
    return percent(value) if digits is None else f"{value:.{digits}f}"


def interval_text(entry: Any, name: str = "") -> str:
    """'89.0-93.1 %', '' where there is no interval."""
    figure = estimate(entry)
    low, high = figure["low"], figure["high"]
    if low is None or high is None:
        return ""
    digits = DIGITS.get(name)
    if digits is not None:
        between = " to " if low < 0 else DASH
        return f"{low:.{digits}f}{between}{high:.{digits}f}"
    return f"{100 * low:.1f}{DASH}{100 * high:.1f}{SPACE}%"


def with_interval(entry: Any, name: str = "") -> str:
    """'91.2 % (95 % interval 89.0-93.1 %)'."""
    ends = interval_text(entry, name)
    behind = f" (95{SPACE}% interval {ends})" if ends else ""
    return value_text(entry, name) + behind


def in_brackets(entry: Any, name: str = "") -> str:
    """'91.2 % [89.0-93.1 %]', for use inside brackets."""
    ends = interval_text(entry, name)
    return value_text(entry, name) + (f" [{ends}]" if ends else "")


def stated(share: float) -> str:
    """A share that somebody chose, without needless digits: 0.05 -> '5 %'."""
    return f"{100 * share:.4g}{SPACE}%"


def seconds_text(seconds: float | None) -> str:
    """'0.4 s', '2 min 05 s', '1 h 03 min'."""
    if seconds is None:
        return NOTHING
    if seconds < 99.5:
        return f"{seconds:.1f}{SPACE}s" if seconds < 10 else f"{seconds:.0f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min {rest:02d}{SPACE}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{SPACE}h {minutes:02d}{SPACE}min"


def counted(count: int, one: str, several: str = "") -> str:
    """'1 image', '1,200 images'."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def sentence(text: Any) -> str:
    """'fitted out of fold' -> 'Fitted out of fold.'."""
    plain = str(text or "").strip()
    end = "" if not plain or plain.endswith((".", "!", "?")) else "."
    return plain[:1].upper() + plain[1:] + end


def times_text(count: int) -> str:
    """'once', 'twice', '3 times'."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def short_number(value: float) -> str:
    """A number for an axis: '0.2', '1,000', '1e-05'."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.10g}" if value == int(value) else f"{value:.3g}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def heading(name: str) -> str:
    """'fold_figures' -> 'Fold figures'."""
    plain = re.sub(r"[_\s]+", " ", name).strip()
    return plain[:1].upper() + plain[1:]


def metric_label(name: str) -> str:
    """The heading of a registered metric, or words from its name."""
    from headstart.metrics import METRICS

    return METRICS.get(name).label if name in METRICS else heading(name)


def encodable(text: str) -> str:
    """Text that UTF-8 can hold: half of a surrogate pair shows its code."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def listed(names: list[str], most: int = 3) -> str:
    """'a, b, c and 4 more'."""
    rest = len(names) - most
    shown = names[:most]
    if rest > 0:
        return f"{', '.join(shown)} and {rest:,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
