"""Conformal sets: ranks by hand, coverage by simulation, refusals with their numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.conformal import (
    APPROXIMATE,
    GROUPED,
    GUARANTEED,
    GUARANTEED_GROUPS,
    class_scores,
    conformal_threshold,
    evaluate_sets,
    fit_conformal,
    images_needed,
)
from headstart.errors import DataError, UsageError
from headstart.statistics import wilson

NAMES = ("ash", "birch", "cedar", "dogwood")


def make_probabilities(n: int, seed: int):
    """Four classes, the last one harder."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(4, size=n)
    signal = np.array([3.0, 2.5, 2.0, 0.5])[labels][:, None]
    logits = generator.normal(size=(n, 4)) + signal * np.eye(4)[labels]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), labels


@pytest.mark.parametrize(
    ("n", "alpha", "rank"), [(9, 0.1, 9), (10, 0.1, 10), (19, 0.05, 19), (99, 0.1, 90), (4, 0.5, 3)]
)
def test_the_threshold_is_the_right_rank(n, alpha, rank):
    """ceil((n + 1)(1 - alpha)), whatever floats make of it."""
    scores = np.random.default_rng(0).permutation(n) + 1.0
    assert conformal_threshold(scores, alpha) == rank


@pytest.mark.parametrize(
    ("alpha", "needed"), [(0.1, 9), (0.05, 19), (0.2, 4), (0.3, 3), (0.01, 99)]
)
def test_too_few_images_are_refused_with_the_number_needed(alpha, needed):
    assert images_needed(alpha) == needed
    assert conformal_threshold(np.arange(needed), alpha) == needed - 1
    with pytest.raises(DataError, match=f"at least {needed} images, got {needed - 1}"):
        conformal_threshold(np.arange(needed - 1), alpha)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 300), alpha=st.floats(0.02, 0.9))
def test_the_rank_is_the_smallest_that_covers(n, alpha):
    """Of n + 1 exchangeable ranks at least 1 - alpha lie within, and one rank less would not do."""
    if n < images_needed(alpha):
        return
    rank = conformal_threshold(np.arange(1.0, n + 1), alpha)
    assert rank / (n + 1) >= 1 - alpha - 1e-9
    assert (rank - 1) / (n + 1) < 1 - alpha + 1e-9


@pytest.mark.parametrize("score", ["lac", "aps"])
@pytest.mark.parametrize("by_class", [False, True], ids=["marginal", "by-class"])
def test_the_promise_holds_on_average(score, by_class):
    """Exchangeable images: mean coverage over calibration sets is 1 - alpha or a little more."""
    kept = []
    for seed in range(60):
        probabilities, labels = make_probabilities(1300, seed)
        rule = fit_conformal(
            probabilities[:300], labels[:300], NAMES, alpha=0.1, score=score, by_class=by_class
        )
        held = rule.sets(probabilities[300:])[np.arange(1000), labels[300:]]
        kept.append([held[labels[300:] == c].mean() for c in range(4)] + [held.mean()])
    mean = np.mean(kept, axis=0)
    assert 0.895 < mean[4] < 0.925
    if by_class:
        assert (mean[:4] > 0.89).all(), mean
        easy = 4 if score == "lac" else 3  # a hard class has ties at 1 by 'aps'
        assert (mean[:easy] < 0.94).all(), mean
    elif score == "lac":
        assert mean[3] < 0.85 < 0.93 < mean[0]  # the hard class pays for the easy ones


def test_lac_and_aps_scores_by_hand():
    probabilities = np.array([[0.5, 0.2, 0.3]])
    np.testing.assert_allclose(class_scores(probabilities, "lac"), [[0.5, 0.8, 0.7]])
    np.testing.assert_allclose(class_scores(probabilities, "aps"), [[0.5, 1.0, 0.8]])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500))
def test_smaller_alpha_gives_larger_sets(seed):
    """Every set contains the set of a larger alpha; renaming classes renames the sets."""
    probabilities, labels = make_probabilities(120, seed)
    rules = [fit_conformal(probabilities, labels, NAMES, alpha=a) for a in (0.05, 0.1, 0.3)]
    wide, middle, narrow = (rule.sets(probabilities) for rule in rules)
    assert (wide >= middle).all()
    assert (middle >= narrow).all()
    order = np.random.default_rng(seed).permutation(4)
    renamed = fit_conformal(probabilities[:, order], np.argsort(order)[labels], NAMES, alpha=0.1)
    np.testing.assert_array_equal(renamed.sets(probabilities[:, order]), middle[:, order])


def test_a_class_too_small_is_named_with_the_number_needed():
    probabilities, labels = make_probabilities(100, 1)
    rows = np.concatenate([np.flatnonzero(labels != 2), np.flatnonzero(labels == 2)[:5]])
    with pytest.raises(DataError, match=r"at least 9 images of every class, but 'cedar' has 5\."):
        fit_conformal(probabilities[rows], labels[rows], NAMES, by_class=True)
    assert fit_conformal(probabilities[rows], labels[rows], NAMES).num_images == (len(rows),) * 4


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_an_alpha_that_cannot_be_is_refused(alpha):
    with pytest.raises(UsageError, match="alpha"):
        images_needed(alpha)


