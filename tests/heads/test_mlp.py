"""Multi-layer heads against recorded gradients, themselves alone, and their promises."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from headstart.errors import DataError, UsageError
from headstart.heads import (
    E1_MLP,
    FitPlan,
    MlpSettings,
    fit_mlp_final,
    fit_mlp_folds,
    fit_mlps,
    head_logits,
    problems_at_once,
)
from headstart.heads.multilayer import steps
from headstart.heads.multilayer.stacked import (
    StackedNetworks,
    draw_masks,
    draw_parameters,
    num_parameters,
    split_layers,
)

TINY = MlpSettings(hidden=(7, 4), epochs=3, batch_size=8, lr=0.02)


def make_blobs(rows: int = 45, width: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Overlapping classes, features off zero and of unequal size."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(rows) % classes
    centres = torch.randn(classes, width, generator=generator)
    features = centres[labels] + torch.randn(rows, width, generator=generator)
    return features * torch.linspace(0.5, 3, width) + 2, labels


def make_folds(rows: int, folds: int) -> Tensor:
    """(F, N) training weights of leave-one-part-out."""
    return (torch.arange(rows) % folds != torch.arange(folds)[:, None]).float()


def fit_with_autograd(
    features: Tensor, labels: Tensor, weights: Tensor, settings: MlpSettings, seed: int
) -> list[Tensor]:
    """One head by recorded gradients and torch.optim, from the same start in the same order."""
    rows = weights.nonzero()[:, 0]
    inputs = features
    if settings.standardise:
        scaler = StandardScaler()
        scaler.fit(features[rows].double().numpy(), sample_weight=weights[rows].numpy())
        inputs = torch.from_numpy(scaler.transform(features.double().numpy())).float()
    widths = (features.shape[1], *settings.hidden, int(labels.max()) + 1)
    flat = draw_parameters(widths, np.random.default_rng([seed, 0, 0]))
    layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
    with torch.no_grad():
        for layer, start in zip(layers, split_layers(flat[None], widths), strict=True):
            layer.weight.copy_(start.weight[0].T)
            layer.bias.copy_(start.bias[0, 0])
    network = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])
    kernels = {"params": [layer.weight for layer in layers], "weight_decay": settings.weight_decay}
    biases = {"params": [layer.bias for layer in layers], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([kernels, biases], lr=settings.lr, eps=1e-7)
    order, step = np.random.default_rng([seed, 0, 1]), 0
    scaled = weights / weights[rows].mean()
    num_steps = settings.epochs * -(-len(rows) // settings.batch_size)
    for _ in range(settings.epochs):
        for batch in torch.from_numpy(order.permutation(rows.numpy())).split(settings.batch_size):
            for group in optimizer.param_groups:
                group["lr"] = {
                    "constant": settings.lr,
                    "keras-decay": settings.lr / (1 + settings.lr / settings.epochs * step),
                    "cosine": settings.lr * np.cos(np.pi / 2 * step / num_steps) ** 2,
                }[settings.schedule]
            loss = nn.functional.cross_entropy(
                network(inputs[batch]), labels[batch], reduction="none",
                label_smoothing=settings.label_smoothing,
            )  # fmt: skip
            optimizer.zero_grad()
            (loss * scaled[batch]).mean().backward()
            optimizer.step()
            step += 1
    with torch.no_grad():
        return [network(inputs), *[layer.weight for layer in layers]]


@pytest.mark.parametrize(
    "settings",
    [
        replace(E1_MLP, hidden=(16, 8), dropout=0.0),
        replace(TINY, dropout=0.0, schedule="keras-decay"),
        replace(TINY, dropout=0.0, schedule="cosine", weight_decay=0.5),
        replace(TINY, dropout=0.0, schedule="constant", label_smoothing=0.2, hidden=()),
    ],
    ids=["e1", "keras-decay", "cosine-decayed", "smoothed-linear"],
)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_agrees_with_recorded_gradients(settings, weighted):
    """The same logits to 1e-4 after all steps, short last batches among them."""
    features, labels = make_blobs()
    weights = make_folds(45, 4)[1]
    weights = weights * torch.where(labels == 1, 3.0, 0.5) if weighted else weights
    fit = fit_mlps(features, labels, weights[None], 3, settings, seed=5)
    logits, first, *_ = fit_with_autograd(features, labels, weights, settings, seed=5)
    found = torch.from_numpy(head_logits(features.numpy(), fit.layers(0)))
    torch.testing.assert_close(found, logits.double(), atol=1e-4, rtol=1e-4)
    weight = split_layers(fit.parameters, fit.widths)[0].weight[0].T
    torch.testing.assert_close(weight, first, atol=2e-5, rtol=1e-4)


def test_gradients_with_dropout_are_the_recorded_ones():
    """Two networks at once, masks that drop, against torch.autograd."""
    widths = (5, 6, 4, 3)
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(2, num_parameters(widths), generator=generator)
    inputs = torch.randn(2, 9, 5, generator=generator)
    masks = [
        2.0 * (torch.rand(2, 9, units, generator=generator) < 0.5).float() for units in widths[1:-1]
    ]
    stack = StackedNetworks(parameters.clone(), widths, 0.0)
    logits = torch.empty(2, 9, 3)
    entering = stack.forward(inputs, masks, logits)
    stack.backward(entering, masks, logits.softmax(-1))
    leaf = parameters.clone().requires_grad_()
    hidden = inputs
    for depth, layer in enumerate(split_layers(leaf, widths)):
        hidden = hidden @ layer.weight + layer.bias
        if depth < 2:
            hidden = hidden.relu() * masks[depth]
    hidden.logsumexp(-1).sum().backward()
    torch.testing.assert_close(logits, hidden.detach())
    torch.testing.assert_close(stack.gradients, leaf.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("schedule", ["keras-decay", "cosine"])
@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_together_is_alone(at_once, schedule):
    """Problems of unequal sizes and epochs; each alone gives the same figures and logits."""
    features, labels = make_blobs()
    weights = make_folds(45, 4)
    weights[2, 20:] = 0
    weights[3] = 0
    weights[3, :3] = 1
    settings = replace(TINY, schedule=schedule)
    epochs = [3, 1, 3, 2]
    plan = FitPlan(epochs=epochs, score_rows=weights == 0, at_once=at_once)
    fit = fit_mlps(features, labels, weights, 3, settings, seed=1, plan=plan)
    assert fit.num_epochs.tolist() == epochs
    for k in range(4):
        plan = FitPlan(epochs=[epochs[k]], numbers=[k], score_rows=weights[k : k + 1] == 0)
        alone = fit_mlps(features, labels, weights[k : k + 1], 3, settings, seed=1, plan=plan)
        logits, expected = (
            head_logits(features.numpy(), layers) for layers in (fit.layers(k), alone.layers(0))
        )
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        for name in ("train_loss", "train_accuracy", "held_loss", "held_accuracy"):
            ours = getattr(fit.history, name)[k]
            theirs = getattr(alone.history, name)[0]
            torch.testing.assert_close(ours[: epochs[k]], theirs, atol=1e-5, rtol=1e-5)
            assert ours[epochs[k] :].isnan().all()


def test_steps_in_small_chunks_are_the_same_steps(monkeypatch):
    """How many steps are gathered at once must not show."""
    features, labels = make_blobs()
    whole = fit_mlps(features, labels, make_folds(45, 2), 3, TINY, seed=0)
    monkeypatch.setattr("headstart.heads.multilayer.steps.CHUNK_BYTES", 1)
    monkeypatch.setattr("headstart.heads.multilayer.steps.SCORE_ROWS", 7)
    small = fit_mlps(features, labels, make_folds(45, 2), 3, TINY, seed=0)
    torch.testing.assert_close(small.parameters, whole.parameters, atol=1e-5, rtol=1e-4)


def test_rows_without_weight_and_units_of_weight_do_not_show():
    """Bit-equal with other scored rows; the size of all weights divides out."""
    features, labels = make_blobs()
    weights = make_folds(45, 3)[:1]
    fit = fit_mlps(features, labels, weights, 3, TINY, seed=0)
    out = weights[0] == 0
    other, relabelled = features.clone(), labels.clone()
    other[out], relabelled[out] = -1000.0, 0
    again = fit_mlps(other, relabelled, weights, 3, TINY, seed=0)
    assert torch.equal(fit.parameters, again.parameters)
    scaled = fit_mlps(features, labels, 4 * weights, 3, TINY, seed=0)
    assert torch.equal(fit.parameters, scaled.parameters)


def test_seed_decides_everything_and_half_precision_is_taken():
    features, labels = make_blobs()
    half, weights = features.half(), make_folds(45, 3)
    fits = [
        fit_mlps(values, labels, weights, 3, TINY, seed=seed)
        for values, seed in ((half, 0), (half.float(), 0), (half, 1))
    ]
    assert torch.equal(fits[0].parameters, fits[1].parameters)
    assert not torch.allclose(fits[0].parameters, fits[2].parameters, atol=1e-2)
    assert not torch.allclose(fits[0].parameters[0], fits[0].parameters[1], atol=1e-2)


def test_history_is_that_of_the_layers():
    """Held figures of the last epoch follow from the folded layers on raw features."""
    features, labels = make_blobs()
    weights = make_folds(45, 3)
    plan = FitPlan(score_rows=weights == 0)
    fit = fit_mlps(features, labels, weights, 3, TINY, seed=0, plan=plan)
    for k in range(3):
        held = weights[k] == 0
        logits = torch.from_numpy(head_logits(features[held].numpy(), fit.layers(k)))
        loss = nn.functional.cross_entropy(logits, labels[held])
        assert float(loss) == pytest.approx(float(fit.history.held_loss[k, -1]), abs=1e-5)
        right = (logits.argmax(1) == labels[held]).double().mean()
        assert float(right) == float(fit.history.held_accuracy[k, -1])


def test_training_figures_without_dropout_are_those_of_the_start():
    """One batch an epoch: the first epoch's loss is that before any step."""
    features, labels = make_blobs()
    settings = MlpSettings(hidden=(4,), dropout=0.0, epochs=1, batch_size=64, standardise=False)
    fit = fit_mlps(features, labels, torch.ones(1, 45), 3, settings, seed=2)
    start = draw_parameters((6, 4, 3), np.random.default_rng([2, 0, 0]))
    first, last = split_layers(start[None], (6, 4, 3))
    logits = (features @ first.weight[0]).relu() @ last.weight[0]
    loss = nn.functional.cross_entropy(logits, labels)
    assert float(fit.history.train_loss) == pytest.approx(float(loss), abs=1e-5)
    assert float(fit.history.train_accuracy) == float((logits.argmax(1) == labels).double().mean())


