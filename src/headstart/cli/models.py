"""`headstart models`: the backbones that can be asked for."""

from __future__ import annotations

import sys
from typing import Any, Optional

import typer

NAME = "models"
EXAMPLE = "Example: headstart models resnet"

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time

COLUMNS = ("NAME", "PARAMS", "FEATURES", "SIZE", "WEIGHTS", "THEIR LICENCE", "WHAT IT IS")
RIGHT = ("PARAMS", "FEATURES", "SIZE")


def command(
    filter: Text = typer.Argument(None, help="Show names that contain this, timm's included."),
    json: bool = typer.Option(False, "--json", help="Print the list as JSON."),
) -> None:
    """List the backbones, where their weights come from, and whether they are at hand.

    Parameters and features are counted without the classifier.
    """
    from headstart.backbones.survey import survey_backbones  # the whole api loads 2 s longer

    listed = survey_backbones(filter)
    if json:
        from headstart.cli.printing import print_json

        print_json(listed)
        return
    if not listed:
        print(f"No backbone's name contains '{filter}'. `headstart models` lists the usual ones.")
        return
    rows = [cells(entry) for entry in listed]
    if sys.stdout.isatty():
        print_table(rows)
        if filter is None:
            print("\nAny network of timm works by its name too: headstart models convnext")
    else:
        print_lines(rows)


def cells(entry: dict[str, Any]) -> tuple[str, ...]:
    """One row of text; figures carry their units, because a pipe gets no heading."""
    parameters, features = entry["num_parameters"], entry["num_features"]
    return (
        entry["name"],
        "" if parameters is None else f"{parameters / 1e6:.{1 if parameters >= 1e6 else 2}f} M",
        "" if features is None else str(features),
        f"{entry['image_size']} px",
        entry["weights"],
        entry["weights_licence"].partition(":")[0],
        entry["summary"],
    )


def print_lines(rows: list[tuple[str, ...]]) -> None:
    """Aligned columns, nothing cut, a line a network: what other programs can read."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [
            text.rjust(width) if name in RIGHT else text.ljust(width)
            for name, text, width in zip(COLUMNS, row, widths, strict=True)
        ]
        print("  ".join(padded).rstrip())


def print_table(rows: list[tuple[str, ...]]) -> None:
    """The same with a heading, fitted to the terminal: only the last column is shortened."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in COLUMNS:
        last = name == COLUMNS[-1]
        table.add_column(
            name,
            justify="right" if name in RIGHT else "left",
            no_wrap=True,
            overflow="ellipsis" if last else "fold",
            min_width=0 if last else max(len(row[COLUMNS.index(name)]) for row in rows),
        )
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    Console(highlight=False).print(table)
