"""Mahalanobis scores: parity, invariance, far and near data, thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from headstart.errors import DataError
from headstart.outliers import (
    MahalanobisModel,
    cross_fit_scores,
    fit_mahalanobis,
    fit_with_cross_fit,
    judge_separation,
    leave_classes_out,
    outlier_threshold,
    unit_length,
)
from headstart.statistics import wilson


def make_features(n: int, seed: int, num_classes: int = 3, width: int = 20):
    """Clouds with unequal axes."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % num_classes
    centres = 3 * np.random.default_rng(99).normal(size=(num_classes, width))
    spread = np.linspace(0.3, 1.5, width)
    return centres[labels] + spread * generator.normal(size=(n, width)), labels


def test_scores_are_squared_distances_to_the_nearest_mean():
    """scipy's distance with scikit-learn's covariance, all components kept."""
    features, labels = make_features(150, 0)
    model = fit_mahalanobis(features, labels)
    rows = unit_length(features)
    means = np.stack([rows[labels == c].mean(0) for c in range(3)])
    basis = model.projection.astype(np.float64)
    residuals = (rows - means[labels]) @ basis
    inverse = np.linalg.inv(LedoitWolf(assume_centered=True).fit(residuals).covariance_)
    new = make_features(9, 1)[0]
    wanted = [
        min(mahalanobis(row @ basis, mean @ basis, inverse) ** 2 for mean in means)
        for row in unit_length(new)
    ]
    np.testing.assert_allclose(model.score(new), wanted, rtol=1e-3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 200), scale=st.floats(0.1, 10))
def test_length_rotation_and_order_do_not_matter(seed, scale):
    """A longer image, turned axes, other names of the classes: the same scores."""
    features, labels = make_features(90, seed)
    new = make_features(12, seed + 1)[0]
    base = fit_mahalanobis(features, labels).score(new)
    np.testing.assert_allclose(fit_mahalanobis(features, labels).score(scale * new), base)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(20, 20)))[0]
    turned = fit_mahalanobis(features @ turn, labels).score(new @ turn)
    np.testing.assert_allclose(turned, base, rtol=2e-2)  # the projection is kept in 16 bits
    order = np.random.default_rng(seed).permutation(90)
    again = fit_mahalanobis(features[order], 2 - labels[order]).score(new)
    np.testing.assert_allclose(again, base, rtol=2e-2)


@pytest.mark.parametrize("n", [12, 400], ids=["few", "many"])
def test_arrays_are_small_finite_and_whole(n):
    """What a bundle keeps makes the same scores; no more components than the data have."""
    features, labels = make_features(n, 2, width=200)
    model = fit_mahalanobis(features.astype(np.float16), labels, relative=True)
    arrays = model.tensors()
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert arrays["projection"].dtype == np.float16
    rank = min(128, n - 1)
    assert arrays["projection"].shape == (200, rank)
    assert arrays["means"].shape == (3, rank)
    new = make_features(7, 3, width=200)[0]
    scores = MahalanobisModel(**arrays).score(new)
    np.testing.assert_array_equal(scores, model.score(new))
    singles = [model.score(row[None])[0] for row in new]
    np.testing.assert_allclose(singles, scores)
    assert len(model.score(new[:0])) == 0


@pytest.mark.parametrize(
    ("n", "width", "decay"),
    [(300, 20, 0.5), (60, 90, 1.0), (300, 150, 3.0)],
    ids=["tall", "wide", "steep"],
)
def test_cross_fitted_from_sums_as_from_the_rows_of_each_fold(n, width, decay):
    """Every fold's model fitted on its own rows alone; the one of all rows with it or without."""
    generator = np.random.default_rng(11)
    labels = np.arange(n) % 4
    spread = np.arange(1, width + 1) ** -decay
    centres = generator.normal(size=(4, width)) * spread
    features = 0.5 + centres[labels] + spread * generator.normal(size=(n, width))
    features = features.astype(np.float16)
    folds = np.arange(n) // 4 % 5 + 7
    model, scores = fit_with_cross_fit(features, labels, folds)
    np.testing.assert_array_equal(scores, cross_fit_scores(features, labels, folds))
    np.testing.assert_allclose(
        model.score(features), fit_mahalanobis(features, labels).score(features), rtol=1e-5
    )
    alone = np.empty(n)
    for fold in np.unique(folds):
        held = folds == fold
        alone[held] = fit_mahalanobis(features[~held], labels[~held]).score(features[held])
    np.testing.assert_allclose(scores, alone, rtol=1e-3)


