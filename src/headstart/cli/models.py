"""`headstart models`: the backbones that can be asked for."""

from __future__ import annotations

from typing import Optional

import typer

NAME = "models"
EXAMPLE = "Example: headstart models resnet"

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time


def command(
    filter: Text = typer.Argument(None, help="Show names that contain this, timm's included."),
    json: bool = typer.Option(False, "--json", help="Print the list as JSON."),
) -> None:
    """List the backbones, where their weights come from, and whether they are at hand."""
    from headstart.api import list_backbones
    from headstart.cli.printing import print_json

    listed = list_backbones(filter)
    if json:
        print_json(listed)
        return
    width = max((len(entry["name"]) for entry in listed), default=0)
    for entry in listed:
        print(f"{entry['name']:<{width}}  {entry['weights']:<22}  {entry['summary']}")
    if not listed:
        print(f"No backbone's name contains '{filter}'. `headstart models` lists the usual ones.")
    elif filter is None:
        print("\nAny network of timm works by its name too: headstart models convnext")
