"""`headstart report`: one run, several side by side, or a comparison, as a page for offline."""

from __future__ import annotations

from typing import Optional

import typer

NAME = "report"
EXAMPLE = "Example: headstart report runs/flowers"

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time


def command(
    runs: list[str] = typer.Argument(
        metavar="RUN...", help="Folders of finished runs, or of one comparison or quick choice."
    ),
    out: Text = typer.Option(
        None, help="The page.  [default: report.html in the run's folder, or here for several]"
    ),
    images: bool = typer.Option(
        True, "--images/--no-images", help="Show pictures; leave them out where data are private."
    ),
    claim_template: bool = typer.Option(
        False, "--claim-template", help="Write a claim.yaml to fill in, and no report."
    ),
    json: bool = typer.Option(False, "--json", help="Print the paths as JSON."),
) -> None:
    """Write report.html; for a single run also model_card.md, claim.md and claim.csv."""
    from headstart.api import claim_template as write_template
    from headstart.api import report
    from headstart.cli.printing import print_json

    if claim_template:
        written = {f"claim_{i + 1}": str(write_template(run)) for i, run in enumerate(runs)}
    else:
        written = {"report": str(report(*runs, out=out, images=images))}
    if json:
        print_json(written)
        return
    for path in written.values():
        print(f"Written to {path}")
