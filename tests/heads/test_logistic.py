"""The batched logistic regression against scikit-learn, autograd, itself and its promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from headstart.heads import (
    HEADS,
    SharedWeights,
    fit_logistic,
    fit_scaled_logistic,
    fit_with_chosen_penalty,
    penalty_path,
    predict_logits,
    rotate_features,
)
from headstart.heads.linear import logistic as logistic_module
from headstart.heads.linear import logistic_loss, rotation
from headstart.heads.linear.penalties import mean_squares

TIGHT = {"tolerance": 1e-12, "max_iterations": 2000}
TIGHT_SEARCH = {"tolerance": 1e-12, "tolerances": (1e-12, 1e-12)}
STRENGTHS = (1e-3, 1e-2, 1.0)


def make_blobs(
    rows: int = 90, width: int = 6, classes: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Overlapping classes with correlated features of unequal size and a mean off zero."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    centres = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    features = centres[labels] + torch.randn(rows, width, generator=generator, dtype=torch.float64)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return features @ mixing + 3.0, labels


def fit_with_sklearn(features: Tensor, labels: Tensor, penalty: float) -> LogisticRegression:
    """The same objective in scikit-learn: C = 1 / (penalty n)."""
    model = LogisticRegression(
        C=1 / (penalty * len(labels)), tol=1e-10, max_iter=20_000, solver="newton-cg"
    )
    return model.fit(features.numpy(), labels.numpy())


@pytest.mark.parametrize(("rows", "width", "classes"), [(90, 6, 3), (60, 5, 5), (24, 40, 4)])
def test_agrees_with_sklearn_for_every_subset_and_penalty(rows, width, classes):
    """Coefficients to 1e-5, probabilities to 1e-6; one case has D > N."""
    features, labels = make_blobs(rows, width, classes)
    generator = torch.Generator().manual_seed(1)
    masks = [torch.rand(rows, generator=generator) < 0.8 for _ in STRENGTHS]
    weights = torch.stack(masks).double()
    fit = fit_logistic(features, labels, weights, torch.tensor(STRENGTHS), classes, **TIGHT)
    assert fit.converged.all()
    logits = predict_logits(features, fit.coef, fit.intercept)
    for k, (mask, penalty) in enumerate(zip(masks, STRENGTHS, strict=True)):
        model = fit_with_sklearn(features[mask], labels[mask], penalty)
        wanted = model.predict_proba(features.numpy())
        np.testing.assert_allclose(logits[k].softmax(-1).numpy(), wanted, atol=1e-6)
        coef, intercept = fit.coef[k].numpy(), fit.intercept[k].numpy()
        np.testing.assert_allclose(coef, model.coef_, atol=1e-5)
        np.testing.assert_allclose(intercept, model.intercept_, atol=1e-5)


def test_two_classes_equal_the_binary_fit_with_half_the_penalty():
    """softmax with (-v/2, v/2) pays penalty/2 * |v|^2/2, so sklearn's v has penalty / 2."""
    features, labels = make_blobs(60, 5, 2)
    fit = fit_logistic(features, labels, torch.ones(1, 60), torch.tensor([0.02]), 2, **TIGHT)
    model = fit_with_sklearn(features, labels, 0.01)
    difference = (fit.coef[0, 1] - fit.coef[0, 0]).numpy()
    np.testing.assert_allclose(difference, model.coef_[0], atol=1e-5)


def test_gradient_of_the_stated_objective_vanishes():
    """Autograd on the objective as documented, with uneven weights."""
    features, labels = make_blobs()
    weights = torch.rand(2, 90, generator=torch.Generator().manual_seed(2)).double()
    penalties = torch.tensor([1e-3, 0.3], dtype=torch.float64)
    fit = fit_logistic(features, labels, weights, penalties, 3, **TIGHT)
    coef, intercept = fit.coef.clone().requires_grad_(), fit.intercept.clone().requires_grad_()
    losses = -predict_logits(features, coef, intercept).log_softmax(-1)[:, range(90), labels]
    value = (weights * losses).sum(1) / weights.sum(1)
    value = value + 0.5 * penalties * coef.square().sum((1, 2))
    value.sum().backward()
    assert coef.grad is not None
    assert intercept.grad is not None
    assert coef.grad.abs().max() < 1e-8
    assert intercept.grad.abs().max() < 1e-9
    assert (fit.gradient_norm <= 1e-12).all()


