"""Sums over rows against the rows: scikit-learn's shrinkage, exact components, algebra of parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf

from headstart.outliers import scatter
from headstart.outliers.scatter import (
    Rows,
    Scatter,
    principal_components,
    scatter_by,
    shrunk,
    unit_length,
)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 60), width=st.integers(2, 12), seed=st.integers(0, 999), power=st.floats(0, 4)
)
def test_shrinkage_is_that_of_sklearn(n, width, seed, power):
    rows = np.random.default_rng(seed).normal(size=(n, width)) * np.arange(1, width + 1) ** -power
    found = shrunk(rows.T @ rows / n, float((rows**2).sum(1) @ (rows**2).sum(1)), n)
    np.testing.assert_allclose(found, ledoit_wolf(rows, assume_centered=True)[0], atol=1e-12)


def test_nothing_to_shrink():
    """A single direction, or a multiple of the identity, is its own target."""
    np.testing.assert_array_equal(shrunk(np.array([[3.0]]), 40.0, 4), [[3.0]])
    np.testing.assert_array_equal(shrunk(2 * np.eye(3), 50.0, 3), 2 * np.eye(3))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), cells=st.integers(1, 4), width=st.sampled_from([3, 30]))
def test_parts_add_up_to_what_numpy_says_of_the_rows(seed, cells, width):
    """Means, covariance and spread within classes of all rows less one part; classes may lack."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(25, width)) + 2
    labels, cell = generator.integers(0, 4, 25), generator.integers(0, cells + 1, 25)
    rows = Rows.of_length_one(features)
    parts = scatter_by(rows, labels, cell, cells + 1, 4)
    everything = scatter_by(rows, labels, np.zeros(25, dtype=np.int64), 1, 4)[0]
    rest, kept = everything - parts[0], cell > 0
    if kept.sum() < 2:
        return
    values = unit_length(features)[kept]
    if rows.span is not None:
        values = values @ rows.span
    around = rows.origin if rows.span is None else rows.origin @ rows.span
    np.testing.assert_allclose(rest.mean + around, values.mean(0), atol=1e-12)
    np.testing.assert_allclose(rest.covariance(), np.cov(values.T, bias=True), atol=1e-12)
    np.testing.assert_array_equal(rest.counts, np.bincount(labels[kept], minlength=4))
    means = np.stack([values[labels[kept] == c].mean(0) if c in labels[kept] else 0 * around
                      for c in range(4)])  # fmt: skip
    residuals = values - means[labels[kept]]
    axes = generator.normal(size=(rows.width, 2))
    wanted = (residuals @ axes).T @ (residuals @ axes) / kept.sum()
    np.testing.assert_allclose(rest.within(axes), wanted, atol=1e-12)
    again = parts[0] + rest
    np.testing.assert_allclose(again.products, everything.products, atol=1e-12)


def test_rows_outside_every_cell_are_left_out():
    rows, labels = Rows.of_length_one(np.eye(4)[[0, 1, 2, 3, 0, 1]]), np.zeros(6, dtype=np.int64)
    found = scatter_by(rows, labels, np.array([0, -1, 0, -1, -1, 1]), 2, 1)
    assert [int(part.counts.sum()) for part in found] == [2, 1]


def spectrum(width: int):
    """A covariance with eigenvalues 1 / i along random axes."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))[0]
    return (turn / np.arange(1, width + 1)) @ turn.T


def test_components_by_iteration_keep_the_variance(monkeypatch):
    """At least all but 1e-4 of it, the same at every call, orthonormal."""
    covariance = spectrum(300)
    exact = principal_components(covariance, 60)
    monkeypatch.setattr(scatter, "LARGEST_EXACT", 100)
    found = principal_components(covariance, 60)
    np.testing.assert_array_equal(found, principal_components(covariance, 60))
    np.testing.assert_allclose(found.T @ found, np.eye(60), atol=1e-9)
    kept, most = (np.trace(v.T @ covariance @ v) for v in (found, exact))
    assert 1 - 1e-4 < kept / most <= 1 + 1e-9
    assert most == pytest.approx((1 / np.arange(1, 61)).sum())


@pytest.mark.parametrize("largest", [100, 5])
def test_no_more_components_than_the_rank(monkeypatch, largest):
    monkeypatch.setattr(scatter, "LARGEST_EXACT", largest)
    rows = np.random.default_rng(1).normal(size=(7, 40))
    assert principal_components(rows.T @ rows, 20).shape == (40, 7)


def test_nothing_adds_nothing():
    found = Scatter.nothing(3, 5)
    found.take(np.ones((2, 5)), np.array([2, 0]))
    both = found + Scatter.nothing(3, 5)
    assert both.counts.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(both.means[1], 0)
