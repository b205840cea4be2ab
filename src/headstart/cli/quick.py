"""`headstart compare --quick`: which backbone, from a part of the training images."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from headstart.cli.compare import default_out, split_list
from headstart.cli.printing import print_json, print_pairs
from headstart.errors import UsageError

KIND = "quick"


def choose(
    given: dict[str, Any], refused: Mapping[str, Any], out: str | None, *, json: bool
) -> None:
    """Try the backbones, and print the table or the record.

    Args:
        given: settings of a run by name, those that the user gave.
        refused: options of the full comparison; None where they were not given.
        out: folder, None for one with the time in its name.
        json: print the record.

    Raises:
        UsageError: an option that means nothing here, bad settings or bad data.
    """
    from headstart.api.jobs import choose_and_report
    from headstart.progress import for_terminal
    from headstart.studies.quick import QuickSettings
    from headstart.studies.quick.settings import refuse_foreign

    for name, value in refused.items():
        if value is not None:
            refuse_foreign(name)
    models = split_list(given.pop("model", "mini"))
    max_images = given.pop("max_images", None)
    if "data" not in given:
        raise UsageError(
            "`--data` is missing: name a folder of class folders, or 'digits' to try it out."
        )
    place = out or default_out(given["data"], KIND)
    asked = QuickSettings(out=place, settings=given, models=models, max_images=max_images)
    result = choose_and_report(asked, progress=for_terminal())
    if json:
        print_json({"out": str(result.out), **result.record})
    else:
        print_result(result, given)


def print_result(result: Any, given: Mapping[str, Any]) -> None:
    """The table, the paths of what was written, and the command that goes on."""
    from headstart.studies.quick.writing import PICTURE, RECORD, SAMPLE, TABLE, TEXT

    print((result.out / TEXT).read_text(encoding="utf-8"))
    print_pairs(
        "Written",
        [
            ("Choice", f"{result.out / RECORD}, {result.out / TABLE}"),
            ("Images", str(result.out / SAMPLE)),
            ("Picture", str(result.out / PICTURE)),
            ("Report", str(result.out / "report.html")),
            ("Next", next_command(result.record, given)),
        ],
    )


def next_command(record: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The run with the recommended backbone, on the data and the split that were looked at."""
    chosen = record["recommendation"]["chosen"]
    model, _, weights = chosen.partition("@")
    asked = {**given, "model": model, **({"weights": weights} if weights else {})}
    words = ["headstart", "run"]
    for name, value in asked.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, shlex.quote(str(value))]
    return " ".join(words)
