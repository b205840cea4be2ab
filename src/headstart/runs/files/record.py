"""`run.json`: what was asked, with what, on what, and how far it got."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from headstart import __version__
from headstart.audit import Audit
from headstart.backbones import Network
from headstart.errors import ResumeError, UsageError
from headstart.files import digest_bytes, read_json, write_json
from headstart.inference import FeatureExtractor
from headstart.records import ImageFacts, ImageTable, Split
from headstart.runs.settings.run import RunSettings
from headstart.runtime import machine

RUN_FILE = "run.json"
SCHEMA_VERSION = 1
REQUIRED = {
    "schema_version": int, "status": str, "settings": dict, "versions": dict, "test_openings": int,
}  # fmt: skip
PACKAGES = (
    *("torch", "torchvision", "timm", "lightning", "numpy", "scipy", "scikit-learn", "pillow"),
    "safetensors",
)


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Headstart, Python and the packages that decide figures."""
    found = {"headstart": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def data_digest(table: ImageTable, facts: tuple[ImageFacts, ...]) -> str:
    """Digest of every image's name, content, box, label, split and group, in the table's order."""
    groups = table.groups or ("",) * len(table)
    lines = []
    for i in range(len(table)):
        parts = [table.paths[i], facts[i].digest, table.label_of(i), table.splits[i], groups[i]]
        box = table.box_of(i)
        lines.append("\0".join(parts if box is None else [*parts, repr(box)]))
    encoded = "\n".join(lines).encode("utf-8", "surrogateescape")
    return digest_bytes(encoded, "\0".join(table.class_names).encode("utf-8", "surrogateescape"))


def table_digest(table: ImageTable) -> str:
    """Digest of names, labels, splits, groups, sources and boxes; contents are not read."""
    blank = ("",) * len(table)
    columns = [table.paths, table.splits, table.groups or blank, table.sources or blank]
    lines = [
        "\0".join([*parts, table.label_of(i), repr(table.box_of(i))])
        for i, parts in enumerate(zip(*columns, strict=True))
    ]
    return digest_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))


class RunFile:
    """The record of one run, written whole after every change."""

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        """Keep the record; `begin` and `reopen` are the ways to get one."""
        self.folder = folder
        self.record = record

    @classmethod
    def begin(cls, folder: Path, settings: RunSettings) -> RunFile:
        """A new record, written at once so that an interrupted run can be resumed."""
        record = {
            "schema_version": SCHEMA_VERSION,
            "status": "running",
            "begun": now(),
            "finished": None,
            "settings": settings.stored(),
            "seed": settings.seed,
            "versions": versions(),
            "machine": machine(),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "test_openings": 0,
            "times": {},
        }
        run_file = cls(folder, record)
        run_file.write()
        return run_file

    @classmethod
    def reopen(cls, folder: Path, settings: RunSettings) -> RunFile:
        """The record of an interrupted run.

        Raises:
            ResumeError: its settings differ; the message names them.
        """
        record = read_run(folder)
        differing = []
        stored, asked = record["settings"], settings.compared()
        for name, value in asked.items():
            # A setting that is newer than the run had its default then.
            if stored.get(name, getattr(RunSettings, name, None)) != value:
                differing.append(f"{name} was {stored.get(name)!r}, now {value!r}")
        if differing:
            raise ResumeError(
                f"The run '{folder}' cannot go on with other settings: {'; '.join(differing)}. "
                "Give the same ones, or choose another --out."
            )
        here = versions()
        changed = [name for name, value in record["versions"].items() if here.get(name) != value]
        if changed:
            listed = ", ".join(f"{n} {record['versions'][n]} -> {here.get(n)}" for n in changed)
            raise ResumeError(
                f"The run '{folder}' cannot go on with other versions ({listed}), because its "
                "figures would mix both. Install the same ones, or choose another --out."
            )
        return cls(folder, record)

    def update(self, **entries: Any) -> None:
        """Add or replace entries and write the file."""
        self.record.update(entries)
        self.write()

    def write(self) -> None:
        """Write the file whole."""
        write_json(self.folder / RUN_FILE, self.record)

    def check_split(self, split: dict[str, Any]) -> None:
        """Keep what there is to say of the split, or refuse to go on with another one.

        Args:
            split: from `describe_split`.

        Raises:
            ResumeError: the run began with other parts, folds or inner parts: a head that it kept
                would be scored on images that it has learnt from.
        """
        stored = self.record.get("splits")
        if stored and stored["digest"] != split["digest"]:
            raise ResumeError(
                f"The run '{self.folder}' began with other parts and folds and cannot go on with "
                "these. Restore the split file or the columns that it comes from, or choose "
                "another --out."
            )
        self.update(splits=split)

    def check_data(self, digest: str) -> None:
        """Remember the data's digest, or refuse data that changed since the run began.

        Raises:
            ResumeError: images, labels or splits differ from those the run began with.
        """
        stored = self.record.get("data", {}).get("digest")
        if stored is not None and stored != digest:
            raise ResumeError(
                f"The run '{self.folder}' cannot go on: its images, labels or splits have changed "
                "since it began. Restore them, or choose another --out."
            )

    def check_table(self, digest: str) -> None:
        """Refuse to go on with, or to answer for, data that are listed in another way now.

        Raises:
            ResumeError: names, labels, splits, groups or boxes differ.
        """
        stored = self.record.get("table_digest")
        if stored is not None and stored != digest:
            raise ResumeError(
                f"The run '{self.folder}' cannot go on: its images, labels or splits have changed "
                "since it began. Restore them, or choose another --out."
            )

    def check_network(self, digest: str) -> None:
        """Refuse to mix the features of two networks in one run.

        Args:
            digest: of the backbone's weights, as it is here now.

        Raises:
            ResumeError: the run began with others under the same name: heads that it kept know
                nothing of these features.
        """
        stored = self.record.get("backbone", {}).get("digest")
        if stored is not None and stored != digest:
            raise ResumeError(
                f"The run '{self.folder}' began with other weights ({named(stored)}) and cannot go "
                f"on with these ({named(digest)}). Restore the weights file, or choose another "
                "--out."
            )

    def check_engine(self, key: str) -> None:
        """Refuse to mix two engines in one run.

        Args:
            key: of the extractor.

        Raises:
            ResumeError: the run began with another one.
        """
        stored = self.record.get("engine", {}).get("key")
        if stored is not None and stored != key:
            raise ResumeError(
                f"The run '{self.folder}' began on {stored} and cannot go on with {key}. "
                "Choose the same engine, device and precision, or another --out."
            )


