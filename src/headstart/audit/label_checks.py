"""What tells the label besides the picture: the source, the file, the border."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from headstart.audit.association import (
    Association,
    as_codes,
    measure_prediction,
    measure_source,
    number_folds,
    split_by_source,
)
from headstart.audit.duplicates import NONE
from headstart.audit.findings import AuditSettings, Finding
from headstart.audit.fingerprints import Record
from headstart.records import UNLABELLED, Floats, ImageFacts, ImageTable, Integers

BORDER_MARGIN = 0.5  # below it, the border of a photograph may honestly show its place


def check_sources(
    table: ImageTable,
    sources: Integers | None,
    linked: Integers,
    settings: AuditSettings,
    seed: int,
) -> tuple[list[Finding], Association | None]:
    """Association of label and source; whether any split can tell them apart."""
    if sources is None:
        return [], None
    rows = np.flatnonzero((table.labels != UNLABELLED) & (sources != NONE))
    if len(np.unique(sources[rows])) < 2 or len(np.unique(table.labels[rows])) < 2:
        return [], None
    labels, codes = table.labels[rows], sources[rows]
    measured = measure_source(labels, codes, linked[rows], np.random.default_rng(seed))
    told = f"Cramér's V {measured.value:.2f} [{measured.low:.2f}, {measured.high:.2f}]"
    sets = split_by_source(labels, codes)
    findings = []
    if len(sets) > 1:
        names = " and ".join(
            "'" + ", ".join(table.class_names[c] for c in members) + "'" for members in sets
        )
        findings.append(
            Finding(
                code="sources-coincide",
                severity="warning",
                message=f"Source and label coincide: {names} share no source ({told}), so no "
                "grouping can separate them, and a classifier may have learnt the source. Add "
                "images of these classes from one source; do not claim that it tells them apart.",
                count=len(sets),
            )
        )
    elif measured.clear_by(settings.note_margin):
        findings.append(
            Finding(
                code="sources-associated",
                severity="warning",
                message=f"The source tells the label in part ({told}). Test with whole sources "
                "held out, or balance the classes within each source.",
                count=len(np.unique(codes)),
            )
        )
    return findings, measured


def file_facts(facts: Sequence[ImageFacts], records: Record) -> dict[str, Floats]:
    """What a file tells without its picture being looked at, by kind: (N, F) each."""
    width = np.maximum(np.array([f.width for f in facts], dtype=float), 1)
    height = np.maximum(np.array([f.height for f in facts], dtype=float), 1)
    size = records["num_bytes"].astype(float)
    kinds = {
        "bytes of the file": [size, size / (width * height)],
        "width and height": [width, height, width / height],
        "JPEG quality": [records["quantisation"]],
        "format": [as_codes([f.format for f in facts])],
        "colour mode": [as_codes([f.mode for f in facts])],
        "EXIF and other metadata": list(records["metadata"].T),
    }
    return {kind: np.stack(columns, axis=1).astype(float) for kind, columns in kinds.items()}


def check_file_facts(
    table: ImageTable,
    facts: Sequence[ImageFacts],
    records: Record,
    linked: Integers,
    settings: AuditSettings,
    seed: int,
) -> tuple[list[Finding], dict[str, Association]]:
    """Whether file facts, or the border of the picture, give the label away."""
    rows = np.flatnonzero((records["present"] > 0) & (table.labels != UNLABELLED))
    if len(rows) > settings.most_rows:
        generator = np.random.default_rng(seed)
        rows = np.sort(generator.choice(rows, settings.most_rows, replace=False))
    by_kind = file_facts([facts[row] for row in rows.tolist()], records[rows])
    by_kind["all file facts"] = np.concatenate(list(by_kind.values()), axis=1)
    by_kind["border"] = records["border"][rows].astype(float)
    labels, units = table.labels[rows], linked[rows]
    fold = number_folds(labels, units, seed)
    measured = {
        kind: found
        for kind, values in by_kind.items()
        if (found := measure_prediction(values, labels, units, fold, seed=seed))
    }
    return [*_file_findings(measured, settings), *_border_findings(measured, settings)], measured


def _file_findings(measured: dict[str, Association], settings: AuditSettings) -> Iterable[Finding]:
    whole = measured.get("all file facts")
    if whole is None or not whole.clear_by(settings.note_margin):
        return
    sure = whole.clear_by(settings.warning_margin)
    parts = [kind for kind in measured if kind not in ("all file facts", "border")]
    best = max(parts, key=lambda kind: measured[kind].value)
    verdict = (
        "The files give the label away"
        if sure
        else "The files hint at the label, some of it honestly, as busy pictures make larger files"
    )
    yield Finding(
        code="label-file-facts",
        severity="warning" if sure else "note",
        message=f"{verdict}: without looking at a picture, {_scored(whole)}; the {best} alone, "
        f"{measured[best].value:.0%}. A classifier may learn how the files were made: bring all "
        "classes into one format, size and quality.",
        count=whole.num_images,
    )


def _border_findings(
    measured: dict[str, Association], settings: AuditSettings
) -> Iterable[Finding]:
    border = measured.get("border")
    if border is None or not border.clear_by(settings.note_margin):
        return
    yield Finding(
        code="label-border",
        severity="warning" if border.clear_by(BORDER_MARGIN) else "note",
        message=f"The border tells the label: from the outer sixteenth alone, {_scored(border)}. "
        "If the border is frame, letters or background of one source, crop it and compare; see "
        "where the classifier looks.",
        count=border.num_images,
    )


def _scored(found: Association) -> str:
    return (
        f"balanced accuracy is {found.value:.0%} [{found.low:.0%}, {found.high:.0%}], by chance "
        f"{found.chance:.0%}"
    )
