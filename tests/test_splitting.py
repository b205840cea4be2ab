"""Splits: in proportion, whole groups, seeded, and clear about classes that are too small."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError, UsageError
from headstart.splitting import hold_out, inner_hold_out, stratified_folds

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
