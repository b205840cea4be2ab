"""`headstart studio`: the page, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

NAME = "studio"
EXAMPLE = "Example: headstart studio runs/"

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time


def command(
    place: Text = typer.Argument(
        None,
        metavar="[RUN_OR_BUNDLE|RUNS_DIR]",
        help="Folder of a run, of a bundle, or one that holds runs.  [default: runs, else here]",
    ),
    port: int = typer.Option(8501, min=0, max=65535, help="On this computer; 0 takes a free one."),
) -> None:
    """Open a page in the browser: predict, compare runs, look at their data. Ctrl-C ends it."""
    from headstart.studio.launching import check_extra, free_port, serve
    from headstart.studio.places import check_place, default_place

    check_extra()
    folder = default_place() if place is None else Path(place)
    count = len(check_place(folder))
    chosen = free_port(port)

    def ready(address: str) -> None:
        things = "1 folder" if count == 1 else f"{count} folders"
        print(f"Studio     {address}   ({things} to look at in '{folder}')", flush=True)
        print("           On this computer only. Ctrl-C ends it.", flush=True)

    serve(folder, chosen, ready)
    print("Studio ended.")
