"""Splits: in proportion, whole groups, seeded, and clear about classes that are too small."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold, StratifiedKFold

from headstart.errors import DataError, UsageError
from headstart.splitting import (
    crossing,
    hold_out,
    inner_folds,
    inner_hold_out,
    leave_one_group_out,
    leave_one_source_out,
    sample_evenly,
    sample_units,
    straddling,
    stratified_folds,
)

NAMES = ("badger", "fox", "otter")


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
)
def test_hold_out_keeps_every_class_on_both_sides(labels, fraction, seed):
    """In proportion to a whole image; a single image is kept."""
    held = hold_out(labels, fraction, seed=seed)
    for label in np.unique(labels):
        size, out = (labels == label).sum(), held[labels == label].sum()
        if size == 1:
            assert out == 0
        else:
            assert 1 <= out <= size - 1
            assert abs(out - fraction * size) <= 1


@settings(max_examples=30, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2)), min_size=1, max_size=60),
    seed=st.integers(0, 99),
)
def test_hold_out_never_splits_a_group(pairs, seed):
    """Whatever the groups; and a class is never held out whole."""
    groups, labels = (np.array(column) for column in zip(*pairs, strict=True))
    held = hold_out(labels, 0.25, groups=groups, seed=seed)
    for group in np.unique(groups):
        assert len(np.unique(held[groups == group])) == 1
    assert set(labels[~held]) == set(labels)


def test_hold_out_of_pure_groups_has_every_class_on_both_sides():
    """Groups of one class each, sizes unequal: near the fraction, none missing."""
    generator = np.random.default_rng(0)
    group_labels = np.arange(60) % 3
    groups = np.repeat(np.arange(60), generator.integers(1, 9, size=60))
    labels = group_labels[groups]
    held = hold_out(labels, 0.2, groups=groups, seed=3)
    for label in range(3):
        assert held[labels == label].mean() == pytest.approx(0.2, abs=0.03)
    pair = hold_out(np.array([0, 0, 1, 1]), 0.1, groups=np.arange(4), seed=0)
    assert pair[:2].sum() == pair[2:].sum() == 1


@pytest.mark.parametrize("groups", [None, np.arange(50) // 2])
def test_splits_depend_on_the_seed_alone(groups):
    """Twice the same, and another seed another split."""
    labels = np.arange(50) // 2 % 3

    def split(seed: int) -> list[np.ndarray]:
        fold = stratified_folds(labels, 3, class_names=NAMES, groups=groups, seed=seed)
        inner = inner_hold_out(labels, fold, groups=groups, seed=seed)
        return [hold_out(labels, 0.2, groups=groups, seed=seed), fold, inner]

    for one, same, other in zip(split(5), split(5), split(6), strict=True):
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_out_of_range_is_named(fraction):
    """UsageError with what it got."""
    with pytest.raises(UsageError, match="above 0 and below 1, got"):
        hold_out(np.array([0, 0, 1]), fraction, seed=0)


def test_folds_are_in_proportion():
    """Each class's images differ by at most one between folds; each image is in one fold."""
    labels = np.repeat([0, 1, 2], [31, 17, 5])
    fold = stratified_folds(labels, 5, class_names=NAMES, seed=0)
    counts = np.array([np.bincount(fold[labels == c], minlength=5) for c in range(3)])
    assert (np.ptp(counts, axis=1) <= 1).all()
    assert fold.dtype == np.int64


def test_folds_keep_groups_together():
    """Groups whole, every class in the training part of every fold."""
    generator = np.random.default_rng(1)
    groups = generator.integers(40, size=400)
    labels = np.where(generator.random(400) < 0.7, groups % 3, generator.integers(3, size=400))
    fold = stratified_folds(labels, 4, class_names=NAMES, groups=groups, seed=0)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in np.unique(groups))
    assert all(set(labels[fold != f]) == {0, 1, 2} for f in range(4))
    inner = inner_hold_out(labels, fold, groups=groups, seed=0)
    for row in inner:
        assert all(len(np.unique(row[groups == g])) == 1 for g in np.unique(groups))


