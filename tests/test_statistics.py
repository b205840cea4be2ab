"""Intervals against closed forms, scipy, brute force and simulated coverage."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import roc_auc_score

from headstart.metrics import METRICS, log_losses, macro_auc, score, sensitivity_at_specificity
from headstart.statistics import (
    auc_influences,
    auc_interval,
    bootstrap_counts,
    bootstrap_mean,
    bootstrap_several,
    class_estimates,
    decision_estimates,
    fold_mean_auc,
    headline_intervals,
    mean_estimate,
    out_of_fold_estimates,
    sensitivity_estimate,
    share_estimate,
    wilson,
)


def make_scores(n: int, num_classes: int, seed: int, signal: float = 1.0):
    """Probabilities with some knowledge of the labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=n)
    logits = generator.normal(size=(n, num_classes)) + signal * np.eye(num_classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (3, 7), (50, 50), (8, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_agrees_with_scipy(successes, n, level):
    """An independent library."""
    wanted = binomtest(successes, n).proportion_ci(level, method="wilson")
    got = wilson(successes, n, level)
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_wilson_covers_on_average():
    """Exact coverage by the binomial law, averaged over shares, is near the nominal level."""
    generator = np.random.default_rng(0)
    shares = generator.uniform(0.05, 0.95, size=4000)
    drawn = generator.binomial(40, shares)
    ends = {k: wilson(k, 40) for k in range(41)}
    inside = [ends[k].low <= p <= ends[k].high for k, p in zip(drawn, shares, strict=True)]
    assert 0.93 < np.mean(inside) < 0.97


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_impossible_counts(successes, n):
    """ValueError with both numbers."""
    with pytest.raises(ValueError, match=f"got {successes} of {n}"):
        wilson(successes, n)


@settings(max_examples=20, deadline=None)
@given(successes=st.integers(0, 60), n=st.integers(60, 90))
def test_wilson_mirrors(successes, n):
    """Failures have the mirrored interval."""
    one, other = wilson(successes, n), wilson(n - successes, n)
    assert one.low == pytest.approx(1 - other.high)
    assert one.low <= successes / n <= one.high


def test_bootstrap_of_a_mean_agrees_with_scipy():
    """Percentile ends within the noise of the resampling."""
    values = np.random.default_rng(1).exponential(size=400)
    draws = bootstrap_mean(values, generator=np.random.default_rng(2), resamples=6000)
    wanted = bootstrap((values,), np.mean, n_resamples=6000, method="percentile", rng=3)
    ends = np.quantile(draws, [0.025, 0.975])
    interval = wanted.confidence_interval
    np.testing.assert_allclose(ends, [interval.low, interval.high], atol=0.01)


def test_bootstrap_of_counts_has_the_moments_of_resampled_images():
    """Spread of balanced accuracy equals that of images drawn one by one."""
    probabilities, labels = make_scores(200, 3, 4)
    predictions = probabilities.argmax(1)
    spec = METRICS.get("balanced_accuracy")
    counts = bootstrap_counts(
        labels, predictions, 3, generator=np.random.default_rng(5), resamples=4000
    )
    assert (counts.support.sum(1) == 200).all()
    assert (counts.predicted.sum(1) == 200).all()
    generator = np.random.default_rng(6)
    by_hand = []
    for _ in range(2000):
        rows = generator.integers(200, size=200)
        by_hand.append(spec.function(probabilities[rows], labels[rows]))
    draws = spec.from_counts(counts)
    assert draws.mean() == pytest.approx(np.mean(by_hand), abs=0.004)
    assert draws.std() == pytest.approx(np.std(by_hand), rel=0.08)


def test_groups_of_copies_widen_as_if_the_copies_were_not_there():
    """Nine copies of each image, grouped, say no more than the images alone."""
    probabilities, labels = make_scores(150, 4, 7)
    rows = np.repeat(np.arange(150), 9)
    alone = headline_intervals(probabilities, labels, 4, seed=0)
    copies = headline_intervals(probabilities[rows], labels[rows], 4, groups=rows, seed=0)
    naive = headline_intervals(probabilities[rows], labels[rows], 4, seed=0)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "log_loss"):
        width = alone[name].high - alone[name].low
        assert copies[name].high - copies[name].low == pytest.approx(width, rel=0.15), name
        assert naive[name].high - naive[name].low < 0.5 * width, name
        assert "groups" in copies[name].method


def delong_variance(scores: np.ndarray, positive: np.ndarray) -> float:
    """DeLong's variance from the definition: every pair of positive and negative."""
    up, down = scores[positive][:, None], scores[~positive][None, :]
    wins = (up > down) + 0.5 * (up == down)
    return wins.mean(1).var(ddof=1) / len(up) + wins.mean(0).var(ddof=1) / down.shape[1]


def test_two_classes_give_delong():
    """Value and variance, with many ties."""
    probabilities, labels = make_scores(80, 2, 8)
    first = np.round(probabilities[:, 0], 1)
    probabilities = np.stack([first, 1 - first], axis=1)
    value, influences = auc_influences(probabilities, labels)
    assert value == pytest.approx(macro_auc(probabilities, labels))
    assert influences.mean() == pytest.approx(0, abs=1e-12)
    variance = (influences**2).sum() / 80**2
    assert variance == pytest.approx(delong_variance(first, labels == 0))


def test_macro_influences_give_the_spread_of_the_bootstrap():
    """Three classes: the covariances between the classes are in it."""
    probabilities, labels = make_scores(250, 3, 9)
    _, influences = auc_influences(probabilities, labels)
    generator = np.random.default_rng(10)
    draws = []
    for _ in range(400):
        rows = generator.integers(250, size=250)
        draws.append(auc_influences(probabilities[rows], labels[rows])[0])
    assert np.sqrt((influences**2).sum()) / 250 == pytest.approx(np.std(draws), rel=0.12)


def test_auc_interval_covers():
    """Binormal scores, where the AUC is Phi(signal / sqrt 2) for a single score."""
    generator, inside = np.random.default_rng(11), 0
    truth = 0.9213503964748574  # Phi(2 / sqrt 2)
    for _ in range(400):
        labels = np.arange(60) % 2
        scores = generator.normal(size=60) + 2.0 * labels
        interval = auc_interval(np.stack([-scores, scores], axis=1), labels)
        inside += interval.low <= truth <= interval.high
    assert 0.91 < inside / 400 <= 0.985


def test_a_perfect_auc_is_no_certainty():
    """Without variance the smallest class decides."""
    labels = np.array([0] * 30 + [1] * 8)
    interval = auc_interval(np.eye(2)[labels], labels)
    assert interval.high == 1
    assert interval.low == wilson(8, 8).low
    assert "smallest class's 8 images" in interval.method
    wrong = auc_interval(np.eye(2)[1 - labels], labels)
    assert wrong.low == 0
    assert auc_interval(np.eye(2)[labels[:30]], labels[:30]) is None


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_auc_interval_knows_only_the_order(seed):
    """A rising function of the scores changes nothing."""
    probabilities, labels = make_scores(50, 3, seed)
    one, other = auc_interval(probabilities, labels), auc_interval(probabilities**3, labels)
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_fold_mean_auc_never_pools():
    """A fold whose scores are all shifted leaves mean and interval; variances add up."""
    probabilities, labels = make_scores(300, 3, 12)
    folds = np.arange(300) % 3
    value, interval = fold_mean_auc(probabilities, labels, folds)
    singles = [macro_auc(probabilities[folds == f], labels[folds == f]) for f in range(3)]
    assert value == pytest.approx(np.mean(singles))
    shifted = probabilities + 5.0 * (folds == 1)[:, None]
    assert fold_mean_auc(shifted, labels, folds) == (value, interval)
    whole = auc_interval(probabilities, labels)
    assert interval.high - interval.low == pytest.approx(whole.high - whole.low, rel=0.25)
    assert fold_mean_auc(probabilities[:1], labels[:1], folds[:1]) is None


def test_every_metric_gets_an_interval_around_its_value():
    """All of the registry; None just where the value is None."""
    probabilities, labels = make_scores(400, 5, 13)
    values = score(probabilities, labels, 5)
    got = headline_intervals(probabilities, labels, 5, seed=0)
    assert list(got) == METRICS.names()
    for name, value in values.items():
        if value is None:
            assert got[name] is None
        else:
            assert got[name].low < value < got[name].high
    assert got == headline_intervals(probabilities, labels, 5, seed=0)
    assert got != headline_intervals(probabilities, labels, 5, seed=1)


CLASS_AVERAGES = ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")
LOSSES = ("log_loss", "brier_score")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 25),
    num_classes=st.integers(2, 6),
    signal=st.sampled_from([-3.0, 0.0, 2.0, 9.0]),
    num_groups=st.none() | st.integers(1, 6),
)
def test_intervals_hold_their_value(seed, n, num_classes, signal, num_groups):
    """Every metric of small problems, absent classes and equal resamples included."""
    probabilities, labels = make_scores(n, num_classes, seed, signal)
    groups = None if num_groups is None else np.arange(n) % num_groups
    values = score(probabilities, labels, num_classes)
    got = headline_intervals(
        probabilities, labels, num_classes, groups=groups, seed=seed, resamples=100
    )
    for name, value in values.items():
        interval = got[name]
        if interval is None:
            assert value is None or METRICS.get(name).averages_classes or name in LOSSES, name
        else:
            assert interval.low <= value <= interval.high, name
            assert METRICS.get(name).lowest <= interval.low < interval.high, name
            assert interval.high <= 1 or name in LOSSES, name
            alone = groups is None or num_groups >= n  # groups of one image are images
            assert alone or "groups" in interval.method, name


