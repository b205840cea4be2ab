from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from staged import EXECUTION, colourful, quick, staged_network

from headstart.errors import HeadstartError
from headstart.finetune import find_rate, plan_network, summary
from headstart.finetune.rates import suggest
from headstart.finetune.records.pictures import rate_figure

DATA = colourful()


def test_a_summary_counts_what_is_there():
    network = staged_network()
    text = summary(network, plan_network(network, quick(strategy="partial")))
    lines = [line.split() for line in text.splitlines()]
    convolution = next(line for line in lines if line and line[0] == "stage2.0")
    assert convolution == ["stage2.0", "Conv2d", "6", "x", "4", "x", "4", "216"]
    counts = [int(line[-1].replace(",", "")) for line in lines[1:10]]
    assert sum(counts) == network.num_parameters == 792
    assert "792" in text
    assert any(line[:2] == ["Learning", "in"] and line[-1] == "448" for line in lines)


def test_a_summary_changes_nothing():
    network = staged_network()
    summary(network)
    assert not any(module._forward_hooks for module in network.module.modules())


def test_the_rate_of_a_known_curve():
    rates = np.geomspace(1e-5, 1, 60).tolist()
    # Falls to 1e-2, then rises; smoothed, it is low some steps later, and a tenth is left of that.
    losses = [(np.log10(rate) + 2) ** 2 for rate in rates]
    found = suggest(rates, losses)
    assert 1e-3 < found.suggested < 1e-2
    assert len(found.losses) == 60
    assert suggest([1.0], [2.0]).losses == pytest.approx((2.0,))
    with pytest.raises(HeadstartError, match="finite loss"):
        suggest([], [])


def test_an_easy_batch_at_the_start_is_not_the_answer():
    # A fitted start: low and flat with noise up to 1e-2, then it diverges.
    rates = np.geomspace(1e-7, 1, 71)
    noise = np.random.default_rng(0).uniform(0.02, 0.12, len(rates))
    noise[3] = 0.001
    losses = noise + np.maximum(0, np.log10(rates) + 2) ** 2 * 3
    found = suggest(rates.tolist(), losses.tolist())
    assert 5e-4 < found.suggested < 4e-3


def test_a_search_is_not_ended_by_batches_that_differ():
    data = colourful()
    images = data.images.clone()
    images[::3] = 255 - images[::3]  # some are far harder than others
    settings = quick(strategy="partial", batch_size=2, freeze_norms=True)
    found = find_rate(
        staged_network(), replace(data, images=images), settings, execution=EXECUTION,
        rates=(1e-9, 1e-6), num_steps=30,
    )  # fmt: skip
    assert len(found.rates) == 30  # at these rates nothing can diverge
    assert not found.falls  # nor learn


@pytest.mark.parametrize("strategy", ["full", "two-stage"])
def test_a_found_rate_is_possible_and_changes_nothing(strategy):
    network = staged_network()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    settings = quick(strategy=strategy)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first = find_rate(network, DATA, settings, execution=EXECUTION, num_steps=25)
    assert torch.equal(torch.rand(2), expected)
    again = find_rate(network, DATA, settings, execution=EXECUTION, num_steps=25)
    assert first == again
    assert 1e-8 <= first.suggested <= 1.0
    assert len(first.rates) == len(first.losses) > 5
    after = network.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    rate_figure(first.rates, first.losses, first.suggested, "a search")
