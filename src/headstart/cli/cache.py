"""`headstart cache`: what the feature store holds, and how to empty it."""

from __future__ import annotations

import typer

NAME = "cache"
EXAMPLE = "Example: headstart cache clear"


def command(
    action: str = typer.Argument("show", help="show or clear"),
    json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Show or clear the stored features. Features of patients' pictures are personal data."""
    from headstart.cli.printing import print_json
    from headstart.errors import UsageError
    from headstart.features import cache_folder, clear_cache, list_cache

    if action == "clear":
        freed = clear_cache()
        if json:
            print_json({"freed_bytes": freed})
        else:
            print(f"Cleared {freed / 1e6:.1f} MB from {cache_folder()}")
        return
    if action != "show":
        raise UsageError(f"`headstart cache` takes 'show' or 'clear', got '{action}'.")
    entries = list_cache()
    if json:
        print_json(
            [
                {"identity": e.identity, "images": e.num_images, "bytes": e.num_bytes}
                for e in entries
            ]
        )
        return
    total = sum(entry.num_bytes for entry in entries)
    print(f"{cache_folder()}: {total / 1e6:.1f} MB (HEADSTART_CACHE names another folder)")
    for entry in entries:
        print(
            f"  {entry.num_images:>9,} images  {entry.num_bytes / 1e6:>8.1f} MB  {entry.identity}"
        )
