"""A run's folder, read back for a report: strict about its figures, lenient about the rest.

A file that is missing takes its section away, because old runs have fewer files; one that is
there and damaged is an error, because a report must not guess.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import UsageError
from headstart.files import FORMULA_STARTS, read_json
from headstart.records import UNLABELLED, Predictions
from headstart.runs.files import outputs
from headstart.runs.files.folder import FINISHED as FINISHED
from headstart.runs.files.folder import unfinished
from headstart.runs.files.record import read_run

AUDIT = "audit.json"
PROBABILITY = "prob_"

Row = dict[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredRun:
    """What a finished run left behind.

    Attributes:
        folder: where it lies.
        record: the contents of `run.json`.
        metrics: the contents of `metrics.json`.
        images: lines of `images.csv`, empty where it is missing.
        splits: lines of `splits.csv`, empty where it is missing.
        history: lines of `history.csv`, empty where it is missing.
        tested: predictions of the test part, None where they are missing.
        learnt: out-of-fold predictions of the training part, None where they are missing.
        findings: of the audit, empty where there was none.
    """

    folder: Path
    record: dict[str, Any]
    metrics: dict[str, Any]
    images: list[Row]
    splits: list[Row]
    history: list[Row]
    tested: Predictions | None
    learnt: Predictions | None
    findings: list[dict[str, Any]]

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names in class order."""
        return tuple(str(name) for name in self.record["data"]["class_names"])

    @property
    def name(self) -> str:
        """What the data are called."""
        return str(self.record["data"]["name"])

    @property
    def model(self) -> str:
        """Backbone and head, as in 'mini + logistic', or how it was fine-tuned."""
        choice = self.record.get("choice", {})
        backbone = choice.get("backbone") or self.record["backbone"]["name"]
        strategy = self.settings.get("strategy") or "probe"
        if strategy != "probe":
            return f"{backbone}{self.blocks}, fine-tuned ({strategy})"
        head = choice.get("head") or self.settings.get("head", "logistic")
        return f"{backbone}{self.layers} + {head}"

    @property
    def blocks(self) -> str:
        """What stands before the head, as in ' with se and pool flatten'; '' for nothing."""
        stored = self.record["backbone"].get("head_blocks") or {}
        words = list(stored.get("blocks") or [])
        if stored.get("pool", "own") != "own":
            words.append(f"pool {stored['pool']}")
        return f" with {' and '.join(words)}" if words else ""

    @property
    def layer_names(self) -> list[str]:
        """Stages whose features the head takes; empty for the network's own."""
        chosen = (self.record.get("choice") or {}).get("layers")
        return chosen.split(",") if chosen else list(self.record["backbone"].get("layers") or [])

    @property
    def layers(self) -> str:
        """The same for people, as in ' (stage3,head)'."""
        return f" ({','.join(self.layer_names)})" if self.layer_names else ""

    @property
    def num_features(self) -> int:
        """D, the features that the head takes."""
        backbone = self.record["backbone"]
        widths = backbone.get("layers") or {}
        if self.layer_names:
            return sum(int(widths[name]) for name in self.layer_names)
        return int(backbone.get("num_features", 0))

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for."""
        settings: dict[str, Any] = self.record["settings"]
        return settings

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """Figures of every class on the test part, those with intervals before plain ones."""
        entries = self.metrics["test"].get("per_class") or []
        return [{**entry, **(entry.get("figures") or {})} for entry in entries]

    def measured(self, name: str) -> dict[str, Any]:
        """What was measured under a name ('calibration'), the test part's before all."""
        found: dict[str, Any] = {}
        for part in ("cross_validation", "", "confidence", "test"):
            holder = self.metrics.get(part) if part else self.metrics
            piece = holder.get(name) if isinstance(holder, dict) else None
            found |= piece if isinstance(piece, dict) else {}
        return found

    def figure(self, part: str, name: str) -> dict[str, Any] | None:
        """One figure of 'test' or 'cross_validation', None where there is none."""
        found = self.metrics[part]["figures"].get(name)
        return found if isinstance(found, dict) and found.get("value") is not None else None