@pytest.mark.parametrize("known", [None, 20], ids=["all classes", "one left out"])
def test_sums_of_few_folds_at_a_time_are_the_same(monkeypatch, known):
    """Many folds of wide features go in batches."""
    features, labels = make_features(120, 12)
    folds = np.arange(120) // 3 % 5

    def judged():
        if known is None:
            return cross_fit_scores(features, labels, folds)
        left = leave_classes_out(features, labels, folds, ("a", "b", "c"))
        return [entry.separation.auroc.value for entry in left]

    whole = judged()
    monkeypatch.setattr("headstart.outliers.mahalanobis.PARTS_BYTES", 2 * 8 * 20**2)
    np.testing.assert_allclose(judged(), whole, rtol=1e-9)


def test_chunks_do_not_show(monkeypatch):
    features, labels = make_features(100, 13)
    folds = np.arange(100) // 3 % 4
    whole = cross_fit_scores(features, labels, folds)
    monkeypatch.setattr("headstart.outliers.scatter.CHUNK", 7)
    np.testing.assert_allclose(cross_fit_scores(features, labels, folds), whole, rtol=1e-4)


def test_known_images_are_accepted_at_the_stated_rate():
    """The threshold from cross-fitted scores, judged on new images of the same kind."""
    rates = []
    for seed in range(8):
        features, labels = make_features(600, 2 * seed)
        folds = np.arange(600) // 3 % 5
        threshold = outlier_threshold(cross_fit_scores(features, labels, folds))
        new = make_features(600, 2 * seed + 1)[0]
        rates.append((fit_mahalanobis(features, labels).score(new) <= threshold).mean())
    assert 0.94 < np.mean(rates) < 0.97


