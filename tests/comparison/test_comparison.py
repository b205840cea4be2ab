"""Paired comparisons against scipy, closed forms, enumeration and simulated coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headstart.comparison import (
    Candidate,
    corrected_resampled_t,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    pareto_front,
    recommend,
    sign_flip_test,
)


def make_right(n: int, seed: int, *shares: float):
    """Right or wrong of several models on images of a common difficulty."""
    generator = np.random.default_rng(seed)
    difficulty = generator.random(n)
    noise = 0.2 * generator.normal(size=(len(shares), n))
    return [(difficulty + e < share).astype(float) for e, share in zip(noise, shares, strict=True)]


def test_resampled_t_is_the_plain_t_with_its_own_variance():
    """Without the overlap term it would be scipy's; with it the error grows by the known factor."""
    differences = np.random.default_rng(0).normal(0.02, 0.03, size=10)
    plain = stats.ttest_1samp(differences, 0)
    got = corrected_resampled_t(differences, test_fraction=0.1)
    factor = np.sqrt((1 / 10 + 1 / 9) / (1 / 10))
    assert got.p_value == pytest.approx(2 * stats.t.sf(abs(plain.statistic) / factor, 9))
    ends = plain.confidence_interval()
    half = factor * (ends.high - ends.low) / 2
    assert got.interval.high - got.difference == pytest.approx(half)
    assert "heuristic" in got.method


def test_resampled_t_without_spread_or_folds():
    same = corrected_resampled_t(np.zeros(5), test_fraction=0.2)
    assert (same.p_value, same.interval) == (1.0, None)
    assert np.isnan(corrected_resampled_t(np.full(5, 0.1), test_fraction=0.2).p_value)
    with pytest.raises(ValueError, match="at least 2"):
        corrected_resampled_t(np.zeros(1), test_fraction=0.2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 80))
def test_mcnemar_and_sign_flips_agree_with_scipy(seed, n):
    """On independent images both are the binomial test of the discordant pairs."""
    one, other = make_right(n, seed, 0.6, 0.75)
    wins, losses = int((one > other).sum()), int((one < other).sum())
    wanted = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar_exact(one, other) == pytest.approx(wanted)
    assert sign_flip_test(one, other, seed=0) == pytest.approx(wanted)
    assert sign_flip_test(other, one, seed=1) == pytest.approx(wanted)


def test_sign_flips_of_few_groups_are_enumerated():
    """All sign patterns by hand, groups of unequal sums."""
    one = np.array([1, 1, 0, 1, 1, 1, 1, 0, 1.0])
    other = np.array([0, 0, 1, 0, 0, 0, 1, 1, 0.0])
    groups = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4])
    sums = np.bincount(groups, one - other)
    flipped = [abs(np.dot(s, sums)) for s in itertools.product((1, -1), repeat=len(sums))]
    wanted = np.mean([value >= abs(sums.sum()) for value in flipped])
    assert sign_flip_test(one, other, groups=groups, seed=0) == pytest.approx(wanted)


def test_sampled_sign_flips_agree_with_scipy():
    """Sums that are no whole numbers, many groups."""
    generator = np.random.default_rng(2)
    differences = generator.normal(0.25, 1, size=40)
    got = sign_flip_test(differences, np.zeros(40), seed=0)
    wanted = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=9999, rng=1
    )
    assert got == pytest.approx(wanted.pvalue, abs=0.015)
    assert got == sign_flip_test(differences, np.zeros(40), seed=0)


def test_copies_in_groups_say_no_more_than_the_images():
    """The naive test is fooled, the grouped one is not."""
    one, other = make_right(60, 3, 0.6, 0.75)
    rows = np.repeat(np.arange(60), 10)
    alone = sign_flip_test(one, other, seed=0)
    assert sign_flip_test(one[rows], other[rows], groups=rows, seed=0) == pytest.approx(
        alone, abs=0.02
    )
    assert sign_flip_test(one[rows], other[rows], seed=0) < 0.01 * alone
    found = paired_bootstrap(one, other, seed=0).interval
    copies = paired_bootstrap(one[rows], other[rows], groups=rows, seed=0).interval
    assert copies.high - copies.low == pytest.approx(found.high - found.low, rel=0.15)