def test_many_tiny_classes_keep_their_value_inside():
    """100 classes of two images, a tenth wrong: resamples miss classes, the intervals do not."""
    labels = np.repeat(np.arange(100), 2)
    predictions = labels.copy()
    predictions[::10] = (labels[::10] + 1) % 100
    got = headline_intervals(np.eye(100)[predictions], labels, 100, seed=0)
    values = score(np.eye(100)[predictions], labels, 100)
    assert values["macro_recall"] == pytest.approx(0.9)
    for name in CLASS_AVERAGES:
        assert got[name].low + 0.02 < values[name] < got[name].high - 0.02, name
        assert got[name].method == "centred bootstrap"


def test_class_average_intervals_cover():
    """Five unequal classes, 200 images, against the truth of the law they are drawn from."""
    generator = np.random.default_rng(15)
    priors, right = np.array([0.1, 0.15, 0.2, 0.25, 0.3]), np.array([0.6, 0.9, 0.7, 0.8, 0.85])
    law = priors[:, None] * np.where(np.eye(5), right, (1 - right[:, None]) / 4)
    np.testing.assert_allclose(law.sum(1), priors)
    f1 = 2 * law.diagonal() / (law.sum(0) + law.sum(1))
    truths = {"macro_recall": right.mean(), "macro_f1": f1.mean()}
    inside = dict.fromkeys(truths, 0)
    for seed in range(200):
        labels, predictions = np.divmod(generator.choice(25, size=200, p=law.ravel()), 5)
        got = headline_intervals(np.eye(5)[predictions], labels, 5, seed=seed, resamples=400)
        for name, truth in truths.items():
            inside[name] += got[name].low <= truth <= got[name].high
    assert all(0.88 <= count / 200 <= 0.995 for count in inside.values()), inside


