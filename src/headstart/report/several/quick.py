"""A quick choice of a backbone as plain values: verdict, picture, table.

Everything comes from `quick.json`; nothing is ranked again here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import UsageError
from headstart.files import read_json
from headstart.report.judging.facts import option_words, shell_words
from headstart.report.several.study import accuracy_over_time, p_text, points_text
from headstart.report.wording import estimate, listed
from headstart.studies.quick.scoring import STORED
from headstart.studies.quick.writing import RECORD
from headstart.studies.writing import resampled

NEEDED = frozenset(
    {
        *("table", "recommendation", "asked", "data", "versions", "warnings", "left_out"),
        *("num_images", "num_train", "num_all", "num_folds", "num_groups", "num_neighbours"),
        "test_part",
    }
)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredQuick:
    """A quick choice that was finished.

    Attributes:
        folder: where it lies.
        record: the contents of `quick.json`.
    """

    folder: Path
    record: dict[str, Any]


def is_quick(folder: Path) -> bool:
    """Whether a folder holds a quick choice."""
    return (folder / RECORD).is_file()


def read_quick(folder: Path) -> StoredQuick:
    """Read a quick choice back.

    Raises:
        UsageError: it is damaged.
    """
    path = folder / RECORD
    advice = "Choose anew with another --out."
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"'{path}' is damaged ({error}). {advice}") from error
    missing = NEEDED - set(record) if isinstance(record, dict) else NEEDED
    if missing:
        raise UsageError(f"'{path}' is damaged: it lacks {listed(sorted(missing))}. {advice}")
    return StoredQuick(folder=folder, record=record)


def quick_view(stored: StoredQuick) -> dict[str, Any]:
    """What the page shows of a quick choice."""
    record = stored.record
    advice = record["recommendation"]
    unit = resampled(record)
    table = record["table"]
    return {
        "name": record["data"],
        "chosen": advice["chosen"],
        "reason": advice["reason"],
        "rule": advice["rule"],
        "sentences": [
            f"Every backbone saw the same {record['num_images']:,} of {record['num_train']:,} "
            f"training images once, in the same {record['num_folds']} folds.",
            f"Intervals resample {unit} and are conditional on the fitted heads.",
            f"The test part stays {record['test_part']}.",
        ],
        "rows": [row_view(number, row, advice["chosen"]) for number, row in enumerate(table, 1)],
        "chart": accuracy_over_time(
            table,
            [row["all_images_s"] for row in table],
            [bool(row["front"]) for row in table],
            chosen=advice["chosen"],
            title="Accuracy against the time of the pass",
            label=f"predicted seconds of the pass over all {record['num_all']:,} images",
        ),
        "num_neighbours": record["num_neighbours"],
        "num_all": record["num_all"],
        "warnings": record["warnings"],
        "left_out": record["left_out"],
        "facts": facts(record),
    }


def row_view(number: int, row: Mapping[str, Any], chosen: str) -> dict[str, Any]:
    """A line of the table."""
    best = row["behind_best"]["value"] == 0
    return {
        "number": number,
        "name": row["name"],
        "chosen": row["name"] == chosen,
        "state": "" if row["name"] == chosen or not row["within_noise"] else "within noise",
        "weights": "random weights" if row["weights"] == "none" else "",
        "accuracy": estimate(row["accuracy"]),
        "behind": "" if best else points_text(row["behind_best"]),
        "p": "" if best else p_text(row["p_to_best_holm"]),
        "neighbours": estimate(row["neighbours"]),
        "logme": row["logme"],
        "images_per_s": row["images_per_s"],
        "estimated": row["rate_is"] == STORED,
        "seconds": row["seconds"],
        "all_images_s": row["all_images_s"],
        "parameters": row["parameters"],
        "num_features": row["num_features"],
        "image_size": row["image_size"],
    }


def facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What it takes to get the same choice again."""
    asked = record["asked"]
    settings = dict(asked["settings"])
    words = ["headstart", "compare", "--quick", "--data", str(settings.pop("data"))]
    words += ["--model", ",".join(asked["models"])]
    if asked.get("max_images") is not None:
        words += ["--max-images", str(asked["max_images"])]
    words += option_words(settings)
    engine = record.get("engine") or {}
    pairs = [
        ("Command", shell_words([*words, "--out", "NEW"])),
        ("Made", str(record.get("created") or "")),
        ("Engine", f"{engine.get('key', '')} ({engine.get('reason', '')})" if engine else ""),
        ("Versions", ", ".join(f"{n} {v}" for n, v in record["versions"].items())),
    ]
    return [(name, value) for name, value in pairs if value]
