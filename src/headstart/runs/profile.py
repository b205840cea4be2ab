"""Where the seconds of a run went: its phases, and the parts of a training's steps."""

from __future__ import annotations

from pathlib import Path

from headstart.files import write_csv
from headstart.progress import Progress
from headstart.runs.fitting.task import Clock

PROFILE = "profile.csv"
Row = tuple[str, str, float, float, int | str]


def write_profile(folder: Path, clock: Clock, progress: Progress) -> None:
    """`profile.csv`, and the same as a table for people.

    Phases hold each other (a training is part of the folds), parts of a training do not; what an
    earlier, killed process did is not in it.

    Args:
        folder: of the run.
        clock: of the run.
        progress: gets the table.
    """
    rows: list[Row] = [
        ("phase", name, seconds, clock.cpu_seconds[name], "")
        for name, seconds in clock.seconds.items()
    ]
    rows += [
        ("part of training", name, round(span.wall, 3), round(span.cpu, 3), span.calls)
        for name, span in sorted(clock.parts.items(), key=lambda item: -item[1].wall)
    ]
    header = ["of", "name", "wall_seconds", "cpu_seconds", "calls"]
    write_csv(folder / PROFILE, header, [list(row) for row in rows])
    width = max(len(row[1]) for row in rows)
    whole = sum(span.wall for span in clock.parts.values())
    for kind, name, wall, cpu, calls in rows:
        share = f"{wall / whole:5.0%}" if calls != "" and whole else ""
        progress.note(f"{kind:<16}  {name:<{width}}  {wall:9.2f} s  {cpu:9.2f} CPU s  {share}")
