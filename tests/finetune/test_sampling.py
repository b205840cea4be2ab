"""Balanced sampling and spatial dropout: what an epoch shows, and to whom it is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from staged import EXECUTION, colourful, quick, staged_network
from test_tuning import equal_weights, state

from headstart.backbones import build_network, find_backbone
from headstart.errors import UsageError
from headstart.finetune import TrainingData, TrainSettings, fit_network
from headstart.finetune.batches.images import epoch_batches, even_probabilities
from headstart.finetune.steps import training

ROWS = np.arange(100, 400)
LABELS = np.repeat([0, 2, 3], [240, 45, 15])  # class 1 is not there
HALF = 0.5


def unbalanced(labels=(0,) * 24 + (1,) * 4 + (2,) * 2):
    data = colourful(count=len(labels), inner=0)
    return replace(data, labels=np.array(labels, dtype=np.int64))


def fit(settings, data, network=None):
    return fit_network(network or staged_network(), data, settings, execution=EXECUTION)


def drawn(monkeypatch, settings, data):
    """The (rows, views) of every batch of a training."""
    found = []
    original = training.PhaseModule.train_views

    def note(self, rows):
        views = original(self, rows)
        found.append((rows, np.broadcast_to(views, len(rows))))
        return views

    monkeypatch.setattr(training.PhaseModule, "train_views", note)
    fit(settings, data)
    return found


def test_every_class_that_is_there_is_as_probable():
    probabilities = even_probabilities(LABELS)
    assert probabilities.sum() == pytest.approx(1)
    by_class = np.bincount(LABELS, weights=probabilities)
    np.testing.assert_allclose(by_class, [1 / 3, 0, 1 / 3, 1 / 3])
    assert probabilities[-1] == pytest.approx(1 / 45)


def test_classes_and_images_are_drawn_as_often_as_they_should():
    counts = np.zeros(len(ROWS))
    epochs = 200
    for epoch in range(epochs):
        batches = epoch_batches(ROWS, 32, seed=3, fold=1, epoch=epoch, balanced=LABELS)
        assert [len(batch) for batch in batches] == [32] * 9 + [12]  # as long as before
        counts += np.bincount(np.concatenate(batches) - ROWS[0], minlength=len(ROWS))
    expected = even_probabilities(LABELS) * len(ROWS) * epochs
    # Sums of independent draws: 5 standard deviations, for 300 images and 3 classes.
    assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()
    classes = np.bincount(LABELS, weights=counts)[[0, 2, 3]]
    total = len(ROWS) * epochs
    assert (abs(classes - total / 3) < 5 * np.sqrt(total * 2 / 9)).all()


def test_balanced_draws_hang_on_seed_fold_and_epoch_alone():
    def draw(**changes):
        key = {"seed": 1, "fold": 2, "epoch": 3} | changes
        return np.concatenate(epoch_batches(ROWS, 32, balanced=LABELS, **key)).tolist()

    assert draw() == draw()
    others = [draw(seed=0), draw(fold=0), draw(epoch=0)]
    assert all(other != draw() for other in others)


def test_a_training_learns_from_the_balanced_draw(monkeypatch):
    data = unbalanced()
    settings = quick(sampling="balanced", epochs=(3,), batch_size=10)
    batches = drawn(monkeypatch, settings, data)
    expected = [
        rows
        for epoch in range(3)
        for rows in epoch_batches(
            data.train_rows, 10, seed=0, fold=0, epoch=epoch, balanced=data.labels
        )
    ]
    np.testing.assert_array_equal([rows for rows, _ in batches], expected)


def test_rare_classes_are_learnt_where_they_are_drawn():
    # All pictures are alike: the probabilities learnt are the classes' shares in what is shown.
    data = unbalanced()
    data = replace(data, images=torch.full_like(data.images, 120))
    settings = quick(epochs=(12,), lr=0.2, trainable="none", strategy="partial")
    shares = []
    for sampling in ("shuffled", "balanced"):
        tuned = fit(replace(settings, sampling=sampling), data)
        logits = training_logits(tuned, data)
        shares.append(torch.softmax(logits, dim=0).numpy())
    np.testing.assert_allclose(shares[0], [24 / 30, 4 / 30, 2 / 30], atol=0.05)
    np.testing.assert_allclose(shares[1], [1 / 3] * 3, atol=0.12)


def training_logits(tuned, data):
    from headstart.finetune import predict_logits

    rows = data.train_rows[:1]
    return torch.from_numpy(predict_logits(tuned, data.images, rows, execution=EXECUTION)[0])


def test_an_image_drawn_again_is_another_view(monkeypatch):
    settings = quick(sampling="balanced", epochs=(2,), augmentation="light", batch_size=10)
    batches = drawn(monkeypatch, settings, unbalanced())
    pairs = [pair for rows, views in batches for pair in zip(rows, views, strict=True)]
    rows = [row for row, _ in pairs]
    assert len(set(rows)) < len(rows) / 2  # images do come again
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_replayed_views_stay_among_themselves(monkeypatch, cache):
    settings = quick(sampling="balanced", epochs=(2,), augmentation="light", views=2, cache=cache)
    batches = drawn(monkeypatch, replace(settings, strategy="partial"), unbalanced())
    assert {int(view) for _, views in batches for view in views} == {0, 1}


def test_shuffled_images_share_the_view_of_their_epoch(monkeypatch):
    settings = quick(epochs=(2,), augmentation="light", batch_size=30)
    batches = drawn(monkeypatch, settings, unbalanced())
    assert [set(views.tolist()) for _, views in batches] == [{0}, {1}]


def test_weights_and_draws_do_not_both_balance():
    with pytest.raises(UsageError, match="count twice"):
        TrainSettings(sampling="balanced", class_weights="balanced")
    with pytest.raises(UsageError, match="`sampling` must be one of"):
        TrainSettings(sampling="even")


@pytest.mark.parametrize("strategy", ["full", "partial", "two-stage"])
def test_spatial_dropout_leaves_out_whole_channels_of_the_last_map(monkeypatch, strategy):
    seen = []
    original = training.functional.dropout2d

    def note(x, share, learns):
        out = original(x, share, learns)
        seen.append((x.detach(), out.detach(), share, learns))
        return out

    monkeypatch.setattr(training.functional, "dropout2d", note)
    settings = quick(strategy=strategy, epochs=(1,), spatial_dropout=HALF)
    fit(settings, colourful())
    assert {learns for *_, learns in seen} == {True, False}
    for x, out, share, learns in seen:
        assert x.shape[1:] == (8, 2, 2)
        scale = 1 / (1 - share) if learns else 1
        kept = (out == x * scale).all(dim=(2, 3))
        assert (kept | (out == 0).all(dim=(2, 3))).all()
        assert learns or kept.all()
    left_out = torch.cat([(out == 0).flatten(2).all(2).float() for _, out, _, t in seen if t])
    assert 0.2 < left_out.mean() < 0.9


def test_spatial_dropout_is_no_part_of_the_network():
    settings = quick(spatial_dropout=HALF)
    tuned, plain = fit(settings, colourful()), fit(quick(), colourful())
    assert state(tuned).keys() == state(plain).keys()
    assert not equal_weights(tuned, plain)


@pytest.mark.parametrize("name", ["LeNet5"])
def test_spatial_dropout_wants_a_map_to_pool(name):
    network = build_network(find_backbone(name), weights="none")
    size = network.preprocessing.size
    data = TrainingData(
        images=torch.zeros((4, size, size, 3), dtype=torch.uint8),
        labels=np.array([0, 1, 0, 1]),
        train_rows=np.arange(4),
        inner_rows=np.empty(0, dtype=np.int64),
        num_classes=2,
    )
    settings = quick(strategy="scratch", spatial_dropout=HALF)
    with pytest.raises(UsageError, match="`spatial_dropout` must be 0"):
        fit(settings, data, network)
