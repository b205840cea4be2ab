"""Folding: the same features with fewer layers, and nothing folded that must not be."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from networks import on_cpu
from torch import nn

from headstart.backbones import build_network, find_backbone
from headstart.inference.folding import FloatBiasConvolution, fold_normalisations, foldable_pairs
from headstart.inference.placing import folds, place_module
from headstart.runtime import cpu_multiplies_bfloat16

needs_bfloat16 = pytest.mark.skipif(
    not cpu_multiplies_bfloat16(), reason="needs a processor with bfloat16 arithmetic"
)


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, with statistics and parameters of normalisations that change something."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            part.running_mean.normal_(0, 0.5, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            if part.weight is not None:
                nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(part.bias, 0, 0.5, generator=generator)
    return module.eval().requires_grad_(False)


def images(count: int = 4, size: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def norms_of(module: nn.Module) -> int:
    return sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_pair_follows_the_closed_form(bias, groups):
    pair = settled(nn.Sequential(nn.Conv2d(3, 6, 3, bias=bias, groups=groups), nn.BatchNorm2d(6)))
    convolution, norm = copy.deepcopy(pair[0]), pair[1]
    assert fold_normalisations(pair, images(1)) == 1
    assert isinstance(pair[1], nn.Identity)
    y = convolution(images())
    columns = [v.view(1, -1, 1, 1) for v in (norm.running_mean, norm.running_var)]
    gamma, beta = (v.view(1, -1, 1, 1) for v in (norm.weight, norm.bias))
    expected = (y - columns[0]) / torch.sqrt(columns[1] + norm.eps) * gamma + beta
    assert torch.allclose(pair(images()), expected, atol=1e-5)


@pytest.mark.parametrize(("name", "left"), [("mini", 0), ("MobileNetV3Small", 0), ("VGG16", 0)])
def test_real_networks_give_the_same_features(name, left):
    module = settled(build_network(find_backbone(name), weights="none", image_size=64).module)
    folded = copy.deepcopy(module)
    assert fold_normalisations(folded, images(1, 64)) == norms_of(module)
    assert norms_of(folded) == left
    with torch.inference_mode():
        expected, found = module(images(size=64)), folded(images(size=64))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_norm_before_its_convolution_stays():
    module = settled(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3))
    )
    assert fold_normalisations(module, images(1)) == 0
    assert norms_of(module) == 1


class Around(nn.Module):
    """What the convolution gives goes into the normalisation and past it."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x):
        y = self.convolution(x)
        return self.norm(y) + y


class Shared(nn.Module):
    """One convolution before two normalisations, or two before one."""

    def __init__(self, convolutions, norms):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(3, 3, 3) for _ in range(convolutions))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(norms))

    def forward(self, x):
        for i in range(2):
            x = self.norms[i % len(self.norms)](self.convolutions[i % len(self.convolutions)](x))
        return x


class Standardised(nn.Conv2d):
    """Its weight is not the one it convolves with."""

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias)


@pytest.mark.parametrize(
    "module",
    [
        Around(),
        Shared(1, 2),
        Shared(2, 1),
        nn.Sequential(Standardised(3, 6, 3), nn.BatchNorm2d(6)),
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)),
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, affine=False)),
    ],
    ids=[
        "used twice",
        "one before two",
        "two before one",
        "other weight",
        "no statistics",
        "plain",
    ],
)
def test_what_must_not_be_folded_stays(module):
    module = settled(module)
    before = module(images())
    assert foldable_pairs(module, images(1)) == []
    assert fold_normalisations(module, images(1)) == 0
    assert torch.equal(module(images()), before)


@needs_bfloat16
def test_placing_folds_a_copy_even_in_inference_mode():
    network = build_network(find_backbone("mini"), image_size=64)
    before = norms_of(network.module)
    with torch.inference_mode():
        placed = place_module(network.module, on_cpu("bfloat16"), 64)
    assert norms_of(placed) == 0
    assert norms_of(network.module) == before
    assert network.module.stem[0].bias is None


@needs_bfloat16
def test_folding_before_rounding_costs_no_accuracy():
    network = build_network(find_backbone("mini"), image_size=64)
    x = images(16, 64)
    with torch.inference_mode():
        exact = network.module(x)
        errors = []
        for size in (0, 64):
            placed = place_module(network.module, on_cpu("bfloat16"), size)
            errors.append(float((placed(x.bfloat16()).float() - exact).norm() / exact.norm()))
    apart, folded = errors
    assert folded < 1.05 * apart
    assert folded < 0.01
    biases = [p for p in placed.modules() if isinstance(p, FloatBiasConvolution)]
    assert biases
    assert {part.bias.dtype for part in biases} == {torch.float32}
    assert {part.weight.dtype for part in biases} == {torch.bfloat16}


def test_a_gpu_folds_nothing():
    assert folds(on_cpu())
    assert not folds(dataclasses.replace(on_cpu(), device="cuda"))


@pytest.mark.parametrize("kind", [{"padding": "same"}, {"padding_mode": "reflect", "padding": 1}])
def test_unusual_convolutions_are_folded_in_float32_only(kind):
    module = settled(nn.Sequential(nn.Conv2d(3, 6, 3, **kind), nn.BatchNorm2d(6)))
    expected = module(images())
    assert fold_normalisations(module, images(1), float_bias=True) == 0
    assert fold_normalisations(module, images(1)) == 1
    assert torch.allclose(module(images()), expected, atol=1e-5)