@pytest.mark.parametrize(
    ("num_folds", "sizes", "message"),
    [
        (
            5,
            [9, 9, 4],
            r"`folds` must be between 2 and the smallest class's 4 images, got 5\. "
            r"Lower --folds or add images of 'otter'\.",
        ),
        (1, [9, 3, 4], r"smallest class's 3 images, got 1\. Raise --folds\."),
        (2, [9, 1, 4], r"at least 2 images of every class, got 1 of 'fox'\."),
    ],
)
def test_small_classes_are_named(num_folds, sizes, message):
    """The wording, whole."""
    labels = np.repeat([0, 1, 2], sizes)
    with pytest.raises(DataError, match=message):
        stratified_folds(labels, num_folds, class_names=NAMES, seed=0)


def test_few_groups_are_named():
    """Groups count, not images."""
    labels, groups = np.arange(40) % 2, np.arange(40) // 20
    with pytest.raises(DataError, match=r"smallest class's 2 groups, got 3\. Lower --folds or add"):
        stratified_folds(labels, 3, class_names=NAMES, groups=groups, seed=0)


def test_inner_rows_are_of_the_training_part_only():
    """Never the scored part; a class with one training image keeps it; others give a fifth."""
    labels = np.repeat([0, 1, 2], [40, 30, 2])
    fold = stratified_folds(labels, 2, class_names=NAMES, seed=0)
    inner = inner_hold_out(labels, fold, seed=0)
    assert inner.shape == (2, 72)
    for number, row in enumerate(inner):
        assert not row[fold == number].any()
        assert not row[labels == 2].any()
        assert row[labels == 0].sum() == 4
        assert row[labels == 1].sum() == 3


def test_an_inner_part_of_nothing_is_an_error():
    """Two images a class in two folds leave one each to train on."""
    labels = np.repeat([0, 1], 2)
    fold = stratified_folds(labels, 2, class_names=NAMES, seed=0)
    with pytest.raises(DataError, match="a class with 2 images to train on"):
        inner_hold_out(labels, fold, seed=0)


# One unit a row: its class shares follow from the images drawn for it.
units_and_labels = st.lists(
    st.tuples(st.integers(0, 14), st.integers(0, 2)), min_size=6, max_size=70
).map(lambda pairs: tuple(np.array(column) for column in zip(*pairs, strict=True)))


def folded(labels, groups, num_folds=3, seed=0):
    """Folds and inner parts, None where the classes are too small for them."""
    try:
        fold = stratified_folds(labels, num_folds, class_names=NAMES, groups=groups, seed=seed)
        return fold, inner_hold_out(labels, fold, groups=groups, seed=seed)
    except DataError:
        return None


@settings(max_examples=30, deadline=None)
@given(drawn=units_and_labels, num_folds=st.integers(2, 4), seed=st.integers(0, 9))
def test_folds_keep_every_promise(drawn, num_folds, seed):
    """Each row scored once, units whole, no class unseen, inner rows inside the training part."""
    groups, labels = drawn
    found = folded(labels, groups, num_folds, seed)
    assume(found is not None)
    fold, inner = found
    assert set(fold.tolist()) == set(range(num_folds))
    for group in np.unique(groups):
        own = groups == group
        assert len(np.unique(fold[own])) == 1
        assert (np.ptp(inner[:, own].astype(int), axis=1) == 0).all()
    for number, row in enumerate(inner):
        assert set(labels[fold != number]) == set(labels)
        assert row.any()
        assert not row[fold == number].any()
        learnt = (fold != number) & ~row
        assert set(labels[learnt]) == set(labels)


