"""`headstart compare`: every candidate to its lock, the recommendation, then the test part.

    candidates checked -> each one's run up to its lock -> table, tests, recommendation, written
    and locked -> the test part opened for the recommended one, or for all where that was asked

Nothing before the lock has seen a label of the test part, and nothing after it changes the
ranking: opening the test part of further candidates is stamped and re-ranks nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import ResumeError, UsageError
from headstart.files import LOCK_NAME, check_vacant, locked, make_folder, read_json, write_json
from headstart.progress import Progress
from headstart.runs.files.outputs import read_metrics
from headstart.runs.files.record import RUN_FILE, leaks_of, now, versions
from headstart.runs.settings.run import NOT_COMPARED, RunSettings
from headstart.studies.answers import read_answers
from headstart.studies.candidates import (
    CandidateRun,
    ComparisonSettings,
    check_candidates,
    sort_key,
)
from headstart.studies.judging import check_pictures, judge
from headstart.studies.locking import Measured, lock_candidate, open_candidate
from headstart.studies.writing import write_files

RECORD = "comparison.json"
SCHEMA_VERSION = 1
RUNNING, LOCKED, FINISHED = "running", "locked", "finished"
STAMP = (
    "The test part was opened for every candidate, as was asked. The recommendation was locked "
    "before and did not change; the best of several test figures is no honest estimate."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparisonResult:
    """A finished comparison.

    Attributes:
        out: its folder.
        record: the contents of `comparison.json`.
        opened: folders of the runs whose test part was opened, the recommended one first.
    """

    out: Path
    record: dict[str, Any]
    opened: tuple[Path, ...]


def compare_jobs(
    settings: ComparisonSettings,
    *,
    test_all: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> ComparisonResult:
    """Compare candidates on the same images, folds and seeds, and recommend one.

    Args:
        settings: what the user decided.
        test_all: open the test part for every candidate, not for the recommended one alone.
        resume: go on in `settings.out`; of a finished comparison only the test part is left.
        progress: silent where None.

    Raises:
        UsageError: bad settings or data, weights that are not at hand; before any work.
        ResumeError: the folder's comparison was made with other settings.
        StorageError: the disk is full; what was finished stays whole.
    """
    progress, folder = progress or Progress(), Path(settings.out)
    check_vacant(folder, RECORD, "comparison", resume=resume)
    check_candidates(settings.candidates)
    existed = folder.exists()
    make_folder(folder)
    with locked(folder):
        check_vacant(folder, RECORD, "comparison", resume=resume)
        record = begin(folder, settings)
        try:
            if record["status"] == RUNNING:
                lock_choice(folder, record, settings, progress)
        except UsageError:
            remove_begun(folder, settings.candidates, existed=existed)
            raise
        open_test(folder, record, settings, test_all=test_all, progress=progress)
    chosen = record["recommendation"]["chosen"]
    names = sorted(record["test"]["opened"], key=lambda name: name != chosen)
    return ComparisonResult(out=folder, record=record, opened=tuple(folder / n for n in names))


def remove_begun(folder: Path, candidates: Sequence[CandidateRun], *, existed: bool) -> None:
    """Take away the record of a comparison that was refused before its first run was begun."""
    if any(Path(c.settings.out, "run.json").exists() for c in candidates):
        return
    for candidate in candidates:
        place = Path(candidate.settings.out)
        (place / LOCK_NAME).unlink(missing_ok=True)
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
    (folder / RECORD).unlink(missing_ok=True)
    (folder / LOCK_NAME).unlink(missing_ok=True)
    if not existed and not any(folder.iterdir()):
        folder.rmdir()


def asked_before(folder: Path) -> dict[str, Any]:
    """What a comparison was asked, to go on with it.

    Raises:
        UsageError: there is none, or its record is damaged.
    """
    if not (folder / RECORD).is_file():
        raise UsageError(
            f"'{folder}' holds no comparison to go on with ({RECORD} is missing). Name its folder "
            "by --out."
        )
    found: dict[str, Any] = read_record(folder)["asked"]
    return found


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a comparison.

    Raises:
        UsageError: it is damaged or too new.
    """
    try:
        record = read_json(folder / RECORD)
        known = isinstance(record["asked"], dict) and isinstance(record["compared"], dict)
        newer = record["schema_version"] > SCHEMA_VERSION
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"'{folder / RECORD}' is damaged. Begin the comparison anew with another --out."
        ) from error
    if newer or not known:
        raise UsageError(f"'{folder / RECORD}' was written by another Headstart. Update this one.")
    return dict(record)


