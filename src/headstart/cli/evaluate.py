"""`headstart evaluate`: a finished model on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import typer

from headstart.errors import UsageError

NAME = "evaluate"
EXAMPLE = "Example: headstart evaluate runs/flowers --data other-camera/"

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time


def command(
    model: str = typer.Argument(metavar="RUN_OR_BUNDLE", help="Folder of a run or a bundle."),
    data: Text = typer.Option(
        None, help="Labelled pictures in class folders; without it the run's own figures."
    ),
    columns: Text = typer.Option(None, help="Unusual columns of a manifest: label=finding."),
    group_by: Text = typer.Option(None, help="Column or regular expression: groups of images."),
    prevalence: Text = typer.Option(
        None, help="Of the positive class where the model is to be used: PPV and NPV there."
    ),
    ood_data: Text = typer.Option(
        None, help="Pictures of other things: are they told to be unknown?"
    ),
    out: Text = typer.Option(None, help="Folder for predictions, report and confusion matrix."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    precision: str = typer.Option("auto", help="auto, bfloat16 or float32."),
    seed: int = typer.Option(0, help="Of the bootstrap intervals."),
    json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> None:
    """Measure a model on labelled pictures; without --data, show the run's own figures."""
    from headstart.cli.printing import print_decision, print_figures, print_json
    from headstart.progress import for_terminal

    if data is None:
        for flag, value in (("prevalence", prevalence), ("ood-data", ood_data)):
            if value is not None:
                raise UsageError(
                    f"`{flag}` needs labelled pictures to measure on: name them by --data."
                )
        figures = own_figures(Path(model))
    else:
        from headstart.api import evaluate

        figures = evaluate(
            model,
            data,
            out=out,
            seed=seed,
            device=device,
            precision=precision,
            progress=for_terminal(),
            columns=columns,
            group_by=group_by,
            prevalence=prevalence,
            ood_data=ood_data,
        )
    if json:
        print_json(figures)
        return
    print_figures({f"{k} ({v['num_images']:,} images)": v["figures"] for k, v in figures.items()})
    for name, part in figures.items():
        print_decision(name, part)
    if out is not None and data is not None:
        print(f"\nWritten to {out}")


def own_figures(run: Path) -> dict[str, Any]:
    """The figures that a run wrote; the test part is not opened again.

    Raises:
        UsageError: it is no run, or not finished.
    """
    from headstart.runs.outputs import read_metrics
    from headstart.runs.record import read_run

    record = read_run(run)
    if record["status"] != "finished":
        raise UsageError(
            f"The run '{run}' is not finished. Go on with: headstart run --resume --out {run}"
        )
    figures = read_metrics(run)
    parts = {name: part for name, part in figures.items() if name in ("cross_validation", "test")}
    return {name.replace("_", "-"): part for name, part in parts.items()}