def test_unknown_scores_are_refused():
    probabilities, labels = make_probabilities(50, 2)
    with pytest.raises(UsageError, match="'lac' or 'aps'"):
        fit_conformal(probabilities, labels, NAMES, score="raps")


def test_figures_of_sets_by_hand():
    sets = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=bool)
    labels = np.array([0, 1, 0, 0])
    found = evaluate_sets(sets, labels, seed=0)
    assert found.coverage.value == 0.5
    assert found.coverage.interval == wilson(2, 4)
    assert found.mean_size.value == 1
    assert (found.single_fraction, found.empty_fraction) == (0.5, 0.25)
    assert found.class_coverage[0].value == pytest.approx(1 / 3)
    sizes = found.class_mean_size
    assert (sizes[0].value, sizes[1].value) == (pytest.approx(2 / 3), 2)
    assert sizes[0].interval.low < 2 / 3 < sizes[0].interval.high


def test_groups_of_copies_are_as_unsure_as_without_copies():
    probabilities, labels = make_probabilities(150, 3)
    sets = fit_conformal(probabilities, labels, NAMES).sets(probabilities)
    rows = np.repeat(np.arange(150), 8)
    alone = evaluate_sets(sets, labels, seed=0)
    copies = evaluate_sets(sets[rows], labels[rows], groups=rows, seed=0)
    for one, other in ((alone.coverage, copies.coverage), (alone.mean_size, copies.mean_size)):
        wide = one.interval.high - one.interval.low
        assert other.interval.high - other.interval.low == pytest.approx(wide, rel=0.2)
        assert "groups" in other.interval.method
    assert copies == evaluate_sets(sets[rows], labels[rows], groups=rows, seed=0)


def test_absent_classes_have_no_coverage():
    found = evaluate_sets(np.ones((3, 2), dtype=bool), np.zeros(3, dtype=np.int64), seed=0)
    assert found.class_coverage[1].value is None
    assert found.class_mean_size[1].value is None
    assert found.mean_size.interval is None


def test_groups_of_one_image_are_images():
    probabilities, labels = make_probabilities(80, 5)
    alone = fit_conformal(probabilities, labels, NAMES, by_class=True)
    grouped = fit_conformal(probabilities, labels, NAMES, by_class=True, groups=np.arange(80))
    assert grouped.thresholds == alone.thresholds


def test_a_threshold_over_groups_by_hand():
    """Nine groups; the first has three images, whose weight is a third each."""
    scores = np.array([0.95, 0.1, 0.2, *np.arange(1, 9) / 10 + 0.05])
    groups = np.array([0, 0, 0, *range(1, 9)])
    # alpha 0.2 asks for weight 8 of 10: up to 0.85 there are 8 groups and two thirds.
    assert conformal_threshold(scores, 0.2, groups) == pytest.approx(0.85)
    # alpha 0.1 asks for weight 9: only the last image of the first group completes it.
    assert conformal_threshold(scores, 0.1, groups) == pytest.approx(0.95)
    with pytest.raises(DataError, match="at least 19 groups, got 9"):
        conformal_threshold(scores, 0.05, groups)


def test_an_image_of_a_new_group_is_covered_as_promised():
    """Simulation: images of a group share most of their score; large groups lie higher."""
    promised, plain = [], []
    for seed in range(400):
        generator = np.random.default_rng(seed)
        sizes = generator.integers(1, 9, size=31)
        centres = generator.normal(size=31) + 0.25 * sizes
        groups = np.repeat(np.arange(31), sizes)
        scores = centres[groups] + 0.3 * generator.normal(size=len(groups))
        new = groups == 30  # a group like the others, drawn after them
        hierarchical = conformal_threshold(scores[~new], 0.2, groups[~new])
        promised.append((scores[new] <= hierarchical).mean())
        plain.append((scores[new] <= conformal_threshold(scores[~new], 0.2)).mean())
    spread = np.std(promised) / 20
    assert np.mean(promised) == pytest.approx(0.8 + 0.5 / 31, abs=0.5 / 31 + 2.5 * spread)
    assert np.mean(plain) > np.mean(promised)  # ruled by the large groups, no longer the promise


def test_coverage_with_groups_weighing_alike():
    sets = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=bool)
    labels, groups = np.array([0, 0, 0, 0]), np.array([5, 5, 5, 7])
    found = evaluate_sets(sets, labels, groups=groups, seed=0)
    assert found.coverage.value == 0.75
    assert found.group_coverage.value == pytest.approx((2 / 3 + 1) / 2)
    assert evaluate_sets(sets, labels, seed=0).group_coverage.value is None


def test_sentences_say_what_is_not_promised():
    assert "approximate" in APPROXIMATE
    assert "no finite-sample guarantee" in APPROXIMATE
    assert "not exchangeable" in GROUPED
    assert "on average" in GUARANTEED
    assert "not exchangeable" in GUARANTEED_GROUPS
