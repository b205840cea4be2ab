"""`headstart summary`: the layers of a backbone, and what a strategy would train of it."""

from __future__ import annotations

from typing import Optional

import typer

NAME = "summary"
EXAMPLE = "Example: headstart summary ResNet50 --strategy partial --trainable stages:2"

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time
Number = Optional[int]  # noqa: UP045


def command(
    model: str = typer.Argument(help="Backbone; see `headstart models`."),
    strategy: str = typer.Option("full", help="What trains: partial, full, two-stage, ..."),
    trainable: Text = typer.Option(None, help="all, none, stages:2, layers:4, after:10."),
    image_size: Number = typer.Option(None, help="Input size in px.  [default: the network's own]"),
    head_blocks: Text = typer.Option(None, help="Layers before the head: se, cbam, se:8,spatial."),
    pool: Text = typer.Option(None, help="mean, max or flatten of the last map.  [default: own]"),
) -> None:
    """Show every layer with its shape and parameters, and what a strategy would train."""
    from headstart.api import summarise

    print(
        summarise(
            model,
            strategy=strategy,
            trainable=trainable,
            image_size=image_size,
            head_blocks=head_blocks,
            pool=pool,
        )
    )
