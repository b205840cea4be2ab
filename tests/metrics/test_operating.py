"""Thresholds and predictive values against scikit-learn, torchmetrics and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from headstart.errors import UsageError
from headstart.metrics import (
    ThresholdRule,
    apply_threshold,
    choose_threshold,
    operating_points,
    predictive_intervals,
    predictive_values,
    sensitivity_at_specificity,
)


def make_scores(n: int, seed: int, decimals: int = 2):
    generator = np.random.default_rng(seed)
    positive = generator.random(n) < 0.4
    positive[:2] = True, False
    return np.round(generator.normal(size=n) + positive, decimals), positive


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 60),
    decimals=st.integers(0, 3),
    text=st.sampled_from(["youden", "sensitivity:0.9", "specificity=0.8", "sensitivity:1"]),
)
def test_a_chosen_threshold_does_what_it_says_and_is_best(seed, n, decimals, text):
    """Applied to its own images it gives its own figures; no other threshold is better."""
    scores, positive = make_scores(n, seed, decimals)
    rule = ThresholdRule.parse(text)
    chosen = choose_threshold(scores, positive, rule)
    assert apply_threshold(scores, positive, chosen.threshold) == chosen
    fallout, recall, _ = roc_curve(positive, scores, drop_intermediate=False)
    if rule.kind == "youden":
        best = (recall - fallout).max()
        assert chosen.sensitivity + chosen.specificity - 1 == pytest.approx(best)
    elif rule.kind == "sensitivity":
        assert chosen.sensitivity >= rule.target
        assert chosen.specificity == pytest.approx(1 - fallout[recall >= rule.target].min())
    else:
        assert chosen.specificity >= rule.target - 1e-12
        best = recall[1 - fallout >= rule.target - 1e-12].max()
        assert chosen.sensitivity == pytest.approx(best)


def test_a_threshold_lies_midway():
    """Closed form: separable scores."""
    chosen = choose_threshold(
        np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, False, True, True]), ThresholdRule()
    )
    assert chosen.threshold == pytest.approx(0.4)
    assert (chosen.sensitivity, chosen.specificity) == (1, 1)


def test_neighbouring_floats_have_no_middle():
    low = 0.5
    high = np.nextafter(low, 1)
    scores, positive = np.array([low, high]), np.array([False, True])
    chosen = choose_threshold(scores, positive, ThresholdRule())
    assert apply_threshold(scores, positive, chosen.threshold).specificity == 1


def test_sensitivity_at_specificity_agrees_with_torchmetrics():
    scores, positive = make_scores(200, 4, 6)
    scores = 1 / (1 + np.exp(-scores))
    tensors = torch.from_numpy(scores), torch.from_numpy(positive).long()
    for target in (0.5, 0.8, 0.9, 0.95):
        wanted, _ = reference.binary_sensitivity_at_specificity(*tensors, min_specificity=target)
        assert sensitivity_at_specificity(scores, positive, target) == pytest.approx(float(wanted))


def test_a_rising_function_of_the_scores_changes_no_point():
    scores, positive = make_scores(80, 5)
    _, *one = operating_points(scores, positive)
    _, *other = operating_points(np.exp(scores), positive)
    np.testing.assert_allclose(one, other)


@pytest.mark.parametrize("labels", [np.ones(3, bool), np.zeros(3, bool)], ids=["all", "none"])
def test_one_kind_only_has_no_threshold(labels):
    with pytest.raises(ValueError, match="positives and negatives"):
        choose_threshold(np.arange(3.0), labels, ThresholdRule())


@pytest.mark.parametrize(
    "text",
    [
        "best",
        "youden=0.5",
        "sensitivity",
        "specificity=2",
        "sensitivity=high",
        "cost",
        "cost:0",
        "1.5",
        "-0.1",
        "",
    ],
)
def test_rules_that_cannot_be_are_named(text):
    with pytest.raises(UsageError, match="threshold rule"):
        ThresholdRule.parse(text)


@pytest.mark.parametrize("text", ["youden", "sensitivity:0.95", "specificity:0.9", "cost:5", "0.3"])
def test_rules_print_as_they_are_read(text):
    assert str(ThresholdRule.parse(text)) == text


def test_predictive_values_by_counting():
    """A population of 10,000 with 5 % sick: 450 right alarms, 950 false ones."""
    ppv, npv = predictive_values(0.9, 0.9, 0.05)
    assert ppv == pytest.approx(450 / (450 + 950))
    assert npv == pytest.approx(8550 / (8550 + 50))
    assert np.isnan(predictive_values(0.0, 1.0, 0.5)[0])
    with pytest.raises(UsageError, match="prevalence"):
        predictive_values(0.9, 0.9, 1.0)


def test_predictive_intervals_mirror_and_cover():
    """NPV is the PPV of the other class; 95 % intervals hold the truth about so often."""
    ppv, npv = predictive_intervals(40, 50, 70, 90, 0.1, 1.96)
    mirrored_ppv, mirrored_npv = predictive_intervals(70, 90, 40, 50, 0.9, 1.96)
    for one, other in ((ppv, mirrored_npv), (npv, mirrored_ppv)):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
    generator, inside = np.random.default_rng(0), np.zeros(2)
    truth = predictive_values(0.8, 0.9, 0.1)
    for _ in range(2000):
        drawn = generator.binomial(50, 0.8), generator.binomial(100, 0.9)
        found = predictive_intervals(drawn[0], 50, drawn[1], 100, 0.1, 1.96)
        inside += [part.low <= true <= part.high for part, true in zip(found, truth, strict=True)]
    assert (np.abs(inside / 2000 - 0.95) < 0.02).all(), inside / 2000