def named(network_digest: str) -> str:
    """The beginning of the digest of a network's weights, for messages."""
    return network_digest.rpartition("-")[2][:12]


def leaks_of(record: Mapping[str, Any]) -> list[str]:
    """What was allowed to stand on both sides, a sentence each; empty for an honest split."""
    audit, splits = record.get("audit") or {}, record.get("splits") or {}
    told = [str(message) for message in audit.get("leaks_allowed") or ()]
    if splits.get("leaks") and not told:
        told.append(
            f"{splits['leaks']:,} test images belong together with images to learn from (a group, "
            "duplicates): the test rewards memory."
        )
    if splits.get("calibration_leaks"):
        told.append(
            f"{splits['calibration_leaks']:,} calibration images belong together with images to "
            "learn from: thresholds are too sure, and sets of classes promise nothing."
        )
    if splits.get("fold_leaks"):
        told.append(
            f"{splits['fold_leaks']:,} images to learn from are parted from others that they "
            "belong together with: the figures of the folds reward memory."
        )
    return told


def has_leaking_test(record: Mapping[str, Any]) -> bool:
    """Whether the test part itself was allowed to leak, and not the folds or thresholds alone."""
    audit, splits = record.get("audit") or {}, record.get("splits") or {}
    return bool(audit.get("leaks_allowed") or splits.get("leaks"))


def read_run(folder: Path) -> dict[str, Any]:
    """Read the record of a run.

    Raises:
        UsageError: there is none, or it is damaged or too new.
    """
    path = folder if folder.suffix == ".json" else folder / RUN_FILE
    if not path.is_file():
        raise UsageError(f"'{folder}' is no run: it has no {RUN_FILE}. Name the folder of a run.")
    try:
        record = read_json(path)
    except ValueError as error:
        raise UsageError(f"'{path}' is damaged: it is not JSON. Begin the run anew.") from error
    if not isinstance(record, dict) or any(
        not isinstance(record.get(name), kind) for name, kind in REQUIRED.items()
    ):
        raise UsageError(
            f"'{path}' is not the whole record of a run: it needs {', '.join(REQUIRED)}. "
            "Name the folder of a run, or begin it anew."
        )
    if record["schema_version"] > SCHEMA_VERSION:
        raise UsageError(f"'{path}' was written by a newer Headstart. Update this one.")
    return record


def describe_data(table: ImageTable, digest: str, facts: tuple[ImageFacts, ...]) -> dict[str, Any]:
    """What the record says of the data."""
    labels = table.labels
    counts = np.bincount(labels[labels >= 0], minlength=len(table.class_names))
    return {
        "name": table.name,
        "digest": digest,
        "num_images": len(table),
        "num_groups": None if table.groups is None else len(set(table.groups)),
        "boxes": table.boxes is not None,
        "num_left_out": sum(bool(record.problem) for record in facts),
        "class_names": list(table.class_names),
        "class_counts": counts.tolist(),
    }


def describe_network(network: Network) -> dict[str, Any]:
    """What the record says of the backbone."""
    return {
        "name": network.spec.name,
        "origin": network.spec.origin,
        "architecture": network.spec.architecture,
        "num_features": network.num_features,
        "head_blocks": asdict(network.blocks),
        "layers": dict(network.layers),
        "num_parameters": network.num_parameters,
        "code_licence": network.spec.code_licence,
        "weights": asdict(network.weights),
        "digest": network.digest,
    }


def describe_engine(extractor: FeatureExtractor) -> dict[str, Any]:
    """What the record says of engine, device and precision."""
    return {
        **asdict(extractor.execution),
        "name": extractor.engine.name,
        "chosen": extractor.engine.reason,
        "key": extractor.key,
        "batch_size": extractor.batch_size,
    }


def describe_audit(audit: Audit) -> dict[str, Any]:
    """What the record says of an audit; leaks that were allowed stand there for good."""
    return {
        "leaks_allowed": [finding.message for finding in audit.errors],
        "findings": [
            {"code": f.code, "severity": f.severity, "message": f.message} for f in audit.findings
        ],
    }


def describe_split(split: Split) -> dict[str, Any]:
    """What the record says of the split; leaks that were allowed stand there for good."""
    parts = [split.train, split.fold, split.inner]
    if split.inner_fold is not None:
        parts.append(split.inner_fold)
    return {
        "origin": split.origin,
        "scheme": split.scheme,
        "num_folds": split.num_folds,
        "fold_names": list(split.fold_names),
        "num_calibration": len(split.calibration),
        "leaks": split.leaks,
        "calibration_leaks": split.calibration_leaks,
        "fold_leaks": split.fold_leaks,
        "inner_folds": split.chooses_penalty.shape[1],
        "digest": digest_bytes(*(part.tobytes() for part in parts)),
    }
