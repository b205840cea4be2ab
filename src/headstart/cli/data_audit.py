"""`headstart data audit`: what is wrong with the data, before anything is learnt from them."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time


def audit(
    data: list[str] = typer.Argument(help="Folders, manifests, packs or built-in names."),
    test_data: Text = typer.Option(None, help="Folder or manifest of test images."),
    group_by: Text = typer.Option(None, help="Column, or regular expression on the path."),
    columns: Text = typer.Option(
        None, help="Columns of a manifest: label=finding,group=patient_id,path=file"
    ),
    seed: int = typer.Option(0, help="Of samples and intervals."),
    out: Text = typer.Option(
        None, help="Folder for audit.json, audit.txt, images.csv and duplicates.png."
    ),
    json: bool = typer.Option(False, "--json", help="Print what was found as JSON."),
) -> None:
    """Look for duplicates, leaks, broken files, and what gives a label away besides the picture."""
    from headstart import api
    from headstart.cli.printing import print_json
    from headstart.progress import for_terminal

    progress = for_terminal()
    summaries = []
    for name in data:
        folder = (
            None if out is None else Path(out) / Path(name).stem if len(data) > 1 else Path(out)
        )
        summary, text = api.audit(
            name, out=folder, test_data=test_data, group_by=group_by, columns=columns, seed=seed,
            progress=progress,
        )  # fmt: skip
        summaries.append(summary)
        if not json:
            print(text)
            if folder is not None:
                print(f"Written to {folder}\n")
    if json:
        print_json(summaries[0] if len(summaries) == 1 else summaries)