def test_analytic_gradient_matches_autograd():
    """The gradient that the solver walks on, at a random point."""
    features, labels = make_blobs()
    shares = torch.rand(2, 90, generator=torch.Generator().manual_seed(3)).double()
    shares /= shares.sum(1, keepdim=True)
    basis = rotation.find_basis(features, shares.mean(0))
    penalties = torch.tensor([0.1, 2.0], dtype=torch.float64)
    rows = logistic_loss.WeightedRows(basis.apply(features), labels, shares, 3)
    loss = logistic_loss.LogisticLoss(rows, torch.arange(2), penalties)
    points = torch.randn(2, 21, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    points.requires_grad_()
    value, gradient = loss.evaluate(points.detach(), torch.arange(2))
    blocks = points.view(2, 3, 7)
    inputs = basis.apply(features)[:, :-1]
    centred = inputs - (shares @ inputs)[:, None]
    logits = torch.einsum("kne,kce->knc", centred, blocks[..., :-1]) + blocks[:, None, :, -1]
    wanted = -(shares * logits.log_softmax(-1)[:, range(90), labels]).sum(1)
    wanted = wanted + 0.5 * penalties * blocks[..., :-1].square().sum((1, 2))
    torch.testing.assert_close(value, wanted.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted.sum(), points)[0])


