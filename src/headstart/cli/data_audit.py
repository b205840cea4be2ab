"""`headstart data audit`: what is wrong with the data, before anything is learnt from them."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

NO_FOLDER = "Nothing was written: --out FOLDER adds images.csv and the pictures of duplicates."
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
    strict: bool = typer.Option(False, help="End with exit code 1 where an error was found."),
    json: bool = typer.Option(False, "--json", help="Print what was found as JSON."),
) -> None:
    """Look for duplicates, leaks, broken files, and what gives a label away besides the picture."""
    from headstart import api
    from headstart.cli.printing import print_json
    from headstart.progress import for_terminal

    progress = for_terminal()
    summaries = []
    for name, folder in zip(data, folders_of(data, out), strict=True):
        summary, text = api.audit(
            name, out=folder, test_data=test_data, group_by=group_by, columns=columns, seed=seed,
            progress=progress,
        )  # fmt: skip
        summaries.append(summary)
        if not json:
            print(text)
            print(f"Written to {folder}\n" if folder else f"{NO_FOLDER}\n")
    if json:
        print_json(summaries[0] if len(summaries) == 1 else summaries)
    found = [finding for summary in summaries for finding in summary["findings"]]
    if strict and any(finding["severity"] == "error" for finding in found):
        raise typer.Exit(1)


def folders_of(data: list[str], out: str | None) -> list[Path | None]:
    """Where each data set's files go: into `out` itself, or into a folder of its own there."""
    if out is None:
        return [None] * len(data)
    if len(data) == 1:
        return [Path(out)]
    folders: list[Path | None] = []
    for name in data:
        place = Path(name)
        own = place.stem if place.is_file() else place.resolve().name
        number = 2
        folder = Path(out) / own
        while folder in folders:
            folder, number = Path(out) / f"{own}-{number}", number + 1
        folders.append(folder)
    return folders
