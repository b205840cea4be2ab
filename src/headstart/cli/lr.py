"""`headstart lr`: which learning rate to fine-tune with."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

NAME = "lr"
EXAMPLE = "Example: headstart lr --data flowers/ --strategy full --out lr.png"

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time
Number = Optional[int]  # noqa: UP045


def command(
    data: str = typer.Option(help="Folder, manifest, pack or built-in name."),
    model: str = typer.Option("mini", help="Backbone; see `headstart models`."),
    strategy: str = typer.Option("partial", help="Of fine-tuning."),
    steps: int = typer.Option(100, help="Steps from the lowest rate to the highest."),
    weights: Text = typer.Option(None, help="bundled, hub, none (random) or a file."),
    image_size: Number = typer.Option(None, help="Input size in px.  [default: the network's own]"),
    batch_size: Number = typer.Option(None, help="Images a step.  [default: 32]"),
    group_by: Text = typer.Option(None, help="Column, or regular expression on the path."),
    columns: Text = typer.Option(None, help="Columns of a manifest: label=finding,path=file"),
    seed: int = typer.Option(0, help="Of everything random."),
    out: Path = typer.Option(Path("lr.png"), help="The PNG of the curve."),
    json: bool = typer.Option(False, "--json", help="Print rates and losses as JSON."),
) -> None:
    """Raise the learning rate step by step, and suggest one to fine-tune with."""
    from headstart import api
    from headstart.cli.printing import print_json
    from headstart.progress import for_terminal

    found = api.suggest_rate(
        data, out=out, model=model, strategy=strategy, num_steps=steps, weights=weights,
        image_size=image_size, batch_size=batch_size, group_by=group_by, columns=columns,
        seed=seed, progress=for_terminal(),
    )  # fmt: skip
    if json:
        print_json(found)
        return
    print(f"Suggested  --lr {found['suggested']:.2g}")
    if not found["falls"]:
        print(
            "Note       the loss falls nowhere: training begins at the fitted probe, so the curve "
            "tells only from where on a rate does harm. More steps or images tell more"
        )
    print(f"Written    {found['out']}")
