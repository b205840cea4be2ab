"""Which engine computes a pass: the written rule, and OpenVINO where it is installed."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest
import torch
from networks import on_cpu, tiny_network

from headstart.errors import MissingExtraError, UsageError
from headstart.features.passes import identity
from headstart.inference import FeatureExtractor, PassEngine, PassWork, choose_engine, engines
from headstart.runtime import cpu_stops_at_avx2

WORK = PassWork(architecture="efficientnet_b0", image_size=128, num_images=20_000, frozen=True)
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs openvino"
)


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(engines, "is_installed", lambda: True)


@pytest.mark.parametrize(
    ("change", "chosen"),
    [
        ({}, "openvino"),
        ({"num_images": 19_999}, "eager"),
        ({"num_images": 6_530, "image_size": 224}, "eager"),
        ({"num_images": 6_531, "image_size": 224}, "openvino"),
        ({"architecture": "resnet50"}, "openvino"),
        ({"architecture": "vit_small_patch16_224"}, "openvino"),
        ({"architecture": "vgg16"}, "eager"),
        ({"architecture": "mobilenetv3_small_100"}, "openvino"),
        ({"frozen": False}, "eager"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_the_rule(change, chosen, monkeypatch):
    monkeypatch.setattr(engines, "cpu_stops_at_avx2", lambda: False)
    found = choose_engine("auto", dataclasses.replace(WORK, **change), on_cpu())
    assert found.name == chosen
    assert found.reason


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("architecture", "chosen"),
    [
        ("resnet50", "openvino"),
        ("vgg16", "openvino"),
        ("efficientnet_b0", "openvino"),
        ("mini", "eager"),
    ],
)
def test_more_families_pay_on_narrow_vectors(architecture, chosen, monkeypatch):
    monkeypatch.setattr(engines, "cpu_stops_at_avx2", lambda: True)
    work = dataclasses.replace(WORK, architecture=architecture)
    assert choose_engine("auto", work, on_cpu()).name == chosen


@pytest.mark.parametrize(
    ("capabilities", "narrow"),
    [
        ({"avx2": True, "avx512_f": False}, True),
        ({"avx2": True, "avx512_f": True}, False),
        ({"architecture": "aarch64", "sve": True}, False),  # nothing was measured there
    ],
)
def test_narrow_is_what_was_measured(capabilities, narrow, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert cpu_stops_at_avx2() is narrow


@pytest.mark.usefixtures("installed")
def test_a_gpu_keeps_pytorch():
    execution = dataclasses.replace(on_cpu(), device="cuda")
    assert choose_engine("auto", WORK, execution).name == "eager"
    with pytest.raises(UsageError, match="on cuda, got 'openvino'"):
        choose_engine("openvino", WORK, execution)


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(engines, "is_installed", lambda: False)
    found = choose_engine("auto", WORK, on_cpu())
    assert (found.name, found.reason) == ("eager", "OpenVINO is not installed")
    with pytest.raises(MissingExtraError, match=r"headstart\[openvino\]"):
        choose_engine("openvino", WORK, on_cpu())


def test_what_was_asked_for_is_taken():
    few = dataclasses.replace(WORK, num_images=1)
    assert choose_engine("eager", few, on_cpu()) == PassEngine(name="eager", reason="asked for")
    with pytest.raises(UsageError, match="`pass_engine` must be one of"):
        choose_engine("onnx", few, on_cpu())


def by_openvino(network, precision="float32", batch_size=8):
    engine = PassEngine(name="openvino", reason="test")
    return FeatureExtractor(network, on_cpu(precision), batch_size, engine=engine)


def pixels(count):
    shape = (count, 32, 32, 3)
    drawn = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(drawn)


@needs_openvino
def test_openvino_gives_the_features_of_pytorch():
    network = tiny_network()
    expected = FeatureExtractor(network, on_cpu()).forward(pixels(8)).astype(np.float32)
    found = by_openvino(network).forward(pixels(8)).astype(np.float32)
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()


@needs_openvino
def test_a_picture_has_the_same_features_in_every_batch_of_openvino():
    extractor = by_openvino(tiny_network())
    whole = extractor.forward(pixels(8))
    alone = np.concatenate([extractor.forward(pixels(8)[i : i + 1]) for i in range(8)])
    assert np.array_equal(alone, whole)


@needs_openvino
def test_engines_share_no_features():
    network = tiny_network()
    plain, other = FeatureExtractor(network, on_cpu(), 8), by_openvino(network)
    assert identity(plain) != identity(other)
    assert "openvino" in identity(other)
    assert identity(by_openvino(network, batch_size=16)) != identity(other)


@needs_openvino
def test_a_network_that_cannot_be_converted_is_named_in_one_sentence():
    class Deciding(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("first line\nno graph for this")

    network = dataclasses.replace(tiny_network(), module=Deciding())
    with pytest.raises(UsageError, match=r"cannot convert this network .*--pass-engine eager\."):
        by_openvino(network).forward(pixels(8))
