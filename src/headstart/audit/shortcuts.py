"""The battery of shortcuts: what tells the label without the picture's content, and when to shout.

Asked are the file (size, shape, quality, format, colour mode, metadata), the source, the border,
the picture with its centre covered, and an 8 x 8 thumbnail; and whether the source can be told
from the audit's embedding, over all images and within one class. Every answer is a balanced
accuracy on units that the classifier did not see, with a 95 % interval over units.

The alarm goes off

- for a file fact where the interval lies above chance by 30 % of what chance leaves
  (`AuditSettings.warning_margin`); all of them together are asked where no single one is loud;
- for the source where no two sets of classes share one, or where it tells the label as a file fact
  does;
- for the border and the covered centre where they do so by half of what chance leaves and reach
  nine tenths of what the whole picture gives a plain classifier on the audit's embedding. Where
  classes share no source they are also asked for these sets of classes alone, as a frame that
  tells the source says nothing about classes of one source and would drown in their chance.

Never for the thumbnail and never for the source in the features: flowers have colours, and a
network sees which camera took a picture. Those are told beside what the whole picture gives.

What this cannot show. A mark inside the picture (a token, a ruler, a pen's line) is no border and
no file fact. What a camera wrote into the EXIF is counted, not read. A photograph's margin may
show the place honestly, and the outer ring of cells may hold part of the object; busy pictures
make larger files, so that even a file fact may be content. How well the model of a run does is
not known yet: the plain classifier stands in and is often the weaker of the two. A source that
nobody named cannot be asked for. Silence is no proof.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.audit.association import (
    Association,
    Predictor,
    measure_prediction,
    number_folds,
    predict_by_tree,
    split_by_source,
)
from headstart.audit.duplicates import NONE
from headstart.audit.findings import AuditSettings, listed
from headstart.audit.fingerprints import Examined
from headstart.audit.label_checks import BORDER_MARGIN
from headstart.audit.probes import predict_by_ridge, predict_by_source, thumbnail_values
from headstart.records import UNLABELLED, Floats, ImageTable, Integers

REACH = 0.9  # share of the whole picture's gain over chance
MOST_SOURCES = 50
MOST_SETS = 4
BYTES, METADATA = "bytes of the file", "EXIF and other metadata"
ALL_FACTS, BORDER, MASKED, THUMBNAIL = (
    *("all file facts", "border"),
    *("the picture with its centre covered", "an 8x8 thumbnail"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Images that can be asked: readable, labelled, at most `AuditSettings.most_rows`.

    Attributes:
        class_names: C names.
        labels: (N,) 0 to C - 1.
        sources: (N,) codes, `NONE` where unknown; None where the table has none.
        units: (N,) codes of what stays together.
        examined: embeddings and fingerprints of the whole table.
        rows: (N,) rows of that table.
        seed: of folds and resamples.
    """

    class_names: tuple[str, ...]
    labels: Integers
    sources: Integers | None
    units: Integers
    examined: Examined
    rows: Integers
    seed: int

    def measure(
        self, values: Floats, labels: Integers, predict: Predictor, kept: Integers | None = None
    ) -> Association | None:
        """How well values tell labels, both of all or of the kept images."""
        units = self.units if kept is None else self.units[kept]
        fold = number_folds(labels, units, self.seed)
        return measure_prediction(values, labels, units, fold, seed=self.seed, predict=predict)

    def embedding(self, kept: Integers | None = None) -> Floats:
        """(N, D) features of all or of the kept images."""
        rows = self.rows if kept is None else self.rows[kept]
        return self.examined.features.values[rows].astype(np.float64)

    def cells(self, kept: Integers | None = None, *, masked: bool) -> Floats:
        """(N, F) colours of the thumbnails of all or of the kept images."""
        rows = self.rows if kept is None else self.rows[kept]
        return thumbnail_values(self.examined.records[rows], masked=masked)


