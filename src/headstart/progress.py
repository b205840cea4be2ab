"""Progress of long work: one small protocol, silent by default, a bar on a terminal.

Rooms report to a `Progress`; only the command line and the Python API choose which.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

BAR_AFTER_S = 1.0
LINE_EVERY_S = 15.0


class Advance(Protocol):
    """What a phase calls when some of its steps are done."""

    def __call__(self, steps: int = 1) -> None:
        """Report `steps` more steps as done."""


class Progress:
    """Reports nothing; the base of those that do."""

    def note(self, message: str) -> None:
        """Tell the user one line."""

    @contextmanager
    def phase(self, title: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """Run a block of `total` steps; the block calls what it is given as steps are done."""

        def ignore(steps: int = 1) -> None:
            del steps

        yield ignore


class LineProgress(Progress):
    """Lines on standard error: for logs, pipes and machines without a terminal."""

    def note(self, message: str) -> None:
        """Print one line."""
        print(message, file=sys.stderr, flush=True)

    @contextmanager
    def phase(self, title: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """Print a line every quarter of a minute."""
        begun = last = time.monotonic()
        done = 0

        def advance(steps: int = 1) -> None:
            nonlocal last, done
            done += steps
            now = time.monotonic()
            if now - last >= LINE_EVERY_S and total:
                last = now
                rate = done / (now - begun)
                left = (total - done) / rate if rate else 0
                self.note(f"{title}: {done} of {total} {unit}, {rate:.0f}/s, {left:.0f} s left")

        yield advance


class BarProgress(LineProgress):
    """A bar on the terminal for phases that take longer than a second."""

    @contextmanager
    def phase(self, title: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """Draw a bar with the count, the rate and the time left."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit + " {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=False,
        )
        task = bar.add_task(title, total=total, rate="")
        begun = time.monotonic()
        started = False
        done = 0

        def advance(steps: int = 1) -> None:
            nonlocal started, done
            done += steps
            elapsed = time.monotonic() - begun
            if not started and elapsed > BAR_AFTER_S:
                bar.start()
                started = True
            bar.update(task, completed=done, rate=f"{done / max(elapsed, 1e-9):.0f}/s")

        try:
            yield advance
        finally:
            if started:
                bar.stop()


def for_terminal() -> Progress:
    """A bar where standard error is a terminal, lines elsewhere."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()
