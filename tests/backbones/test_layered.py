"""Features of several stages: words, the library's own activations, bundles, engines."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
from networks import on_cpu, tiny_network

from headstart.backbones import (
    build_network,
    check_layers,
    find_backbone,
    keep_last_layers,
    rebuild_network,
)
from headstart.backbones import layered as layered_module
from headstart.bundle import FittedHead, load_classifier, save_bundle
from headstart.bundle.format import BUNDLE_FILE, MANIFEST_FILE
from headstart.errors import BundleError, UsageError
from headstart.features.passes import identity
from headstart.files import digest_file, write_json
from headstart.inference import FeatureExtractor, PassEngine
from headstart.inference.placing import place_module

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs openvino"
)


def network(layers=None, *, name="mini", size=32, weights="bundled"):
    return build_network(find_backbone(name), weights=weights, image_size=size, layers=layers)


def pictures(size=32, count=3):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("name", "size", "words", "activations"),
    [
        ("timm:resnet18", 64, "layer2,layer4", {"indices": [2, 4]}),
        ("timm:swin_tiny_patch4_window7_224", 64, "layers1,layers2", {"indices": [1, 2]}),
        (
            "timm:vit_wee_patch16_reg1_gap_256",
            64,
            "quarter1,quarter4",
            {"indices": [3, 13]},
        ),
    ],
)
def test_parts_are_means_of_the_librarys_activations(name, size, words, activations):
    """Maps, (B, H, W, C) maps and tokens with a register, by timm's own way to them."""
    net = network(words, name=name, size=size, weights="none")
    plain = network(name=name, size=size, weights="none")
    x = pictures(size)
    with torch.inference_mode():
        _, maps = plain.module.forward_intermediates(x, output_fmt="NCHW", **activations)
        expected = torch.cat([unit(m.mean(dim=(2, 3))) for m in maps], dim=1)
        torch.testing.assert_close(net.module(x), expected)


def test_a_number_counts_from_the_networks_own_features():
    assert network("1").layers == {"head": 384}
    assert network("3").layers == {"stage2": 48, "stage3": 160, "head": 384}
    assert network("5").num_features == 24 + 24 + 48 + 160 + 384
    assert list(network("2", name="LeNet5", weights="none").layers) == ["conv1", "dense2"]
    x = pictures()
    with torch.inference_mode():
        torch.testing.assert_close(network("1").module(x), unit(network().module(x)))
        assert torch.equal(network("2").module(x), network("stage3,stage4").module(x))


def test_auto_takes_four_at_most_and_no_more_features_than_a_probe_bears(monkeypatch):
    assert list(network("auto").layers) == ["stage1", "stage2", "stage3", "head"]
    assert list(network("auto", name="LeNet5", weights="none").layers) == ["conv1", "dense2"]
    monkeypatch.setattr(layered_module, "MOST_FEATURES", 560)
    assert list(network("auto").layers) == ["stage3", "head"]
    monkeypatch.setattr(layered_module, "MOST_FEATURES", 384)
    assert list(network("auto").layers) == ["head"]
    with pytest.raises(UsageError, match=r"at most 384 features, stage3, head of mini give 544"):
        network("2")


@pytest.mark.parametrize(
    ("given", "kept"), [("Head, STAGE3", "head,stage3"), (" 2 ", "2"), ("AUTO", "auto")]
)
def test_words_are_brought_to_one_form(given, kept):
    assert check_layers(given) == kept


@pytest.mark.parametrize("words", ["", "0", "stage3,", "head,head", ",", " "])
def test_words_that_mean_nothing_are_refused(words):
    with pytest.raises(UsageError, match=r"`layers` must be auto, a number.*Correct --layers"):
        check_layers(words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("layer3", r"mini has no stage 'layer3'. Its stages are stem, stage1, .*, head"),
        ("6", r"`layers` must be at most 5 for mini \(stem, .*, head\), got 6"),
        ("-1", r"no stage '-1'"),
        ("auto,head", r"no stage 'auto'"),
    ],
)
def test_stages_that_are_not_there_are_refused(words, told):
    with pytest.raises(UsageError, match=told):
        network(words)


def test_names_come_in_the_networks_order():
    assert list(network("head,stem,stage2").layers) == ["stem", "stage2", "head"]


def test_a_size_that_the_network_cannot_take_is_one_sentence():
    with pytest.raises(UsageError, match="InceptionV3 cannot take pictures of 40 px"):
        network("2", name="InceptionV3", size=40, weights="none")


def test_a_network_of_unknown_stages_is_refused():
    net = tiny_network()
    with pytest.raises(UsageError, match="stages of tiny are not known"):
        layered_module.find_layers(net.module, net.spec, "2", 32)


