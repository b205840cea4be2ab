"""Temperature and calibration error against closed forms, torch, torchmetrics and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from headstart.calibration import (
    apply_temperature,
    calibration_error,
    calibration_figures,
    calibration_interval,
    classwise_calibration_error,
    cross_fit_temperature,
    debiased_calibration_error,
    fit_temperature,
    reliability_bins,
)
from headstart.statistics import wilson


def make_logits(n: int, num_classes: int, seed: int, sharper: float = 1.0):
    """Labels drawn from softmax(logits / sharper): the right temperature is `sharper`."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(n, num_classes))
    noise = generator.gumbel(size=(n, num_classes))
    return sharper * logits, (logits + noise).argmax(1)


@pytest.mark.parametrize("sharper", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(sharper):
    logits, labels = make_logits(20_000, 5, 0, sharper)
    found = fit_temperature(logits, labels)
    assert found.value == pytest.approx(sharper, rel=0.03)
    assert not found.at_bound
    assert found.log_loss_after <= found.log_loss_before


def test_temperature_agrees_with_gradient_descent_in_torch():
    """LBFGS on log T, the usual way."""
    logits, labels = make_logits(400, 4, 1, 2.5)
    scores, targets = torch.from_numpy(logits), torch.from_numpy(labels)
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_t], max_iter=100, tolerance_grad=1e-12)

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(scores / log_t.exp(), targets)
        loss.backward()
        return loss

    optimiser.step(closure)
    found = fit_temperature(logits, labels)
    assert found.value == pytest.approx(float(log_t.detach().exp()), rel=1e-5)
    assert found.log_loss_after == pytest.approx(float(closure().detach()), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.floats(0.3, 3.0))
def test_scaling_logits_scales_the_temperature(seed, factor):
    """And shifting an image's logits changes nothing, nor does a copy of all images."""
    logits, labels = make_logits(200, 3, seed, 1.5)
    base = fit_temperature(logits, labels)
    shifts = np.arange(200.0)[:, None]
    moved = fit_temperature(factor * logits + shifts, labels)
    assert moved.value == pytest.approx(factor * base.value, rel=1e-6)
    doubled = fit_temperature(np.tile(logits, (2, 1)), np.tile(labels, 2))
    assert doubled.value == pytest.approx(base.value, rel=1e-8)
    np.testing.assert_array_equal(base.apply(logits).argmax(1), logits.argmax(1))


def test_weights_count_like_copies():
    logits, labels = make_logits(60, 3, 2, 2.0)
    weights = np.arange(60) % 3
    copies = np.repeat(np.arange(60), weights)
    weighted = fit_temperature(logits, labels, weights.astype(float))
    assert weighted.value == pytest.approx(fit_temperature(logits[copies], labels[copies]).value)


def test_separable_and_hopeless_images_stop_at_the_bounds():
    labels = np.arange(30) % 3
    logits = 4.0 * np.eye(3)[labels]
    sure = fit_temperature(logits, labels)
    assert (sure.value, sure.at_bound) == (pytest.approx(0.05), True)
    wrong = fit_temperature(logits, (labels + 1) % 3)
    assert (wrong.value, wrong.at_bound) == (pytest.approx(20.0), True)
    assert fit_temperature(np.zeros((30, 3)), labels).log_loss_after == pytest.approx(np.log(3))


def test_no_fold_helps_to_calibrate_itself():
    """Other labels in a fold leave its own temperature, and change the others'."""
    logits, labels = make_logits(300, 3, 3, 2.0)
    folds = np.arange(300) % 3
    calibrated, found = cross_fit_temperature(logits, labels, folds)
    changed = np.where(folds == 1, (labels + 1) % 3, labels)
    again, other = cross_fit_temperature(logits, changed, folds)
    assert other[1] == found[1]
    assert other[0] != found[0]
    np.testing.assert_array_equal(again[folds == 1], calibrated[folds == 1])
    with pytest.raises(ValueError, match="2 folds"):
        cross_fit_temperature(logits, labels, np.zeros(300))


def test_a_fold_whose_others_hold_few_mistakes_keeps_its_answers():
    logits, labels = make_logits(400, 3, 3, 1.0)
    best = logits.argmax(axis=1)
    labels = np.where(np.arange(400) < 360, best, (best + 1) % 3)  # all 40 mistakes in one fold
    folds = (np.arange(400) >= 200).astype(np.int64)
    calibrated, found = cross_fit_temperature(logits, labels, folds, fewest_wrong=10)
    assert found[1] == 1.0
    assert found[0] > 1.0
    np.testing.assert_array_equal(calibrated[folds == 1], apply_temperature(logits[folds == 1], 1))
    _, bound = cross_fit_temperature(logits, labels, folds)
    assert bound[1] == pytest.approx(0.05)


def test_calibration_helps_where_logits_are_too_sharp():
    logits, labels = make_logits(3000, 4, 4, 3.0)
    folds = np.arange(3000) % 5
    calibrated, _ = cross_fit_temperature(logits, labels, folds)
    before = calibration_figures(fit_temperature(logits, labels).apply(3 * logits), labels, seed=0)
    after = calibration_figures(calibrated, labels, seed=0)
    assert after.ece < 0.03 < 0.1 < before.ece
    assert after.ece_debiased <= after.ece_equal_mass
    assert after.log_loss < before.log_loss
    assert after.brier < before.brier
    assert after.accuracy == before.accuracy
    assert after.ece_low <= after.ece <= after.ece_high