def test_equal_resamples_are_replaced_and_say_so():
    """All right: a share has Wilson on images or groups, a class average on the smallest class."""
    labels = np.array([0] * 1000 + [1] * 3)
    got = headline_intervals(np.eye(3)[labels], labels, 3, seed=0)
    assert got["accuracy"] == wilson(1003, 1003)
    for name in CLASS_AVERAGES:
        assert (got[name].low, got[name].high) == (wilson(3, 3).low, 1)
        assert got[name].method == "wilson on the smallest class's 3 images (all resamples equal)"
    assert all(got[name] is None for name in LOSSES)
    even = np.eye(3)[labels[:1000]], labels[:1000]
    assert headline_intervals(*even, 3, seed=0)["matthews"] is None  # constant, and no share
    groups = np.concatenate([np.arange(1000) % 20, [0, 0, 1]])
    grouped = headline_intervals(np.eye(3)[labels], labels, 3, groups=groups, seed=0)
    assert grouped["accuracy"].low == wilson(20, 20).low
    assert grouped["accuracy"].method == "wilson on 20 groups (no variance)"
    for name in (*CLASS_AVERAGES, "macro_auc"):
        assert grouped[name].low == wilson(2, 2).low, name
        assert "smallest class's 2 groups" in grouped[name].method


