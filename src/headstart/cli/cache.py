"""`headstart cache`: what the feature store holds, how to limit and how to empty it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from headstart.features import CacheEntry, Removal

NAME = "cache"
EXAMPLE = "Example: headstart cache, headstart cache --limit 5GB, headstart cache clear"


def command(
    action: str = typer.Argument("show", help="show or clear"),
    limit: str = typer.Option(
        "",
        metavar="SIZE",
        help="Remove the least recently used files until at most SIZE is left, such as 5GB.",
    ),
    json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Show, limit or clear the stored features. Features of patients' pictures are personal data.

    The store keeps itself below HEADSTART_CACHE_SIZE (20GB, and a tenth of the disk where that is
    less), whenever something is written. HEADSTART_CACHE names its folder.
    """
    from headstart.errors import UsageError
    from headstart.features import clear_cache, list_cache, parse_size, trim_cache

    if action not in ("show", "clear"):
        raise UsageError(f"`headstart cache` takes 'show' or 'clear', got '{action}'.")
    if limit and action == "clear":
        raise UsageError("`headstart cache clear` leaves nothing to limit. Drop one of the two.")
    if action == "clear":
        tell_removal(clear_cache(), json=json)
    elif limit:
        tell_removal(trim_cache(parse_size(limit, "--limit")), json=json)
    else:
        show(list_cache(), json=json)


def tell_removal(removal: Removal, *, json: bool) -> None:
    """What went and what stays; exit code 1 where a process has something open that should go."""
    from headstart.cli.printing import print_json
    from headstart.features import cache_folder, describe_bytes

    if json:
        print_json(
            {
                "freed_bytes": removal.num_bytes,
                "files": removal.num_files,
                "in_use": [str(path) for path in removal.in_use],
                "left_bytes": removal.left_bytes,
            }
        )
    else:
        print(
            f"Cleared {describe_bytes(removal.num_bytes)} in {removal.num_files} files from "
            f"{cache_folder()}; {describe_bytes(removal.left_bytes)} left"
        )
    if removal.in_use:
        typer.echo(
            f"headstart: {len(removal.in_use)} of the files are in use by other processes and "
            "stay. Try again when those have ended.",
            err=True,
        )
        raise typer.Exit(1)


def show(entries: list[CacheEntry], *, json: bool) -> None:
    """A line a network and view, the last used first."""
    from datetime import datetime

    from headstart.cli.printing import print_json
    from headstart.features import cache_folder, describe_bytes, limit_bytes

    moments = [datetime.fromtimestamp(entry.last_used).astimezone() for entry in entries]
    if json:
        print_json(
            [
                {
                    "identity": entry.identity,
                    "images": entry.num_images,
                    "bytes": entry.num_bytes,
                    "last_used": moment.isoformat(timespec="seconds"),
                }
                for entry, moment in zip(entries, moments, strict=True)
            ]
        )
        return
    total = describe_bytes(sum(entry.num_bytes for entry in entries))
    print(
        f"{cache_folder()}: {total} of at most {describe_bytes(limit_bytes())} "
        "(HEADSTART_CACHE names another folder, HEADSTART_CACHE_SIZE another limit)"
    )
    for entry, moment in zip(entries, moments, strict=True):
        print(
            f"  {entry.num_images:>9,} images  {describe_bytes(entry.num_bytes):>9}  "
            f"last used {moment:%Y-%m-%d %H:%M}  {entry.identity}"
        )
