from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import on_cpu
from staged import CLASSES, EXECUTION, colourful, quick, staged_network

from headstart.errors import HeadstartError, UsageError
from headstart.finetune import (
    STRATEGIES,
    TrainSettings,
    fit_network,
    median_drops,
    median_epochs,
    predict_logits,
    refit,
)
from headstart.finetune.batches import activations
from headstart.finetune.batches.objectives import fresh_layers

DATA = colourful()
LOOPS = [spec.name for spec in STRATEGIES if spec.has_loop]
NOBODY = np.empty(0, dtype=np.int64)


def fit(settings, data=DATA, network=None, **options):
    if network is None:
        source = "none" if settings.strategy == "scratch" else "bundled"
        network = staged_network(source=source)
    return fit_network(network, data, settings, execution=EXECUTION, **options)


def state(tuned):
    return tuned.network.module.state_dict()


def equal_weights(first, second):
    pairs = zip([*state(first).values()], [*state(second).values()], strict=True)
    heads = zip(sum(first.head, ()), sum(second.head, ()), strict=True)
    return all(torch.equal(a, b) for pair in (pairs, heads) for a, b in pair)


@pytest.mark.parametrize("strategy", LOOPS)
def test_only_what_the_plan_names_changes(strategy):
    before = staged_network().module.state_dict()
    tuned = fit(quick(strategy=strategy, epochs=(1,), trainable=""))
    learning = {name for phase in tuned.plan.phases for name in phase.rates}
    tuned = refit(
        staged_network(source="none" if strategy == "scratch" else "bundled"),
        DATA,
        quick(strategy=strategy, epochs=(1,)),
        epochs=(1,) * len(tuned.plan.phases),
        execution=EXECUTION,
    )
    changed = {name for name, value in state(tuned).items() if not torch.equal(value, before[name])}
    statistics = {name for name in changed if "running" in name or "num_batches" in name}
    assert changed - statistics == learning
    # Statistics move where the layer's scale learns, and nowhere else.
    assert {name.rpartition(".")[0] for name in statistics} == {
        name.rpartition(".")[0] for name in learning if name.split(".")[1] == "1"
    }


def test_frozen_norms_keep_their_statistics_to_the_bit():
    before = staged_network().module.state_dict()
    tuned = refit(
        staged_network(), DATA, quick(freeze_norms=True), epochs=(2,), execution=EXECUTION
    )
    for name, value in state(tuned).items():
        assert torch.equal(value, before[name]) == (".1." in name), name


def test_the_network_given_is_never_changed():
    network = staged_network()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    first = fit(quick(), network=network)
    again = fit(quick(), network=network)
    after = network.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad for p in network.module.parameters())
    assert equal_weights(first, again)
    assert first.network.digest == again.network.digest != network.digest


def test_folds_and_seeds_draw_differently():
    assert not equal_weights(fit(quick(), fold=1), fit(quick(), fold=2))
    assert not equal_weights(fit(quick(seed=1)), fit(quick(seed=2)))


@pytest.mark.parametrize("augmentation", ["none", "light"])
@pytest.mark.parametrize("count", [32, 29])
def test_accumulated_batches_are_one_batch(count, augmentation):
    # 29 images: the last step has fewer; its mean is over its own images.
    data = colourful(count=count, inner=0)
    changes = {"freeze_norms": True, "optimizer": "sgd", "clip_norm": 1.0, "weight_decay": 0.0}
    changes |= {"augmentation": augmentation, "schedule": "constant"}
    small = quick(batch_size=8, accumulate=4, **changes)
    whole = quick(batch_size=32, **changes)
    starts = {"epochs": (2,), "execution": EXECUTION}
    first = refit(staged_network(), data, small, **starts)
    second = refit(staged_network(), data, whole, **starts)
    for a, b in zip(state(first).values(), state(second).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first.head[0][0], second.head[0][0], rtol=1e-5, atol=1e-6)
    assert not torch.equal(first.head[0][0], staged_network().module.stage3[0].weight)


def test_one_step_is_the_step_of_plain_torch():
    data = colourful(count=12, inner=0)
    head = fresh_layers(8, CLASSES, (), 0)
    settings = quick(optimizer="sgd", momentum=0.0, schedule="constant", batch_size=12, epochs=(1,))
    settings = replace(settings, freeze_norms=True, weight_decay=0.0)
    tuned = refit(
        staged_network(), data, settings, epochs=(1,), execution=EXECUTION, start_head=head
    )
    module = staged_network().module
    weight, bias = (part.clone().requires_grad_() for part in head[0])
    kernel = module.stage1[0].weight.requires_grad_()
    preprocessing = staged_network().preprocessing
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    x = ((data.images / 255 - mean) / std).permute(0, 3, 1, 2)
    logits = module(x) @ weight.T + bias
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.labels)).backward()
    torch.testing.assert_close(tuned.head[0][0], head[0][0] - 1e-2 * weight.grad)
    torch.testing.assert_close(state(tuned)["stage1.0.weight"], kernel - 1e-2 * kernel.grad)