def test_paired_bootstrap_covers_the_difference():
    generator, inside = np.random.default_rng(4), 0
    for seed in range(200):
        both = generator.random((2, 150)) < np.array([[0.8], [0.7]])
        interval = paired_bootstrap(
            both[0].astype(float), both[1].astype(float), seed=seed, resamples=400
        ).interval
        inside += interval.low <= 0.1 <= interval.high
    assert 0.9 <= inside / 200 <= 0.99


def test_equal_models_are_not_told_apart():
    one, _ = make_right(50, 5, 0.6, 0.7)
    assert sign_flip_test(one, one, seed=0) == 1
    assert mcnemar_exact(one, one) == 1
    assert paired_bootstrap(one, one, seed=0).interval is None
    with pytest.raises(ValueError, match="same images"):
        paired_bootstrap(one, one[1:], seed=0)


def test_holm_by_hand_and_its_promises():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []
    values = np.random.default_rng(6).random(8)
    adjusted = np.array(holm(values))
    assert (adjusted >= values).all()
    assert (adjusted <= np.minimum(1, 8 * values)).all()
    assert (np.diff(adjusted[np.argsort(values)]) >= 0).all()


@settings(max_examples=50, deadline=None)
@given(points=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_the_front_is_what_nobody_beats(points):
    seconds, accuracies = zip(*points, strict=True)
    front = pareto_front(seconds, accuracies)
    kept = {points[i] for i in front}
    for time, accuracy in points:
        beaten = any(t <= time and a >= accuracy and (t, a) != (time, accuracy) for t, a in points)
        assert ((time, accuracy) in kept) != beaten
    assert len(kept) == len(front)
    assert list(front) == sorted(front, key=lambda i: seconds[i])


def candidates(seed: int = 7) -> list[Candidate]:
    """A slow best, a fast one as good but for noise, and one that is fastest and bad."""
    best, close, bad = make_right(400, seed, 0.81, 0.80, 0.4)
    return [
        Candidate(name="large", right=best, seconds=12.0),
        Candidate(name="small", right=close, seconds=5.0),
        Candidate(name="tiny", right=bad, seconds=1.0),
    ]


def test_the_fastest_within_noise_is_recommended():
    found = recommend(candidates(), seed=0)
    names = [c.name for c in candidates()]
    assert names[found.chosen] == "small"
    assert found.within_noise == (0, 1)
    assert found.p_values[found.best] == 1
    assert found.p_values[2] < 1e-6
    assert found.differences[2].interval.high < 0
    assert found == recommend(candidates(), seed=0)
    assert found.best == 0
    assert found.reason.startswith("'small' is within noise of the most accurate, 'large' (-")
    assert found.reason.endswith("and 2.4 times faster.")


def test_the_order_of_candidates_does_not_matter():
    forward, backward = recommend(candidates(), seed=0), recommend(candidates()[::-1], seed=0)
    assert forward.chosen == 2 - backward.chosen
    assert forward.reason == backward.reason


def test_reasons_when_the_best_is_chosen():
    large, _, tiny = candidates()
    assert "only candidate" in recommend([large], seed=0).reason
    assert "no other is within noise" in recommend([large, tiny], seed=0).reason
    slower = Candidate(name="slow", right=large.right, seconds=99.0)
    assert "fastest of the 2 within noise" in recommend([large, slower, tiny], seed=0).reason
    with pytest.raises(ValueError, match="at least one"):
        recommend([], seed=0)


def test_few_images_are_noise_even_where_resamples_never_change_sign():
    """Three images, all right against all wrong: p is 0.25."""
    good = Candidate(name="good", right=np.ones(3), seconds=9.0)
    bad = Candidate(name="bad", right=np.zeros(3), seconds=1.0)
    assert recommend([good, bad], seed=0).within_noise == (0, 1)
