"""`headstart evaluate`: a finished model on labelled pictures, or two and their difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import typer

from headstart.errors import UsageError

NAME = "evaluate"
EXAMPLE = (
    "Example: headstart evaluate runs/flowers --data other-camera/   "
    "Two: headstart evaluate runs/flowers runs/older --data other-camera/"
)

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time


def command(
    model: str = typer.Argument(metavar="RUN_OR_BUNDLE", help="Folder of a run or a bundle."),
    other: Text = typer.Argument(
        None, metavar="[RUN_OR_BUNDLE]", help="Another, to compare with on the same pictures."
    ),
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
    engine: str = typer.Option(
        "torch", help="torch, onnx or onnx-int8; as in torch,onnx-int8 for two models."
    ),
    seed: int = typer.Option(0, help="Of the bootstrap intervals."),
    json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> None:
    """Measure a model on labelled pictures; without --data, show the run's own figures."""
    from headstart.cli.printing import print_json
    from headstart.progress import for_terminal

    options: dict[str, Any] = {"out": out, "seed": seed, "progress": for_terminal()}
    options |= {"columns": columns, "group_by": group_by}
    options |= {"device": device, "precision": precision}
    alone = {"prevalence": prevalence, "ood-data": ood_data}
    if other is not None:
        refuse(alone, "is of one model. Leave it out, or measure each by itself")
        compare_two((model, other), data, engine, options, json=json)
        return
    if data is None:
        engines = {"engine": engine, "device": device, "precision": precision}
        changed = {k: v for k, v in engines.items() if v not in ("torch", "auto")}
        refuse(
            {**alone, "out": out, "columns": columns, "group-by": group_by, **changed},
            "needs labelled pictures to measure on: name them by --data",
        )
        figures = own_figures(Path(model))
    else:
        from headstart.api import evaluate

        figures = evaluate(
            model, data, engine=engine, prevalence=prevalence, ood_data=ood_data, **options
        )
    if json:
        print_json(figures)
        return
    show(figures)
    if out is not None and data is not None:
        print(f"\nWritten to {out}")


def show(figures: dict[str, Any]) -> None:
    """A column a part, the leaks that were allowed, and the decisions."""
    from headstart.cli.printing import print_decision, print_figures

    parts = {name: part for name, part in figures.items() if name != "leaks_allowed"}
    print_figures({f"{k} ({v['num_images']:,} images)": v["figures"] for k, v in parts.items()})
    for leak in figures.get("leaks_allowed", ()):
        print(f"\nLEAKS ALLOWED (--allow-leaks): {leak}")
    for name, part in parts.items():
        print_decision(name, part)


def refuse(options: dict[str, str | None], why: str) -> None:
    """Refuse options that would be passed over in silence.

    Raises:
        UsageError: one of them is given.
    """
    for flag, value in options.items():
        if value is not None:
            raise UsageError(f"`{flag}` {why}.")


def compare_two(
    models: tuple[str, str],
    data: str | None,
    engine: str,
    options: dict[str, Any],
    *,
    json: bool,
) -> None:
    """Both on the same pictures.

    Raises:
        UsageError: no data, or more than two engines.
    """
    from headstart.api import evaluate_pair
    from headstart.cli.printing import print_figures, print_json
    from headstart.errors import UsageError

    if data is None:
        raise UsageError("Two models are compared on labelled pictures. Name them by --data.")
    engines = [part.strip() for part in engine.split(",")]
    if len(engines) > 2:
        raise UsageError(f"`engine` must be one or two names, got '{engine}'. Correct --engine.")
    both = (engines[0], engines[-1])
    record = evaluate_pair(*models, data, engines=both, **options)
    if json:
        print_json(record)
        return
    names = [model["name"] for model in record["models"]]
    titles = names if names[0] != names[1] else [f"{names[0]}, first", f"{names[1]}, second"]
    parts = [model["figures"] for model in record["models"]]
    print_figures(dict(zip(titles, parts, strict=True)))
    print_differences(record)
    if options["out"] is not None:
        print(f"\nWritten to {options['out']}")


def print_differences(record: dict[str, Any]) -> None:
    """First minus second, a line a figure, and who is right where."""
    from headstart.cli.printing import print_pairs

    paired, rows = record["paired"], []
    for key, title in (
        ("accuracy", "Accuracy"),
        ("macro_f1", "Macro F1"),
        ("log_loss", "Log loss"),
    ):
        figure = paired[key]
        told = f"{figure['value']:+.3f}"
        if figure["low"] is not None:
            told += f" [{figure['low']:+.3f}, {figure['high']:+.3f}]"
        if "p_value" in figure:
            told += f", p = {figure['p_value']:.3g} ({figure['test']})"
        rows.append((title, told))
    rows.append(
        (
            "Right",
            f"both {paired['both_right']:,}, only the first {paired['only_first_right']:,}, only "
            f"the second {paired['only_second_right']:,}, neither {paired['neither_right']:,}",
        )
    )
    count = record["num_images"]
    groups = "" if record["num_groups"] is None else f", {record['num_groups']:,} groups"
    print_pairs(f"First minus second, on the same {count:,} images{groups}", rows)


def own_figures(run: Path) -> dict[str, Any]:
    """The figures that a run wrote; the test part is not opened again.

    Raises:
        UsageError: it is no run, or not finished.
    """
    from headstart.runs.files.folder import unfinished
    from headstart.runs.files.outputs import read_metrics
    from headstart.runs.files.record import read_run

    record = read_run(run)
    if record["status"] != "finished":
        raise UsageError(unfinished(run, record["status"]))
    figures = read_metrics(run)
    kept = ("leaks_allowed", "cross_validation", "test")
    return {
        name if name == kept[0] else name.replace("_", "-"): part
        for name, part in figures.items()
        if name in kept
    }