def test_scores_of_fitted_images_are_too_small():
    """Why thresholds are cross-fitted."""
    features, labels = make_features(90, 5, width=60)
    fitted = fit_mahalanobis(features, labels).score(features)
    assert cross_fit_scores(features, labels, np.arange(90) // 3 % 5).mean() > 1.3 * fitted.mean()


def test_digits_left_out_are_told_from_the_known_ones():
    """Pixels as features: better than chance for every class, with its interval."""
    pixels, labels = load_digits(return_X_y=True)
    labels = labels.astype(np.int64)
    few = np.isin(labels, [0, 1, 2, 3])
    folds = np.arange(len(labels)) % 3
    judged = leave_classes_out(pixels[few], labels[few], folds[few], ("0", "1", "2", "3"))
    assert [entry.name for entry in judged] == ["0", "1", "2", "3"]
    for entry in judged:
        found = entry.separation
        assert found.auroc.value > 0.9
        assert found.auroc.interval.low < found.auroc.value < found.auroc.interval.high
        assert found.accepted_at_95.value < 0.5
        assert found.num_known + found.num_strange == few.sum()


def test_separation_agrees_with_sklearn():
    generator = np.random.default_rng(6)
    known, strange = generator.normal(size=200), generator.normal(1.5, 1, size=80)
    found = judge_separation(known, strange)
    labels = np.repeat([0, 1], [200, 80])
    assert found.auroc.value == pytest.approx(
        roc_auc_score(labels, np.concatenate([known, strange]))
    )
    limit = np.sort(known)[189]  # 190 of 200
    accepted = int((strange <= limit).sum())
    assert found.accepted_at_95.value == pytest.approx(accepted / 80, abs=0.02)
    count = round(found.accepted_at_95.value * 80)
    assert found.accepted_at_95.interval == wilson(count, 80)
    with pytest.raises(ValueError, match="Nothing to judge"):
        judge_separation(known, strange[:0])


def test_separation_of_grouped_copies():
    generator = np.random.default_rng(7)
    known, strange = generator.normal(size=90), generator.normal(1, 1, size=60)
    alone = judge_separation(known, strange)
    rows, others = np.repeat(np.arange(90), 6), np.repeat(np.arange(60), 6)
    copies = judge_separation(
        known[rows], strange[others], known_groups=rows, strange_groups=others + 90
    )
    for one, other in (
        (alone.auroc, copies.auroc),
        (alone.accepted_at_95, copies.accepted_at_95),
    ):
        wide = one.interval.high - one.interval.low
        assert other.interval.high - other.interval.low == pytest.approx(wide, rel=0.2)


def test_classes_left_out_of_grouped_copies():
    """Six copies of every image tell no more than one: the groups are the sample."""
    generator = np.random.default_rng(8)
    labels, folds = np.arange(150) % 3, np.arange(150) // 3 % 5
    features = generator.normal(size=(150, 6)) + 2 * np.eye(3, 6)[labels]
    rows = np.repeat(np.arange(150), 6)
    names = ["a", "b", "c"]
    alone = leave_classes_out(features, labels, folds, names)
    copied = (features[rows], labels[rows], folds[rows], names)
    for one, other, narrow in zip(
        alone, leave_classes_out(*copied, groups=rows), leave_classes_out(*copied), strict=True
    ):
        width, grouped, blind = (
            found.separation.auroc.interval.high - found.separation.auroc.interval.low
            for found in (one, other, narrow)
        )
        assert grouped > 0.8 * width
        assert blind < 0.6 * width


def test_thresholds_by_rank_and_their_refusal():
    assert outlier_threshold(np.arange(1.0, 20), 0.95) == 19
    assert outlier_threshold(np.arange(1.0, 100), 0.9) == 90
    with pytest.raises(DataError, match="at least 19 of them, got 18"):
        outlier_threshold(np.arange(18.0), 0.95)
    with pytest.raises(ValueError, match="between 0 and 1"):
        outlier_threshold(np.arange(18.0), 1.0)


def test_what_has_no_spread_or_does_not_fit_is_named():
    features, labels = make_features(9, 8)
    with pytest.raises(DataError, match="3 images of 3 classes"):
        fit_mahalanobis(features[:3], labels[:3])
    with pytest.raises(ValueError, match="finite"):
        fit_mahalanobis(np.full((9, 4), np.nan), labels)
    with pytest.raises(ValueError, match="one row a label"):
        fit_mahalanobis(features, labels[:5])
    with pytest.raises(ValueError, match="2 folds"):
        cross_fit_scores(features, labels, np.zeros(9))


@pytest.mark.parametrize("width", [8, 90])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("num_images", [1, 2])
def test_classes_of_one_image_again_and_again_are_refused(width, dtype, num_images):
    """All alike, or alike within a class, up to the rounding of sums and differences."""
    labels, folds = np.arange(40) % 2, np.arange(40) // 2 % 4
    points = np.random.default_rng(0).normal(size=(num_images, width)).astype(dtype)
    for features in (points[labels % num_images], np.zeros((40, width), dtype)):
        with pytest.raises(DataError, match=r"40 images .* all alike within their class"):
            fit_mahalanobis(features, labels)
        with pytest.raises(DataError, match="all alike within their class"):
            cross_fit_scores(features, labels, folds)


def test_a_fold_without_which_all_are_alike_is_refused():
    labels, folds = np.arange(40) % 2, np.arange(40) // 2 % 4
    features = np.ones((40, 6))
    features[folds == 0] = np.random.default_rng(0).normal(size=(10, 6))
    with pytest.raises(DataError, match=r"30 images .* all alike within their class"):
        cross_fit_scores(features, labels, folds)


def test_classes_without_which_the_others_cannot_be_fitted_are_not_judged():
    """A class with nearly all images, and classes of which one has a fold of its own."""
    features, _ = make_features(60, 3)
    labels, folds = np.repeat([0, 1, 2], [54, 3, 3]), np.arange(60) % 2
    found = leave_classes_out(features, labels, folds, ("a", "b", "c"))
    assert [entry.name for entry in found] == ["b", "c"]
    labels, folds = np.repeat([0, 1, 2], 20), np.repeat([0, 0, 1], 20)
    found = leave_classes_out(features, labels, folds, ("a", "b", "c"))
    assert [entry.name for entry in found] == ["a", "b"]
