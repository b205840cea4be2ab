"""What duplicates, groups, sources, splits and classes say against trusting a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from headstart.audit.duplicates import NONE, Duplicates
from headstart.audit.findings import AuditSettings, Finding, Pair, counted, examples, listed
from headstart.records import UNLABELLED, ImageTable, Integers


def check_duplicates(table: ImageTable, found: Duplicates) -> Iterable[Finding]:
    """Copies: equal pixels, near ones, suspects, and copies with different labels."""
    exact = [pair for pair in found.pairs if pair.kind == "exact"]
    near = [pair for pair in found.pairs if pair.kind == "near"]
    suspects = [pair for pair in found.pairs if pair.kind == "suspect"]
    if exact:
        sets = int(found.exact.max()) + 1
        yield Finding(
            code="duplicates-exact",
            severity="warning",
            message=f"{counted(len(exact), 'image repeats', 'images repeat')} the pixels of "
            f"another ({counted(sets, 'set')}), first {_told(table, exact[0])}. They are kept "
            "together in every split that is drawn; remove the copies so that no picture counts "
            "twice.",
            count=len(exact),
            paths=_paths(table, exact),
        )
    if near:
        members, stars = int((found.near != NONE).sum()), int(found.near.max()) + 1
        full = (
            f" {counted(found.num_full, 'group is', 'groups are')} as large as allowed: frames of "
            "a video? Then name the video as group."
            if found.num_full
            else ""
        )
        yield Finding(
            code="duplicates-near",
            severity="warning",
            message=f"{members:,} images are near-duplicates by embedding and by perceptual hash "
            f"({counted(stars, 'group')}), first {_told(table, near[0])}. They are kept together "
            f"in every split that is drawn; look at duplicates.png.{full}",
            count=members,
            paths=_paths(table, near),
        )
    if suspects and found.neighbours is not None:
        searched = found.neighbours
        count = searched.by_embedding.count + searched.by_hash.count + found.num_left_apart
        apart = (
            f" {counted(found.num_left_apart, 'pair')} of them agree by both tests, but would "
            "chain groups."
            if found.num_left_apart
            else ""
        )
        yield Finding(
            code="duplicates-suspect",
            severity="note",
            message=f"{counted(count, 'pair looks', 'pairs look')} alike by one test of two and "
            f"{'is' if count == 1 else 'are'} not kept together, first "
            f"{_told(table, suspects[0])}.{apart} Look at duplicates.png; where they show the "
            "same thing, name it as group.",
            count=count,
            paths=_paths(table, suspects),
        )
    yield from _check_conflicts(table, found)


def _check_conflicts(table: ImageTable, found: Duplicates) -> Iterable[Finding]:
    kinds = (
        ("labels-exact", found.exact, "the same pixels", "One of the labels must be wrong"),
        ("labels-near", found.near, "near-duplicates", "Probably one label is wrong"),
    )
    for code, codes, what, verdict in kinds:
        mixed = codes_with_several(codes, table.labels)
        if code == "labels-near":  # what exact copies say already is not said again
            mixed = mixed[[_is_near_news(table, found, int(number)) for number in mixed]]
        if not len(mixed):
            continue
        rows = np.flatnonzero(codes == mixed[0])
        names = [f"{table.paths[row]} ({table.label_of(row)})" for row in rows.tolist()]
        yield Finding(
            code=code,
            severity="warning",
            message=f"{counted(len(mixed), 'set')} of {what} "
            f"{'has' if len(mixed) == 1 else 'have'} different labels, first {listed(names)}. "
            f"{verdict}: correct or remove them.",
            count=len(mixed),
            paths=examples([table.paths[row] for row in np.flatnonzero(np.isin(codes, mixed))]),
        )


def _is_near_news(table: ImageTable, found: Duplicates, number: int) -> bool:
    rows = np.flatnonzero(found.near == number)
    mixed = codes_with_several(found.exact[rows], table.labels[rows])
    kept = rows[~np.isin(found.exact[rows], mixed)]
    return len(np.unique(table.labels[kept])) > 1 if len(mixed) else True


def codes_with_several(codes: Integers, labels: Integers) -> Integers:
    """Codes, -1 left out, whose labelled rows have more than one label."""
    rows = (codes != NONE) & (labels != UNLABELLED)
    if not rows.any():
        return np.zeros(0, dtype=np.int64)
    pairs = np.unique(np.stack([codes[rows], labels[rows]]), axis=1)[0]
    names, counts = np.unique(pairs, return_counts=True)
    return names[counts > 1]


def held_out(splits: Sequence[str]) -> Integers | None:
    """(N,) 1 in the given test part, 0 outside, -1 where no split is said; None without one.

    With `train` and `val` alone, `val` is the test part, as in a run.
    """
    present = set(splits)
    part = "test" if "test" in present else "val"
    if part not in present or len(present - {""}) < 2:
        return None
    return np.array([NONE if not s else int(s == part) for s in splits], dtype=np.int64)


def check_leaks(
    table: ImageTable, found: Duplicates, groups: Integers | None, sources: Integers | None
) -> Iterable[Finding]:
    """What stands on both sides of a given split."""
    held = held_out(table.splits)
    if held is None:
        return
    sides = (
        ("leak-exact", found.exact, "the same pixels as an image outside it"),
        ("leak-near", _beyond_exact(table, found), "a near-duplicate outside it"),
        ("leak-groups", groups, "a group (patient, video) that has images outside it"),
    )
    for code, codes, what in sides:
        rows = crossing(codes, held) if codes is not None else np.zeros(0, dtype=np.int64)
        if not len(rows):
            continue
        twin = int(np.flatnonzero((codes == codes[rows[0]]) & (held == 0))[0])  # type: ignore[index]
        yield Finding(
            code=code,
            severity="error",
            message=f"{len(rows):,} of {counted(int((held == 1).sum()), 'test image')} "
            f"{'has' if len(rows) == 1 else 'have'} {what}, first "
            f"'{table.paths[rows[0]]}' and '{table.paths[twin]}'. The test would reward memory: "
            "move or remove one side.",
            count=len(rows),
            paths=examples([table.paths[row] for row in rows]),
        )
    suspects = [
        pair
        for pair in found.pairs
        if pair.kind == "suspect" and {held[pair.first], held[pair.second]} == {0, 1}
    ]
    if suspects:
        yield Finding(
            code="leak-suspects",
            severity="warning",
            message=f"{counted(len(suspects), 'pair')} across the split "
            f"{'looks' if len(suspects) == 1 else 'look'} alike by one test of two, first "
            f"{_told(table, suspects[0])}. Look at duplicates.png before you trust the test.",
            count=len(suspects),
            paths=_paths(table, suspects),
        )
    if sources is not None:
        yield from _check_shared_sources(table, sources, held)


def _beyond_exact(table: ImageTable, found: Duplicates) -> Integers:
    """Stars, without the images whose crossing an exact copy explains already."""
    held = held_out(table.splits)
    codes = found.near.copy()
    if held is not None:
        codes[crossing(found.exact, held)] = NONE
    return codes


def crossing(codes: Integers, held: Integers) -> Integers:
    """Rows of the test part whose code also stands outside it."""
    outside = np.unique(codes[(held == 0) & (codes != NONE)])
    rows: Integers = np.flatnonzero((held == 1) & np.isin(codes, outside)).astype(np.int64)
    return rows


def _check_shared_sources(
    table: ImageTable, sources: Integers, held: Integers
) -> Iterable[Finding]:
    assert table.sources is not None
    rows = crossing(sources, held)
    if len(rows):
        names = sorted({table.sources[row] for row in rows})
        yield Finding(
            code="sources-shared",
            severity="note",
            message=f"{counted(len(names), 'source')} ({listed(names)}) "
            f"{'stands' if len(names) == 1 else 'stand'} on both sides of the split: the test "
            "says nothing about images from a new source.",
            count=len(names),
            paths=examples([table.paths[row] for row in rows]),
        )


def check_groups(table: ImageTable, groups: Integers | None) -> Iterable[Finding]:
    """Groups that stand in several classes."""
    if groups is None or table.groups is None:
        return
    mixed = codes_with_several(groups, table.labels)
    if len(mixed):
        first = np.flatnonzero(groups == mixed[0])
        classes = sorted({table.label_of(row) for row in first.tolist() if table.label_of(row)})
        rows = np.flatnonzero(np.isin(groups, mixed))
        yield Finding(
            code="groups-mixed",
            severity="warning",
            message=f"{counted(len(mixed), 'group stands', 'groups stand')} in several classes "
            f"({len(rows):,} images), first '{table.groups[first[0]]}' in "
            f"{' and '.join(classes)}. They are kept on one side; check that the labels are "
            "right.",
            count=len(mixed),
            paths=examples([table.paths[row] for row in rows]),
        )


def check_classes(
    table: ImageTable, linked: Integers, good: Integers, settings: AuditSettings
) -> Iterable[Finding]:
    """Imbalance, and classes of too few independent units."""
    labels = table.labels[good]
    counts = np.bincount(labels[labels >= 0], minlength=len(table.class_names))
    if not len(counts):
        return
    units = np.array([len(np.unique(linked[good][labels == c])) for c in range(len(counts))])
    tiny = np.flatnonzero(units < settings.tiny_class)
    if len(tiny):
        names = [f"{table.class_names[c]} ({units[c]:,})" for c in tiny[np.argsort(units[tiny])]]
        yield Finding(
            code="classes-tiny",
            severity="warning",
            message=f"{counted(len(tiny), 'class has', 'classes have')} fewer than "
            f"{settings.tiny_class} independent images (copies and groups count once): "
            f"{listed(names)}. Their figures will say little; add images.",
            count=len(tiny),
        )
    low, high = int(counts.argmin()), int(counts.argmax())
    ratio = counts[high] / max(counts[low], 1)
    if ratio >= settings.imbalance_ratio:
        largest, smallest = table.class_names[high], table.class_names[low]
        yield Finding(
            code="imbalance",
            severity="warning",
            message=f"'{largest}' has {counts[high]:,} images, '{smallest}' "
            f"{counts[low]:,} ({ratio:.0f} to 1). Accuracy will flatter the large class: read "
            "balanced accuracy, and weigh the classes.",
            count=len(counts),
        )


def _told(table: ImageTable, pair: Pair) -> str:
    return f"'{table.paths[pair.first]}' and '{table.paths[pair.second]}'"


def _paths(table: ImageTable, pairs: Sequence[Pair]) -> tuple[str, ...]:
    names = [table.paths[row] for pair in pairs[:10] for row in (pair.first, pair.second)]
    return examples(list(dict.fromkeys(names)))
