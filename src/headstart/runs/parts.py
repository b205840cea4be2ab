"""Which images are learnt from, which are tested on, and how the learning part is folded."""

from __future__ import annotations

import numpy as np

from headstart.data import load_table
from headstart.errors import DataError
from headstart.progress import Progress
from headstart.records import ImageTable, Split
from headstart.runs.settings import RunSettings
from headstart.splitting import hold_out, inner_hold_out, stratified_folds

INNER_FRACTION = 0.2


def split_table(table: ImageTable, *, folds: int, test_fraction: float, seed: int) -> Split:
    """Fix the test part, the folds and their inner parts, before anything is fitted.

    The data's own 'test' part is the test part; without one its 'val' part is, because nothing
    here needs a validation part: choices are made by cross-validation inside the training part.
    With both, 'val' is learnt from. With neither, a stratified share is held out.

    Args:
        table: readable, labelled images only.
        folds: number of folds.
        test_fraction: share to hold out where the data bring no test part.
        seed: of every draw.

    Raises:
        DataError: a class is too small, or absent from the training part.
    """
    names = np.array(table.splits)
    if "test" in names:
        is_test, origin = names == "test", "the data's own test part"
    elif "val" in names:
        is_test, origin = names == "val", "the data's own val part"
    else:
        is_test = hold_out(table.labels, test_fraction, groups=group_codes(table), seed=seed)
        origin = f"{100 * test_fraction:.4g} % of each class held out"
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    learnt = table.take(train)
    check_classes(learnt)
    groups = group_codes(learnt)
    try:
        fold = stratified_folds(
            learnt.labels, folds, groups=groups, seed=seed, class_names=table.class_names
        )
    except DataError as error:
        raise DataError(f"{error} ({len(test):,} images are kept to test on: {origin}.)") from error
    inner = inner_hold_out(learnt.labels, fold, fraction=INNER_FRACTION, groups=groups, seed=seed)
    return Split(train=train, test=test, fold=fold, inner=inner, origin=origin)


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
    for note in table.notes:
        progress.note(f"Note       {note}")
    return sample_table(table.labelled(), settings.max_images, seed=settings.seed)


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


def group_codes(table: ImageTable) -> np.ndarray | None:
    """(N,) integer code of each image's group, None where there are no groups."""
    if table.groups is None:
        return None
    return np.unique(np.array(table.groups), return_inverse=True)[1]
