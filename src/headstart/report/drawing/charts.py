"""Charts as hand-written SVG: small, the same bytes for the same numbers, coloured by the page.

Colours are CSS classes ('accent', 'muted', 'c1' to 'c6'), so that one chart serves the light and
the dark page. The drawing is 360 units wide, about what a telephone shows, so that its letters
keep their size there. Every text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from headstart.report.wording import short_number

WIDTH, HEIGHT = 360.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 12.0, 10.0, 40.0
NAME_WIDTH, NAME_HEIGHT = 110.0, 13.0
NAME_ROOM, LETTER = 8.0, 6.5  # beside a dot, and the width of a letter
MOST_POINTS = 120  # of a curve; more would not be seen

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis.

    Attributes:
        label: what it shows, unit included.
        low: its smallest value, above 0 where logarithmic.
        high: its largest value.
        log: whether steps are powers.
        ticks: where numbers stand; chosen here where empty.
        share: whether values are shares, written as per cents.
    """

    label: str
    low: float
    high: float
    log: bool = False
    ticks: tuple[float, ...] = ()
    share: bool = False

    def position(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return min(max((value - low) / (high - low), -0.02), 1.02)

    def numbers(self) -> tuple[float, ...]:
        """Where numbers stand."""
        return self.ticks or (log_ticks(self) if self.log else even_ticks(self.low, self.high))

    def text(self, value: float) -> str:
        """The number at a tick."""
        return f"{100 * value:.3g} %" if self.share else short_number(value)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        name: for the legend, '' to stay out of it.
        points: from left to right.
        look: CSS class.
        dots: whether each point gets a dot.
        joined: whether a line goes through the points.
        band: the low and the high end of each point's interval, or nothing.
    """

    name: str
    points: Sequence[Point]
    look: str = "accent"
    dots: bool = False
    joined: bool = True
    band: Sequence[Point] = ()


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x: Axis,
    y: Axis,
    diagonal: bool = False,
    mark: float | None = None,
    names: bool = False,
) -> Markup:
    """Curves over two axes.

    Args:
        lines: the last is drawn on top.
        title: what the chart says in words, for those who do not see it.
        x: the axis below.
        y: the axis at the left.
        diagonal: draws the line from corner to corner, where chance or truth is.
        mark: a value of x that gets an upright dashed line.
        names: writes each line's name beside its first point.
    """
    place = _Place(x, y)
    parts = [_frame(place)]
    if diagonal:
        start, end = place.at((x.low, y.low)), place.at((x.high, y.high))
        parts.append(_stroke([start, end], "guide"))
    if mark is not None:
        across, _ = place.at((mark, y.low))
        parts.append(_stroke([(across, TOP), (across, HEIGHT - BOTTOM)], "guide"))
    taken: list[Point] = []
    for line in lines:
        parts.extend(_line(line, place))
        if names and line.name and line.points:
            parts.append(_beside(line.name, place.at(line.points[0]), taken))
    return _svg(title, HEIGHT, parts)


def heat_map(matrix: np.ndarray, *, title: str) -> Markup:
    """A confusion matrix of many classes: one square a cell that is not empty.

    Args:
        matrix: (C, C) counts, rows true.
        title: what it says in words.
    """
    count = len(matrix)
    side = WIDTH / count
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    parts = [f'<rect class="paper" width="{WIDTH:.0f}" height="{WIDTH:.0f}"/>']
    for row, column in zip(*np.nonzero(matrix), strict=True):
        look = "accent" if row == column else "wrong"
        parts.append(
            f'<rect class="{look}" x="{column * side:.2f}" y="{row * side:.2f}" '
            f'width="{side:.2f}" height="{side:.2f}" '
            f'opacity="{0.15 + 0.85 * shares[row, column]:.2f}"/>'
        )
    return _svg(title, WIDTH, parts)


class _Place:
    """From values to the drawing's units."""

    def __init__(self, x: Axis, y: Axis) -> None:
        self.x, self.y = x, y

    def at(self, point: Point) -> Point:
        across = LEFT + self.x.position(point[0]) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - self.y.position(point[1]) * (HEIGHT - TOP - BOTTOM)
        return across, down


def _frame(place: _Place) -> str:
    """Grid, numbers and labels of both axes."""
    x, y = place.x, place.y
    floor, parts = HEIGHT - BOTTOM, []
    for value in y.numbers():
        _, down = place.at((x.low, value))
        parts.append(_stroke([(LEFT, down), (WIDTH - RIGHT, down)], "grid"))
        parts.append(_text(y.text(value), LEFT - 6, down + 3.5, "end"))
    for value in x.numbers():
        across, _ = place.at((value, y.low))
        parts.append(_stroke([(across, floor), (across, floor + 4)], "grid"))
        parts.append(_text(x.text(value), across, floor + 16, "middle"))
    parts.append(_stroke([(LEFT, floor), (WIDTH - RIGHT, floor)], "axis"))
    parts.append(_text(x.label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, "middle", "label"))
    middle = (TOP + floor) / 2
    parts.append(
        f'<text class="label" text-anchor="middle" transform="translate(9 {middle:.1f}) '
        f'rotate(-90)">{escape(y.label)}</text>'
    )
    return "".join(parts)


def _line(line: Line, place: _Place) -> list[str]:
    """Band, curve and dots of one line."""
    parts = []
    if line.band and line.joined:
        ends = list(zip(line.points, line.band, strict=True))
        upper = [place.at((p[0], b[1])) for p, b in ends]
        lower = [place.at((p[0], b[0])) for p, b in reversed(ends)]
        corners = " ".join(f"{a:.1f},{d:.1f}" for a, d in upper + lower)
        parts.append(f'<polygon class="band {line.look}" points="{corners}"/>')
    elif line.band:
        for point, (low, high) in zip(line.points, line.band, strict=True):
            ends_at = [place.at((point[0], low)), place.at((point[0], high))]
            parts.append(_stroke(ends_at, f"whisker {line.look}"))
    if line.joined:
        parts.append(_stroke([place.at(p) for p in thinned(line.points)], f"line {line.look}"))
    if line.dots:
        for point in line.points:
            across, down = place.at(point)
            parts.append(f'<circle class="{line.look}" cx="{across:.1f}" cy="{down:.1f}" r="3.2"/>')
    return parts


def _beside(name: str, where: Point, taken: list[Point]) -> str:
    """A name beside a dot, on the side where there is room, clear of the names before it."""
    across, down = where
    room = min(NAME_WIDTH, NAME_ROOM + LETTER * len(name))
    while any(abs(across - a) < room and abs(down - d) < NAME_HEIGHT for a, d in taken):
        down -= NAME_HEIGHT
    taken.append((across, down))
    left = across > WIDTH * 0.6
    return _text(name, across - 7 if left else across + 7, down - 6, "end" if left else "start")


def _stroke(points: Sequence[Point], look: str) -> str:
    if not points:
        return ""
    path = " ".join(f"{a:.1f},{d:.1f}" for a, d in points)
    return f'<polyline class="{look}" points="{path}"/>'


def _text(text: str, x: float, y: float, anchor: str, look: str = "tick") -> str:
    return (
        f'<text class="{look}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(title: str, height: float, parts: Sequence[str]) -> Markup:
    inside = "".join(parts)
    return Markup(
        f'<svg role="img" viewBox="0 0 {WIDTH:.0f} {height:.0f}" aria-label="{escape(title)}">'
        f"{inside}</svg>"
    )


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most about `MOST_POINTS` of a curve's points, evenly along its length, ends kept."""
    if len(points) <= MOST_POINTS:
        return list(points)
    values = np.array(points, dtype=np.float64)
    spread = np.maximum(values.max(axis=0) - values.min(axis=0), 1e-12)
    steps = np.abs(np.diff(values / spread, axis=0)).sum(axis=1)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.linspace(0, length[-1], MOST_POINTS)
    kept = np.unique(np.searchsorted(length, wanted).clip(0, len(points) - 1))
    return [points[i] for i in sorted({0, *kept.tolist(), len(points) - 1})]


def even_ticks(low: float, high: float, most: int = 7) -> tuple[float, ...]:
    """Round numbers from low to high: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(k * step, 12) for k in range(first, last + 1))


def log_ticks(axis: Axis, most: int = 6) -> tuple[float, ...]:
    """Powers of ten inside the axis, thinned; round numbers where there are too few."""
    first, last = math.ceil(math.log10(axis.low)), math.floor(math.log10(axis.high))
    powers = range(first, last + 1)
    if len(powers) >= 2:
        return tuple(10.0**p for p in powers[:: max(1, math.ceil(len(powers) / most))])
    digits = [d * 10.0**p for p in range(first - 1, last + 1) for d in (1, 2, 5)]
    return tuple(value for value in digits if axis.low <= value <= axis.high)


def padded(values: Sequence[float], *, floor: float | None = None, ceiling: float | None = None,
           share: float = 0.08) -> tuple[float, float]:  # fmt: skip
    """The range of some values with room around, within the given ends.

    Args:
        values: at least one finite value.
        floor: the axis does not go below.
        ceiling: the axis does not go above.
        share: room on each side, as a share of the range.
    """
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * 0.05 or 0.05
    low, high = low - room, high + room
    low = low if floor is None else max(low, floor)
    high = high if ceiling is None else min(high, ceiling)
    return low, high