def gather_evidence(
    table: ImageTable,
    examined: Examined,
    sources: Integers | None,
    linked: Integers,
    settings: AuditSettings,
    seed: int,
) -> Evidence:
    """What the battery looks at.

    Args:
        table: N images.
        examined: their embeddings and fingerprints.
        sources: (N,) codes of the sources by sorted name, `NONE` for images without one.
        linked: (N,) codes of what stays together.
        settings: whose `most_rows` limits the images.
        seed: of the sample, folds and resamples.
    """
    rows = np.flatnonzero((examined.records["present"] > 0) & (table.labels != UNLABELLED))
    if len(rows) > settings.most_rows:
        generator = np.random.default_rng(seed)
        rows = np.sort(generator.choice(rows, settings.most_rows, replace=False))
    return Evidence(
        class_names=table.class_names,
        labels=table.labels[rows],
        sources=None if sources is None else sources[rows],
        units=linked[rows],
        examined=examined,
        rows=rows.astype(np.int64),
        seed=seed,
    )


def shortcut_battery(
    evidence: Evidence, of_files: Mapping[str, Association], settings: AuditSettings
) -> list[dict[str, Any]]:
    """Everything that was asked, the alarms first.

    Args:
        evidence: from `gather_evidence`.
        of_files: what the file facts and the border gave, by kind, from `check_file_facts`.
        settings: margins.

    Returns:
        Entries of name, balanced_accuracy, low, high, chance, alarm, note; the module's header
        says when there is an alarm. Empty where nothing could be measured.
    """
    whole = None
    if len(evidence.rows) and evidence.class_names:
        whole = evidence.measure(evidence.embedding(), evidence.labels, predict_by_ridge)
    if whole is None:
        return []
    entries = [
        *_source_entries(evidence, settings),
        *_file_entries(of_files, settings),
        *_picture_entries(evidence, of_files.get(BORDER), whole),
    ]
    return sorted(entries, key=lambda entry: not entry["alarm"])


def _entry(name: str, found: Association, *, alarm: bool, note: str) -> dict[str, Any]:
    return {
        "name": name,
        "balanced_accuracy": found.value,
        "low": found.low,
        "high": found.high,
        "chance": found.chance,
        "alarm": alarm,
        "note": note,
    }


def _file_entries(
    of_files: Mapping[str, Association], settings: AuditSettings
) -> Iterator[dict[str, Any]]:
    facts = {kind: found for kind, found in of_files.items() if kind != BORDER}
    whole = facts.pop(ALL_FACTS, None)
    loud = {kind for kind, found in facts.items() if found.clear_by(settings.warning_margin)}
    together = f" All file facts together give {whole.value:.0%}." if whole is not None else ""
    for kind, found in facts.items():
        note = _file_note(kind) + together if kind in loud else ""
        name = kind if kind == METADATA else f"the {kind}"
        yield _entry(name, found, alarm=kind in loud, note=note)
    if whole is not None and not loud:
        alarm = whole.clear_by(settings.warning_margin)
        yield _entry(ALL_FACTS, whole, alarm=alarm, note=_file_note(BYTES) if alarm else "")


def _file_note(kind: str) -> str:
    content = " Some of it may be content, as busy pictures make larger files."
    return "Bring all classes into one format, size and quality." + content * (kind == BYTES)


def _picture_entries(
    evidence: Evidence, border: Association | None, whole: Association
) -> Iterator[dict[str, Any]]:
    covered, small = (
        evidence.measure(evidence.cells(masked=masked), evidence.labels, predict_by_ridge)
        for masked in (True, False)
    )
    if border is not None:
        yield _margin_entry("the border", border, whole)
    if covered is not None:
        yield _margin_entry(MASKED, covered, whole)
    if small is not None:
        note = f"{_beside(whole)} Colours may tell classes honestly, so this is no alarm."
        yield _entry(THUMBNAIL, small, alarm=False, note=note)


def _beside(whole: Association) -> str:
    return f"A plain classifier on the whole picture reaches {whole.value:.0%}."


def _margin_entry(name: str, found: Association, whole: Association) -> dict[str, Any]:
    """An entry of something that leaves the middle of the picture out."""
    reached = found.value - found.chance >= REACH * (whole.value - whole.chance)
    alarm = reached and found.clear_by(BORDER_MARGIN)
    advice = " Crop the frame and compare; see where the classifier looks." if alarm else ""
    return _entry(name, found, alarm=alarm, note=_beside(whole) + advice)