def test_best_epoch_is_kept():
    """The kept state is that of a fit stopped there; the best is that of the lowest held loss."""
    features, labels = make_blobs()
    weights, settings = make_folds(45, 3), replace(TINY, epochs=12, lr=0.1)
    plan = FitPlan(score_rows=weights == 0, keep_best=True)
    kept = fit_mlps(features, labels, weights, 3, settings, seed=0, plan=plan)
    assert torch.equal(kept.best_epoch, kept.history.held_loss.argmin(1) + 1)
    assert (kept.best_epoch < 12).any()
    stop = FitPlan(epochs=kept.best_epoch.tolist())
    stopped = fit_mlps(features, labels, weights, 3, settings, seed=0, plan=stop)
    torch.testing.assert_close(kept.parameters, stopped.parameters, atol=1e-5, rtol=1e-4)


def test_a_feature_that_never_varies_does_no_harm():
    features, labels = make_blobs()
    features[:, 2] = 7.0
    fit = fit_mlps(features, labels, torch.ones(1, 45), 3, TINY, seed=0)
    assert torch.isfinite(fit.parameters).all()
    still = fit_mlps(torch.ones(45, 6), labels, torch.ones(1, 45), 3, TINY, seed=0)
    assert torch.isfinite(still.parameters).all()


