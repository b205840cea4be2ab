"""LogME against the evidence computed the long way, and against the paper's own iteration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from headstart.heads import logme
from headstart.heads.logme import largest_log_evidence


def drawn(rows: int, width: int, *, signal: float, seed: int):
    """Features of uneven scale, and a target of zeros and ones that hangs on some of them."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, width)) * np.logspace(0, 1, width) + 0.3
    score = signal * features[:, :3].sum(1) + generator.normal(size=rows)
    return features, (score > np.median(score)).astype(float)


def brute_force(features, target) -> float:
    """Largest density of the target under N(0, I / beta + F F' / alpha), by a general optimiser."""
    gram = features @ features.T

    def loss(logarithms):
        alpha, beta = np.exp(logarithms)
        covariance = np.eye(len(target)) / beta + gram / alpha
        return -multivariate_normal.logpdf(target, cov=covariance)

    starts = [(a, b) for a in (-2.0, 2.0, 6.0) for b in (-2.0, 2.0, 6.0)]
    options = {"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000}
    runs = [minimize(loss, start, method="Nelder-Mead", options=options) for start in starts]
    return -min(run.fun for run in runs)


@pytest.mark.parametrize(
    ("rows", "width", "signal"),
    [(40, 5, 1.0), (40, 5, 0.1), (12, 30, 1.0), (25, 25, 0.5), (60, 1, 0.3)],
)
def test_it_is_the_largest_marginal_likelihood(rows, width, signal):
    features, target = drawn(rows, width, signal=signal, seed=rows + width)
    (found,) = largest_log_evidence(features, target[:, None])
    assert found == pytest.approx(brute_force(features, target), abs=1e-6)


def fixed_point(features, target, rounds: int = 5000) -> float:
    """Algorithm 1 of the paper, in its own letters, with plain inverses."""
    count, width = features.shape
    strengths = np.linalg.eigvalsh(features.T @ features)
    alpha = beta = 1.0
    for _ in range(rounds):
        matrix = alpha * np.eye(width) + beta * features.T @ features
        mean = beta * np.linalg.solve(matrix, features.T @ target)
        gamma = (beta * strengths / (alpha + beta * strengths)).sum()
        alpha, beta = (
            gamma / (mean @ mean),
            (count - gamma) / ((features @ mean - target) ** 2).sum(),
        )
    matrix = alpha * np.eye(width) + beta * features.T @ features
    mean = beta * np.linalg.solve(matrix, features.T @ target)
    return (
        count / 2 * np.log(beta) + width / 2 * np.log(alpha) - count / 2 * np.log(2 * np.pi)
        - beta / 2 * ((features @ mean - target) ** 2).sum() - alpha / 2 * (mean @ mean)
        - np.linalg.slogdet(matrix)[1] / 2
    )  # fmt: skip


def test_it_is_what_the_paper_s_iteration_ends_at():
    generator = np.random.default_rng(3)
    labels = generator.integers(3, size=60)
    features = generator.normal(size=(60, 8)) + np.eye(3, 8)[labels]
    wanted = np.mean([fixed_point(features, (labels == c).astype(float)) for c in range(3)]) / 60
    assert logme(features, labels, 3) == pytest.approx(wanted, abs=1e-8)
    assert logme(features, labels, 5) == pytest.approx(wanted, abs=1e-8)  # two classes are absent


def test_rotation_and_scale_of_the_features_do_not_matter():
    features, target = drawn(30, 6, signal=1.0, seed=0)
    labels = target.astype(np.int64)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    plain = logme(features, labels, 2)
    assert logme(37.0 * features @ rotation, labels, 2) == pytest.approx(plain, abs=1e-9)
    widened = np.concatenate([features, np.zeros((30, 4))], axis=1)
    assert logme(widened, labels, 2) == pytest.approx(plain, abs=1e-9)


def test_features_that_tell_the_classes_apart_have_more():
    generator = np.random.default_rng(5)
    labels = np.arange(80) % 4
    noise = generator.normal(size=(80, 10))
    values = [logme(noise + s * np.eye(4, 10)[labels], labels, 4) for s in (0.0, 1.0, 3.0)]
    assert values[0] < values[1] < values[2]


def test_without_signal_or_without_noise_it_stays_finite():
    labels = np.arange(20) % 2
    nothing = logme(np.zeros((20, 3)), labels, 2)
    closed = -0.5 * np.log(2 * np.pi * 10 / 20) - 0.5  # noise alone, of variance ||y||^2 / N
    assert nothing == pytest.approx(closed)
    assert np.isfinite(logme(np.eye(2)[labels], labels, 2))
    assert np.isfinite(logme(np.eye(20), labels, 2))


@pytest.mark.parametrize(
    ("features", "targets"),
    [((4, 2), (5, 1)), ((0, 2), (0, 1)), ((4,), (4, 1))],
)
def test_shapes_that_do_not_belong_together_are_refused(features, targets):
    with pytest.raises(ValueError, match=r"\(N, D\) and \(N, C\)"):
        largest_log_evidence(np.ones(features), np.ones(targets))


def test_a_class_without_images_has_no_evidence():
    with pytest.raises(ValueError, match="other than zero"):
        largest_log_evidence(np.ones((3, 2)), np.zeros((3, 1)))