@settings(max_examples=20, deadline=None)
@given(drawn=units_and_labels, names=st.permutations(range(15)), seed=st.integers(0, 9))
def test_what_units_are_called_does_not_matter(drawn, names, seed):
    """Other codes, or words, for the same units: the same split."""
    groups, labels = drawn
    for other in (np.array(names)[groups], np.array([f"p{names[g]}" for g in groups])):
        held = hold_out(labels, 0.3, groups=other, seed=seed)
        np.testing.assert_array_equal(held, hold_out(labels, 0.3, groups=groups, seed=seed))
        one, same = folded(labels, groups, seed=seed), folded(labels, other, seed=seed)
        assert (one is None) == (same is None)
        if one is not None:
            np.testing.assert_array_equal(one[0], same[0])
            np.testing.assert_array_equal(one[1], same[1])


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), min_size=12, max_size=60).map(np.array),
    seed=st.integers(0, 99),
)
def test_units_of_one_image_are_no_units(labels, seed):
    """The audit's codes without a single duplicate leave every split as it is without them."""
    alone = np.arange(len(labels))[::-1].copy()
    np.testing.assert_array_equal(
        hold_out(labels, 0.2, groups=alone, seed=seed), hold_out(labels, 0.2, seed=seed)
    )
    one, same = folded(labels, alone, seed=seed), folded(labels, None, seed=seed)
    assert (one is None) == (same is None)
    if one is not None:
        np.testing.assert_array_equal(one[0], same[0])
        np.testing.assert_array_equal(one[1], same[1])


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=12, max_size=60),
    num_folds=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_pure_units_are_in_proportion_up_to_the_largest(sizes, num_folds, seed):
    """Fold counts of a class, and its held-out count, are off by at most one unit's size."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = groups % 3
    held = hold_out(labels, 0.25, groups=groups, seed=seed)
    fold = stratified_folds(labels, num_folds, class_names=NAMES, groups=groups, seed=seed)
    for label in range(3):
        own = labels == label
        largest = max(sizes[label::3])
        counts = np.bincount(fold[own], minlength=num_folds)
        assert np.ptp(counts) <= largest
        assert abs(held[own].sum() - 0.25 * own.sum()) <= largest


def test_single_images_level_out_what_units_cannot():
    """Few duplicates among many images: each class differs by at most one, as without them."""
    groups = np.arange(300)
    groups[:40] //= 4  # ten units of four, then images by themselves
    labels = np.random.default_rng(0).integers(3, size=300)
    fold = stratified_folds(labels, 5, class_names=NAMES, groups=groups, seed=0)
    held = hold_out(labels, 0.2, groups=groups, seed=0)
    for label in range(3):
        own = labels == label
        assert np.ptp(np.bincount(fold[own], minlength=5)) <= 1
        assert held[own].sum() == round(0.2 * own.sum())


def test_few_large_units_are_held_out_near_the_fraction():
    """One of six holds two thirds: a small one is held out, not that."""
    groups = np.repeat(np.arange(6), [80, 8, 8, 8, 8, 8])
    labels = np.arange(120) % 2
    for seed in range(5):
        assert hold_out(labels, 0.2, groups=groups, seed=seed).sum() == 24


def imbalance(labels, fold):
    """Mean squared departure of class shares from 1 / K."""
    counts = np.array([np.bincount(fold[labels == c], minlength=4) for c in range(3)])
    return ((counts / counts.sum(axis=1, keepdims=True) - 1 / 4) ** 2).mean()


def test_units_are_spread_as_well_as_by_scikit_learn():
    """Ten draws of mixed units: no worse on the whole than StratifiedGroupKFold."""
    ours, theirs = [], []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        groups = np.repeat(np.arange(50), generator.integers(2, 9, size=50))
        mixed = generator.integers(3, size=len(groups))
        labels = np.where(generator.random(len(groups)) < 0.7, groups % 3, mixed)
        fold = stratified_folds(labels, 4, class_names=NAMES, groups=groups, seed=seed)
        ours.append(imbalance(labels, fold))
        splitter = StratifiedGroupKFold(4, shuffle=True, random_state=seed)
        for number, (_, scored) in enumerate(splitter.split(labels, labels, groups)):
            fold[scored] = number
        theirs.append(imbalance(labels, fold))
    assert np.mean(ours) <= 1.1 * np.mean(theirs)


def test_each_group_is_left_out_once():
    """As scikit-learn's LeaveOneGroupOut; folds in the order in which groups appear."""
    groups = np.array([4, 4, 2, 2, 7, 7, 7, 2])
    labels = np.array([0, 1, 0, 1, 0, 1, 1, 0])
    names = {2: "p2", 4: "p4", 7: "p7"}
    fold = leave_one_group_out(labels, groups, group_names=names, class_names=NAMES)
    np.testing.assert_array_equal(fold, [0, 0, 1, 1, 2, 2, 2, 1])
    theirs = {tuple(scored) for _, scored in LeaveOneGroupOut().split(labels, labels, groups)}
    assert {tuple(np.flatnonzero(fold == k)) for k in range(3)} == theirs
    inner = inner_hold_out(labels, fold, groups=groups, seed=0)
    assert [len(np.unique(groups[row])) for row in inner] == [1, 1, 1]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([0, 0, 1, 1, 1, 1], r"at least 3 groups to learn from .* got 2\. Add groups\."),
        (
            [0, 1, 2, 2, 2, 2],
            r"all images of 'otter' to learn from are in the group 'p2'\. Add images of 'otter' in "
            r"another group, or leave the class out\.",
        ),
    ],
)
def test_groups_that_cannot_be_left_out_are_named(groups, message):
    """Too few of them, or one that holds a class alone."""
    labels = np.array([0, 0, 0, 0, 2, 2])
    with pytest.raises(DataError, match=message):
        leave_one_group_out(
            labels, np.array(groups), group_names=["p0", "p1", "p2"], class_names=NAMES
        )