def test_learns_what_no_line_separates():
    """Exclusive or: the hidden layers are needed and used."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(400, 2, generator=generator) * 2 - 1
    labels = (features.prod(1) > 0).long()
    settings = MlpSettings(hidden=(32, 16), dropout=0.1, epochs=30, lr=0.01, batch_size=32)
    weights = (torch.arange(400) < 300).float()[None]
    plan = FitPlan(score_rows=weights == 0)
    fit = fit_mlps(features, labels, weights, 2, settings, seed=0, plan=plan)
    assert float(fit.history.held_accuracy[0, -1]) > 0.93


@pytest.mark.parametrize("hidden", [(), (7, 4)], ids=["linear", "layers"])
def test_a_batch_above_the_rows_is_one_of_all_rows(hidden):
    """Bit by bit, dropout on, and what is gathered does not grow with the setting."""
    features, labels = make_blobs()
    weights = make_folds(45, 3)  # 30 rows a fold
    settings = replace(TINY, hidden=hidden, batch_size=30)
    exact = fit_mlps(features, labels, weights, 3, settings, seed=0)
    huge = replace(settings, batch_size=10**12)
    above = fit_mlps(features, labels, weights, 3, huge, seed=0)
    assert torch.equal(above.parameters, exact.parameters)
    assert torch.equal(above.history.train_loss, exact.history.train_loss)


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_batch_is_cut_to_the_rows_of_each_problem(at_once):
    """Together is alone also where only some problems have fewer rows than a batch."""
    features, labels = make_blobs()
    weights = make_folds(45, 3)
    weights[1, 20:] = 0
    weights[2, 5:] = 0
    settings = replace(TINY, batch_size=25)
    plan = FitPlan(at_once=at_once)
    fit = fit_mlps(features, labels, weights, 3, settings, seed=1, plan=plan)
    for k in range(3):
        own = replace(settings, batch_size=min(25, int((weights[k] > 0).sum())))
        plan = FitPlan(numbers=[k])
        alone = fit_mlps(features, labels, weights[k : k + 1], 3, own, seed=1, plan=plan)
        torch.testing.assert_close(fit.parameters[k], alone.parameters[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lr", [1e300, 1e30, 1e15])
@pytest.mark.parametrize("keep_best", [False, True], ids=["last", "best"])
@pytest.mark.parametrize("schedule", ["cosine", "keras-decay"])
def test_training_that_diverges_is_told(lr, keep_best, schedule):
    """Never a head that is not finite, whether the loss or only the last step went astray."""
    features, labels = make_blobs()
    weights = make_folds(45, 3)
    plan = FitPlan(score_rows=weights == 0, keep_best=keep_best)
    settings = replace(TINY, lr=lr, schedule=schedule, dropout=0.0)
    with pytest.raises(UsageError, match=r"Training diverged: .* `lr` 1e\+\d+\. Lower lr"):
        fit_mlps(features, labels, weights, 3, settings, seed=0, plan=plan)


def test_a_last_step_that_diverges_is_told():
    """One step: its loss is that of the start, finite; what it leaves is not."""
    features, labels = make_blobs()
    settings = replace(TINY, lr=1e300, epochs=1, batch_size=45)
    with pytest.raises(UsageError, match="after epoch 1 of 1"):
        fit_mlps(features, labels, torch.ones(1, 45), 3, settings, seed=0)


def test_a_decay_that_diverges_is_named():
    features, labels = make_blobs()
    with pytest.raises(UsageError, match="Lower lr or weight_decay"):
        fit_mlps(features, labels, torch.ones(1, 45), 3, replace(TINY, weight_decay=1e300), seed=0)


def test_heads_too_large_to_train_are_refused_before_they_are_drawn():
    features, labels = torch.zeros(6, 9000), torch.arange(6) % 2
    settings = MlpSettings(hidden=(65_536,))
    with pytest.raises(UsageError, match=r"`hidden` .* 9000 features .* got 590,0\d\d,\d\d\d"):
        fit_mlps(features, labels, torch.ones(1, 6), 2, settings, seed=0)


def test_masks_keep_their_share_and_do_not_depend_on_the_chunk():
    whole = draw_masks(np.random.default_rng(0), 50, 1001, 0.3)
    assert set(np.unique(whole)) == {0.0, np.float32(65536 / (65536 - round(0.3 * 65536)))}
    assert (whole == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert whole.mean() == pytest.approx(1, abs=0.01)
    generator = np.random.default_rng(0)
    parts = [draw_masks(generator, count, 1001, 0.3) for count in (1, 19, 30)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_wide_heads_go_one_by_one():
    assert problems_at_once((1280, 512, 64, 5)) == 1
    assert problems_at_once((384, 16, 5)) > 30


def test_folds_choose_epochs_on_inner_rows_and_never_see_scored_ones():
    features, labels = make_blobs(90)
    learns = make_folds(90, 3)
    inner = (learns > 0) & (torch.arange(90) % 4 == 1)
    settings = replace(TINY, epochs=8, lr=0.1)
    calls: list[tuple[int, int]] = []
    folds = fit_mlp_folds(
        features, labels, learns, inner, 3, settings, seed=0,
        on_epoch=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert folds.inner_history is not None
    assert torch.equal(folds.epochs, folds.inner_history.held_loss.argmin(1) + 1)
    assert torch.equal(folds.fit.num_epochs, folds.epochs)
    assert folds.final_epochs == int(folds.epochs.median())
    assert calls[:24] == [(done, 24) for done in range(1, 25)]
    assert calls[-1] == (int(folds.epochs.sum()),) * 2
    other, relabelled = features.clone(), labels.clone()
    other[learns[1] == 0], relabelled[learns[1] == 0] = 50.0, 2
    again = fit_mlp_folds(other, relabelled, learns, inner, 3, settings, seed=0)
    assert int(again.epochs[1]) == int(folds.epochs[1])
    for (weight, bias), (weight_again, bias_again) in zip(
        folds.layers(1), again.layers(1), strict=True
    ):
        torch.testing.assert_close(weight, weight_again, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(bias, bias_again, atol=1e-4, rtol=1e-4)
    final = fit_mlp_final(features, labels, torch.ones(90), 3, settings, folds.final_epochs, seed=0)
    assert final.num_epochs.tolist() == [folds.final_epochs]


def test_fixed_epochs_need_no_inner_rows():
    """E1: five epochs, curves on whatever rows are followed, which change nothing."""
    features, labels = make_blobs()
    learns, settings = make_folds(45, 3), replace(E1_MLP, hidden=(8, 4))
    folds = fit_mlp_folds(features, labels, learns, None, 3, settings, seed=0)
    followed = fit_mlp_folds(features, labels, learns, learns == 0, 3, settings, seed=0)
    assert folds.epochs.tolist() == [5, 5, 5]
    assert folds.inner_history is None
    assert folds.fit.history.held_loss.isnan().all()
    assert followed.fit.history.held_loss.isfinite().all()
    assert torch.equal(folds.fit.parameters, followed.fit.parameters)


def test_e1_is_what_it_was():
    assert (E1_MLP.hidden, E1_MLP.dropout, E1_MLP.optimizer) == ((512, 64), 0.5, "adam")
    assert (E1_MLP.batch_size, E1_MLP.epochs, E1_MLP.choose_epochs) == (16, 5, False)
    assert E1_MLP.rate_at(0, 9) == 1e-4
    assert E1_MLP.rate_at(1000, 9) == pytest.approx(1e-4 / (1 + 1000 * 1e-4 / 5))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden", (0,)),
        ("hidden", (65_537,)),
        ("hidden", (65_536, 65_536)),
        ("hidden", (4,) * 17),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("schedule", "step"),
        ("epochs", 0),
        ("batch_size", 0),
        ("weight_decay", -1.0),
        ("optimizer", "sgd"),
        ("label_smoothing", 1.0),
    ],
)
def test_settings_that_cannot_be_are_named(name, value):
    with pytest.raises(UsageError, match=f"`{name}` must .* got"):
        MlpSettings(**{name: value})


def with_nan(features: Tensor) -> Tensor:
    features = features.clone()
    features[0, 0] = torch.nan
    return features


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda x, y, w: (x.double(), y, w, 3), "float16 or float32"),
        (lambda x, y, w: (with_nan(x), y, w, 3), "must be finite, got 1 rows"),
        (lambda x, y, w: (x, y[:-1], w, 3), "like the features"),
        (lambda x, y, w: (x, y, w, 2), "C = 2"),
        (lambda x, y, w: (x, y, -w, 3), "not negative"),
        (lambda x, y, w: (x, y, w * 0, 3), r"got none in \[0, 1\]"),
    ],
    ids=["double", "nan", "lengths", "classes", "negative", "empty"],
)
def test_data_that_cannot_be_learnt_from_are_named(change, word):
    features, labels = make_blobs()
    with pytest.raises(DataError, match=word):
        fit_mlps(*change(features, labels, make_folds(45, 2)), TINY, seed=0)


@pytest.mark.parametrize(
    "plan", [FitPlan(epochs=[4, 1]), FitPlan(epochs=[1]), FitPlan(numbers=[1, 2, 3])]
)
def test_plans_that_do_not_fit_are_named(plan):
    features, labels = make_blobs()
    with pytest.raises(UsageError, match="must"):
        fit_mlps(features, labels, make_folds(45, 2), 3, TINY, seed=0, plan=plan)


@pytest.mark.parametrize("kind", ["none", "outside", "empty"])
def test_inner_rows_that_cannot_choose_are_named(kind):
    features, labels = make_blobs()
    learns = make_folds(45, 3)
    inner = {"none": None, "outside": learns == 0, "empty": learns > 5}[kind]
    with pytest.raises(DataError, match="`inner` must"):
        fit_mlp_folds(features, labels, learns, inner, 3, TINY, seed=0)


def test_stacks_at_once_are_stacks_one_after_the_other(monkeypatch):
    features, labels = make_blobs()
    weights = make_folds(len(labels), 5)
    told = []
    found = []
    for most in (1, 4):
        monkeypatch.setattr(steps, "MOST_AT_ONCE", most)
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            fit = fit_mlps(
                features, labels, weights, 3, TINY, seed=5, plan=FitPlan(at_once=1),
                on_epoch=lambda *at: told.append(at),
            )  # fmt: skip
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(threads)
        found.append(fit)
    assert torch.equal(found[0].parameters, found[1].parameters)
    assert told[15:] == told[:15] == [(done, 15) for done in range(1, 16)]


def test_one_stack_that_fails_ends_them_all(monkeypatch):
    features, labels = make_blobs()
    weights = make_folds(len(labels), 3)
    finish, ended = steps.Problem.finish_epoch, []

    def fail_in_the_first(problem, parameters, keep_best):
        ended.append(problem.place)
        if problem.place == 0 and len(problem.figures) == 2:
            raise UsageError("Training diverged")
        finish(problem, parameters, keep_best)

    monkeypatch.setattr(steps.Problem, "finish_epoch", fail_in_the_first)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(UsageError, match="diverged"):
            fit_mlps(
                features, labels, weights, 3, replace(TINY, epochs=5000), seed=5,
                plan=FitPlan(at_once=1),
            )  # fmt: skip
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(ended) < 5000  # of 10,000 that the others had before them