def test_a_degenerate_average_that_is_no_share_has_no_interval():
    """A big class all right and four images all wrong: one half, whatever is drawn."""
    labels = np.array([0] * 1000 + [1] * 4)
    probabilities = np.eye(2)[np.zeros(1004, dtype=np.int64)]
    assert score(probabilities, labels, 2)["balanced_accuracy"] == 0.5
    assert headline_intervals(probabilities, labels, 2, seed=0)["balanced_accuracy"] is None


def test_the_accuracy_of_one_image_and_its_log_loss():
    """A loss is no share, above one or below."""
    below = headline_intervals(np.array([[0.9, 0.1]]), np.array([0]), 2, seed=0)
    assert below["log_loss"] is None
    got = headline_intervals(np.array([[0.9, 0.1]]), np.array([1]), 2, seed=0)
    assert got["log_loss"] is None
    assert got["accuracy"].low == 0
    assert got["macro_auc"] is None


def test_seventy_thousand_images_take_seconds():
    """The promise is 2 s a metric on a free core; the bound here leaves room for a busy one."""
    probabilities, labels = make_scores(70_000, 10, 14)
    started = time.perf_counter()
    values = log_losses(probabilities, labels)
    bootstrap_mean(values, generator=np.random.default_rng(0))
    bootstrap_counts(labels, probabilities.argmax(1), 10, generator=np.random.default_rng(0))
    assert time.perf_counter() - started < 10


def test_out_of_fold_estimates_average_what_ranks_and_pool_the_rest():
    """A shift of one fold's scores leaves AUC and AP; accuracy is that of all images."""
    probabilities, labels = make_scores(240, 3, 16)
    folds = np.arange(240) % 3
    got = out_of_fold_estimates(probabilities, labels, 3, folds, seed=0)
    shifted = probabilities + 2.0 * (folds == 1)[:, None]
    moved = out_of_fold_estimates(shifted, labels, 3, folds, seed=0)
    values = score(probabilities, labels, 3)
    for name in ("macro_auc", "macro_average_precision"):
        assert got[name] == moved[name]
        parts = [score(probabilities[folds == f], labels[folds == f], 3)[name] for f in range(3)]
        assert got[name].value == pytest.approx(np.mean(parts))
    assert got["accuracy"].value == values["accuracy"]
    assert got["accuracy"].interval == wilson(round(values["accuracy"] * 240), 240)


def test_classes_have_wilson_intervals_where_images_are_independent():
    """Recall, precision and specificity are shares; the rest has other intervals."""
    probabilities, labels = make_scores(150, 3, 17)
    predictions = probabilities.argmax(1)
    found = class_estimates(probabilities, labels, 3)
    for c, figures in enumerate(found):
        hits = int(((labels == c) & (predictions == c)).sum())
        assert figures["recall"].interval == wilson(hits, int((labels == c).sum()))
        assert figures["precision"].interval == wilson(hits, int((predictions == c).sum()))
        right = int(((labels != c) & (predictions != c)).sum())
        assert figures["specificity"].interval == wilson(right, int((labels != c).sum()))
        assert figures["f1"].interval.method == "influence"
        assert figures["auc"].value == pytest.approx(
            roc_auc_score(labels == c, probabilities[:, c])
        )
        for figure in figures.values():
            assert figure.interval.low <= figure.value <= figure.interval.high
    assert found == class_estimates(probabilities, labels, 3)


def test_classes_of_grouped_copies_are_as_unsure_as_without_the_copies():
    """Nine copies of each image in one group: the bootstrap over groups is not fooled."""
    probabilities, labels = make_scores(200, 2, 18)
    rows = np.repeat(np.arange(200), 9)
    alone = class_estimates(probabilities, labels, 2, prevalences=(0.3, 0.7))
    copies = class_estimates(
        probabilities[rows], labels[rows], 2, groups=rows, prevalences=(0.3, 0.7)
    )
    for name in ("recall", "precision", "specificity", "f1", "auc", "average_precision", "ppv"):
        one, other = alone[0][name], copies[0][name]
        assert one.value == pytest.approx(other.value)
        assert width(other) == pytest.approx(width(one), rel=0.2), name
        assert "groups" in other.interval.method


def width(estimate) -> float:
    return estimate.interval.high - estimate.interval.low


