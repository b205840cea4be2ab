"""`headstart doctor`: what is installed, what is at hand, what is missing and how to get it."""

from __future__ import annotations

import typer

NAME = "doctor"
EXAMPLE = "Example: headstart doctor --json"


def command(json: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Check versions, device, precision, weights, data and folders."""
    from headstart.api import examine
    from headstart.cli.printing import print_json, print_pairs

    found = examine()
    if json:
        print_json(found)
        return
    for title, pairs in found.items():
        print_pairs(title, [(name, str(value)) for name, value in pairs.items()])
