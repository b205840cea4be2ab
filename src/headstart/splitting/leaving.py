"""One group or one source left out a fold: how well does it go on one that was never seen?

A source that is left out says something of the class only where the class is known from other
sources.  Where each source holds one class, or a class comes from one source, what tells the
classes apart and what tells the sources apart are the same images: nothing that is measured on
them can show which of the two was learnt, so such folds are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headstart.errors import DataError
from headstart.records import UNLABELLED, Floats, Integers
from headstart.splitting.units import NONE, Groups, number_units

MAX_LEFT_OUT = 50
FEWEST_GROUPS = 3  # one is scored, one learnt from, one chosen on
FEWEST_SOURCES = 2
NEARLY_ONE = 0.95  # Cramér's V from which source and label are taken to coincide
SHOWN = 3


def leave_one_group_out(
    labels: Integers,
    groups: Groups,
    *,
    group_names: Mapping[int, str] | Sequence[str],
    class_names: Sequence[str],
) -> Integers:
    """A fold for each group, in the order in which groups first appear.

    Args:
        labels: (N,) int64.
        groups: (N,) codes, each with its name in `group_names`.
        group_names: name of each code for the messages.
        class_names: C names for the messages.

    Returns:
        (N,) int64 fold in which each image is scored.

    Raises:
        DataError: too few or too many groups, or a class that one group holds alone.
    """
    fold = number_units(groups)
    count = len(np.unique(fold))
    if count < FEWEST_GROUPS:
        raise DataError(
            f"`folds` leave-one-group-out needs at least {FEWEST_GROUPS} groups to learn from (one "
            f"is scored, one learnt from, one chosen on), got {count}. Add groups."
        )
    names = _names_of(fold, groups, group_names)
    _check_count(count, "group", "which keeps groups whole too")
    check_seen(
        labels,
        fold,
        fold_names=names,
        class_names=class_names,
        what="group",
        instead="leave the class out",
    )
    return fold


def leave_one_source_out(
    labels: Integers,
    sources: Integers,
    *,
    source_names: Sequence[str],
    class_names: Sequence[str],
) -> Integers:
    """A fold for each source, in the order in which sources first appear.

    Args:
        labels: (N,) int64.
        sources: (N,) int64 index into `source_names`, -1 where it is not known.
        source_names: S names for the messages.
        class_names: C names for the messages.

    Returns:
        (N,) int64 fold in which each image is scored.

    Raises:
        DataError: too few or too many sources, images without one, or source and label coincide.
    """
    unknown = int((sources == NONE).sum())
    if unknown:
        raise DataError(
            f"`folds` leave-one-source-out needs the source of every image, got {unknown:,} of "
            f"{len(sources):,} images without one. Fill the source column in, or take --folds 5."
        )
    fold = number_units(sources)
    count = len(np.unique(fold))
    if count < FEWEST_SOURCES:
        raise DataError(
            f"`folds` leave-one-source-out needs at least {FEWEST_SOURCES} sources to learn from, "
            f"got {count}. Add images of another source, or take --folds 5."
        )
    _check_count(count, "source", "or name sources that are larger")
    check_sources(labels, sources, source_names=source_names, class_names=class_names)
    return fold


def check_seen(
    labels: Integers,
    fold: Integers,
    *,
    fold_names: Sequence[str],
    class_names: Sequence[str],
    what: str,
    instead: str,
) -> None:
    """Refuse folds of which one scores a class that the others lack.

    Args:
        labels: (N,) int64.
        fold: (N,) int64.
        fold_names: K names of what each fold leaves out.
        class_names: C names.
        what: 'group' or 'fold'.
        instead: what else can be done, the end of the sentence.

    Raises:
        DataError: there is one such class.
    """
    for label in np.unique(labels):
        inside = np.unique(fold[labels == label])
        if len(inside) == 1:
            raise DataError(
                f"Every class must be seen without the {what} that is scored, but all images of "
                f"'{class_names[label]}' to learn from are in the {what} "
                f"'{fold_names[inside[0]]}'. Add images of '{class_names[label]}' in another "
                f"{what}, or {instead}."
            )


def check_sources(
    labels: Integers,
    sources: Integers,
    *,
    source_names: Sequence[str],
    class_names: Sequence[str],
) -> None:
    """Refuse sources that coincide with the label, in whole or for a class.

    Args:
        labels: (N,) int64, -1 where unknown.
        sources: (N,) int64 index into `source_names`, -1 where unknown.
        source_names: S names.
        class_names: C names.

    Raises:
        DataError: nothing can show whether source or class was learnt.
    """
    known = (labels != UNLABELLED) & (sources != NONE)
    counts = np.zeros((len(source_names), len(class_names)))
    np.add.at(counts, (sources[known], labels[known]), 1)
    for label in np.flatnonzero((counts > 0).sum(axis=0) == 1):
        source = source_names[int(counts[:, label].argmax())]
        name = class_names[int(label)]
        raise DataError(
            f"Source and label coincide: every image of '{name}' comes from the source "
            f"'{source}' and from no other. Without that source there is no '{name}' to learn "
            f"from, and with it nothing shows whether '{name}' or '{source}' was learnt: "
            f"leave-one-source-out cannot tell. Add images of '{name}' from another source, leave "
            "the class out, or take --folds 5, whose figures may be those of the source."
        )
    if (counts.max(axis=1) == counts.sum(axis=1)).all():
        where = (f"'{source_names[s]}'" for s in np.flatnonzero(counts.any(axis=1))[:SHOWN])
        raise DataError(
            f"Source and label coincide: each source ({', '.join(where)}, ...) holds a single "
            "class, so that nothing shows whether classes or sources were learnt: "
            "leave-one-source-out cannot tell. Add images of several classes from one source. "
            "Where the sources are units like patients, many to a class, name them as groups: "
            "--group-by with --folds leave-one-group-out."
        )
    association = _cramers_v(counts)
    if association >= NEARLY_ONE:
        raise DataError(
            f"Source and label nearly coincide: Cramér's V is {association:.3f} (from "
            f"{NEARLY_ONE:g} on folds by source are refused), so that hardly an image shows "
            "whether classes or sources were learnt: leave-one-source-out cannot tell. Add images "
            "of several classes from each source, or take --folds 5, whose figures may be those "
            "of the source."
        )


def _cramers_v(counts: Floats) -> float:
    """Cramér's V of a table, not corrected for chance: 1 where a side decides the other."""
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    smaller = min(counts.shape) - 1
    if smaller < 1:
        return 0.0
    margins = np.outer(counts.sum(axis=1), counts.sum(axis=0))
    return float(np.sqrt(max((counts**2 / margins).sum() - 1, 0.0) / smaller))


def _names_of(
    fold: Integers, groups: Groups, group_names: Mapping[int, str] | Sequence[str]
) -> list[str]:
    """K names, that of the group which each fold leaves out."""
    firsts = np.unique(fold, return_index=True)[1]
    return [group_names[int(groups[row])] for row in firsts]


def _check_count(count: int, what: str, instead: str) -> None:
    """Raise DataError where a fold each would be too many."""
    if count > MAX_LEFT_OUT:
        raise DataError(
            f"`folds` leave-one-{what}-out makes a fold for each of the {count:,} {what}s to learn "
            f"from, at most {MAX_LEFT_OUT} are allowed. Take --folds 5, {instead}."
        )