def begin(folder: Path, settings: ComparisonSettings) -> dict[str, Any]:
    """The record of a new comparison, or of the one that is there.

    Raises:
        ResumeError: that was made with other settings or versions.
    """
    compared = settings.compared()
    if (folder / RECORD).exists():
        record = read_record(folder)
        before = with_defaults(record["compared"])
        if before != compared:
            raise ResumeError(
                f"The comparison '{folder}' cannot go on with other settings: "
                f"{difference_of(before, compared)}. Give the same ones, or choose "
                "another --out."
            )
        now_there, there = versions(), record.get("versions") or {}
        other = [name for name in now_there if there.get(name, now_there[name]) != now_there[name]]
        if record["status"] == RUNNING and other:
            raise ResumeError(
                f"The comparison '{folder}' cannot go on with another {other[0]}: it began with "
                f"{there[other[0]]}, this is {now_there[other[0]]}, and candidates would be "
                "compared across the two. Install that one, or choose another --out."
            )
        return record
    record = {
        "schema_version": SCHEMA_VERSION,
        "status": RUNNING,
        "begun": now(),
        "locked": None,
        "finished": None,
        "versions": versions(),
        "asked": settings.asked(),
        "compared": compared,
    }
    write_json(folder / RECORD, record)
    return record


def with_defaults(compared: dict[str, Any]) -> dict[str, Any]:
    """What was compared, settings that are newer than the comparison at their defaults."""
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(RunSettings)
        if field.default is not dataclasses.MISSING and field.name not in NOT_COMPARED
    }
    runs = {name: {**defaults, **values} for name, values in compared["candidates"].items()}
    return {**compared, "candidates": runs}


def difference_of(before: dict[str, Any], now_asked: dict[str, Any]) -> str:
    """In what two comparisons differ first, in words."""
    for name in ("repeats", "fast"):
        if before[name] != now_asked[name]:
            return f"{name} was {before[name]!r}, now {now_asked[name]!r}"
    old, new = before["candidates"], now_asked["candidates"]
    if set(old) != set(new):
        return f"candidates were {', '.join(old)}, now {', '.join(new)}"
    for candidate, values in new.items():
        for name, value in values.items():
            if old[candidate].get(name) != value:
                return f"{name} was {old[candidate].get(name)!r}, now {value!r}"
    return "they were written by another version"


def lock_choice(
    folder: Path, record: dict[str, Any], settings: ComparisonSettings, progress: Progress
) -> None:
    """Bring every candidate to its lock, compare them, and write the choice down."""
    measured: list[Measured] = []
    of_network: dict[Any, Measured] = {}
    for number, candidate in enumerate(settings.candidates):
        progress.note(f"\n[{number + 1}/{len(settings.candidates)}] {candidate.name}")
        found = lock_candidate(
            candidate,
            repeats=settings.repeats,
            earlier=of_network.get(sort_key(candidate)),
            progress=progress,
        )
        of_network.setdefault(sort_key(candidate), found)
        measured.append(found)
        check_pictures(measured)
    answers = [read_answers(Path(c.settings.out)) for c in settings.candidates]
    one: RunSettings = settings.candidates[0].settings
    record.update(judge(measured, answers, fast=settings.fast, seed=one.seed))
    record.update(
        status=LOCKED,
        locked=now(),
        models={m["name"]: m["model_digest"] for m in measured},
        leaks=leaks_of(read_json(Path(one.out) / RUN_FILE)),
        test={"opened": [], "test_all": False, "stamp": "", "figures": {}},
    )
    write_files(folder, record)
    write_json(folder / RECORD, record)
    progress.note(
        f"\nRecommended, before the test part is opened: {record['recommendation']['reason']}"
    )


def open_test(
    folder: Path,
    record: dict[str, Any],
    settings: ComparisonSettings,
    *,
    test_all: bool,
    progress: Progress,
) -> None:
    """Open the test part for the recommended candidate, or for all; the ranking stays."""
    test, chosen = record["test"], record["recommendation"]["chosen"]
    if test_all and len(settings.candidates) > 1 and not test["test_all"]:
        test.update(test_all=True, stamp=STAMP)
        write_json(folder / RECORD, record)  # stamped before, so that no crash loses it
    for candidate in sorted(settings.candidates, key=lambda c: c.name != chosen):
        name = candidate.name
        if name in test["opened"] or (name != chosen and not test["test_all"]):
            continue
        progress.note(f"\nTest part  opened for {name}")
        open_candidate(candidate, repeats=settings.repeats, progress=progress)
        figures = read_metrics(Path(candidate.settings.out))["test"]
        kept = {k: figures["figures"][k] for k in ("accuracy", "macro_f1")}
        test["figures"][name] = {"num_images": figures["num_images"], **kept}
        test["opened"].append(name)
        write_json(folder / RECORD, record)
    if record["status"] != FINISHED:
        record.update(status=FINISHED, finished=now())
    write_files(folder, record)
    write_json(folder / RECORD, record)