def test_ece_agrees_with_torchmetrics():
    logits, labels = make_logits(500, 6, 5, 2.0)
    probabilities = fit_temperature(logits, labels).apply(2 * logits)
    right = (probabilities.argmax(1) == labels).astype(float)
    for bins in (10, 15):
        wanted = reference.multiclass_calibration_error(
            torch.from_numpy(probabilities), torch.from_numpy(labels), 6, n_bins=bins, norm="l1"
        )
        got = calibration_error(probabilities.max(1), right, num_bins=bins)
        assert got == pytest.approx(float(wanted), abs=1e-6)


def test_reliability_agrees_with_sklearn():
    generator = np.random.default_rng(6)
    claimed = generator.random(400)
    held = (generator.random(400) < claimed).astype(float)
    for scheme, strategy in (("width", "uniform"), ("mass", "quantile")):
        bins = reliability_bins(claimed, held, num_bins=10, scheme=scheme)
        share, mean = calibration_curve(held, claimed, n_bins=10, strategy=strategy)
        np.testing.assert_allclose(bins.accuracy, share, atol=0.03 if scheme == "mass" else 1e-12)
        np.testing.assert_allclose(bins.confidence, mean, atol=0.01 if scheme == "mass" else 1e-12)
        assert bins.counts.sum() == 400
    ends = wilson(held[claimed <= 0.1].sum(), (claimed <= 0.1).sum())
    first = reliability_bins(claimed, held, num_bins=10)
    assert (first.accuracy_low[0], first.accuracy_high[0]) == (ends.low, ends.high)


def test_groups_widen_reliability():
    logits, labels = make_logits(100, 3, 7)
    probabilities = fit_temperature(logits, labels).apply(logits)
    rows = np.repeat(np.arange(100), 5)
    claimed, right = probabilities.max(axis=1), (probabilities.argmax(1) == labels).astype(float)
    alone = reliability_bins(claimed, right)
    copies = reliability_bins(claimed[rows], right[rows], groups=rows)
    np.testing.assert_allclose(copies.accuracy_low, alone.accuracy_low)
    np.testing.assert_array_equal(copies.counts, 5 * alone.counts)


def test_ece_of_one_bin_by_hand():
    """Ten answers at 0.8, six right."""
    confidence, right = np.full(10, 0.8), np.repeat([1.0, 0.0], [6, 4])
    assert calibration_error(confidence, right) == pytest.approx(0.2)
    assert calibration_error(confidence, right, scheme="mass") == pytest.approx(0.2)
    squared = debiased_calibration_error(confidence, right, power=2)
    assert squared == pytest.approx(np.sqrt(0.04 - 0.24 / 9))
    generator = np.random.default_rng(8)
    noise = np.abs(0.2 + np.sqrt(0.24 / 9) * generator.normal(size=400_000)).mean()
    assert debiased_calibration_error(confidence, right) == pytest.approx(0.4 - noise, abs=1e-3)


def test_debiasing_takes_off_what_chance_gives():
    """Perfectly calibrated: the plain error is far from zero, the debiased one nearer."""
    generator = np.random.default_rng(9)
    plain, debiased, squares = [], [], []
    for _ in range(100):
        claimed = generator.uniform(0.3, 1, size=300)
        held = (generator.random(300) < claimed).astype(float)
        plain.append(calibration_error(claimed, held, scheme="mass"))
        debiased.append(debiased_calibration_error(claimed, held))
        squares.append(debiased_calibration_error(claimed, held, power=2) ** 2)
    assert np.mean(plain) > 0.06
    assert np.mean(debiased) < 0.67 * np.mean(plain)
    assert 0.35 < np.mean(np.equal(squares, 0)) < 0.75  # unbiased before the cut at zero


def test_classwise_error_of_two_classes_is_that_of_one():
    """The second column mirrors the first."""
    generator = np.random.default_rng(10)
    first = generator.random(200)
    labels = (generator.random(200) > first).astype(np.int64)
    got = classwise_calibration_error(np.stack([first, 1 - first], 1), labels)
    assert got == pytest.approx(calibration_error(first, (labels == 0).astype(float)), abs=1e-9)


def test_calibration_intervals_are_deterministic_and_see_groups():
    generator = np.random.default_rng(11)
    claimed = generator.uniform(0.3, 1, size=300)
    held = (generator.random(300) < claimed - 0.15).astype(float)
    rows = np.repeat(np.arange(300), 6)
    alone = calibration_interval(claimed, held, seed=0)
    copies = calibration_interval(claimed[rows], held[rows], groups=rows, seed=0)
    assert alone == calibration_interval(claimed, held, seed=0)
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.15)
    assert alone.low <= calibration_error(claimed, held) <= alone.high


@pytest.mark.parametrize(
    ("logits", "labels", "weights", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=np.int64), None, "N > 0"),
        (np.full((2, 2), np.inf), np.array([0, 1]), None, "finite"),
        (np.zeros((2, 2)), np.array([0, 2]), None, "0 to 1"),
        (np.zeros((2, 2)), np.array([0, 1]), np.zeros(2), "weights"),
    ],
    ids=["none", "infinite", "label", "weights"],
)
def test_what_cannot_be_calibrated_is_named(logits, labels, weights, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels, weights)