def test_digests_tell_layers_apart():
    words = [None, "1", "2", "3", "stage3", "stage3,stage4"]
    assert len({network(word).digest for word in words}) == len(words)
    stores = {identity(FeatureExtractor(network(word), on_cpu())) for word in words}
    assert len(stores) == len(words)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_last_layers_alone_are_the_last_columns_to_the_bit(count):
    widest = network("3")
    kept = keep_last_layers(widest, count)
    assert kept.layers == network(str(count)).layers
    assert kept.digest == network(str(count)).digest
    pixels = torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8)
    found = FeatureExtractor(kept, on_cpu()).forward(pixels)
    wide = FeatureExtractor(widest, on_cpu()).forward(pixels)
    assert np.array_equal(found, wide[:, -kept.num_features :])


def test_a_picture_that_a_stage_does_not_see_has_zeros_there():
    net = network("stem,head")
    for parameter in net.module.body.stem.parameters():
        parameter.zero_()
    with torch.inference_mode():
        found = net.module(pictures())
    assert torch.equal(found[:, :24], torch.zeros(3, 24))
    assert torch.isfinite(found).all()


def test_folded_normalisations_give_the_same_features():
    module = network("4").module
    folded = place_module(module, on_cpu(), 32)
    norms = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not norms
    with torch.inference_mode():
        torch.testing.assert_close(folded(pictures()), module(pictures()), atol=1e-5, rtol=1e-4)


@needs_openvino
@pytest.mark.parametrize("name", ["mini", "timm:test_vit"])
def test_openvino_gives_the_same_features(name):
    net = network("2", name=name, size=64, weights="none")
    pixels = torch.randint(0, 256, (16, 64, 64, 3), dtype=torch.uint8)
    plain = FeatureExtractor(net, on_cpu(), 16).forward(pixels).astype(np.float32)
    engine = PassEngine(name="openvino", reason="test")
    found = FeatureExtractor(net, on_cpu(), 16, engine=engine).forward(pixels).astype(np.float32)
    assert np.abs(found - plain).max() < 2e-3


@pytest.mark.parametrize("name", ["mini", "SmallCNN", "timm:test_vit"])
@pytest.mark.parametrize("words", ["2", "1"])
def test_it_is_built_again_from_its_tensors(name, words):
    first = network(words, name=name, size=64, weights="none")
    again = rebuild_network(
        first.spec,
        first.module.state_dict(),
        first.preprocessing,
        first.weights,
        layers=list(first.layers),
    )
    assert (again.digest, again.layers) == (first.digest, first.layers)


@pytest.fixture(params=["stage2,head", "stem,stage3"])
def saved(request, tmp_path):
    net = network(request.param)
    coef = torch.randn(3, net.num_features, generator=torch.Generator().manual_seed(0))
    head = FittedHead.linear(coef, torch.zeros(3), penalty=0.1)
    save_bundle(tmp_path / "model", network=net, head=head, class_names=("a", "b", "c"), about={})
    return tmp_path / "model", net


def test_saved_and_loaded_give_the_same_features_to_the_bit(saved):
    folder, net = saved
    loaded = load_classifier(folder, precision="float32").extractor
    pixels = torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8)
    expected = FeatureExtractor(net, loaded.execution).forward(pixels)
    assert np.array_equal(loaded.forward(pixels), expected)
    assert (loaded.network.layers, loaded.network.digest) == (net.layers, net.digest)
    if "head" not in net.layers:
        assert (folder / "weights.safetensors").stat().st_size < 5_000_000, "stage 4 is not kept"


def rewrite(folder, layers):
    about = json.loads((folder / BUNDLE_FILE).read_text())
    about["backbone"]["layers"] = layers
    write_json(folder / BUNDLE_FILE, about)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["sha256"][BUNDLE_FILE] = digest_file(folder / BUNDLE_FILE)
    write_json(folder / MANIFEST_FILE, manifest)


@pytest.mark.parametrize(
    "stored",
    ["head", [1], {"head": 384}, ["stage9"], ["head", "stage2"], ["head", "head"], ["stage1"]],
    ids=str,
)
def test_layers_of_a_bundle_that_cannot_be_are_refused(saved, stored):
    folder, _ = saved
    rewrite(folder, stored)
    with pytest.raises(BundleError):
        load_classifier(folder)


@pytest.mark.parametrize("stored", [None, []])
def test_a_bundle_without_layers_has_the_networks_own_features(tmp_path, stored):
    """As those of older schemas."""
    net = network()
    head = FittedHead.linear(torch.ones(2, 384), torch.zeros(2), penalty=0.1)
    save_bundle(tmp_path / "model", network=net, head=head, class_names=("a", "b"), about={})
    rewrite(tmp_path / "model", stored)
    assert load_classifier(tmp_path / "model").extractor.network.digest == net.digest
