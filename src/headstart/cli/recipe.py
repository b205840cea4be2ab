"""`headstart recipes` and `headstart recipe NAME`: the named experiments."""

from __future__ import annotations

from pathlib import Path

import typer

NAME, LIST_NAME = "recipe", "recipes"
EXAMPLE = "Example: headstart recipe pretrain-mini --data tiny-imagenet/ --out pretrain/"
LIST_EXAMPLE = "Example: headstart recipes"


def command(
    name: str = typer.Argument(help="Of the recipe; see `headstart recipes`."),
    data: Path = typer.Option(..., help="Folder of its data."),
    out: Path = typer.Option(..., help="Folder of the results, new or one to go on with."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Run a named experiment; the same command goes on after an interruption."""
    from headstart import api
    from headstart.cli.printing import print_json, print_pairs
    from headstart.progress import for_terminal

    found = api.run_recipe(name, data, out, progress=for_terminal(), device=device)
    if json:
        print_json(found)
    else:
        print_pairs(f"Recipe {name}", [(key, str(value)) for key, value in found.items()])


def list_command(
    json: bool = typer.Option(False, "--json", help="Print the list as JSON."),
) -> None:
    """List the named experiments: what they take and what to expect."""
    from headstart import api
    from headstart.cli.printing import print_json, print_pairs

    listed = api.list_recipes()
    if json:
        print_json(listed)
        return
    for entry in listed:
        pairs = [(key, entry[key]) for key in ("data", "expected")]
        print_pairs(f"{entry['name']}: {entry['summary']}", pairs)
