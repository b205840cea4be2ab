"""Baselines against scikit-learn, closed forms and the promises of every registered one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch import Tensor

from headstart.errors import DataError, UsageError
from headstart.heads import (
    BASELINES,
    cosine_class_mean,
    k_nearest_neighbours,
    nearest_class_mean,
    score_baselines,
)

EACH = pytest.mark.parametrize("spec", list(BASELINES), ids=lambda spec: spec.name)


def make_blobs(rows: int = 120, width: int = 8, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % classes
    centres = torch.randn(classes, width, generator=generator)
    return centres[labels] + torch.randn(rows, width, generator=generator), labels


def test_class_mean_agrees_with_sklearn():
    features, labels = make_blobs()
    model = NearestCentroid().fit(features[:80].numpy(), labels[:80].numpy())
    scores = nearest_class_mean(features[:80], labels[:80], features[80:], 4)
    assert np.array_equal(scores.argmax(1).numpy(), model.predict(features[80:].numpy()))
    means = torch.from_numpy(model.centroids_).double()
    expected = -torch.cdist(features[80:].double(), means).square()
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


def test_cosine_mean_in_two_dimensions():
    """Means at 0 and 90 degrees, whatever the lengths of the rows."""
    train = torch.tensor([[5.0, 0.0], [1e-3, 0.0], [0.0, 2.0]])
    queries = torch.tensor([[3.0, 1.0], [0.1, 100.0], [0.0, 0.0]])
    scores = cosine_class_mean(train, torch.tensor([0, 0, 1]), queries, 2)
    root = 10**0.5
    torch.testing.assert_close(scores[0], torch.tensor([3 / root, 1 / root]).double())
    assert scores.argmax(1).tolist()[:2] == [0, 1]
    assert scores[2].tolist() == [0, 0]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 7, 500])
def test_neighbours_agree_with_sklearn(metric, k):
    features, labels = make_blobs()
    features = features + 3
    model = KNeighborsClassifier(min(k, 80), metric=metric)
    model.fit(features[:80].numpy(), labels[:80].numpy())
    shares = k_nearest_neighbours(features[:80], labels[:80], features[80:], 4, k=k, metric=metric)
    np.testing.assert_allclose(shares.numpy(), model.predict_proba(features[80:].numpy()))


@EACH
def test_blocks_do_not_show(spec, monkeypatch):
    features, labels = make_blobs()
    whole = spec.score(features, labels, features + 0.1, 4)
    for name in ("BLOCK_BYTES", "WIDENED_BYTES"):
        monkeypatch.setattr(f"headstart.heads.baselines.{name}", 1)
    monkeypatch.setattr("headstart.heads.baselines.KNOWN_ROWS", 7)  # fewer than neighbours
    torch.testing.assert_close(spec.score(features, labels, features + 0.1, 4), whole)


@EACH
def test_contract(spec):
    """Scores (Q, C), half precision, far classes found, a class without rows never predicted."""
    labels = torch.arange(60) % 3
    centres = torch.eye(5)[:3] * 20
    generator = torch.Generator().manual_seed(0)
    features = (centres[labels] + torch.randn(60, 5, generator=generator)).half()
    scores = spec.score(features[:45], labels[:45], features[45:], 5)
    assert scores.shape == (15, 5)
    assert torch.equal(scores.argmax(1), labels[45:])
    assert spec.score(features[:45], labels[:45], features[:0], 5).shape == (0, 5)
    order = torch.randperm(45, generator=generator)
    mixed = spec.score(features[order], labels[order], features[45:], 5)
    torch.testing.assert_close(mixed, scores)
    assert spec.summary


def test_out_of_fold_predictions_never_see_their_own_label():
    """One lonely class a fold cannot be found; rows of no fold are left out."""
    features, labels = make_blobs()
    fold = torch.arange(120) // 4 % 3
    fold[:8] = -1
    found = score_baselines(features, labels, fold, 4)
    assert list(found) == BASELINES.names()
    other = features.clone()
    other[:8] = 1e4
    again = score_baselines(other, labels, fold, 4)
    for name, predictions in found.items():
        assert predictions[:8].tolist() == [-1] * 8
        assert torch.equal(predictions, again[name])
        assert float((predictions == labels)[8:].double().mean()) > 0.5
    fold = torch.where(labels == 2, 0, 1)
    for predictions in score_baselines(features, labels, fold, 4).values():
        assert not (predictions[labels == 2] == 2).any()


def test_on_a_sample_a_quadratic_rule_answers_as_on_all():
    """The others answer all rows; what is asked has the answer that it had, and still all votes."""
    features, labels = make_blobs()
    fold = torch.arange(120) // 4 % 3
    sample = torch.arange(120) % 5 == 0
    whole = score_baselines(features, labels, fold, 4)
    part = score_baselines(features, labels, fold, 4, sample=sample)
    assert BASELINES.get("neighbours").quadratic
    for spec in BASELINES:
        asked = sample if spec.quadratic else torch.ones_like(sample)
        assert torch.equal(part[spec.name][asked], whole[spec.name][asked])
        assert (part[spec.name][~asked] == -1).all()
    everything = score_baselines(features, labels, fold, 4, sample=torch.ones_like(sample))
    assert all(torch.equal(everything[name], whole[name]) for name in whole)


def test_input_that_cannot_be_is_named():
    features, labels = make_blobs()
    with pytest.raises(UsageError, match="`k` must be at least 1"):
        k_nearest_neighbours(features, labels, features, 4, k=0)
    with pytest.raises(UsageError, match="`metric` must be one of cosine, euclidean"):
        k_nearest_neighbours(features, labels, features, 4, metric="manhattan")
    with pytest.raises(DataError, match="one network"):
        nearest_class_mean(features, labels, features[:, 1:], 4)
    with pytest.raises(DataError, match="C = 3"):
        cosine_class_mean(features, labels, features, 3)
    with pytest.raises(DataError, match="one fold"):
        score_baselines(features, labels, torch.zeros(120, dtype=torch.long), 4)
