"""Blocks learn with the head, whatever else stays frozen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from staged import EXECUTION, colourful, quick, staged_network
from test_tuning import equal_weights

from headstart.backbones import BLOCKS_STAGE, HeadBlocks
from headstart.backbones.networks import finish, with_blocks
from headstart.errors import ResumeError
from headstart.finetune import fit_network, fitting, plan_network, summary

DATA = colourful()


def blocked(words="se:2,spatial:3", pool=None):
    plain = staged_network()
    blocks = HeadBlocks.parse(words, pool)
    module = with_blocks(plain.module, plain.spec, blocks, plain.preprocessing.size, seed=1)
    return finish(plain.spec, module, plain.preprocessing, plain.weights, blocks)


def fit(settings, network=None, **options):
    return fit_network(network or blocked(), DATA, settings, execution=EXECUTION, **options)


@pytest.mark.parametrize("trainable", ["none", "stages:1", "all"])
def test_words_for_layers_choose_none_of_them_and_they_learn_at_the_heads_rate(trainable):
    network = blocked()
    settings = quick(strategy="partial", trainable=trainable, lr=0.01, head_lr_factor=3.0)
    shares = {row.stage: row for row in plan_network(network, settings).shares[0]}
    row = shares[BLOCKS_STAGE]
    assert row.num_trainable == row.num_parameters > 0
    assert row.lowest_rate == row.highest_rate == pytest.approx(0.03)
    learning = [name for name, share in shares.items() if share.num_trainable]
    expected = {"none": [], "stages:1": ["stage3"], "all": ["stage1", "stage2", "stage3"]}
    assert learning == [*expected[trainable], BLOCKS_STAGE]


def test_blocks_change_and_a_frozen_body_does_not():
    network = blocked()
    tuned = fit(quick(strategy="partial", trainable="none"), network)
    before, after = network.module.state_dict(), tuned.network.module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("blocks.") for name in changed)
    assert "blocks.0.layer.fc2.weight" in changed
    assert "blocks.1.layer.conv.bn.running_mean" in changed  # its statistics are its own
    assert tuned.network.digest != network.digest
    assert tuned.network.blocks == network.blocks


def test_the_start_is_the_probe_of_the_plain_network():
    generator = torch.Generator().manual_seed(3)
    head = ((torch.randn(3, 8, generator=generator), torch.zeros(3)),)
    settings = quick(strategy="partial", epochs=(1,))
    with_them = fit(settings, start_head=head)
    without = fit(settings, staged_network(), start_head=head)
    assert with_them.history[0].inner == without.history[0].inner


@pytest.mark.parametrize("strategy", ["partial", "two-stage", "norm-only", "full"])
def test_resumed_is_uninterrupted(tmp_path, monkeypatch, strategy):
    settings = quick(strategy=strategy, epochs=(2,), dropout=(0.2,))
    whole = fit(settings)
    kept = fitting.Keeper.save

    class StopHereError(Exception):
        pass

    def stop(self, state, current):
        kept(self, state, current)
        if sum(state.epochs) == 1:
            raise StopHereError

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Keeper, "save", stop)
        with pytest.raises(StopHereError):
            fit(settings, checkpoint_dir=tmp_path)
    assert equal_weights(fit(settings, checkpoint_dir=tmp_path), whole)
    with pytest.raises(ResumeError, match="network"):
        fit(settings, blocked("se:2"), checkpoint_dir=tmp_path)


def test_their_map_is_cached_at_the_freeze_point():
    settings = quick(strategy="partial", trainable="none")
    cached, again = fit(settings), fit(replace(settings, cache="off"))
    for one, other in zip(cached.head[0], again.head[0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_flattened_maps_train_with_dense_layers():
    network = blocked(None, "flatten")
    tuned = fit(quick(strategy="partial", hidden=(5,), dropout=(0.1,)), network)
    assert [tuple(weight.shape) for weight, _ in tuned.head] == [(5, 32), (3, 5)]


def test_the_summary_shows_them():
    network = blocked()
    text = summary(network, plan_network(network, quick(strategy="partial")))
    lines = [line.split() for line in text.splitlines()]
    assert ["blocks.0.layer.fc1", "Conv2d"] in [line[:2] for line in lines]
    assert any(line[:1] == [BLOCKS_STAGE] and "100%" in line for line in lines)