def test_training_starts_from_the_head_given():
    head = fresh_layers(8, CLASSES, (5,), seed=9)
    tuned = fit(quick(), start_head=head)
    start = tuned.history[0]
    logits = predict_logits(
        replace(tuned, network=staged_network(), head=head),
        DATA.images,
        DATA.inner_rows,
        execution=EXECUTION,
    )
    right = (logits.argmax(1) == DATA.labels[DATA.inner_rows]).mean()
    assert start.epoch == 0
    assert start.inner["accuracy"] == pytest.approx(right)


def test_it_learns_and_predicts_what_it_learnt():
    tuned = fit(quick(epochs=(12,), lr=3e-2))
    logits = predict_logits(tuned, DATA.images, DATA.train_rows, execution=EXECUTION)
    assert (logits.argmax(1) == DATA.labels[DATA.train_rows]).mean() > 0.9
    losses = [record.inner["log_loss"] for record in tuned.history]
    assert tuned.best_epoch == int(np.argmin(losses))


def test_inner_rows_choose_the_epoch_by_any_metric():
    tuned = fit(quick(epochs=(6,), monitor="accuracy"))
    values = [record.inner["accuracy"] for record in tuned.history]
    assert tuned.best_epoch == int(np.argmax(values))
    logits = predict_logits(tuned, DATA.images, DATA.inner_rows, execution=EXECUTION)
    assert (logits.argmax(1) == DATA.labels[DATA.inner_rows]).mean() == pytest.approx(max(values))


def test_top_three_chooses_the_epoch():
    labels = np.arange(len(DATA.labels), dtype=np.int64) % 5
    data = replace(DATA, labels=labels, num_classes=5)
    tuned = fit(quick(epochs=(5,), monitor="top3", lr=0.03), data)
    values = [record.inner["top3_accuracy"] for record in tuned.history]
    assert len(set(values)) > 1
    assert tuned.best_epoch == int(np.argmax(values))
    logits = predict_logits(tuned, data.images, data.inner_rows, execution=EXECUTION)
    among = np.argsort(-logits, axis=1)[:, :3] == labels[data.inner_rows][:, None]
    assert among.any(axis=1).mean() == pytest.approx(max(values))


def test_impatience_ends_a_phase():
    # A rate at which nothing gets better.
    tuned = fit(quick(strategy="two-stage", epochs=(9,), lr=1e-12, patience=2, monitor="accuracy"))
    # The first epoch of a phase is its best so far; before the first phase stands the start.
    phases = [record.phase for record in tuned.history]
    assert phases == ["start", *["head"] * 2, *["fine-tuning"] * 3]
    assert tuned.best_epochs == (0, 0)
    assert "not help" in tuned.verdict


def test_the_start_is_kept_where_nothing_is_better():
    tuned = fit(quick(lr=50.0, optimizer="sgd", epochs=(1,)))
    assert tuned.best_epoch == 0
    before = staged_network().module.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in state(tuned).items())


def test_a_refit_repeats_the_epochs_of_a_fold():
    # Without an inner part, on the same rows, the same weights as at the fold's best epoch.
    tuned = fit(quick(epochs=(4,)))
    again = refit(
        staged_network(), DATA, quick(epochs=(4,)), epochs=tuned.best_epochs, execution=EXECUTION
    )
    assert equal_weights(tuned, again)
    assert again.history[-1].inner == {}


def test_the_median_of_the_folds():
    tuned = fit(quick(epochs=(1,)))
    fits = [replace(tuned, best_epochs=epochs) for epochs in ((5, 0), (4, 3), (2, 8), (9, 1))]
    assert median_epochs(fits) == (5, 2)


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_averages_are_scored_and_kept(average):
    plain = fit(quick(epochs=(4,)))
    averaged = fit(quick(epochs=(4,), average=average, swa_fraction=0.25))
    assert not equal_weights(plain, averaged)
    logits = predict_logits(averaged, DATA.images, DATA.inner_rows, execution=EXECUTION)
    best = averaged.history[averaged.best_epoch].inner["accuracy"]
    assert (logits.argmax(1) == DATA.labels[DATA.inner_rows]).mean() == pytest.approx(best)