def test_many_at_once_equal_each_alone():
    """K heads at once = K alone, to the tolerance of the fit; and batches of K change nothing."""
    features, labels = make_blobs()
    weights = (torch.rand(4, 90, generator=torch.Generator().manual_seed(5)) < 0.7).double()
    penalties = torch.tensor([1e-3, 1e-2, 0.1, 1.0], dtype=torch.float64)
    together = fit_logistic(features, labels, weights, penalties, 3, **TIGHT)
    for k in range(4):
        one = fit_logistic(features, labels, weights[k : k + 1], penalties[k : k + 1], 3, **TIGHT)
        torch.testing.assert_close(together.coef[k], one.coef[0], atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(together.intercept[k], one.intercept[0], atol=1e-6, rtol=1e-6)


def test_chunks_and_batches_change_nothing(monkeypatch):
    """Memory bounds cut rows and problems; the answer stays."""
    features, labels = make_blobs()
    weights = (torch.rand(4, 90, generator=torch.Generator().manual_seed(5)) < 0.7).double()
    penalties = torch.tensor([1e-3, 1e-2, 0.1, 1.0], dtype=torch.float64)
    whole = fit_logistic(features, labels, weights, penalties, 3, **TIGHT)
    monkeypatch.setattr(logistic_loss, "LOGIT_BYTES", 1000)
    monkeypatch.setattr(logistic_loss, "GRAM_ROWS", 7)
    monkeypatch.setattr(rotation, "GRAM_ROWS", 7)
    monkeypatch.setattr(logistic_module, "STATE_BYTES", 10_000)
    cut = fit_logistic(features, labels, weights, penalties, 3, **TIGHT)
    torch.testing.assert_close(cut.coef, whole.coef, atol=1e-7, rtol=1e-6)


def test_two_runs_are_bit_equal():
    """Same input, same bits."""
    features, labels = make_blobs()
    arguments = (features.float(), labels, torch.ones(2, 90), torch.tensor([0.01, 0.1]), 3)
    first, second = fit_logistic(*arguments), fit_logistic(*arguments)
    assert torch.equal(first.coef, second.coef)
    assert first.coef.dtype == torch.float32


@settings(max_examples=8, deadline=None)
@given(shift=st.floats(-50, 50), scale=st.floats(0.01, 100), seed=st.integers(0, 99))
def test_shift_scale_and_rotation_are_exact(shift, scale, seed):
    """Predictions stay when features move, turn, or grow with the penalty."""
    features, labels = make_blobs(45, 4, 3, seed)
    weights, penalty = torch.ones(1, 45), torch.tensor([0.05], dtype=torch.float64)
    turn = torch.linalg.qr(make_blobs(4, 4, 3, seed + 1)[0]).Q
    moved = (features @ turn) * scale + shift
    here = fit_logistic(features, labels, weights, penalty, 3, **TIGHT)
    there = fit_logistic(moved, labels, weights, penalty * scale**2, 3, **TIGHT)
    wanted = predict_logits(features, here.coef, here.intercept).softmax(-1)
    got = predict_logits(moved, there.coef, there.intercept).softmax(-1)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


def test_integer_weights_repeat_rows():
    """A weight of two is the row twice."""
    features, labels = make_blobs()
    weights = (torch.arange(90) % 3).double()
    repeated = torch.arange(90).repeat_interleave(weights.long())
    penalty = torch.tensor([0.01])
    weighted = fit_logistic(features, labels, weights[None], penalty, 3, **TIGHT)
    plain = fit_logistic(
        features[repeated], labels[repeated], torch.ones(1, len(repeated)), penalty, 3, **TIGHT
    )
    torch.testing.assert_close(weighted.coef, plain.coef, atol=1e-7, rtol=1e-6)


def test_a_class_without_rows_gets_a_low_probability():
    """No run-away, for a class that the problem never sees."""
    features, labels = make_blobs()
    weights = torch.stack([labels != 2, torch.ones(90, dtype=torch.bool)]).float()
    fit = fit_logistic(features.float(), labels, weights, torch.tensor([0.01, 0.01]), 3)
    assert fit.converged.all()
    probabilities = predict_logits(features.float(), fit.coef, fit.intercept).softmax(-1)
    assert torch.isfinite(fit.coef).all()
    assert probabilities[0, labels != 2, 2].mean() < 1e-3
    assert (probabilities[0].argmax(-1) == labels)[labels != 2].float().mean() > 0.8


def test_separable_and_constant_features_end():
    """A weak penalty on separated classes converges; features without information too."""
    labels = torch.arange(30) % 3
    separated = torch.nn.functional.one_hot(labels, 3).float() * 10
    fit = fit_logistic(separated, labels, torch.ones(1, 30), torch.tensor([1e-6]), 3)
    assert fit.converged.all()
    constant = fit_logistic(torch.ones(30, 4), labels, torch.ones(1, 30), torch.tensor([0.1]), 3)
    assert constant.converged.all()
    torch.testing.assert_close(constant.coef, torch.zeros(1, 3, 4))


def test_too_few_iterations_are_reported():
    """What did not converge says so."""
    features, labels = make_blobs()
    fit = fit_logistic(
        features, labels, torch.ones(1, 90), torch.tensor([1e-4]), 3, max_iterations=2
    )
    assert not fit.converged.any()
    assert fit.iterations.tolist() == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": torch.tensor([[1.0] * 6, [0.0] * 6])}, "none in problems \\[1\\]"),
        ({"weights": -torch.ones(2, 6)}, "not negative"),
        ({"features": torch.full((6, 2), torch.nan)}, "6 rows with NaN"),
        ({"features": torch.ones(6, 2, dtype=torch.int64)}, "float32 or float64"),
        ({"penalties": torch.tensor([0.0, 1.0])}, "2 positive numbers"),
        ({"labels": torch.tensor([0, 1, 2, 3, 0, 1])}, "0 to C - 1"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, "like the features"),
    ],
)
def test_bad_input_is_named(change, message):
    """Each bad argument raises ValueError with its reason."""
    arguments = {
        "features": torch.ones(6, 2),
        "labels": torch.tensor([0, 1, 2, 0, 1, 2]),
        "weights": torch.ones(2, 6),
        "penalties": torch.ones(2),
        "num_classes": 3,
    }
    with pytest.raises(ValueError, match=message):
        fit_logistic(**(arguments | change))


