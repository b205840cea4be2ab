"""The images that backbones are tried on: a part of what a run would learn from.

The test part is fixed first, as the run that follows would fix it with the same seed: by the same
audit, so that copies and groups stay on one side, and by the same draw.  What is tested on is
never drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from headstart.audit import audit_table
from headstart.progress import Progress
from headstart.records import ImageFacts, ImageTable, Integers, Split
from headstart.runs.auditing import MOST_IMAGES, is_wanted, tell_audit
from headstart.runs.job import check_test_part, name_left_out, split_with
from headstart.runs.parts.dividing import units_of
from headstart.runs.parts.units import Bools, Units, codes_of
from headstart.runs.settings.run import RunSettings
from headstart.runs.settings.splits import TEST_FRACTION, Ratio, parse_folds, parse_ratio
from headstart.splitting import inner_hold_out, sample_units, stratified_folds


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """M images of the training part.

    Attributes:
        table: the M images.
        units: what stays on one side of the folds, None where every image is by itself.
        num_all: images that a run would send through the network.
        num_train: those that it would learn from.
        origin: where the test part comes from, in words.
        test_drawn: it is held out of the readable images, not the data's own.
    """

    table: ImageTable
    units: Units | None
    num_all: int
    num_train: int
    origin: str
    test_drawn: bool

    def __len__(self) -> int:
        """M."""
        return len(self.table)

    @property
    def groups(self) -> Integers | None:
        """(M,) codes that intervals and tests draw whole; None of independent images."""
        return None if self.units is None else self.units.drawn(np.arange(len(self)))

    def take(self, good: Bools) -> Sample:
        """The sample without images that cannot be read; `good` is (M,)."""
        rows = np.flatnonzero(good)
        units = None if self.units is None else self.units.take(rows)
        lost = len(self) - len(rows)
        return replace(
            self,
            table=self.table.take(rows),
            units=units,
            num_all=self.num_all - lost,
            num_train=self.num_train - lost,
        )


def draw_sample(
    settings: RunSettings, table: ImageTable, count: int, folder: Path, progress: Progress
) -> Sample:
    """Split as a run would, and take about `count` images of what it would learn from.

    Args:
        settings: of the run.
        table: all its images.
        count: images wanted.
        folder: where the audit's files go.
        progress: told what was found.

    Raises:
        DataError: a class too small for the folds, or a given split that leaks.
    """
    linked = None
    if is_wanted(settings, len(table)):
        progress.note(
            f"Audit      of all {len(table):,} images first, so that the test part is that of a "
            "run, which reads it back; --audit none leaves it out"
        )
        audit = audit_table(table, seed=settings.seed, progress=progress)
        tell_audit(audit, settings, folder, progress)
        good = tell_unreadable(table, audit.facts, settings, progress)
        rows = np.flatnonzero(good)
        check_test_part(table, table.take(rows))
        linked, table = audit.linked[rows], table.take(rows)
    elif settings.audit == "auto":
        progress.note(
            f"Audit      left out for more than {MOST_IMAGES:,} images; --audit full looks for "
            "duplicates, which then stay on one side"
        )
    split = split_with(settings, table, linked)
    return sample_of(table, split, linked, count, settings)


def sample_of(
    table: ImageTable,
    split: Split,
    linked: Integers | None,
    count: int,
    settings: RunSettings,
) -> Sample:
    """About `count` of the images that a split learns from, every class in at least `folds`."""
    learnt, units = table.take(split.train), units_of(table, linked)
    kept = None if units is None else units.take(split.train)
    taken = sample_units(
        learnt.labels,
        count,
        groups=codes_of(kept),
        least=int(parse_folds(settings.folds)),
        seed=settings.seed,
    )
    rows = np.flatnonzero(taken)
    return Sample(
        table=learnt.take(rows),
        units=None if kept is None else kept.take(rows),
        num_all=len(table),
        num_train=len(learnt),
        origin=split.origin,
        test_drawn=not {"test", "val"} & set(table.splits),
    )


def tell_unreadable(
    table: ImageTable, facts: Sequence[ImageFacts], settings: RunSettings, progress: Progress
) -> Bools:
    """(N,) which images can be read; the others are named, or stop the work with --strict."""
    problems = [f"{record.path} ({record.problem})" for record in facts if record.problem]
    if problems:
        name_left_out(problems, len(table), progress, strict=settings.strict)
    return np.array([not record.problem for record in facts], dtype=bool)


def fold_sample(sample: Sample, settings: RunSettings) -> tuple[Integers, Bools]:
    """The folds of all backbones: (M,) the fold that scores each image, (F, M) inner parts.

    Raises:
        DataError: a class too small for the folds.
    """
    learnt, codes = sample.table, codes_of(sample.units)
    word = "image" if sample.units is None else sample.units.word
    ratio = settings.ratio
    shares = Ratio(test_fraction=TEST_FRACTION) if ratio is None else parse_ratio(ratio)
    fold = stratified_folds(
        learnt.labels,
        int(parse_folds(settings.folds)),
        class_names=learnt.class_names,
        groups=codes,
        seed=settings.seed,
        unit=word,
    )
    inner = inner_hold_out(
        learnt.labels,
        fold,
        fraction=shares.inner_fraction,
        groups=codes,
        seed=settings.seed,
        unit=word,
    )
    return fold, inner