@pytest.mark.parametrize(
    "changes",
    [
        *({"optimizer": name} for name in ("adamw", "adam", "sgd", "rmsprop", "adagrad")),
        {"mixup": 0.4, "cutmix": 1.0},
        {"schedule": "plateau", "plateau_patience": 0},
        {"class_weights": "balanced", "focal_gamma": 2.0, "label_smoothing": 0.1},
        {"hidden": (6, 5), "dropout": (0.0, 0.5)},
        {"augmentation": "flip:0.5,rotate:12:0.5", "strategy": "partial"},
        {"augmentation": "light", "views": 2, "strategy": "two-stage"},
        {"sampling": "balanced", "augmentation": "light"},
        {"spatial_dropout": 0.3, "strategy": "two-stage"},
    ],
    ids=str,
)
def test_every_setting_trains_twice_alike(changes):
    settings = quick(**changes)
    head = fresh_layers(8, CLASSES, settings.hidden, seed=9)
    first, second = fit(settings, start_head=head), fit(settings, start_head=head)
    assert equal_weights(first, second)
    rows = [record for record in first.history if record.epoch]
    assert all(np.isfinite(record.train_loss) for record in rows)
    start = torch.equal(first.head[0][0], head[0][0])
    assert start == (first.best_epoch == 0)


def test_the_callers_generator_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fit(quick(dropout=(0.5,)))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (TrainSettings(strategy="probe"), "training loop"),
        (TrainSettings(strategy="full", monitor="top3"), "`monitor`"),
        (TrainSettings(strategy="partial", trainable="stages:9"), "at most"),
    ],
    ids=["probe", "top3 of three classes", "nine stages"],
)
def test_what_cannot_be_is_refused_early(settings, words):
    with pytest.raises(UsageError, match=words):
        fit(settings)


def test_a_diverged_training_is_one_sentence():
    with pytest.raises(HeadstartError, match="Lower the learning rate"):
        fit(quick(lr=1e30, optimizer="sgd", epochs=(3,)))


def test_scratch_wants_random_weights():
    with pytest.raises(UsageError, match="random weights"):
        fit(quick(strategy="scratch"), network=staged_network(source="bundled"))


def test_a_head_of_other_features_is_refused():
    with pytest.raises(UsageError, match="8 features"):
        fit(quick(), start_head=fresh_layers(9, CLASSES, (), 0))


@pytest.mark.parametrize("strategy", ["full", "partial"])
def test_bfloat16_trains_float32_weights(strategy):
    settings = quick(strategy=strategy, epochs=(5,), lr=3e-2)
    execution = on_cpu("bfloat16")
    first, again = (
        fit_network(staged_network(), DATA, settings, execution=execution) for _ in range(2)
    )
    assert equal_weights(first, again)
    assert {value.dtype for value in state(first).values()} == {torch.float32, torch.int64}
    plain = fit(settings)
    assert not equal_weights(first, plain)
    losses = [tuned.history[-1].train_loss for tuned in (first, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.3)
    assert losses[0] < first.history[1].train_loss


@pytest.mark.slow
def test_compiled_is_plain():
    compiled, plain = fit(quick(compile=True)), fit(quick())
    for a, b in zip(state(compiled).values(), state(plain).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_interrupting_reaches_the_caller(monkeypatch):
    import signal

    from headstart.finetune.steps import training

    def interrupt(self, batch, batch_idx):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.PhaseModule, "training_step", interrupt)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(quick())
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_final_fit_drops_its_rate_where_the_folds_did():
    """Its own inner part is empty; the training loss, which mostly falls, would never drop it."""
    settings = quick(schedule="plateau", plateau_patience=0, epochs=(6,), patience=0, lr=0.3)
    folds = [fit(settings, fold=k) for k in (1, 2, 3)]
    dropped = [[r.rate for r in one.history[1:]] for one in folds]
    assert any(rates[-1] < rates[0] for rates in dropped)
    drops = median_drops(folds)
    final = refit(
        staged_network(), DATA, replace(settings, drop_after=drops), epochs=(6,),
        execution=EXECUTION,
    )  # fmt: skip
    counts = np.array([[sum(np.diff(rates[:e]) < 0) for e in range(1, 7)] for rates in dropped])
    expected = np.floor(np.median(counts, axis=0) + 0.5)
    got = [sum(np.diff([r.rate for r in final.history][:e]) < 0) for e in range(1, 7)]
    assert got == expected.tolist()
    assert got[-1] > 0


def test_caches_of_phases_do_not_lie_beside_each_other(monkeypatch):
    """One is gone when the next is filled, and a phase without an epoch fills none."""
    alive, most, filled = [], [], []

    class Watched(activations.ActivationCache):
        def __init__(self, *args):
            super().__init__(*args)
            alive.append(weakref.ref(self))
            most.append(sum(one() is not None for one in alive))
            filled.append(len(self.position))

    monkeypatch.setattr(activations, "ActivationCache", Watched)
    settings = quick(strategy="gradual", epochs=(1,), trainable="stages:2")
    refit(staged_network(), DATA, settings, epochs=(1, 0, 1), execution=EXECUTION)
    assert most == [1, 1]
    assert filled == [len(DATA.train_rows)] * 2
