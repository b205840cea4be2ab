"""The cheap classifiers: against scikit-learn, closed forms, chance."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from headstart.audit.association import number_folds
from headstart.audit.fingerprints import RECORD
from headstart.audit.probes import PENALTY, predict_by_ridge, predict_by_source, thumbnail_values


def uneven(generator: np.random.Generator, count: int = 120):
    labels = np.sort(generator.choice(3, count, p=[0.2, 0.3, 0.5])).astype(np.int64)
    values = generator.normal(size=(count, 6)) + 0.7 * labels[:, None]
    return values, labels, number_folds(labels, np.arange(count), 0)


def test_ridge_is_that_of_scikit_learn():
    values, labels, fold = uneven(np.random.default_rng(0))
    weights = len(labels) / (3 * np.bincount(labels)[labels])
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    expected = np.empty_like(labels)
    for number in range(5):
        train = fold != number
        ridge = Ridge(alpha=PENALTY * weights[train].sum())
        ridge.fit(scaled[train], np.eye(3)[labels[train]], sample_weight=weights[train])
        expected[~train] = ridge.predict(scaled[~train]).argmax(axis=1)
    assert np.array_equal(predict_by_ridge(values, labels, fold, 0), expected)


def test_ridge_does_not_mind_units_and_offsets_of_its_columns():
    values, labels, fold = uneven(np.random.default_rng(1))
    other = values * np.array([1, 10, 0.1, -3, 5, 2]) + 7
    assert np.array_equal(
        predict_by_ridge(values, labels, fold, 0), predict_by_ridge(other, labels, fold, 0)
    )


def test_noise_in_many_columns_stays_at_chance():
    generator = np.random.default_rng(2)
    labels = (np.arange(200) % 2).astype(np.int64)
    fold = number_folds(labels, np.arange(200), 0)
    predicted = predict_by_ridge(generator.normal(size=(200, 300)), labels, fold, 0)
    assert np.mean(predicted == labels) == pytest.approx(0.5, abs=0.12)


def test_source_answers_with_its_commonest_label_by_share_of_class():
    sources = np.repeat([0, 1], [40, 60])
    labels = np.concatenate([np.zeros(40), np.ones(20), np.zeros(40)]).astype(np.int64)
    fold = (np.arange(100) % 5).astype(np.int64)
    # source 1: 40 of the 80 zeros, but all 20 ones
    predicted = predict_by_source(sources[:, None].astype(float), labels, fold, 0)
    assert np.array_equal(predicted, sources)


def test_a_source_seen_in_one_fold_only_tells_nothing():
    labels = np.repeat([0, 1], 25).astype(np.int64)
    fold = np.tile(np.arange(5), 10).astype(np.int64)
    alone = (labels * 5 + fold)[:, None].astype(float)
    assert (predict_by_source(alone, labels, fold, 0) == 0).all()


def test_the_covered_centre_is_not_looked_at():
    generator = np.random.default_rng(3)
    records = np.zeros(4, dtype=RECORD)
    records["cells"] = generator.integers(0, 256, (4, 8, 8, 3))
    other = records.copy()
    other["cells"][:, 1:-1, 1:-1] = 0
    masked = thumbnail_values(records, masked=True)
    assert masked.shape == (4, 2 * 28 * 3)
    assert np.array_equal(masked, thumbnail_values(other, masked=True))
    whole = thumbnail_values(records, masked=False)
    assert np.array_equal(whole[:, :192] * 255, records["cells"].reshape(4, -1))
    assert np.array_equal(whole[:, 192:], whole[:, :192] ** 2)
