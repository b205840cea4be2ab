"""`headstart run`: the main job."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from headstart.cli.options import RUN_OPTIONS, with_settings
from headstart.errors import UsageError, quoted

if TYPE_CHECKING:
    from headstart.runs import RunPlan, RunResult, RunSettings

NAME = "run"
EXAMPLE = "Example: headstart run --data flowers/ --model mini --folds 5 --out runs/flowers"
INTERRUPTED = 130

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time


@with_settings(RUN_OPTIONS)
def command(
    given: dict[str, Any],
    *,
    out: Text = typer.Option(None, help="Folder of the run.  [default: runs/DATA-MODEL-TIME]"),
    from_run: Text = typer.Option(
        None, "--from", help="Repeat the run of this run.json; other options change it."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the plan and write nothing."),
    images: bool = typer.Option(True, help="Show pictures of the data in the report."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Learn from labelled pictures: cross-validate, fit on everything, test once."""
    if out is not None:
        given["out"] = out
    settings = gather(given, from_run=from_run, resume=resume)
    if dry_run:
        show_plan(settings, resume=resume, as_json=json)
    else:
        show_run(settings, resume=resume, as_json=json, images=images)


def gather(given: dict[str, Any], *, from_run: str | None, resume: bool) -> RunSettings:
    """Settings from the options, on top of an earlier run's where one is named.

    Raises:
        UsageError: no data are named.
    """
    from headstart.runs import RunSettings, settings_from
    from headstart.runs.files.record import read_run

    stored: dict[str, Any] = {}
    if from_run is not None:
        stored = {k: v for k, v in read_run(Path(from_run))["settings"].items() if k != "out"}
    elif resume and "out" in given and (Path(given["out"]) / "run.json").exists():
        stored = read_run(Path(given["out"]))["settings"]
    elif resume and ("out" not in given or "data" not in given):
        raise UsageError(
            f"`--resume` needs the run to go on with, got {given.get('out', 'none')}. "
            "Name the folder of a run by --out."
        )
    chosen = {**stored, **given}
    if "data" not in chosen:
        raise UsageError(
            "`--data` is missing: name a folder of class folders, or 'digits' to try it out."
        )
    chosen.setdefault("out", default_out(chosen["data"], chosen.get("model", "mini")))
    if stored:
        return settings_from(stored, **{**given, "out": chosen["out"]})
    return RunSettings(**chosen)


def default_out(data: str, model: str) -> str:
    """`runs/DATA-MODEL-TIME`, with nothing in it that a file system dislikes."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{Path(data).resolve().name}-{Path(model).name}")
    return str(Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")


def show_plan(settings: RunSettings, *, resume: bool, as_json: bool) -> None:
    """Print what the run would do."""
    import dataclasses

    from headstart.cli.printing import print_json, print_pairs
    from headstart.progress import for_terminal
    from headstart.runs import plan_job

    plan = plan_job(settings, resume=resume, progress=for_terminal())
    if as_json:
        print_json(dataclasses.asdict(plan))
        return
    print_pairs("The plan (nothing was written)", plan_lines(plan))


def plan_lines(plan: RunPlan) -> list[tuple[str, str]]:
    """The plan for people."""
    counts = sorted(plan.class_counts.items(), key=lambda item: item[1])
    (smallest, fewest), (largest, most) = counts[0], counts[-1]
    sizes = f"smallest '{smallest}' with {fewest:,}, largest '{largest}' with {most:,}"
    if fewest == most:
        sizes = f"{fewest:,} images each"
    return [
        ("Data", f"{plan.data}: {plan.num_images:,} images, {len(counts)} classes"),
        ("Classes", sizes),
        ("Parts", f"{plan.num_train:,} to learn from, {plan.num_test:,} to test on "
                  f"({plan.test_origin})"),
        ("Backbone", plan.backbone),
        ("Pictures", plan.preprocessing),
        ("Engine", plan.engine),
        ("Passes", f"{plan.num_passes:,} images once through the network; "
                   f"{plan.num_known:,} are in the store already"),
        ("Fits", plan.fits),
        ("Time", f"about {plan.seconds:.0f} s for the pass, at {plan.images_per_s:,.0f} images/s"),
        ("Disk", f"about {plan.disk_bytes / 1e6:.0f} MB for features and bundle"),
        ("Output", plan.out),
    ]  # fmt: skip


def show_run(settings: RunSettings, *, resume: bool, as_json: bool, images: bool) -> None:
    """Run the job and print its figures and files."""
    from headstart.api import run_and_report
    from headstart.cli.printing import print_json
    from headstart.progress import for_terminal

    try:
        result = run_and_report(settings, resume=resume, progress=for_terminal(), images=images)
    except KeyboardInterrupt:
        print(
            "headstart: Interrupted. Go on with: headstart run --resume --out "
            f"{quoted(settings.out)}",
            file=sys.stderr,
        )
        sys.exit(INTERRUPTED)
    if as_json:
        print_json(summary(result))
    else:
        print_result(result)


def summary(result: RunResult) -> dict[str, Any]:
    """What `--json` prints of a run."""
    return {
        "out": str(result.out),
        "model": str(result.out / "model"),
        "choice": result.record["choice"],
        "metrics": result.metrics,
        "times": result.record["times"],
    }


def print_result(result: RunResult) -> None:
    """The table of figures and the paths of what was written."""
    from headstart.cli.printing import print_decision, print_figures, print_pairs

    validated, tested = result.metrics["cross_validation"], result.metrics["test"]
    print_figures(
        {
            f"cross-validation ({validated['num_images']:,} images)": validated["figures"],
            f"test ({tested['num_images']:,} images)": tested["figures"],
        }
    )
    print_decision("cross-validation", validated)
    print_decision("test", tested)
    for leak in result.metrics.get("leaks_allowed", ()):
        print(f"\nLEAKS ALLOWED (--allow-leaks): {leak}")
    print_beside(result.metrics, result.record["settings"])
    out = result.out
    print_pairs(
        "Written",
        [
            ("Report", str(out / "report.html")),
            ("Run", str(out)),
            ("Model", f"{out / 'model'} (digest {result.record['choice']['model_digest'][:16]})"),
            ("Figures", f"{out / 'metrics.json'}, {out / 'cv_results.csv'}"),
            ("Pictures", f"{out / 'confusion_matrix.png'}, {out / 'curves.png'}"),
            ("Images", f"{out / 'images.csv'}, {out / 'predictions.csv'}"),
            ("Next", f"headstart predict {quoted(out)} IMAGE..."),
        ],
    )


def print_beside(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Simple rivals on the same features, and whether more images would help."""
    from headstart.cli.printing import print_pairs
    from headstart.runs.settings.run import is_logistic_probe

    baselines = metrics.get("baselines", {})
    if baselines:
        pairs = [(name, rival_text(entry)) for name, entry in baselines.items()]
        print_pairs("Accuracy of simple rivals on the same folds", pairs)
    verdict = metrics.get("learning_curve", {}).get("verdict")
    if verdict:
        of = "" if is_logistic_probe(settings) else " (A logistic head on frozen features.)"
        print(f"\nMore images?{of} {verdict}")


def rival_text(entry: Mapping[str, Any]) -> str:
    """Accuracy of a simple rival with its interval, and of how many images where not of all."""
    sample = f" on a sample of {entry['sample']:,}" if "sample" in entry else ""
    return f"{entry['accuracy']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]{sample}"