def test_too_many_groups_are_counted():
    """With the number, and what to take instead."""
    groups = np.arange(1204) % 602
    message = r"each of the 602 groups to learn from, at most 50 are allowed\. Take --folds 5,"
    with pytest.raises(DataError, match=message):
        leave_one_group_out(
            groups % 2, groups, group_names=groups.astype(str).tolist(), class_names=NAMES
        )


def by_source(counts):
    """Labels and sources of a table of counts, one row a source."""
    counts = np.array(counts)
    cells = np.repeat(np.arange(counts.size), counts.ravel())
    labels, sources = cells % counts.shape[1], cells // counts.shape[1]
    return leave_one_source_out(
        labels, sources, source_names=("Aden", "Bern", "Cork", "Dili"), class_names=NAMES
    )


def test_each_source_is_left_out_once():
    """Classes that every source knows, in unequal shares."""
    np.testing.assert_array_equal(
        np.bincount(by_source([[9, 1, 4], [2, 8, 5], [3, 3, 3]])), [14, 15, 9]
    )


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[9, 9, 9]], r"at least 2 sources to learn from, got 1\."),
        (
            [[9, 4, 0], [7, 5, 0], [3, 3, 8]],
            r"coincide: every image of 'otter' comes from the source 'Cork' and from no other\.",
        ),
        (
            [[9, 0], [7, 0], [0, 8], [0, 3]],
            r"each source \('Aden', 'Bern', 'Cork', \.\.\.\) holds a single class",
        ),
        ([[200, 1], [1, 200]], r"nearly coincide: Cramér's V is 0\.990 "),
    ],
)
def test_sources_that_coincide_with_the_label_are_refused(counts, message):
    """In whole, for one class, or but for a stray image."""
    with pytest.raises(DataError, match=message):
        by_source(counts)


