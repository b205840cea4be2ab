"""Which images are learnt from, which are tested on, and how the learning part is folded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.data import load_table
from headstart.errors import DataError
from headstart.progress import Progress
from headstart.records import ImageTable, Integers, Split
from headstart.runs.parts.given import (
    CALIBRATION,
    GivenSplits,
    apply_splits,
    given_folds,
    read_splits,
)
from headstart.runs.parts.units import Units, codes_of, count_leaks, count_straddling
from headstart.runs.settings.decisions import check_positive
from headstart.runs.settings.run import RunSettings
from headstart.runs.settings.splits import (
    LEAVE_ONE_GROUP_OUT,
    Ratio,
    parse_folds,
    parse_ratio,
)
from headstart.splitting import (
    check_seen,
    hold_out,
    inner_folds,
    inner_hold_out,
    leave_one_group_out,
    leave_one_source_out,
    stratified_folds,
)

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Folds:
    """How the learning part is folded, see `Split`."""

    fold: Integers
    scheme: str = "stratified"
    names: tuple[str, ...] = ()
    leaks: int = 0


def split_table(  # noqa: PLR0913 - what a user may say of a split
    table: ImageTable,
    *,
    folds: int | str,
    test_fraction: float,
    seed: int,
    ratio: str | None = None,
    splits: str | None = None,
    linked: Integers | None = None,
    allow_leaks: bool = False,
    calibration: float | None = None,
    num_inner: int = 1,
) -> Split:
    """Fix the test part, the folds and their inner parts, before anything is fitted.

    The data's own 'test' part is the test part; without one its 'val' part is, because nothing
    here needs a validation part: choices are made by cross-validation inside the training part.
    With both, 'val' is learnt from. With neither, a stratified share is held out.

    Args:
        table: readable, labelled images only; with `splits`, as `read_table` gives them.
        folds: number of folds, 'leave-one-group-out' or 'leave-one-source-out'.
        test_fraction: share to hold out where the data bring no test part.
        seed: of every draw.
        ratio: '80/20' or '70/15/15', instead of `test_fraction`.
        splits: file of parts and folds; folds that it names are taken instead of `folds`.
        linked: (N,) codes of what must stay on one side, groups included; None takes the groups.
        allow_leaks: take a given split that parts what must stay together.
        calibration: share of what is not tested on to keep aside for thresholds, units whole;
            None takes what a file of parts names, else nothing.
        num_inner: inner folds on which penalties are chosen; 1 takes the inner part.

    Raises:
        UsageError: settings that cannot be, or that contradict each other or the data.
        DataError: a class is too small, or absent from a training part; a given split leaks;
            folds by group or source that say nothing.
    """
    chosen = parse_folds(folds)
    shares = Ratio(test_fraction=test_fraction) if ratio is None else parse_ratio(ratio)
    given = None if splits is None else read_splits(splits)
    units = units_of(table, linked)
    is_test, origin = given_test(table, given)
    leaks = 0
    if is_test is None:
        is_test = hold_out(table.labels, shares.test_fraction, groups=codes_of(units), seed=seed)
        origin = f"{100 * shares.test_fraction:.4g} % of each class held out"
    else:
        refuse_ratio(ratio, origin)
        leaks = count_leaks(table, is_test, units, origin, allowed=allow_leaks)
    others, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    aside, more = keep_aside(table, others, units, calibration, seed=seed, allowed=allow_leaks)
    train = np.flatnonzero(~is_test & ~aside)
    learnt = table.take(train)
    check_classes(learnt)
    kept = None if units is None else units.take(train)
    try:
        found = fold_table(learnt, chosen, kept, given, seed=seed, allow_leaks=allow_leaks)
    except DataError as error:
        if given is not None or isinstance(chosen, str):
            raise
        raise DataError(f"{error} ({len(test):,} images are kept to test on: {origin}.)") from error
    inner, inner_fold = choosing_parts(
        learnt, found.fold, kept, shares.inner_fraction, num_inner, seed=seed
    )
    notes = (*([shares.note] if shares.note else []), *fold_notes(learnt, found))
    return Split(
        train=train,
        test=test,
        fold=found.fold,
        inner=inner,
        inner_fold=inner_fold,
        origin=origin,
        scheme=found.scheme,
        fold_names=found.names,
        calibration=np.flatnonzero(aside),
        leaks=leaks,
        calibration_leaks=more,
        fold_leaks=found.leaks,
        notes=notes,
    )


def choosing_parts(
    learnt: ImageTable,
    fold: Integers,
    units: Units | None,
    fraction: float,
    num_inner: int,
    *,
    seed: int,
) -> tuple[Bools, Integers | None]:
    """Inside every fold, what is held out once and, where asked for, the inner folds; see `Split`.

    Args:
        learnt: M images.
        fold: (M,) the fold in which each is scored.
        units: what stays on one side.
        fraction: share of a training part to hold out once.
        num_inner: inner folds; 1 makes none.
        seed: of both draws.

    Raises:
        DataError: a training part without two units of a class; too few for the inner folds.
    """
    groups, word = codes_of(units), "image" if units is None else units.word
    inner = inner_hold_out(
        learnt.labels, fold, fraction=fraction, groups=groups, seed=seed, unit=word
    )
    if num_inner == 1:
        return inner, None
    names = learnt.class_names
    return inner, inner_folds(
        learnt.labels, fold, num_inner, class_names=names, groups=groups, seed=seed, unit=word
    )


def given_test(table: ImageTable, given: GivenSplits | None) -> tuple[Bools | None, str]:
    """(N,) the test part that is there already and where it comes from; None where none is."""
    names = np.array(table.splits)
    whose = "the data's own" if given is None else f"{given.subject},"
    for part in ("test", "val"):
        if part in names:
            return names == part, f"{whose} {part} part"
    return None, ""


def keep_aside(
    table: ImageTable,
    rows: Integers,
    units: Units | None,
    share: float | None,
    *,
    seed: int,
    allowed: bool,
) -> tuple[Bools, int]:
    """(N,) the images that thresholds are set on; and how many share a unit with training.

    Args:
        table: N images.
        rows: those that are not tested on.
        units: what stays on one side.
        share: of the rows to draw, None to take those that a file of parts names.
        seed: of the draw.
        allowed: take a given part that shares units with the images to learn from.

    Raises:
        DataError: a part is given and one is to be drawn; or a given one leaks.
    """
    named = np.array(table.splits) == CALIBRATION
    if named.any():
        if share is not None:
            raise DataError(
                f"`calibration_split` {share:g} would draw a calibration part, but the file of "
                "parts names one. Leave --calibration-split out."
            )
        kept = None if units is None else units.take(rows)
        origin = "the given calibration part"
        leaks = count_leaks(
            table.take(rows), named[rows], kept, origin, allowed=allowed, part="calibration"
        )
        return named, leaks
    held = np.zeros(len(table), dtype=bool)
    if share is not None:
        codes = None if units is None else units.codes[rows]
        held[rows] = hold_out(table.labels[rows], share, groups=codes, seed=seed + 1)
    return held, 0


def fold_table(
    learnt: ImageTable,
    folds: int | str,
    units: Units | None,
    given: GivenSplits | None,
    *,
    seed: int,
    allow_leaks: bool,
) -> Folds:
    """Fold the images that are learnt from.

    Args:
        learnt: N images.
        folds: number or scheme.
        units: what stays on one side.
        given: a file that may name folds; they win.
        seed: of the draw.
        allow_leaks: take folds that part what must stay together.

    Raises:
        DataError: see `split_table`.
    """
    named = None if given is None else given_folds(learnt, given)
    if named is not None and given is not None:
        return folds_of_file(learnt, named, units, given.subject, folds, allowed=allow_leaks)
    if folds == LEAVE_ONE_GROUP_OUT:
        return folds_by_group(learnt, units)
    if isinstance(folds, str):
        return folds_by_source(learnt, units, allowed=allow_leaks)
    fold = stratified_folds(
        learnt.labels,
        folds,
        class_names=learnt.class_names,
        groups=codes_of(units),
        seed=seed,
        unit="image" if units is None else units.word,
    )
    return Folds(fold=fold)


def folds_of_file(
    learnt: ImageTable,
    named: tuple[Integers, tuple[str, ...]],
    units: Units | None,
    subject: str,
    folds: int | str,
    *,
    allowed: bool,
) -> Folds:
    """The folds that a file names, where they can be used.

    Raises:
        DataError: a fold scores a class that the others lack, or they part a unit.
    """
    fold, names = named
    if isinstance(folds, str):
        raise DataError(f"{subject} names the folds, and so does --folds {folds}. Leave one out.")
    check_seen(
        learnt.labels,
        fold,
        fold_names=names,
        class_names=learnt.class_names,
        what="fold",
        instead=f"leave the fold column of {subject} empty to have folds drawn",
    )
    leaks = count_straddling(learnt, fold, units, f"The folds of {subject}", allowed=allowed)
    return Folds(fold=fold, scheme="given", leaks=leaks)


def folds_by_group(learnt: ImageTable, units: Units | None) -> Folds:
    """A fold for each group; groups that share duplicates are one.

    Raises:
        DataError: no groups, or see `leave_one_group_out`.
    """
    if learnt.groups is None:
        raise DataError(
            "`folds` leave-one-group-out needs groups, and the data name none. "
            "Name them by --group-by, or take --folds 5."
        )
    codes = group_codes(learnt) if units is None else units.codes
    assert codes is not None
    members: dict[int, set[str]] = {}
    for code, name in zip(codes.tolist(), learnt.groups, strict=True):
        members.setdefault(code, set()).add(name)
    group_names = {code: " + ".join(sorted(names)) for code, names in members.items()}
    fold = leave_one_group_out(
        learnt.labels, codes, group_names=group_names, class_names=learnt.class_names
    )
    names = tuple(group_names[code] for code in dict.fromkeys(codes.tolist()))
    return Folds(fold=fold, scheme=LEAVE_ONE_GROUP_OUT, names=names)


def folds_by_source(learnt: ImageTable, units: Units | None, *, allowed: bool) -> Folds:
    """A fold for each source.

    Raises:
        DataError: no sources, units in several of them, or see `leave_one_source_out`.
    """
    if learnt.sources is None:
        raise DataError(
            "`folds` leave-one-source-out needs to know where images come from, and the data do "
            "not say. Name the column by --columns source=COLUMN, or take --folds 5."
        )
    source_names = sorted(set(learnt.sources) - {""})
    index = {name: code for code, name in enumerate(source_names)}
    sources = np.array([index.get(name, -1) for name in learnt.sources], dtype=np.int64)
    fold = leave_one_source_out(
        learnt.labels, sources, source_names=source_names, class_names=learnt.class_names
    )
    leaks = count_straddling(learnt, fold, units, "Folds by source", allowed=allowed)
    names = tuple(dict.fromkeys(learnt.sources))
    return Folds(fold=fold, scheme="leave-one-source-out", names=names, leaks=leaks)


def refuse_ratio(ratio: str | None, origin: str) -> None:
    """Refuse a ratio where the test part is given.

    Raises:
        DataError: there is one.
    """
    if ratio is not None:
        raise DataError(
            f"`ratio` {ratio} would draw a test part, but one is given: {origin}. "
            "Leave --ratio out."
        )


def fold_notes(learnt: ImageTable, found: Folds) -> list[str]:
    """What to know of folds that are not drawn in proportion."""
    if found.scheme == "stratified":
        return []
    num_folds, num_classes = int(found.fold.max()) + 1, len(learnt.class_names)
    counts = np.zeros((num_folds, num_classes), dtype=np.int64)
    np.add.at(counts, (found.fold, learnt.labels), 1)
    lacking = int((counts == 0).any(axis=1).sum())
    if not lacking:
        return []
    return [
        f"{lacking} of {num_folds} folds score no image of some class, so the figures of single "
        "folds and means over folds, AUC among them, are missing or rest on fewer classes. The "
        "pooled figures rest on all images."
    ]


def read_table(settings: RunSettings, progress: Progress) -> ImageTable:
    """The labelled images that the settings ask for; what is unusual about them is told.

    Raises:
        DataError: the data are not there, or cannot be learnt from.
    """
    table = load_table(
        settings.data,
        test_data=settings.test_data,
        group_by=settings.group_by,
        columns=settings.columns,
        crop_margin=settings.crop_margin,
    )
    known = table.labelled()
    check_positive(settings, known)
    taken = sample_table(known, settings.max_images, seed=settings.seed)
    splits = settings.splits
    if splits is not None:
        taken = apply_splits(taken, read_splits(splits), known)
    for note in taken.notes:
        progress.note(f"Note       {note}")
    return taken


def sample_table(table: ImageTable, max_images: int | None, *, seed: int) -> ImageTable:
    """At most about `max_images` of the table, every class and split in its share.

    Groups are not kept whole: a group of which half is left out is still one group. Of every
    class in every split one image stays at least, so a little more may be taken.
    """
    if max_images is None or max_images >= len(table):
        return table
    cells: dict[tuple[str, int], list[int]] = {}
    for row, (split, label) in enumerate(zip(table.splits, table.labels.tolist(), strict=True)):
        cells.setdefault((split, label), []).append(row)
    generator = np.random.default_rng(seed)
    kept: list[int] = []
    for cell in sorted(cells):
        count = max(1, round(max_images * len(cells[cell]) / len(table)))
        kept.extend(generator.permutation(cells[cell])[:count].tolist())
    return table.take(sorted(kept))


def check_classes(learnt: ImageTable) -> None:
    """Refuse a class without a training image."""
    counts = np.bincount(learnt.labels, minlength=len(learnt.class_names))
    empty = [learnt.class_names[i] for i in np.flatnonzero(counts == 0)]
    if empty:
        raise DataError(
            f"The class '{empty[0]}' has no readable image to learn from in '{learnt.name}'. "
            "Add some, or take the class out."
        )


def group_codes(table: ImageTable) -> Integers | None:
    """(N,) integer code of each image's group, None where there are no groups.

    An image whose group is not known is one of its own.
    """
    if table.groups is None:
        return None
    names, codes = np.unique(np.array(table.groups, dtype=object), return_inverse=True)
    alone = np.flatnonzero([not name for name in table.groups])
    codes[alone] = len(names) + np.arange(len(alone))
    return codes.astype(np.int64)


def units_of(table: ImageTable, linked: Integers | None) -> Units | None:
    """What must stay on one side: the linked images, else the groups; None where nothing must."""
    codes = group_codes(table) if linked is None else linked
    if codes is None or (table.groups is None and len(np.unique(codes)) == len(codes)):
        return None
    return Units(codes=codes, word="independent image" if table.groups is None else "group")
