"""Training on a GPU step by step: every optimizer, average and loss, bit by bit the same twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from placing import DEVICE, ON_DEVICE, ON_GPU, needs_gpu

from headstart.backbones import build_network, find_backbone
from headstart.finetune import TrainingData, TrainSettings, fit_network, predict_logits
from headstart.finetune.rates import find_rate
from headstart.finetune.records.checkpoints import load_checkpoint
from headstart.finetune.records.keeping import Keeper
from headstart.finetune.steps.training import PhaseModule
from headstart.runtime import choose_execution

pytestmark = ON_DEVICE

SIZE, CLASSES, COUNT = 32, 3, 24
SETTINGS = {
    "adamw, mixup": {"optimizer": "adamw", "mixup": 0.2, "label_smoothing": 0.1},
    "adam, ema": {"optimizer": "adam", "average": "ema", "clip_norm": 1.0},
    "sgd, swa": {"optimizer": "sgd", "average": "swa", "schedule": "one-cycle"},
    "rmsprop, cutmix": {"optimizer": "rmsprop", "cutmix": 1.0, "focal_gamma": 1.0},
    "adagrad, dropout": {"optimizer": "adagrad", "dropout": (0.3,), "hidden": (6,)},
    "balanced, spatial dropout": {"class_weights": "balanced", "spatial_dropout": 0.2},
    "partial, cached": {"strategy": "partial", "trainable": "stages:1"},
    "partial, not cached": {"strategy": "partial", "trainable": "stages:1", "cache": "off"},
    "gradual, accumulated": {"strategy": "gradual", "accumulate": 2},
    "norms alone, augmented": {"strategy": "norm-only", "augmentation": "flip:0.5"},
}


@pytest.fixture(scope="module")
def network():
    return build_network(find_backbone("mini"), image_size=SIZE)


@pytest.fixture(scope="module")
def data():
    """Noise with one channel darkened by the class; a third is for choosing the epoch."""
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT, dtype=np.int64) % CLASSES
    pixels = generator.integers(0, 256, (COUNT, SIZE, SIZE, 3)).astype(np.uint8)
    for row, label in enumerate(labels):
        pixels[row, :, :, label] //= 3
    rows = np.arange(COUNT)
    return TrainingData(
        images=torch.from_numpy(pixels),
        labels=labels,
        train_rows=rows[8:],
        inner_rows=rows[:8],
        num_classes=CLASSES,
    )


def quick(**changes):
    plain = {"strategy": "full", "epochs": (1,), "lr": 1e-3, "batch_size": 8, "patience": 0}
    return TrainSettings(**{**plain, **changes})


def same(first, second):
    """Whether two fits ended with the same bits."""
    states = first.network.module.state_dict(), second.network.module.state_dict()
    weights = all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    heads = [[t for layer in fit.head for t in layer] for fit in (first, second)]
    return weights and all(torch.equal(a, b) for a, b in zip(*heads, strict=True))


@pytest.mark.parametrize("name", SETTINGS)
def test_two_fits_are_the_same_to_the_bit_and_end_on_the_processor(network, data, name):
    execution, settings = choose_execution(DEVICE), quick(**SETTINGS[name])
    fits = [fit_network(network, data, settings, execution=execution) for _ in range(2)]
    assert same(*fits)
    tensors = [*fits[0].network.module.state_dict().values(), *(t for p in fits[0].head for t in p)]
    assert all(tensor.device.type == "cpu" for tensor in tensors)
    assert all(tensor.isfinite().all() for tensor in tensors)
    logits = predict_logits(fits[0], data.images, np.arange(COUNT), execution=execution)
    assert np.isfinite(logits).all()


@needs_gpu
def test_training_uses_cudnn_without_tf32_and_leaves_no_setting_behind(network, data, monkeypatch):
    seen = []
    true_step = PhaseModule.training_step

    def watched(self, batch, batch_idx):
        cudnn = torch.backends.cudnn
        seen.append((cudnn.enabled, cudnn.deterministic, cudnn.allow_tf32))
        seen.append(torch.are_deterministic_algorithms_enabled())
        return true_step(self, batch, batch_idx)

    monkeypatch.setattr(PhaseModule, "training_step", watched)
    execution = choose_execution(DEVICE, "float32")
    torch.manual_seed(5)
    before = torch.cuda.get_rng_state()
    fit_network(network, data, quick(), execution=execution)
    assert set(seen) == {(True, True, False), True}
    assert torch.backends.cudnn.enabled
    assert not torch.backends.cudnn.deterministic
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_float32_trains_nearly_alike_on_the_device_and_on_the_processor(network, data):
    settings = quick(optimizer="sgd", lr=1e-3)
    fits = [
        fit_network(network, data, settings, execution=choose_execution(device, "float32"))
        for device in (DEVICE, "cpu")
    ]
    losses = [fit.history[-1].train_loss for fit in fits]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("name", ["adam, ema", "sgd, swa", "gradual, accumulated"])
def test_a_resumed_fit_ends_as_an_uninterrupted_one(network, data, tmp_path, monkeypatch, name):
    execution = choose_execution(DEVICE)
    settings = quick(**{**SETTINGS[name], "epochs": (3,)})
    whole = fit_network(network, data, settings, execution=execution)
    kept = Keeper.save

    def stop(self, state, current):
        kept(self, state, current)
        if sum(state.epochs) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            fit_network(network, data, settings, execution=execution, checkpoint_dir=tmp_path)
    stored = load_checkpoint(tmp_path / "fold-0.ckpt")
    assert stored is not None
    assert all(tensor.device.type == "cpu" for tensor in stored["current"].values())
    resumed = fit_network(network, data, settings, execution=execution, checkpoint_dir=tmp_path)
    assert same(whole, resumed)


def test_the_search_for_a_rate_ends(network, data):
    found = find_rate(network, data, quick(), execution=choose_execution(DEVICE), num_steps=12)
    assert 0 < found.suggested < 10


def test_mixed_precision_keeps_the_weights_in_float32(network, data):
    precision = "bfloat16" if ON_GPU else "float32"
    execution = choose_execution(DEVICE, precision)
    fit = fit_network(network, data, quick(clip_norm=1.0), execution=execution)
    floats = list(fit.network.module.parameters())
    assert {p.dtype for p in floats} == {torch.float32}
    # 16-bit weights would have no bits below these.
    assert any(not torch.equal(p, p.bfloat16().float()) for p in floats)