def test_images_without_a_source_are_counted():
    """-1 means that it is not known."""
    with pytest.raises(DataError, match=r"got 2 of 4 images without one\. Fill the source column"):
        leave_one_source_out(
            np.array([0, 1, 0, 1]),
            np.array([0, 0, -1, -1]),
            source_names=("Aden",),
            class_names=NAMES,
        )


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(-1, 5), st.booleans(), st.integers(0, 2)), min_size=1))
def test_what_crosses_is_found(rows):
    """Against a plain double loop; -1 belongs to nothing."""
    codes, is_test, fold = (np.array(column) for column in zip(*rows, strict=True))
    pairs = [
        (i, j) for i in range(len(rows)) for j in range(len(rows)) if codes[i] == codes[j] >= 0
    ]
    leaks = sorted({i for i, j in pairs if is_test[i] and not is_test[j]})
    parted = sorted({i for i, j in pairs if fold[i] != fold[j]})
    assert crossing(codes, is_test).tolist() == leaks
    assert straddling(codes, fold).tolist() == parted


def test_a_split_of_many_images_takes_little_time():
    """100,000 images of 200 classes, some in pairs: seconds."""
    generator = np.random.default_rng(0)
    codes = np.where(np.arange(100_000) < 10_000, np.arange(100_000) // 2, np.arange(100_000))
    labels = generator.integers(200, size=100_000)
    names = [str(c) for c in range(200)]
    begun = time.perf_counter()
    hold_out(labels, 0.2, groups=codes, seed=0)
    fold = stratified_folds(labels, 5, class_names=names, groups=codes, seed=0)
    assert time.perf_counter() - begun < 20
    assert (np.bincount(fold) > 19_000).all()


def test_inner_folds_divide_each_training_part_in_proportion():
    """Every row of the training part is held out once, scored rows never, classes evenly."""
    labels = np.repeat(np.arange(3), 40)
    fold = stratified_folds(labels, 4, class_names=NAMES, seed=0)
    inner = inner_folds(labels, fold, 3, class_names=NAMES, seed=0)
    for number, row in enumerate(inner):
        assert (row[fold == number] == -1).all()
        assert set(row[fold != number]) == {0, 1, 2}
        counts = np.array([np.bincount(labels[row == part]) for part in range(3)])
        assert np.ptp(counts, axis=0).max() <= 1
    again = inner_folds(labels, fold, 3, class_names=NAMES, seed=0)
    np.testing.assert_array_equal(again, inner)
    assert (inner_folds(labels, fold, 3, class_names=NAMES, seed=1) != inner).any()


def test_inner_folds_keep_groups_whole():
    """Images of one group are held out together."""
    labels, groups = np.repeat(np.arange(2), 60), np.arange(120) // 4
    fold = stratified_folds(labels, 3, class_names=NAMES, groups=groups, seed=1)
    inner = inner_folds(labels, fold, 3, class_names=NAMES, groups=groups, seed=1)
    for row in inner:
        for group in np.unique(groups):
            assert len(np.unique(row[groups == group])) == 1


def test_too_many_inner_folds_are_refused_by_name():
    """The fold, the class, its images there, and what to do."""
    labels = np.array([0] * 12 + [1] * 4)
    fold = np.arange(16) % 4
    with pytest.raises(
        DataError,
        match=r"Inside the training part of fold 1: `inner_folds` must be between 2 and the "
        r"smallest class's 3 images, got 4\. Lower --inner-folds .*'fox'\. Or leave --inner-folds",
    ):
        inner_folds(labels, fold, 4, class_names=NAMES, seed=0)


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=80).map(np.array),
    count=st.integers(1, 90),
    least=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_a_sample_has_every_class_in_its_share(labels, count, least, seed):
    taken = sample_units(labels, count, least=least, seed=seed)
    again = sample_units(labels, count, groups=np.arange(len(labels)) + 7, least=least, seed=seed)
    assert np.array_equal(taken, again)  # units of one image each are no units
    if count >= len(labels):
        assert taken.all()
        return
    for label in np.unique(labels):
        size, got = (labels == label).sum(), taken[labels == label].sum()
        wanted = max(1, least, round(count * size / len(labels)))
        assert got == min(size, wanted)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15)), min_size=4, max_size=80),
    count=st.integers(1, 60),
    least=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_sample_keeps_units_whole(rows, count, least, seed):
    labels, groups = np.array(rows).T
    taken = sample_units(labels, count, groups=groups, least=least, seed=seed)
    assert not set(groups[taken]) & set(groups[~taken])
    for label in np.unique(labels):
        mine = labels == label
        units = len(np.unique(groups[mine & taken]))
        assert units >= min(least, len(np.unique(groups[mine])))
        share = count * mine.sum() / len(labels)
        assert (mine & taken).sum() >= min(mine.sum(), round(share))


