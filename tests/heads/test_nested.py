"""Columns chosen with the penalty inside every fold: as each candidate alone, and honestly."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from headstart.heads import (
    ChosenFit,
    fit_on_columns,
    fit_scaled_logistic,
    fit_with_chosen_columns,
    fit_with_chosen_penalty,
    rotate_features,
)

CLASSES, ROWS, FOLDS = 3, 180, 3
COLUMNS = (6, 10, 16)
PENALTIES = torch.tensor([0.003, 0.03, 0.3, 3.0])
TIGHT = {"tolerance": 1e-6, "tolerances": (1e-6, 1e-6)}


EARLY, LATE = slice(0, 6), slice(10, 16)  # columns of the widest alone, and of every candidate


def problem(telling: slice):
    """Noise, loud in all columns but the last six, and the class in some of them; three folds."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(ROWS) % CLASSES
    features = torch.randn(ROWS, 16, generator=generator, dtype=torch.float64)
    features[:, telling] += 1.2 * torch.randn(CLASSES, 6, generator=generator).double()[labels]
    features[:, :10] *= 3
    fold = torch.arange(ROWS) // CLASSES % FOLDS
    learns = (fold != torch.arange(FOLDS)[:, None]).double()
    inner = (learns > 0) & (torch.arange(ROWS) // 9 % 4 == 0)
    return features, labels, learns, inner, fold


def candidates(features):
    return [rotate_features(features[:, -count:]) for count in COLUMNS]


def fitted(features, labels, learns, inner, **changes):
    return fit_with_chosen_columns(
        candidates(features), labels, learns, inner, PENALTIES, CLASSES, **(TIGHT | changes)
    )


@pytest.mark.parametrize("telling", [EARLY, LATE], ids=["early", "late"])
def test_every_fold_takes_what_its_best_candidate_would_alone(telling):
    features, labels, learns, inner, _ = problem(telling)
    found = fitted(features, labels, learns, inner)
    alone = [
        fit_with_chosen_penalty(
            features[:, -count:], labels, learns, inner, PENALTIES, CLASSES, **TIGHT
        )
        for count in COLUMNS
    ]
    best = torch.stack([fit.inner_log_loss.amin(1) for fit in alone])
    torch.testing.assert_close(found.log_loss, best, atol=3e-4, rtol=0)
    assert torch.equal(found.candidate, best.argmin(0))
    for fold, number in enumerate(found.candidate.tolist()):
        own, count = alone[number], COLUMNS[number]
        assert found.heads.penalty[fold] == own.penalty[fold]
        torch.testing.assert_close(
            found.heads.coef[fold, :, -count:], own.coef[fold], atol=1e-3, rtol=1e-3
        )
        assert not found.heads.coef[fold, :, :-count].any()
        torch.testing.assert_close(
            found.heads.inner_log_loss[fold], own.inner_log_loss[fold], atol=3e-4, rtol=0
        )
    means = torch.stack([fit.inner_log_loss.mean(0).amin() for fit in alone])
    assert found.final == int(means.argmin())
    assert found.heads.final_penalty == alone[found.final].final_penalty
    torch.testing.assert_close(found.mean_log_loss, means, atol=3e-4, rtol=0)


def test_noise_is_left_out_and_what_tells_is_taken():
    narrow, wide = (fitted(*problem(telling)[:4]) for telling in (LATE, EARLY))
    assert narrow.candidate.tolist() == [0] * FOLDS
    assert narrow.final == 0
    assert wide.candidate.tolist() == [2] * FOLDS
    assert wide.final == 2


def test_one_candidate_is_the_choice_of_a_penalty():
    features, labels, learns, inner, _ = problem(EARLY)
    rotated = rotate_features(features)
    found = fit_with_chosen_columns([rotated], labels, learns, inner, PENALTIES, CLASSES)
    plain = fit_with_chosen_penalty(rotated, labels, learns, inner, PENALTIES, CLASSES)
    for field in fields(ChosenFit):
        ours, theirs = getattr(found.heads, field.name), getattr(plain, field.name)
        same = torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
        assert same, field.name


def test_labels_of_scored_rows_change_nothing_for_their_fold():
    """And those of inner rows would: the test can fail."""
    features, labels, learns, inner, fold = problem(EARLY)
    found = fitted(features, labels, learns, inner)
    shuffled = labels.clone()
    shuffled[fold == 0] = labels[fold == 0].roll(1)
    other = fitted(features, shuffled, learns, inner)
    torch.testing.assert_close(other.log_loss[:, 0], found.log_loss[:, 0], atol=3e-4, rtol=0)
    assert other.candidate[0] == found.candidate[0]
    assert other.heads.penalty[0] == found.heads.penalty[0]
    torch.testing.assert_close(other.heads.coef[0], found.heads.coef[0], atol=1e-3, rtol=1e-3)
    assert (other.log_loss[2, 1:] - found.log_loss[2, 1:]).abs().min() > 0.1
    shuffled = labels.clone()
    shuffled[inner[0]] = labels[inner[0]].roll(1)
    assert (fitted(features, shuffled, learns, inner).log_loss - found.log_loss)[2, 0] > 0.1


def test_features_of_scored_rows_change_nothing_for_their_fold():
    """Its scored rows are told by early columns alone, and it keeps what its own rows like."""
    features, labels, learns, inner, fold = problem(LATE)
    plain = fitted(features, labels, learns, inner)
    features[fold == 0, EARLY] += 20 * torch.eye(CLASSES, 6).double()[labels[fold == 0]]
    found = fitted(features, labels, learns, inner)
    assert found.candidate[0] == plain.candidate[0] == 0
    torch.testing.assert_close(found.log_loss[:, 0], plain.log_loss[:, 0], atol=3e-4, rtol=0)
    assert (found.log_loss[2, 1:] - plain.log_loss[2, 1:]).abs().min() > 0.01


def test_several_inner_parts_choose_together():
    features, labels, learns, _, _ = problem(EARLY)
    numbers = torch.arange(ROWS) // 9 % 2
    parts = (numbers == torch.arange(2)[:, None]) & (learns[:, None] > 0)  # (F, 2, N)
    found = fitted(features, labels, learns, parts)
    alone = [fitted(features, labels, learns, parts[:, j]) for j in range(2)]
    tables = [  # of the widest, which all folds take
        torch.stack([fit.heads.inner_log_loss for fit in alone]).mean(0),
        found.heads.inner_log_loss,
    ]
    assert all(fit.candidate.tolist() == [2] * FOLDS for fit in (found, *alone))
    torch.testing.assert_close(*tables, atol=3e-4, rtol=0)


def test_problems_on_columns_of_their_own_are_those_alone():
    features, labels, learns, _, _ = problem(EARLY)
    of = torch.tensor([2, 0, 2, 1])
    weights, penalties = learns[[0, 1, 2, 0]], torch.tensor([0.1, 0.01, 0.03, 0.1])
    start = torch.ones(4, CLASSES, 16).double(), torch.zeros(4, CLASSES).double()
    found = fit_on_columns(
        candidates(features), of, labels, weights, penalties, CLASSES, tolerance=1e-8, start=start
    )
    for k, number in enumerate(of.tolist()):
        count = COLUMNS[number]
        alone = fit_scaled_logistic(
            features[:, -count:], labels, weights[k : k + 1], penalties[k : k + 1], CLASSES,
            tolerance=1e-8,
        )  # fmt: skip
        torch.testing.assert_close(found.coef[k, :, -count:], alone.coef[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(found.intercept[k], alone.intercept[0], atol=1e-6, rtol=1e-5)
        assert not found.coef[k, :, :-count].any()
        assert bool(found.converged[k])
