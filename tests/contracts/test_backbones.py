"""What every backbone of the catalogue promises, at its smallest sensible size."""

from __future__ import annotations

import pytest
import torch

from headstart.backbones import BACKBONES, build_network, find_backbone

LIGHT = ("mini", "EfficientNetB0", "MobileNetV3Small", "ViTSmall", "ResNet50", "DenseNet121")


@pytest.mark.parametrize("name", BACKBONES.names())
def test_every_name_is_known_to_its_origin(name):
    spec = find_backbone(name)
    if spec.origin == "timm":
        from headstart.backbones.catalogue import timm_architectures

        assert spec.architecture in timm_architectures()
    else:
        assert spec.default_weights == "bundled"
    assert spec.code_licence
    assert spec.weights_licence


@pytest.mark.parametrize("name", LIGHT)
def test_features_are_pooled_frozen_and_repeatable(name):
    network = build_network(find_backbone(name), weights="none", image_size=64)
    assert not network.module.training
    assert not any(p.requires_grad for p in network.module.parameters())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, second = network.module(x), network.module(x)
    assert first.shape == (2, network.num_features)
    assert torch.equal(first, second)
    assert torch.allclose(network.module(x[:1]), first[:1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [n for n in LIGHT if n != "mini"])
def test_preprocessing_is_that_of_the_weights(name):
    import timm

    network = build_network(find_backbone(name), weights="none")
    config = timm.get_pretrained_cfg(network.spec.architecture)
    assert network.preprocessing.mean == tuple(config.mean)
    assert network.preprocessing.std == tuple(config.std)
    assert network.preprocessing.size == config.input_size[-1]
    assert network.preprocessing.interpolation == config.interpolation


@pytest.mark.parametrize("size", [32, 47, 64, 96, 224])
def test_mini_takes_any_size(size):
    network = build_network(find_backbone("mini"), image_size=size)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    features = network.module(x)
    assert features.shape == (2, 384)
    assert torch.isfinite(features).all()
    assert (features.std(dim=0) > 0).float().mean() > 0.3  # noise wakes few of them