def read_stored_run(folder: Path) -> StoredRun:
    """Read a finished run.

    Raises:
        UsageError: it is no run, not finished, or a file of it is damaged.
    """
    record = read_run(folder)
    folder = folder.parent if folder.suffix == ".json" else folder
    if record["status"] != FINISHED:
        raise UsageError(unfinished(folder, record["status"]))
    check_record(folder, record)
    names = tuple(str(name) for name in record["data"]["class_names"])
    return StoredRun(
        folder=folder,
        record=record,
        metrics=outputs.read_metrics(folder),
        images=read_rows(folder / outputs.IMAGES, "path", "label"),
        splits=[
            row
            for row in read_rows(folder / outputs.SPLITS, "path", "label", "part")
            if row["part"] != "unused"  # images that could not be read
        ],
        history=read_rows(folder / outputs.HISTORY),
        tested=read_predictions(folder / outputs.PREDICTIONS, names),
        learnt=read_predictions(folder / outputs.OUT_OF_FOLD, names),
        findings=read_findings(folder / AUDIT),
    )


def check_record(folder: Path, record: dict[str, Any]) -> None:
    """Refuse a record that says neither what was learnt from nor with what.

    Raises:
        UsageError: it lacks data or backbone.
    """
    data, backbone = record.get("data"), record.get("backbone")
    whole = isinstance(data, dict) and isinstance(backbone, dict)
    if not whole or not {"name", "class_names", "class_counts", "num_images"} <= set(data or {}):
        raise UsageError(
            f"The record of the run '{folder}' says nothing of its data or its backbone. "
            "Begin the run anew."
        )


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into one clear sentence.

    Raises:
        UsageError: the file could not be understood.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UsageError(
            f"'{path}' is damaged ({error}). Remove it to report without it, or run again."
        ) from error


def read_rows(path: Path, *columns: str) -> list[Row]:
    """Lines of a CSV file as the run meant them; none where there is no such file.

    Raises:
        UsageError: it lacks one of `columns`, or is no UTF-8 table.
    """
    if not path.exists():
        return []
    with damage_named(path), path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"no column '{missing[0]}'")
        return [
            {plain_cell(k): plain_cell(v) for k, v in row.items() if isinstance(k, str)}
            for row in reader
        ]


def plain_cell(cell: str) -> str:
    """A cell without the apostrophe that kept a spreadsheet from running it."""
    marked = cell.startswith("'") and cell.lstrip("'").startswith(FORMULA_STARTS)
    return cell[1:] if marked else cell


def read_predictions(path: Path, class_names: tuple[str, ...]) -> Predictions | None:
    """Predictions as a run wrote them, None where there is no such file.

    Raises:
        UsageError: its classes or its numbers are not the run's.
    """
    rows = read_rows(path, "path", "true", *(PROBABILITY + name for name in class_names))
    if not rows:
        return None
    index = {name: c for c, name in enumerate(class_names)}
    with damage_named(path):
        probabilities = np.array(
            [[float(row[PROBABILITY + name] or "nan") for name in class_names] for row in rows],
            dtype=np.float32,
        )
        labels = [index[row["true"]] if row["true"] else UNLABELLED for row in rows]
    return Predictions(
        paths=tuple(row["path"] for row in rows),
        class_names=class_names,
        probabilities=probabilities,
        labels=np.array(labels, dtype=np.int64),
        problems=tuple(row.get("problem", "") for row in rows),
    )


def read_findings(path: Path) -> list[dict[str, Any]]:
    """Findings of the audit, the gravest first.

    Raises:
        UsageError: the file is damaged.
    """
    if not path.exists():
        return []
    with damage_named(path):
        content = read_json(path)
        found = content.get("findings", []) if isinstance(content, dict) else content
        if not all(isinstance(entry, dict) and "message" in entry for entry in found):
            raise ValueError("a finding without a message")
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda entry: order.get(entry.get("severity", "note"), 2))
