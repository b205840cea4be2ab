"""`headstart compare`: backbones x strategies on the same folds, one table, one recommendation.

With `--quick` backbones alone, on a part of the training images: `headstart.cli.quick`.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

import typer

from headstart.cli.options import RUN_OPTIONS, with_settings
from headstart.errors import UsageError, quoted

NAME = "compare"
EXAMPLE = (
    "Example: headstart compare --data flowers/ --model mini,ResNet50 --strategy probe,partial "
    "--out runs/which\n\n"
    "Example: headstart compare --quick --data flowers/ --model mini,ResNet50,EfficientNetB0"
)
INTERRUPTED = 130
TRUTHS = {"true": True, "false": False}
WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time
Texts = Optional[list[str]]  # noqa: UP045
Whole = Optional[int]  # noqa: UP045
LISTS = {
    "model": "Backbones with commas between, NAME@none for other weights than the rest; see "
    "`headstart models`.  [default: mini]",
    "strategy": "Strategies with commas between, as in probe,partial,full.  [default: probe]",
    "max_images": "Take a sample of about so many images.  [default: all; with --quick 1,000 to "
    "learn from]",
}
OPTIONS = tuple(
    dataclasses.replace(option, help=LISTS.get(option.name, option.help)) for option in RUN_OPTIONS
)


@with_settings(OPTIONS)
def command(
    given: dict[str, Any],
    *,
    quick: bool = typer.Option(
        False, "--quick", help="Which backbone? Neighbours, probe and LogME on a part of the "
        "training images; the test part stays closed."
    ),
    vary: Texts = typer.Option(
        None, help="A setting of the model with several values, as in image_size=64,96; again for "
        "a second one."
    ),
    repeats: Whole = typer.Option(None, help="Cross-validations of a probe.  [default: 3]"),
    fast: Text = typer.Option(
        None, help="The time that counts: training or prediction.  [default: training]"
    ),
    out: Text = typer.Option(None, help="Folder.  [default: runs/compare-DATA-TIME]"),
    test_all: bool = typer.Option(
        False, "--test-all", help="Open the test part for all candidates; re-ranks nothing, and "
        "is stamped."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with the comparison in --out."),
    images: bool = typer.Option(True, help="Show pictures of the data in the reports."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:  # fmt: skip
    """Compare backbones and strategies; recommend one before the test part is opened."""
    from headstart.api import compare_and_report
    from headstart.cli.printing import print_json
    from headstart.progress import for_terminal

    if quick:
        from headstart.cli.quick import choose

        switches = {"test_all": test_all or None, "resume": resume or None}
        refused = {"vary": vary, "repeats": repeats, "fast": fast, **switches}
        choose(given, refused, out, json=json)
        return
    own = {"vary": pairs_of(vary), "repeats": repeats, "fast": fast}
    asked = gather(given, {k: v for k, v in own.items() if v is not None}, out, resume=resume)
    try:
        result = compare_and_report(
            asked, test_all=test_all, resume=resume, progress=for_terminal(), images=images
        )
    except KeyboardInterrupt:
        print(
            "headstart: Interrupted. Go on with: headstart compare --resume --out "
            f"{quoted(asked.out)}",
            file=sys.stderr,
        )
        sys.exit(INTERRUPTED)
    if json:
        print_json({"out": str(result.out), **result.record})
    else:
        print_result(result)


def gather(given: dict[str, Any], own: dict[str, Any], out: str | None, *, resume: bool) -> Any:
    """Settings from the options, on top of those that a comparison to go on with was begun with.

    Raises:
        UsageError: no data are named, or there is nothing to go on with.
    """
    from headstart.studies import ComparisonSettings, asked_before

    stored: dict[str, Any] = {}
    if resume:
        if out is None:
            raise UsageError("`--resume` needs the comparison to go on with. Name it by --out.")
        if (Path(out) / "comparison.json").exists() or "data" not in given:
            stored = asked_before(Path(out))
    plural = {"model": "models", "strategy": "strategies"}
    lists = {plural[name]: split_list(given.pop(name)) for name in plural if name in given}
    settings = {**stored.pop("settings", {}), **given}
    if "data" not in settings:
        raise UsageError(
            "`--data` is missing: name a folder of class folders, or 'digits' to try it out."
        )
    place = out or default_out(settings["data"], NAME)
    return ComparisonSettings(**{**stored, **lists, **own, "settings": settings, "out": place})


def default_out(data: str, kind: str) -> str:
    """`runs/KIND-DATA-TIME`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(data).resolve().name)
    return str(Path("runs") / f"{kind}-{name}-{datetime.now():%Y%m%d-%H%M%S}")


def split_list(text: str) -> list[str]:
    """'mini, ResNet50' -> the names."""
    return [part.strip() for part in text.split(",") if part.strip()]


def pairs_of(texts: list[str] | None) -> dict[str, list[Any]] | None:
    """['image_size=64,96'] -> name to values in the type of the setting.

    Raises:
        UsageError: no name, no values, or a value of another type.
    """
    if not texts:
        return None
    from headstart.runs import RunSettings

    kinds = {field.name: str(field.type) for field in dataclasses.fields(RunSettings)}
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not values.strip() or name in found:
            raise UsageError(
                f"`vary` must be a setting with values, once each, as in image_size=64,96, got "
                f"'{text}'. Correct --vary."
            )
        kind = kinds.get(name, "str").removesuffix(" | None")
        found[name] = [of_kind(value, kind, text) for value in split_list(values)]
    return found


def of_kind(value: str, kind: str, text: str) -> Any:
    """A value in the type of its setting.

    Raises:
        UsageError: it is none.
    """
    try:
        if kind == "bool":
            return TRUTHS[value.casefold()]
        return {"int": int, "float": float}.get(kind, str)(value)
    except (ValueError, KeyError) as error:
        word = WORDS[kind]
        raise UsageError(f"`vary` {text}: '{value}' must be {word}. Correct --vary.") from error


def print_result(result: Any) -> None:
    """The table, and the paths of what was written."""
    from headstart.cli.printing import print_pairs

    print((result.out / "comparison.txt").read_text(encoding="utf-8"))
    chosen = result.opened[0]
    print_pairs(
        "Written",
        [
            ("Comparison", f"{result.out / 'comparison.json'}, {result.out / 'comparison.csv'}"),
            ("Picture", str(result.out / "comparison.png")),
            ("Report", f"{result.out / 'report.html'}, {chosen / 'report.html'}"),
            ("Model", str(chosen / "model")),
            ("Next", f"headstart predict {quoted(chosen)} IMAGE..."),
        ],
    )
