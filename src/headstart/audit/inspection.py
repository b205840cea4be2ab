"""The audit of a table: one pass over the pictures, every check, one result."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from headstart.audit.association import as_codes
from headstart.audit.checks import (
    check_classes,
    check_duplicates,
    check_groups,
    check_leaks,
    codes_with_several,
)
from headstart.audit.duplicates import NONE, Duplicates, find_duplicates
from headstart.audit.file_checks import check_files, summarise_files
from headstart.audit.findings import SEVERITIES, AuditSettings, Finding, Pair
from headstart.audit.fingerprints import (
    FINGERPRINT_VERSION,
    IMAGE_SIZE,
    NETWORK,
    Examined,
    Record,
    examine,
    fixed_execution,
)
from headstart.audit.label_checks import check_file_facts, check_sources
from headstart.audit.shortcuts import gather_evidence, shortcut_battery
from headstart.data import printable
from headstart.progress import Progress
from headstart.records import ImageFacts, ImageTable, Integers
from headstart.runtime import Execution

AUDIT_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """What was found in N images.

    Attributes:
        table: the images.
        facts: N records of what decoding found.
        findings: errors first, then warnings, then notes.
        columns: a column of N values by name, for `images.csv`.
        linked: (N,) int64 code of the unit that must stay on one side of every split: given
            groups, exact duplicates, near-duplicates where both tests agree. Every image has one.
        pairs: exact, near and suspect pairs, the closest first within each.
        summary: everything countable, for `audit.json`; times stand under 'seconds' alone.
    """

    table: ImageTable
    facts: tuple[ImageFacts, ...]
    findings: tuple[Finding, ...]
    columns: dict[str, tuple[object, ...]]
    linked: Integers
    pairs: tuple[Pair, ...]
    summary: dict[str, Any]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that a run must not pass over."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def audit_table(
    table: ImageTable,
    facts: Sequence[ImageFacts] | None = None,
    *,
    seed: int = 0,
    execution: Execution | None = None,
    progress: Progress | None = None,
    settings: AuditSettings | None = None,
) -> Audit:
    """Look for everything that makes figures from these images wrong.

    Args:
        table: the images, labelled or not.
        facts: N records of decoding where they are known; None takes those of the audit's pass.
        seed: of samples, folds and resamples.
        execution: whose device computes the embeddings, in float32; None takes the CPU, so that
            groups are the same on every machine.
        progress: gets a step an image.
        settings: constants; None takes the defaults.

    Raises:
        StorageError: the disk is full while embeddings are stored.
    """
    order = np.array(sorted(range(len(table)), key=table.paths.__getitem__), dtype=np.int64)
    if (order == np.arange(len(order))).all():
        return _audit_ordered(
            table, facts, seed, execution, progress or Progress(), settings or AuditSettings()
        )
    audit = _audit_ordered(
        table.take(order),
        None if facts is None else [facts[row] for row in order],
        seed,
        execution,
        progress or Progress(),
        settings or AuditSettings(),
    )
    return _in_order_of(table, audit, order)


def _in_order_of(table: ImageTable, audit: Audit, order: Integers) -> Audit:
    """The audit of `table.take(order)` as one of `table`."""
    back = np.argsort(order)
    return Audit(
        table=table,
        facts=tuple(audit.facts[row] for row in back),
        findings=audit.findings,
        columns={
            name: tuple(column[row] for row in back) for name, column in audit.columns.items()
        },
        linked=audit.linked[back],
        pairs=tuple(
            replace(pair, first=int(order[pair.first]), second=int(order[pair.second]))
            for pair in audit.pairs
        ),
        summary=audit.summary,
    )


def _audit_ordered(
    table: ImageTable,
    facts: Sequence[ImageFacts] | None,
    seed: int,
    execution: Execution | None,
    progress: Progress,
    settings: AuditSettings,
) -> Audit:
    """The audit of a table that is sorted by path, so that no figure hangs on the rows' order."""
    begun = time.perf_counter()
    examined = examine(table, fixed_execution(execution), progress)
    known = tuple(facts) if facts is not None else examined.features.facts
    found = find_duplicates(table, examined, settings, seed, progress)
    searched_s = time.perf_counter() - begun - examined.seconds
    groups = None if table.groups is None else _codes(table.groups)
    sources = None if table.sources is None else _codes(table.sources)
    records = examined.records
    by_source, of_source = check_sources(table, sources, found.linked, settings, seed)
    by_file, of_files = check_file_facts(table, known, records, found.linked, settings, seed)
    good = np.flatnonzero(examined.features.good).astype(np.int64)
    findings = [
        *check_leaks(table, found, groups, sources),
        *check_files(table, known, records),
        *check_duplicates(table, found),
        *check_groups(table, groups),
        *check_classes(table, found.linked, good, settings),
        *by_source,
        *by_file,
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    associations = dict(of_files) if of_source is None else {"source": of_source, **of_files}
    summary = _summary(table, known, found, groups, sources, settings)
    summary["associations"] = {name: asdict(value) for name, value in associations.items()}
    evidence = gather_evidence(table, examined, sources, found.linked, settings, seed)
    asked = time.perf_counter()
    summary["shortcuts"] = shortcut_battery(evidence, of_files, settings)
    battery_s = time.perf_counter() - asked
    summary["findings"] = [asdict(finding) for finding in findings]
    summary["pairs"] = [_pair_entry(table, pair) for pair in found.pairs[: settings.most_suspects]]
    summary["seconds"] = {
        "pass": round(examined.seconds, 2),
        "duplicates": round(searched_s, 2),
        "shortcuts": round(battery_s, 2),
        "all": round(time.perf_counter() - begun, 2),
    }
    return Audit(
        table=table,
        facts=known,
        findings=tuple(findings),
        columns=_columns(examined, found),
        linked=found.linked,
        pairs=found.pairs,
        summary=summary,
    )


def _codes(names: Sequence[str]) -> Integers:
    """Codes by sorted name; -1 for images without one."""
    codes = as_codes(names)
    codes[[not name for name in names]] = NONE
    return codes


def _columns(examined: Examined, found: Duplicates) -> dict[str, tuple[object, ...]]:
    records = examined.records
    present = records["present"] > 0
    return {
        "num_bytes": tuple(records["num_bytes"].tolist()),
        "pixel_digest": _hexadecimal(records["pixels"], present),
        "perceptual_hash": _hexadecimal(records["hash"].astype(">u8").view("V8"), present),
        "jpeg_quantisation": tuple(
            round(value, 2) if value else "" for value in records["quantisation"].tolist()
        ),
        "duplicate_set": _blank_for_none(found.exact),
        "near_duplicate_group": _blank_for_none(found.near),
        "unit": tuple(found.linked.tolist()),
    }


def _hexadecimal(values: Record, present: Record) -> tuple[object, ...]:
    return tuple(
        bytes(value).hex() if there else "" for value, there in zip(values, present, strict=True)
    )


def _blank_for_none(codes: Integers) -> tuple[object, ...]:
    return tuple("" if code == NONE else code for code in codes.tolist())


def _summary(
    table: ImageTable,
    facts: Sequence[ImageFacts],
    found: Duplicates,
    groups: Integers | None,
    sources: Integers | None,
    settings: AuditSettings,
) -> dict[str, Any]:
    good = np.array([not record.problem for record in facts], dtype=bool)
    return {
        "version": AUDIT_VERSION,
        "fingerprint_version": FINGERPRINT_VERSION,
        "embedding": f"{NETWORK} at {IMAGE_SIZE} px, float32",
        "data": printable(table.name),
        "num_images": len(table),
        "num_readable": int(good.sum()),
        "num_units": len(np.unique(found.linked)),
        "largest_unit": int(np.bincount(found.linked).max()) if len(table) else 0,
        "classes": _classes(table, found.linked, good),
        "splits": _count(table.splits),
        "groups": _group_counts(table, groups),
        "sources": None if table.sources is None or sources is None else _by_class(table),
        "files": summarise_files(facts),
        "duplicates": _duplicate_counts(found),
        "settings": asdict(settings),
    }


def _classes(table: ImageTable, linked: Integers, good: np.typing.NDArray[np.bool_]) -> Any:
    splits = np.array(table.splits, dtype=object)
    entries = {}
    for code, name in enumerate(table.class_names):
        rows = table.labels == code
        entries[name] = {
            "images": int(rows.sum()),
            "readable": int((rows & good).sum()),
            "units": len(np.unique(linked[rows])),
            "splits": _count(splits[rows].tolist()),
        }
    return entries


def _count(names: Sequence[str]) -> dict[str, int]:
    counts = Counter(names)
    return {name: counts[name] for name in sorted(counts.keys() - {""})}


def _group_counts(table: ImageTable, groups: Integers | None) -> dict[str, Any] | None:
    if groups is None:
        return None
    sizes = np.bincount(groups[groups != NONE], minlength=1)
    return {
        "count": int((sizes > 0).sum()),
        "largest": int(sizes.max()),
        "in_several_classes": len(codes_with_several(groups, table.labels)),
    }


def _by_class(table: ImageTable) -> dict[str, dict[str, int]]:
    """Images of each source by class."""
    assert table.sources is not None
    found: dict[str, dict[str, int]] = {}
    for row, source in enumerate(table.sources):
        entry = found.setdefault(source or "(none)", {})
        label = table.label_of(row) or "(none)"
        entry[label] = entry.get(label, 0) + 1
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def _duplicate_counts(found: Duplicates) -> dict[str, Any]:
    searched = found.neighbours
    entry: dict[str, Any] = {
        "exact_sets": int(found.exact.max(initial=NONE)) + 1,
        "exact_images": int((found.exact != NONE).sum()),
        "near_groups": int(found.near.max(initial=NONE)) + 1,
        "near_images": int((found.near != NONE).sum()),
        "near_pairs_left_apart": found.num_left_apart,
        "full_groups": found.num_full,
    }
    if searched is not None:
        entry |= {
            "near_pairs": searched.both.count,
            "near_pairs_kept": len(searched.both),
            "suspects_by_embedding": searched.by_embedding.count,
            "suspects_by_hash": searched.by_hash.count,
            "search": searched.searched,
            "recall": searched.recall,
            "recall_of": searched.recall_of,
            "thresholds": asdict(searched.thresholds),
        }
    return entry


def _pair_entry(table: ImageTable, pair: Pair) -> dict[str, Any]:
    entry = asdict(pair)
    entry["first"], entry["second"] = table.paths[pair.first], table.paths[pair.second]
    return entry
