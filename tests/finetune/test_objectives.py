from __future__ import annotations

import numpy as np
import pytest
import torch
from staged import quick
from torch.nn import functional

from headstart.finetune.batches.objectives import (
    DenseHead,
    cut_box,
    fresh_layers,
    image_losses,
    loss_weights,
    mix,
    soft_targets,
)
from headstart.finetune.steps.averaging import WeightAverage
from headstart.finetune.steps.schedules import Plateau, rate_factor

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(7, 4, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 2, 3, 3, 1, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_equal_torch(smoothing):
    expected = functional.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing, reduction="none")
    found = image_losses(LOGITS, soft_targets(LABELS, 4, smoothing), None, 0.0)
    torch.testing.assert_close(found, expected)


def test_class_weights_equal_torch():
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    expected = functional.cross_entropy(LOGITS, LABELS, weight=weights, reduction="none")
    found = image_losses(LOGITS, soft_targets(LABELS, 4, 0.0), weights, 0.0)
    torch.testing.assert_close(found, expected)


def test_focal_loss_in_closed_form():
    own = LOGITS.softmax(1)[torch.arange(7), LABELS]
    found = image_losses(LOGITS, soft_targets(LABELS, 4, 0.0), None, 2.0)
    torch.testing.assert_close(found, -((1 - own) ** 2) * own.log())


def test_loss_weights_equal_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 0, 0, 2, 2, 3], dtype=np.int64)
    expected = compute_class_weight("balanced", classes=np.array([0, 2, 3]), y=labels)
    found = loss_weights(labels, 4)
    np.testing.assert_allclose(found[[0, 2, 3]], expected)
    assert float(found[labels].mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("alphas", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}])
def test_targets_are_mixed_as_much_as_pictures(alphas):
    # Pictures whose every pixel is their class's number: the mean shows the shares.
    labels = torch.tensor([0, 1, 0, 1])
    pixels = labels.float()[:, None, None, None].expand(4, 3, 8, 8)
    for draw in range(6):
        mixed, targets = mix(pixels, soft_targets(labels, 2, 0.0), quick(**alphas), (draw,))
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), targets[:, 1])
        torch.testing.assert_close(targets.sum(1), torch.ones(4))


def test_a_box_stays_inside():
    generator = np.random.default_rng(0)
    for share in (0.0, 0.3, 0.99):
        top, bottom, left, right = cut_box(8, 6, share, generator)
        assert 0 <= top <= bottom <= 8
        assert 0 <= left <= right <= 6


def test_a_head_is_its_layers():
    layers = fresh_layers(8, 3, (5,), seed=0)
    head = DenseHead(layers, (0.5,)).eval()
    x = torch.randn(4, 8, generator=GENERATOR)
    hidden = torch.relu(x @ layers[0][0].T + layers[0][1])
    torch.testing.assert_close(head(x), hidden @ layers[1][0].T + layers[1][1])
    assert all(torch.equal(a, b) for a, b in zip(head.layers()[1], layers[1], strict=True))
    assert not torch.equal(head.train()(x), head(x))  # dropout draws


def factors(count=100, **changes):
    settings = quick(**changes)
    return [rate_factor(settings, step, count, 10) for step in range(count)]


def test_cosine_rises_then_falls():
    found = factors(schedule="cosine", warmup_fraction=0.1)
    assert found[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert max(found) == found[10] == 1.0
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] < 0.02


def test_other_schedules_in_closed_form():
    assert set(factors(schedule="constant")) == {1.0}
    step = factors(schedule="step", step_epochs=4, schedule_factor=0.1)
    assert step[39] == 1.0
    assert step[40] == pytest.approx(0.1)
    assert step[80] == pytest.approx(0.01)
    inverse = factors(schedule="inverse", inverse_decay=0.5)
    assert inverse[:3] == pytest.approx([1, 1 / 1.5, 1 / 2])
    cycle = factors(schedule="one-cycle", warmup_fraction=0.3)
    assert cycle[0] < 0.1
    assert cycle[30] == 1.0


def test_plateau_drops_after_its_patience():
    settings = quick(schedule="plateau", plateau_patience=2, schedule_factor=0.2)
    plateau = Plateau()
    found = []
    for improved in (True, False, False, False, False, True, False):
        plateau.update(improved, settings)
        found.append(plateau.factor)
    assert found == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2, 0.2])


def test_equal_average_is_the_mean():
    values = [torch.tensor([float(i), 2.0 * i]) for i in range(5)]
    average = WeightAverage()
    for value in values:
        average.update_equal({"w": value})
    torch.testing.assert_close(average.values["w"], torch.stack(values).mean(0))


def test_exponential_average_forgets_the_start():
    average = WeightAverage()
    average.update({"w": torch.zeros(1)}, 0.9)
    average.update({"w": torch.ones(1)}, 0.9)
    torch.testing.assert_close(average.values["w"], torch.tensor([0.1]))
    living = {"w": torch.tensor([7.0])}
    with average.in_place(living):
        torch.testing.assert_close(living["w"], torch.tensor([0.1]))
    assert float(living["w"]) == 7.0
