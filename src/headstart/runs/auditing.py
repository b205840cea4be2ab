"""The audit inside a run: before anything is fitted, and in words a user acts on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headstart.audit import Audit, JointExtractor, audit_table, write_audit
from headstart.audit.findings import counted
from headstart.errors import DataError
from headstart.inference import FeatureExtractor
from headstart.progress import Progress
from headstart.records import ImageFacts, ImageTable
from headstart.runs.files.record import data_digest
from headstart.runs.settings.run import RunSettings

MOST_IMAGES = 20_000  # 'auto' leaves larger data unaudited: its pass would cost minutes
TOLD = ("error", "warning")


def is_wanted(settings: RunSettings, num_images: int) -> bool:
    """Whether the settings ask for an audit of so many images."""
    return settings.audit == "full" or (settings.audit == "auto" and num_images <= MOST_IMAGES)


def passing_extractor(
    settings: RunSettings, table: ImageTable, extractor: FeatureExtractor
) -> FeatureExtractor:
    """The extractor of the run's pass, which does the audit's on the way where one is wanted."""
    wanted = is_wanted(settings, len(table))
    return JointExtractor(extractor) if wanted else extractor


def audit_once(
    table: ImageTable, facts: tuple[ImageFacts, ...], seed: int, progress: Progress
) -> Audit:
    """The audit of these images, or the last one of this process where it was of the same.

    What is found hangs on the images and the seed alone, so that candidates of a comparison share
    one.
    """
    problems = tuple(record.problem for record in facts)
    key = (table.name, data_digest(table, facts), table.sources, problems, seed)
    if not _LAST or _LAST[0][0] != key:
        _LAST[:] = [(key, audit_table(table, facts, seed=seed, progress=progress))]
    return _LAST[0][1]


_LAST: list[tuple[object, Audit]] = []


def audit_run(
    settings: RunSettings,
    folder: Path,
    table: ImageTable,
    facts: Sequence[ImageFacts],
    progress: Progress,
) -> Audit | None:
    """Audit the images of a run, write what was found, and tell what matters.

    Args:
        settings: of the run.
        folder: of the run.
        table: all images, those that cannot be read too.
        facts: what decoding found, in the table's order.
        progress: tells warnings.

    Raises:
        DataError: images, groups or near-duplicates stand on both sides of the split that the
            data bring, and `--allow-leaks` was not given.
    """
    if not is_wanted(settings, len(table)):
        if settings.audit == "auto":
            progress.note(
                f"Audit      left out for more than {MOST_IMAGES:,} images; --audit full looks for "
                "duplicates, leaks and shortcuts"
            )
        return None
    audit = audit_once(table, tuple(facts), settings.seed, progress)
    tell_audit(audit, settings, folder, progress)
    return audit


def tell_audit(audit: Audit, settings: RunSettings, folder: Path, progress: Progress) -> None:
    """Write what an audit found, tell what matters, and stop at what must not be passed over.

    Args:
        audit: of the images that are to be learnt from and tested on.
        settings: of what is to be done with them.
        folder: where its files go.
        progress: tells warnings.

    Raises:
        DataError: there are leaks, and `--allow-leaks` was not given.
    """
    write_audit(folder, audit)
    counts = [
        counted(sum(f.severity == kind for f in audit.findings), kind) for kind in (*TOLD, "note")
    ]
    progress.note(f"Audit      {', '.join(counts)}; see {folder / 'audit.txt'}")
    for finding in audit.findings:
        if finding.severity in TOLD:
            progress.note(f"{finding.severity.capitalize():<10} {finding.message}")
    if audit.errors and not settings.allow_leaks:
        raise DataError(
            f"{audit.errors[0].message} Figures would be too good. Repair the split, or go on by "
            "--allow-leaks, which is written on everything."
        )
