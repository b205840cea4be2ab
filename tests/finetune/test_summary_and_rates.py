from __future__ import annotations

import numpy as np
import pytest
import torch
from staged import EXECUTION, colourful, quick, staged_network

from headstart.errors import HeadstartError
from headstart.finetune import find_rate, plan_network, summary
from headstart.finetune.pictures import rate_figure
from headstart.finetune.rates import suggest

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
    # Falls to 1e-2, then rises: the smoothed minimum is a few steps later.
    losses = [(np.log10(rate) + 2) ** 2 for rate in rates]
    found = suggest(rates, losses)
    assert 1e-3 < found.suggested < 4e-3
    assert len(found.losses) == 60
    assert suggest([1.0], [2.0]).losses == pytest.approx((2.0,))
    with pytest.raises(HeadstartError, match="finite loss"):
        suggest([], [])


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