def test_a_class_that_never_occurs_has_no_figures():
    """None, never a zero that looks like failure."""
    labels = np.array([0, 0, 1, 1, 1])
    figures = class_estimates(np.eye(3)[labels], labels, 3)[2]
    for name in ("recall", "precision", "f1", "auc", "average_precision"):
        assert figures[name].value is None
    assert figures["specificity"].value == 1


@pytest.mark.parametrize("grouped", [False, True], ids=["images", "groups"])
def test_decisions_agree_with_counting(grouped):
    """Sensitivity and the rest of a yes-or-no answer; at its own prevalence PPV is precision."""
    generator = np.random.default_rng(19)
    positive = generator.random(300) < 0.3
    called = positive ^ (generator.random(300) < 0.2)
    groups = np.arange(300) // 3 if grouped else None
    plain = decision_estimates(called, positive, groups=groups)
    assert plain["sensitivity"].value == called[positive].mean()
    assert plain["specificity"].value == (~called[~positive]).mean()
    assert plain["ppv"].value == positive[called].mean()
    assert plain["npv"].value == (~positive[~called]).mean()
    same = decision_estimates(called, positive, groups=groups, prevalence=float(positive.mean()))
    rare = decision_estimates(called, positive, groups=groups, prevalence=0.01)
    for name in ("ppv", "npv"):
        assert same[name].value == pytest.approx(plain[name].value)
        assert rare[name].interval.low <= rare[name].value <= rare[name].interval.high
    assert rare["ppv"].value < 0.1 < plain["ppv"].value


def test_sensitivity_at_a_fixed_specificity_has_the_spread_of_resampled_images():
    """Against a plain loop over resamples, with ties; and copies in groups change little."""
    generator = np.random.default_rng(20)
    positive = np.arange(200) % 3 == 0
    scores = np.round(generator.normal(size=200) + 1.5 * positive, 1)
    found = sensitivity_estimate(scores, positive, 0.9, seed=0)
    assert found.value == sensitivity_at_specificity(scores, positive, 0.9)
    draws = []
    for _ in range(500):
        rows = generator.integers(200, size=200)
        draws.append(sensitivity_at_specificity(scores[rows], positive[rows], 0.9))
    ends = np.quantile(draws, [0.025, 0.975])
    np.testing.assert_allclose([found.interval.low, found.interval.high], ends, atol=0.05)
    rows = np.repeat(np.arange(200), 4)
    copies = sensitivity_estimate(scores[rows], positive[rows], 0.9, groups=rows, seed=0)
    assert width(copies) == pytest.approx(width(found), rel=0.15)
    assert sensitivity_estimate(scores, np.ones(200, bool), 0.9, seed=0).value is None


def test_shares_and_means_of_images_and_groups():
    """Wilson of images; copies in groups say no more; groups all alike have Wilson on groups."""
    right = np.random.default_rng(21).random(120) < 0.7
    assert share_estimate(right).interval == wilson(right.sum(), 120)
    rows = np.repeat(np.arange(120), 7)
    copies = share_estimate(right[rows], groups=rows)
    assert width(copies) == pytest.approx(width(share_estimate(right)), rel=0.15)
    assert width(copies) == pytest.approx(width(mean_estimate(right * 1.0, seed=0)), rel=0.1)
    alike = share_estimate(np.ones(12, dtype=bool), groups=np.arange(12) % 4)
    assert alike.interval.low == wilson(4, 4).low
    assert "4 groups" in alike.interval.method
    assert mean_estimate(np.ones(5), seed=0).interval is None
    assert share_estimate(np.zeros(0, dtype=bool)).value is None


@pytest.mark.parametrize("positives", [1, 2])
def test_a_class_of_one_or_two_has_no_narrow_interval(positives):
    """Their placements have no spread: alone, the others' covered 45 % and 80 % of the time."""
    generator = np.random.default_rng(3)
    labels = np.repeat([1, 0], [positives, 60])
    true, covered = 0.7602, 0  # P(N(1, 1) > N(0, 1))
    for _ in range(100):
        scores = generator.normal(labels, 1.0)
        found = auc_interval(np.column_stack([-scores, scores]), labels)
        covered += found.low <= true <= found.high
    assert covered >= 95
    assert "tell no spread" in found.method


