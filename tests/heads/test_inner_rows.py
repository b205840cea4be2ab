"""While whole pictures choose, no other view of them is learnt from or has a say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.heads import (
    InnerRows,
    MlpSettings,
    fit_mlp_folds,
    fit_with_chosen_penalty,
    mean_features,
    mean_logits,
    penalty_path,
    successive_halving,
)

CLASSES = 3


@pytest.fixture(scope="module")
def problem():
    """60 images with one more view each, as rows 60 to 119; two folds."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % CLASSES
    centres = torch.randn(CLASSES, 8, generator=generator)
    whole = centres[labels] + torch.randn(60, 8, generator=generator)
    views = whole + 0.5 * torch.randn(60, 8, generator=generator)
    fold = torch.arange(60) // 3 % 2
    learns = torch.stack([fold != 0, fold != 1]).float().repeat(1, 2) / 2
    inner = torch.stack([fold != 0, fold != 1]) & (torch.arange(60) % 5 == 0)
    left_out = inner.repeat(1, 2)
    chooses = left_out.clone()
    chooses[:, 60:] = False
    rows = InnerRows(chooses=chooses, left_out=left_out)
    return torch.cat([whole, views]), labels.repeat(2), learns, rows


def test_penalties_are_chosen_as_if_the_views_of_inner_images_were_not_there(problem):
    features, labels, learns, rows = problem
    penalties = penalty_path(4)
    found = fit_with_chosen_penalty(features, labels, learns, rows, penalties, CLASSES)
    without = learns * ~(rows.left_out & ~rows.chooses)
    expected = fit_with_chosen_penalty(features, labels, without, rows.chooses, penalties, CLASSES)
    torch.testing.assert_close(found.inner_log_loss, expected.inner_log_loss)
    leaking = fit_with_chosen_penalty(features, labels, learns, rows.chooses, penalties, CLASSES)
    assert (leaking.inner_log_loss - found.inner_log_loss).abs().max() > 1e-3


def test_parts_choose_together_as_each_does_alone(problem):
    """The table of several inner parts is the mean of theirs, views left out in each."""
    features, labels, learns, _ = problem
    numbers = torch.arange(60) // 6 % 3
    held_out = (numbers == torch.arange(3)[:, None]) & (learns[:, None, :60] > 0)  # (2, 3, 60)
    left_out = held_out.repeat(1, 1, 2)
    chooses = left_out.clone()
    chooses[..., 60:] = False
    data, penalties = (features.double(), labels, learns.double()), penalty_path(4)
    tight = {"tolerances": (1e-8, 1e-8), "tolerance": 1e-8}

    def table(rows):
        return fit_with_chosen_penalty(*data, rows, penalties, CLASSES, **tight).inner_log_loss

    alone = [InnerRows(chooses=chooses[:, j], left_out=left_out[:, j]) for j in range(3)]
    together = table(InnerRows(chooses=chooses, left_out=left_out))
    torch.testing.assert_close(
        together, torch.stack([table(rows) for rows in alone]).mean(0), atol=1e-7, rtol=0
    )
    assert (table(chooses) - together).abs().max() > 1e-3, "leaking views would show"


def test_a_mask_alone_is_both(problem):
    features, labels, learns, rows = problem
    given = [rows.left_out, InnerRows(chooses=rows.left_out, left_out=rows.left_out)]
    fits = [
        fit_with_chosen_penalty(features, labels, learns, inner, penalty_path(3), CLASSES)
        for inner in given
    ]
    assert torch.equal(fits[0].coef, fits[1].coef)


def test_epochs_are_chosen_as_if_the_views_of_inner_images_were_not_there(problem):
    features, labels, learns, rows = problem
    settings = MlpSettings(hidden=(6,), epochs=5, batch_size=8, lr=0.01)
    data = features, labels
    found = fit_mlp_folds(*data, learns, rows, CLASSES, settings, seed=0)
    without = learns * ~(rows.left_out & ~rows.chooses)
    expected = fit_mlp_folds(*data, without, rows.chooses, CLASSES, settings, seed=0)
    assert torch.equal(found.inner_history.held_loss, expected.inner_history.held_loss)
    assert torch.equal(found.epochs, expected.epochs)


def test_settings_are_chosen_as_if_the_views_of_inner_images_were_not_there(problem):
    features, labels, learns, rows = problem
    candidates = [
        MlpSettings(hidden=(6,), epochs=6, batch_size=8, lr=lr) for lr in (0.003, 0.01, 0.03)
    ]

    def losses(weights, inner):
        return successive_halving(
            features, labels, weights, inner, CLASSES, candidates, seed=0
        ).loss

    found = losses(learns, rows)
    assert torch.equal(found, losses(learns * ~(rows.left_out & ~rows.chooses), rows.chooses))
    assert not torch.equal(found, losses(learns, rows.chooses)), "leaking views would show"


def test_means_over_views():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(7, 2, 5)).astype(np.float16)
    layers = (
        (torch.from_numpy(generator.normal(size=(4, 5))), torch.zeros(4)),
        (torch.from_numpy(generator.normal(size=(3, 4))), torch.ones(3)),
    )
    hidden = np.maximum(features.astype(np.float64) @ layers[0][0].numpy().T, 0)
    each = hidden @ layers[1][0].numpy().T + 1
    np.testing.assert_allclose(mean_logits(features, layers), each.mean(axis=1), rtol=1e-12)
    means = features.astype(np.float32).mean(axis=1)
    assert np.array_equal(mean_features(features), means)
    assert mean_features(features[:, :1]).dtype == np.float16


@pytest.mark.parametrize("views", [1, 2])
def test_no_image_has_no_mean(views):
    nothing = np.zeros((0, views, 5), dtype=np.float16)
    assert mean_logits(nothing, ((torch.ones(3, 5), torch.ones(3)),)).shape == (0, 3)
    assert mean_features(nothing).shape == (0, 5)


def test_the_mean_of_equal_views_is_the_view_to_the_bit():
    generator = np.random.default_rng(1)
    features = generator.normal(size=(50, 1, 9)).astype(np.float16)
    twice = np.repeat(features, 2, axis=1)
    layers = ((torch.from_numpy(generator.normal(size=(3, 9))), torch.zeros(3)),)
    assert np.array_equal(mean_features(twice), features[:, 0])
    np.testing.assert_allclose(
        mean_logits(twice, layers), mean_logits(features, layers), rtol=1e-13
    )
