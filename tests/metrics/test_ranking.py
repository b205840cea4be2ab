"""Areas under curves and their influences against scikit-learn, derivatives and resampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from headstart.metrics.ranking import (
    average_precision_influences,
    average_ranks,
    by_class,
    class_auc,
    class_average_precision,
)

PEERS = {class_auc: roc_auc_score, class_average_precision: average_precision_score}


def make_scores(n: int, seed: int, decimals: int = 1):
    """Scores with many ties and a signal."""
    generator = np.random.default_rng(seed)
    positive = generator.random(n) < 0.4
    positive[:2] = True, False
    return np.round(generator.normal(size=n) + positive, decimals), positive


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), decimals=st.integers(0, 3))
def test_values_agree_with_sklearn_under_ties(seed, n, decimals):
    scores, positive = make_scores(n, seed, decimals)
    for of_class, peer in PEERS.items():
        value, influences = of_class(scores, positive)
        assert value == pytest.approx(peer(positive, scores))
        assert influences.mean() == pytest.approx(0, abs=1e-9)


@given(values=st.lists(st.integers(-3, 3) | st.floats(-1, 1), max_size=40))
def test_ranks_are_those_of_scipy(values):
    values = np.array(values, dtype=np.float64)
    np.testing.assert_array_equal(average_ranks(values), rankdata(values))


def test_influences_of_the_average_precision_are_its_derivatives():
    """N times the change by an image's weight, from scikit-learn's weighted AP."""
    scores, positive = make_scores(30, 1)
    _, influences = class_average_precision(scores, positive)
    step = 1e-6
    for k in range(30):
        ends = []
        for sign in (1, -1):
            weights = np.ones(30)
            weights[k] += sign * step
            ends.append(average_precision_score(positive, scores, sample_weight=weights))
        assert influences[k] == pytest.approx(30 * (ends[0] - ends[1]) / (2 * step), abs=1e-5)


def test_influences_give_the_spread_of_the_bootstrap():
    generator = np.random.default_rng(2)
    labels = generator.integers(3, size=300)
    scores = generator.normal(size=(300, 3)) + np.eye(3)[labels]
    _, influences = average_precision_influences(scores, labels)
    draws = []
    for _ in range(300):
        rows = generator.integers(300, size=300)
        draws.append(average_precision_influences(scores[rows], labels[rows])[0])
    assert np.sqrt((influences**2).sum()) / 300 == pytest.approx(np.std(draws), rel=0.15)


@pytest.mark.filterwarnings("ignore:No positive samples")
def test_by_class_agrees_with_torchmetrics_and_leaves_out_the_absent():
    generator = np.random.default_rng(3)
    labels = generator.integers(3, size=60)
    scores = generator.random((60, 4))
    scores /= scores.sum(1, keepdims=True)
    tensors = torch.from_numpy(scores), torch.from_numpy(labels)
    peers = {
        class_auc: reference.multiclass_auroc(*tensors, 4, average=None),
        class_average_precision: reference.multiclass_average_precision(*tensors, 4, average=None),
    }
    for of_class, wanted in peers.items():
        got = by_class(of_class, scores, labels)
        assert got[3] is None
        assert got[:3] == pytest.approx(wanted[:3].tolist(), abs=1e-6)
