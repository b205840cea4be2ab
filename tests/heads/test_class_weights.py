"""Class weights against scikit-learn and their invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_sample_weight

from headstart.errors import DataError, UsageError
from headstart.heads import CLASS_WEIGHTS, apply_class_weights, balanced_weights

LABELS = torch.tensor([0] * 20 + [1] * 7 + [2] * 3)


def make_rows() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(4, 30, generator=generator) < 0.7
    rows[3] = LABELS != 1  # a class that this problem does not have
    return rows


def test_agrees_with_sklearn_on_each_problems_own_rows():
    rows = make_rows()
    for mask, weights in zip(rows, balanced_weights(LABELS, 3, rows), strict=True):
        expected = compute_sample_weight("balanced", LABELS[mask].numpy())
        np.testing.assert_allclose(weights[mask].numpy(), expected, rtol=1e-6)
        assert not weights[~mask].any()


def test_every_class_weighs_the_same_and_the_total_stays():
    weights = make_rows().double() * torch.linspace(0.5, 2, 30, dtype=torch.float64)
    made = balanced_weights(LABELS, 3, weights)
    assert made.dtype == torch.float64
    torch.testing.assert_close(made.sum(1), weights.sum(1))
    totals = torch.stack([made[:, c == LABELS].sum(1) for c in range(3)], 1)
    torch.testing.assert_close(totals[0, 0], totals[0, 1])
    assert float(totals[3, 1]) == 0
    torch.testing.assert_close(totals[3, 0], totals[3, 2])
    torch.testing.assert_close(balanced_weights(LABELS, 3, made), made)


def test_labels_of_rows_without_weight_do_not_matter():
    rows = (torch.arange(30) % 2 == 0)[None]
    changed = torch.where(rows[0], LABELS, -1)
    assert torch.equal(balanced_weights(changed, 3, rows), balanced_weights(LABELS, 3, rows))


def test_kinds():
    weights = make_rows().float()
    assert CLASS_WEIGHTS == ("none", "balanced")
    assert apply_class_weights("none", LABELS, weights, 3) is weights
    found = apply_class_weights("balanced", LABELS, weights, 3)
    assert torch.equal(found, balanced_weights(LABELS, 3, weights))
    with pytest.raises(UsageError, match="one of none, balanced, got 'inverse'"):
        apply_class_weights("inverse", LABELS, weights, 3)
    with pytest.raises(DataError, match=r"must be \(K, 30\)"):
        balanced_weights(LABELS, 3, weights[0])
    with pytest.raises(DataError, match="positive somewhere"):
        balanced_weights(LABELS, 3, weights * 0)