def make_protocol(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Three folds with an inner part each."""
    features, labels = make_blobs(120)
    fold = torch.arange(120) // 3 % 3
    train = torch.stack([fold != f for f in range(3)])
    inner = train & (torch.rand(3, 120, generator=torch.Generator().manual_seed(6)) < 0.25)
    return {
        "features": features.to(dtype),
        "labels": labels,
        "train_weights": train.to(dtype),
        "inner_held_out": inner,
        "penalties": penalty_path(6),
        "num_classes": 3,
    }


def test_protocol_equals_the_loop_written_out():
    """Choice and refit as the definition has them, on features scaled by hand with sklearn."""
    arguments = make_protocol()
    result = fit_with_chosen_penalty(**arguments, **TIGHT_SEARCH)
    features, labels = arguments["features"], arguments["labels"]

    def fit_by_hand(rows: Tensor, penalty: float, ask: Tensor) -> Tensor:
        mean = features[rows].mean(0)
        scale = (features[rows] - mean).square().mean().sqrt()
        scaled = (features - mean) / scale
        model = fit_with_sklearn(scaled[rows], labels[rows], penalty)
        return torch.from_numpy(model.predict_proba(scaled[ask].numpy()))

    losses = torch.zeros(3, 6, dtype=torch.float64)
    for f in range(3):
        inner, train = arguments["inner_held_out"][f], arguments["train_weights"][f] > 0
        for p, penalty in enumerate(arguments["penalties"].tolist()):
            probabilities = fit_by_hand(train & ~inner, penalty, inner)
            losses[f, p] = -probabilities[range(len(probabilities)), labels[inner]].log().mean()
        chosen = float(arguments["penalties"][losses[f].argmin()])
        assert float(result.penalty[f]) == chosen
        wanted = fit_by_hand(train, chosen, ~train)
        logits = predict_logits(features[~train], result.coef[f], result.intercept[f])
        torch.testing.assert_close(logits.softmax(-1), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(result.inner_log_loss, losses, atol=1e-6, rtol=0)
    best = arguments["penalties"][losses.mean(0).argmin()]
    assert result.final_penalty == float(best)


def test_rows_of_one_class_end():
    """The objective has no minimum but 0, and no share of it is near enough."""
    features, _ = make_blobs(40)
    labels = torch.zeros(40, dtype=torch.int64)
    for tolerance in (1e-3, 1e-4):
        fit = fit_logistic(
            features, labels, torch.ones(3, 40, dtype=features.dtype),
            torch.tensor([1e-4, 1e-2, 1.0]), 2, tolerance=tolerance,
        )  # fmt: skip
        assert fit.converged.all()
        assert fit.iterations.max() < 60


def test_scored_rows_never_influence_their_fold():
    """Other features in fold 0's scored rows leave fold 0's head, choice and tables as they are."""
    arguments = make_protocol()
    before = fit_with_chosen_penalty(**arguments, **TIGHT_SEARCH)
    scored = arguments["train_weights"][0] == 0
    features = arguments["features"].clone()
    features[scored] = 100 * features[scored].flip(0) - 7
    after = fit_with_chosen_penalty(**(arguments | {"features": features}), **TIGHT_SEARCH)
    assert before.converged[0]
    assert after.converged[0]
    torch.testing.assert_close(after.coef[0], before.coef[0], atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(after.inner_log_loss[0], before.inner_log_loss[0], atol=1e-7, rtol=0)
    assert after.penalty[0] == before.penalty[0]
    assert (after.coef[1] - before.coef[1]).abs().max() > 1e-3


def make_inner_folds(train: Tensor, count: int = 2) -> Tensor:
    """(F, J, N) bool: every training row is held out once."""
    order = torch.rand(train.shape, generator=torch.Generator().manual_seed(7)).argsort(1)
    inner = torch.where(train > 0, order % count, -1)
    return inner[:, None] == torch.arange(count)[:, None]


def test_inner_folds_choose_by_the_mean_of_their_losses():
    """Each part alone gives its table; the mean of the tables chooses, for each fold by itself."""
    arguments = make_protocol()
    held_out = make_inner_folds(arguments["train_weights"])
    arguments["inner_held_out"] = held_out
    together = fit_with_chosen_penalty(**arguments, **TIGHT_SEARCH)
    alone = [
        fit_with_chosen_penalty(
            **(arguments | {"inner_held_out": held_out[:, j]}), **TIGHT_SEARCH
        ).inner_log_loss
        for j in range(2)
    ]
    mean = torch.stack(alone).mean(0)
    torch.testing.assert_close(together.inner_log_loss, mean, atol=1e-7, rtol=0)
    torch.testing.assert_close(together.penalty, together.penalties[mean.argmin(1)])
    wanted = fit_scaled_logistic(
        arguments["features"],
        arguments["labels"],
        arguments["train_weights"],
        together.penalty,
        3,
        tolerance=1e-12,
    )
    torch.testing.assert_close(together.coef, wanted.coef, atol=1e-6, rtol=1e-5)


def test_scored_rows_never_influence_inner_folds_either():
    """Other features and labels in fold 0's scored rows leave its tables, choice and head."""
    arguments = make_protocol()
    arguments["inner_held_out"] = make_inner_folds(arguments["train_weights"])
    before = fit_with_chosen_penalty(**arguments, **TIGHT_SEARCH)
    scored = arguments["train_weights"][0] == 0
    features, labels = arguments["features"].clone(), arguments["labels"].clone()
    features[scored] = 100 * features[scored].flip(0) - 7
    labels[scored] = 2 - labels[scored]
    changed = arguments | {"features": features, "labels": labels}
    after = fit_with_chosen_penalty(**changed, **TIGHT_SEARCH)
    torch.testing.assert_close(after.inner_log_loss[0], before.inner_log_loss[0], atol=1e-7, rtol=0)
    assert after.penalty[0] == before.penalty[0]
    torch.testing.assert_close(after.coef[0], before.coef[0], atol=1e-6, rtol=1e-5)
    assert (after.coef[1] - before.coef[1]).abs().max() > 1e-3


@pytest.mark.parametrize("reading", [-1e9, 1e9], ids=["one sweep", "a sweep each"])
def test_shared_weights_equal_weights_of_their_own(monkeypatch, reading):
    """All penalties of a fold at once, on all rows or on its own rows, are the same fits."""
    features, labels = make_blobs()
    rows = (torch.rand(3, 90, generator=torch.Generator().manual_seed(5)) < 0.5).double()
    of = torch.arange(3).repeat_interleave(2)
    penalties = torch.tensor([1e-2, 0.1]).repeat(3)
    wanted = fit_logistic(features, labels, rows[of], penalties, 3, **TIGHT)
    monkeypatch.setattr(logistic_loss, "READING", reading)
    monkeypatch.setattr(logistic_loss, "MOST_ROWS", 16)
    shared = SharedWeights(rows=rows, of=of)
    fit = fit_logistic(features, labels, shared, penalties, 3, **TIGHT)
    torch.testing.assert_close(fit.coef, wanted.coef, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(fit.intercept, wanted.intercept, atol=1e-7, rtol=1e-6)


def test_features_in_16_bits_are_fitted_like_their_values_in_32():
    """Bit by bit: they are widened chunk by chunk."""
    arguments = make_protocol(torch.float32)
    half = arguments["features"].half()
    wanted = fit_with_chosen_penalty(**(arguments | {"features": half.float()}))
    got = fit_with_chosen_penalty(**(arguments | {"features": half}))
    assert torch.equal(got.coef, wanted.coef)
    assert torch.equal(got.inner_log_loss, wanted.inner_log_loss)


def test_features_in_mapped_files_give_the_same_fit(tmp_path):
    """Features and coordinates may lie on the disk; coordinates of another shape are refused."""
    arguments = make_protocol(torch.float32)
    kept = np.memmap(tmp_path / "features.bin", np.float16, "w+", shape=(120, 6))
    kept[:] = arguments["features"].half().numpy()
    wanted = fit_with_chosen_penalty(**(arguments | {"features": torch.from_numpy(kept[:].copy())}))
    file = str(tmp_path / "inputs.bin")
    into = torch.from_file(file, shared=True, size=120 * 7, dtype=torch.float32).view(120, 7)
    rotated = rotate_features(torch.from_numpy(kept), into=into)
    got = fit_with_chosen_penalty(**(arguments | {"features": rotated}))
    assert torch.equal(got.coef, wanted.coef)
    assert (tmp_path / "inputs.bin").stat().st_size == 4 * 120 * 7
    with pytest.raises(ValueError, match=r"`into` must be \(120, 7\) torch.float32"):
        rotate_features(torch.from_numpy(kept), into=into.double())


def test_penalties_mean_the_same_for_features_of_any_size():
    """A network whose features are a thousand times larger gets the same tables."""
    arguments = make_protocol(torch.float32)
    small = fit_with_chosen_penalty(**arguments)
    arguments["features"] = arguments["features"] * 1024
    large = fit_with_chosen_penalty(**arguments)
    torch.testing.assert_close(large.inner_log_loss, small.inner_log_loss, atol=2e-4, rtol=0)
    torch.testing.assert_close(large.penalty, small.penalty)
    assert small.converged.all()


def test_mean_squares_by_definition():
    """Mean square of the centred rows of each problem, and one where there is none."""
    features, _ = make_blobs()
    weights = torch.stack([torch.arange(90) < 40, torch.arange(90) == 3]).double()
    rows = features[:40]
    wanted = torch.tensor([float((rows - rows.mean(0)).square().mean()), 1.0])
    got = mean_squares(features, weights)
    torch.testing.assert_close(got[0], wanted[0].double(), rtol=1e-6, atol=0)
    assert got[1] == 1 or got[1] < 1e-10


def test_inner_rows_outside_training_are_refused():
    """The scored part can never choose."""
    arguments = make_protocol()
    arguments["inner_held_out"] = arguments["inner_held_out"].clone()
    arguments["inner_held_out"][0, 0] = True
    arguments["train_weights"][0, 0] = 0
    with pytest.raises(ValueError, match="inside the training part"):
        fit_with_chosen_penalty(**arguments)
    arguments["inner_held_out"][0] = False
    with pytest.raises(ValueError, match="none in \\[0\\]"):
        fit_with_chosen_penalty(**arguments)


def test_penalty_path_is_even_in_the_logarithm():
    """Closed form of the grid."""
    path = penalty_path(7)
    steps = path.log().diff()
    torch.testing.assert_close(steps, steps[:1].expand(6))
    assert path[0] == pytest.approx(1e-5)
    assert path[-1] == pytest.approx(1.0)
    assert penalty_path(1).item() == pytest.approx(10**-2.5)


def test_scaled_fit_is_the_raw_fit_with_the_penalty_times_the_mean_square():
    """The identity that the module header states."""
    features, labels = make_blobs()
    square = (features - features.mean(0)).square().mean()
    ones, penalty = torch.ones(1, 90), torch.tensor([0.1], dtype=torch.float64)
    scaled = fit_scaled_logistic(features, labels, ones, penalty, 3, **TIGHT)
    raw = fit_logistic(features, labels, ones, penalty * square, 3, **TIGHT)
    torch.testing.assert_close(scaled.coef, raw.coef, atol=1e-8, rtol=1e-6)


def test_registered_heads_describe_themselves():
    """Every entry has a line for tables."""
    assert HEADS.names() == ["logistic", "mlp"]
    assert all(spec.description for spec in HEADS)


def test_a_weak_penalty_is_fitted_to_its_optimum_by_default():
    """By the gradient alone probabilities were 0.66 off; by the objective, too, they are near."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    features = torch.from_numpy(pixels[:500].astype(np.float32))
    labels = torch.from_numpy(digits[:500])
    weights = (torch.arange(500) % 5 > 0).float()[None]
    penalty = torch.tensor([1e-4], dtype=torch.float64)
    usual = fit_scaled_logistic(features, labels, weights, penalty, 10)
    tight = fit_scaled_logistic(features, labels, weights, penalty, 10, tolerance=1e-6)
    assert bool(usual.converged.all())
    held_out = features[weights[0] == 0]
    chances = [
        predict_logits(held_out, fit.coef[0], fit.intercept[0]).softmax(1) for fit in (usual, tight)
    ]
    assert (chances[0] - chances[1]).abs().max() < 0.1
    assert usual.iterations[0] < tight.iterations[0]


def test_a_large_scored_row_hardly_moves_the_head_of_a_penalty():
    """It turns the coordinates of all fits; what is left is what stops before the optimum."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    features = torch.from_numpy(pixels[:400].astype(np.float32))
    labels = torch.from_numpy(digits[:400])
    place = torch.arange(400)
    learns = (place % 5 > 0).float()[None]
    inner = ((place % 5 == 1)[None]) & (learns > 0)
    fits = []
    for factor in (1, 10):
        changed = features.clone()
        changed[0] *= factor  # scored, and by itself
        penalty = torch.tensor([1e-3], dtype=torch.float64)
        fits.append(fit_with_chosen_penalty(changed, labels, learns, inner, penalty, 10))
    others = features[(learns[0] == 0) & (place > 0)]
    chances = [predict_logits(others, f.coef[0], f.intercept[0]).softmax(1) for f in fits]
    assert (chances[0] - chances[1]).abs().max() < 0.02