def _source_entries(evidence: Evidence, settings: AuditSettings) -> Iterator[dict[str, Any]]:
    """Label from source, source from features, source from features within one class."""
    if evidence.sources is None:
        return
    kept = np.flatnonzero(evidence.sources != NONE)
    labels, sources = evidence.labels[kept], evidence.sources[kept]
    if len(np.unique(sources)) < 2 or len(np.unique(labels)) < 2:
        return
    codes = sources[:, None].astype(np.float64)
    found = evidence.measure(codes, labels, predict_by_source, kept)
    sets = split_by_source(labels, sources)
    if found is not None:
        note = _source_note(evidence.class_names, sets, found.clear_by(settings.warning_margin))
        yield _entry("the source", found, alarm=bool(note), note=note)
    if len(sets) > 1:
        yield from _apart_entries(evidence, sets, kept)
    common = kept[np.isin(sources, _most_common(sources))]
    seen = evidence.measure(
        evidence.embedding(common), evidence.sources[common], predict_by_ridge, common
    )
    if seen is not None:
        note = "How well the features tell the source, not the label."
        if len(sets) > 1:
            note += " Here source and class are one, so this may be the class."
        yield _entry("the features, asked for the source", seen, alarm=False, note=note)
    yield from _within_class(evidence, common)


def _apart_entries(
    evidence: Evidence, sets: list[list[int]], kept: Integers
) -> Iterator[dict[str, Any]]:
    """Border and covered centre, asked only which set of classes without a common source it is."""
    of_class = np.zeros(len(evidence.class_names), dtype=np.int64)
    for number, members in enumerate(sets):
        of_class[members] = number
    asked = of_class[evidence.labels[kept]]
    whole = evidence.measure(evidence.embedding(kept), asked, predict_by_ridge, kept)
    if whole is None:
        return
    strips = evidence.examined.records["border"][evidence.rows[kept]].astype(np.float64)
    for name, values, predict in (
        ("the border", strips, predict_by_tree),
        (MASKED, evidence.cells(kept, masked=True), predict_by_ridge),
    ):
        found = evidence.measure(values, asked, predict, kept)
        if found is not None:
            yield _margin_entry(f"{name}, between classes without a common source", found, whole)


def _source_note(class_names: tuple[str, ...], sets: list[list[int]], clear: bool) -> str:
    """Why the source is an alarm; empty where it is none."""
    if len(sets) > 1:
        names = " against ".join(
            listed([class_names[c] for c in members]) for members in sets[:MOST_SETS]
        )
        more = f" against {len(sets) - MOST_SETS} more sets" if len(sets) > MOST_SETS else ""
        return (
            f"No grouping can separate source from class here: {names}{more} have no source in "
            "common. Add images of these classes from one source."
        )
    if clear:
        return "Test with whole sources held out, or balance the classes within each source."
    return ""


def _most_common(codes: Integers) -> Integers:
    values, counts = np.unique(codes, return_counts=True)
    return values[np.argsort(-counts, kind="stable")][:MOST_SOURCES]


def _within_class(evidence: Evidence, kept: Integers) -> Iterator[dict[str, Any]]:
    """The source within the class that has the most images beside its commonest source's."""
    assert evidence.sources is not None
    rest = {}
    for label in np.unique(evidence.labels[kept]).tolist():
        counts = np.bincount(evidence.sources[kept][evidence.labels[kept] == label])
        rest[label] = int(counts.sum() - counts.max())
    label = max(rest, key=lambda code: (rest[code], -code))
    rows = kept[evidence.labels[kept] == label]
    found = evidence.measure(
        evidence.embedding(rows), evidence.sources[rows], predict_by_ridge, rows
    )
    if found is not None:
        yield _entry(
            f"the features, asked for the source within '{evidence.class_names[label]}'",
            found,
            alarm=False,
            note="Within one class the label cannot help: what is above chance is the source's "
            "own mark on the features.",
        )