def test_another_seed_takes_other_images():
    labels = np.arange(200) % 2
    first, second = (sample_units(labels, 50, least=2, seed=s) for s in (0, 1))
    assert first.sum() == second.sum() == 50
    assert not np.array_equal(first, second)


@settings(max_examples=50, deadline=None)
@given(
    strata=st.lists(st.integers(0, 5), min_size=2, max_size=90).map(np.array),
    count=st.integers(1, 100),
    seed=st.integers(0, 99),
)
def test_an_even_sample_has_every_stratum_in_its_share_to_within_an_image(strata, count, seed):
    taken = sample_evenly(strata, count, seed=seed)
    assert taken.sum() == min(count, len(strata))
    for stratum in np.unique(strata):
        mine = strata == stratum
        share = taken.sum() * mine.sum() / len(strata)
        assert abs(taken[mine].sum() - share) < 1
    assert np.array_equal(taken, sample_evenly(strata, count, seed=seed))


def test_an_even_sample_gives_every_image_the_same_chance():
    """A lonely image of a small class too, so that shares are estimated without bias."""
    strata = np.array([0] * 17 + [1] + [2] * 12)
    drawn = np.mean([sample_evenly(strata, 7, seed=seed) for seed in range(4000)], axis=0)
    assert np.abs(drawn - 7 / 30).max() < 4 * np.sqrt(7 / 30 * 23 / 30 / 4000)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=0, max_size=60),
    num_folds=st.integers(2, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_folds_of_single_images_are_those_of_sklearn(labels, num_folds, seed):
    """To the image, so that splits of earlier runs are repeated."""
    labels = np.array(labels + [3, 0, 1] * num_folds)
    counts = np.bincount(labels)
    labels = labels[counts[labels] >= num_folds]
    names = [str(c) for c in range(5)]
    found = stratified_folds(labels, num_folds, class_names=names, seed=seed)
    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    for number, (_, scored) in enumerate(splitter.split(labels, labels)):
        assert np.flatnonzero(found == number).tolist() == scored.tolist()


@pytest.mark.parametrize("num_units", [60, 400])
@pytest.mark.parametrize("mixed", [False, True], ids=["pure", "mixed"])
def test_what_is_held_out_is_no_matter_of_size(num_units, mixed):
    """A test part of the patients with the most pictures would stand for nobody else."""
    generator = np.random.default_rng(0)
    sizes = np.maximum(1, generator.lognormal(np.log(7), 0.8, num_units)).astype(int)
    groups = np.repeat(np.arange(num_units), sizes)
    labels = np.repeat(generator.integers(0, 2, num_units), sizes)
    if mixed:
        labels = np.where(generator.random(len(labels)) < 0.3, 1 - labels, labels)
    ratios, drawn = [], set()
    for seed in range(20):
        held = hold_out(labels, 0.2, groups=groups, seed=seed)
        units = np.unique(groups[held])
        assert held.mean() == pytest.approx(0.2, abs=0.01)
        ratios.append(sizes[units].mean() / sizes.mean())
        drawn.add(tuple(units))
    assert 0.85 < np.mean(ratios) < 1.1  # down the cost from the largest: 2 to 3.6
    assert len(drawn) == 20
