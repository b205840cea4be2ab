"""Auxiliary heads: there while training, gone afterwards."""

from __future__ import annotations

import pytest
import torch
from staged import EXECUTION, colourful, quick, staged_network
from test_tuning import equal_weights
from torch import nn
from torch.nn import functional

from headstart.backbones import build_network, find_backbone, stage_modules
from headstart.errors import UsageError
from headstart.finetune import TrainingData, TrainSettings, fit_network, fitting
from headstart.finetune.steps import auxiliary

DATA = colourful()
PLACES = {"stage1": 4, "stage2": 6}


@pytest.fixture
def listening(monkeypatch):
    """The tiny network has two auxiliary heads."""
    monkeypatch.setitem(auxiliary.PLACES, "staged.StagedNet", PLACES)


def fit(settings, source="none", **options):
    network = staged_network(source=source)
    return fit_network(network, DATA, settings, execution=EXECUTION, **options)


def test_losses_and_gradients_are_torchvisions():
    from torchvision import models

    network = build_network(find_backbone("GoogLeNet"), weights="none", image_size=32)
    body = network.module.requires_grad_(True).train()
    heads = auxiliary.AuxiliaryHeads(
        auxiliary.auxiliary_places(network), body, num_classes=3, weight=0.3, seed=1
    ).train()
    theirs = models.GoogLeNet(num_classes=3, transform_input=True, init_weights=False).train()
    state = {**body.state_dict(), **{f"aux{k[6:]}": v for k, v in heads.state_dict().items()}}
    state = {f"aux{int(k[3]) + 1}{k[4:]}" if k[:3] == "aux" else k: v for k, v in state.items()}
    final = nn.Linear(1024, 3)
    theirs.load_state_dict({**state, "fc.weight": final.weight, "fc.bias": final.bias})
    for module in (*theirs.modules(), *body.modules(), *heads.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    out, second, first = theirs(x)
    losses = [functional.cross_entropy(logits, labels) for logits in (out, first, second)]
    expected = losses[0] + 0.3 * (losses[1] + losses[2])
    y = x
    for stage in stage_modules(body, network.spec).values():
        y = stage(y)

    def loss(logits):
        return functional.cross_entropy(logits, labels, reduction="none")

    found = (loss(final(y)) + heads.added_loss(loss)).mean()
    torch.testing.assert_close(found, expected)
    expected.backward()
    found.backward()
    ours, reference = body.inception4a.branch1.conv.weight, theirs.inception4a.branch1.conv.weight
    torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.usefixtures("listening")
def test_they_change_the_training_and_are_no_part_of_the_network():
    settings = quick(strategy="scratch")
    with_them, without = fit(settings), fit(quick(strategy="scratch", auxiliary=0.0))
    assert set(with_them.network.module.state_dict()) == set(without.network.module.state_dict())
    assert not any(m._forward_hooks for m in with_them.network.module.modules())
    assert not equal_weights(with_them, without)
    # At first three heads of about the same loss of guessing, 1 + 0.3 + 0.3 times as much.
    assert with_them.history[1].train_loss > 1.3 * without.history[1].train_loss


@pytest.mark.usefixtures("listening")
def test_trained_weights_have_them_on_request_only():
    settings = quick(strategy="full")
    plain = fit(settings, source="bundled")
    assert equal_weights(plain, fit(quick(strategy="full", auxiliary=0.0)))
    assert not equal_weights(plain, fit(quick(strategy="full", auxiliary=0.3), source="bundled"))


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("cache", ["auto", "off"])
def test_where_no_gradient_comes_they_are_left_out(cache):
    settings = {"strategy": "partial", "trainable": "stages:1", "cache": cache}
    assert equal_weights(
        fit(quick(**settings, auxiliary=0.3)), fit(quick(**settings, auxiliary=0.0))
    )


@pytest.mark.usefixtures("listening")
def test_resumed_with_them_is_uninterrupted(tmp_path, monkeypatch):
    settings = quick(strategy="scratch", epochs=(3,))
    whole, kept = fit(settings), fitting.Keeper.save

    def stop(self, state, current):
        kept(self, state, current)
        if sum(state.epochs) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Keeper, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(settings, checkpoint_dir=tmp_path)
    resumed = fit(settings, checkpoint_dir=tmp_path)
    assert equal_weights(resumed, whole)
    assert [r.train_loss for r in resumed.history] == [r.train_loss for r in whole.history]


def test_networks_without_them_refuse_a_weight():
    with pytest.raises(UsageError, match="which has no auxiliary heads"):
        fit(quick(strategy="full", auxiliary=0.3))


@pytest.mark.usefixtures("listening")
def test_a_compiled_network_cannot_be_listened_to(monkeypatch):
    from headstart.finetune import preparing

    monkeypatch.setattr(preparing, "check_compiler", lambda: None)
    with pytest.raises(UsageError, match="`auxiliary` must be 0 with `compile`"):
        fit(quick(strategy="scratch", auxiliary=0.3, compile=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "changes"),
    [("GoogLeNet", 64, {}), ("InceptionV3", 96, {"label_smoothing": 0.1}), ("AlexNet", 64, {})],
)
def test_the_classics_learn_from_scratch(name, size, changes):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % 2
    pixels = torch.randint(0, 120, (32, size, size, 3), generator=generator)
    pixels[labels == 1] += 130
    data = TrainingData(
        images=pixels.to(torch.uint8),
        labels=labels.numpy(),
        train_rows=torch.arange(32).numpy(),
        inner_rows=torch.arange(0).numpy(),
        num_classes=2,
    )
    network = build_network(find_backbone(name), weights="none", image_size=size)
    settings = TrainSettings(
        strategy="scratch", epochs=(6,), lr=1e-3, batch_size=8, schedule="constant", **changes
    )
    tuned = fit_network(network, data, settings, execution=EXECUTION)
    losses = [record.train_loss for record in tuned.history]
    assert losses[-1] < 0.8 * losses[0]