def test_few_groups_have_wide_intervals():
    """Groups of about ten images with a difficulty of their own: shares, a mean and an AUC hold.

    Percentiles of resampled groups, not expanded, held the accuracy 77 % of the time with 6.
    """
    generator, held = np.random.default_rng(30), np.zeros(3)
    truths = 0.5, 0.0, 0.7602  # P(N(1, 1) > N(0, 1)) of scores with the groups' shift below
    for seed in range(200):
        sizes = 1 + generator.poisson(9, 6)
        groups = np.repeat(np.arange(6), sizes)
        shift = generator.normal(size=6)[groups]
        right = shift + generator.normal(size=len(groups)) > 0
        labels = np.array([0, 1] * 3)[groups]
        scores = labels + (shift + generator.normal(size=len(groups))) / np.sqrt(2)
        found = (
            share_estimate(right, groups=groups).interval,
            mean_estimate(shift, groups=groups, seed=seed).interval,
            auc_interval(np.column_stack([-scores, scores]), labels, groups=groups),
        )
        held += [one.low <= truth <= one.high for one, truth in zip(found, truths, strict=True)]
    assert (held >= [180, 170, 184]).all(), held


def test_no_false_alarm_of_few_groups_is_no_certainty():
    """PPV at a prevalence, every negative of four patients called rightly."""
    groups = np.repeat(np.arange(8), 5)
    positive = groups < 4
    called = positive & (np.arange(40) % 5 > 0)
    made = decision_estimates(called, positive, groups=groups, prevalence=0.1)
    alone = decision_estimates(called, positive, prevalence=0.1)
    assert made["ppv"].value == alone["ppv"].value == 1
    assert made["ppv"].interval.low < alone["ppv"].interval.low - 0.1
    assert made["ppv"].interval.high == 1
    assert "groups" in made["ppv"].interval.method


def test_several_models_are_resampled_together():
    """Equal answers have equal counts in every resample, whatever stands beside them."""
    generator = np.random.default_rng(31)
    labels, answers = generator.integers(3, size=(2, 90))
    for groups in (None, np.arange(90) // 2, np.maximum(np.arange(90), 4)):
        first, other, last = bootstrap_several(
            labels, [answers, labels, answers], 3,
            groups=groups, generator=np.random.default_rng(1), resamples=50,
        )  # fmt: skip
        np.testing.assert_array_equal(first.hits, last.hits)
        np.testing.assert_array_equal(other.hits, other.support)
        np.testing.assert_array_equal(first.support, other.support)


def test_one_pair_of_duplicates_is_not_the_end_of_a_macro_auc():
    """100 classes of three images, two of them linked: one class of two units among a hundred."""
    labels = np.arange(300) % 100
    probabilities = np.random.default_rng(32).random((300, 100))
    probabilities[np.arange(300), labels] += 0.8
    groups = np.arange(300)
    groups[100] = 0  # the same class
    alone = auc_interval(probabilities, labels)
    linked = auc_interval(probabilities, labels, groups=groups)
    assert linked.method.startswith("influence")
    assert linked.high - linked.low < 1.5 * (alone.high - alone.low)


@pytest.mark.parametrize("of_class", [(4, 30), (30, 4)])
def test_few_groups_of_one_class_widen_an_average_over_classes(of_class):
    """Balanced accuracy is half of what four groups tell; expanded by all 34, 83 % held it."""
    generator, held = np.random.default_rng(33), 0
    for seed in range(120):
        groups = np.repeat(np.arange(34), 8)
        labels = np.repeat([0, 1], of_class)[groups]
        wrong = generator.normal(size=34)[groups] + generator.normal(size=272) > 1.0
        answers = np.where(wrong, 1 - labels, labels)
        found = headline_intervals(
            np.eye(2)[answers], labels, 2, groups=groups, seed=seed, resamples=300
        )["balanced_accuracy"]
        held += found.low <= 0.7602 <= found.high  # P(N(0, 2) <= 1)
    assert held >= 0.92 * 120, held


def test_a_fold_with_a_class_of_one_is_not_known_without_error():
    """One fold has two classes, of which one image; the other three, so that folds are mixed."""
    generator = np.random.default_rng(34)
    labels = np.concatenate([np.repeat([0, 1], [20, 1]), np.repeat([0, 1, 2], 20)])
    folds = np.repeat([0, 1], [21, 60])
    probabilities = generator.random((81, 3))
    probabilities[np.arange(81), labels] += 0.9
    _, interval = fold_mean_auc(probabilities, labels, folds)
    assert interval.high - interval.low > 0.2
