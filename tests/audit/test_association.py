"""Association measures: closed forms, scipy, chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats.contingency import association

from headstart.audit.association import (
    cramers_v,
    measure_prediction,
    measure_source,
    number_folds,
    split_by_source,
)


def test_cramers_v_of_a_perfect_and_of_no_association():
    assert cramers_v(np.diag([30.0, 40, 50])) == pytest.approx(1, abs=0.02)
    assert cramers_v(np.full((3, 4), 25.0)) == 0
    assert cramers_v(np.array([[5.0, 9], [0, 0]])) == 0


def test_cramers_v_nears_scipy_as_the_correction_vanishes():
    table = np.array([[30, 10, 5], [4, 60, 9]]) * 1000
    expected = association(table, method="cramer", correction=False)
    assert cramers_v(table.astype(float)) == pytest.approx(expected, abs=1e-3)


def test_empty_rows_change_nothing():
    table = np.array([[30.0, 10, 5], [4, 60, 9]])
    padded = np.zeros((4, 5))
    padded[1:3, 1:4] = table
    assert cramers_v(padded) == pytest.approx(cramers_v(table))
    assert np.allclose(cramers_v(np.stack([padded, padded])), cramers_v(table))


def test_source_interval_covers_and_widens_with_groups():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 400)
    sources = np.where(generator.random(400) < 0.7, labels, 1 - labels)
    alone = measure_source(labels, sources, np.arange(400), np.random.default_rng(1))
    tenfold = np.repeat(np.arange(40), 10)
    grouped = measure_source(
        np.repeat(labels[:40], 10), np.repeat(sources[:40], 10), tenfold, np.random.default_rng(1)
    )
    assert alone.low < 0.4 < alone.high
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_classes_without_a_common_source_fall_apart():
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert split_by_source(labels, np.array([0, 1, 1, 0, 2, 2])) == [[0, 1], [2]]
    assert split_by_source(labels, np.array([0, 1, 1, 2, 2, 2])) == [[0, 1, 2]]


def predict(values, labels, units):
    return measure_prediction(values, labels, units, number_folds(labels, units, 0), seed=0)


def test_folds_are_even_stratified_and_keep_units_together():
    generator = np.random.default_rng(0)
    units = generator.integers(0, 120, 600)
    labels = units % 4
    labels[units == 0] = 3  # a unit in a class of its own kind
    fold = number_folds(labels, units, 0)
    assert len(set(zip(units, fold, strict=True))) == len(set(units))
    counts = np.stack([np.bincount(fold[labels == c], minlength=5) for c in range(4)])
    assert (np.abs(counts - counts.mean(axis=1, keepdims=True)) < 12).all()
    assert np.array_equal(fold, number_folds(labels, units, 0))
    assert not np.array_equal(fold, number_folds(labels, units, 1))


def test_classes_of_few_units_are_not_scored():
    labels = np.array([0] * 8 + [1] * 8 + [2] * 4)
    fold = number_folds(labels, np.arange(20), 0)
    assert (fold[16:] == -1).all()
    assert (fold[:16] >= 0).all()


def test_facts_that_say_nothing_stay_at_chance():
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    found = predict(generator.normal(size=(300, 4)), labels, np.arange(300))
    assert found.low < 1 / 3 < found.high
    assert not found.clear_by(0.1)


def test_facts_that_say_all_are_found_and_groups_are_not_learnt_by_heart():
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    values = labels[:, None] + 0.01 * generator.normal(size=(300, 1))
    assert predict(values, labels, np.arange(300)).low > 0.95
    units = np.arange(300) // 10  # a fact that tells the group, of groups with random labels
    by_group = generator.integers(0, 2, 30)[units]
    assert predict(units[:, None].astype(float), by_group, units).low < 0.5


def test_nothing_to_measure_is_none():
    labels = np.arange(40) % 2
    values = np.arange(40.0)[:, None]
    assert predict(np.ones((40, 2)), labels, np.arange(40)) is None
    assert predict(values, labels, np.zeros(40, dtype=int)) is None
    assert predict(values, labels * 0, np.arange(40)) is None
