"""Blocks between a backbone's map and its features."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from headstart.backbones import (
    BLOCKS,
    BLOCKS_STAGE,
    HeadBlocks,
    build_network,
    cut,
    find_backbone,
    network_digest,
)
from headstart.bundle import FittedHead, load_classifier, save_bundle
from headstart.bundle.format import BUNDLE_FILE, MANIFEST_FILE
from headstart.errors import BundleError, UsageError
from headstart.files import digest_file, write_json
from headstart.inference import FeatureExtractor

EVERYTHING = ",".join(BLOCKS.names())
PICTURES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 4 - 2


def network(blocks=None, pool=None, *, name="mini", size=32, weights="none"):
    wanted = HeadBlocks.parse(blocks, pool)
    return build_network(
        find_backbone(name), weights=weights, image_size=size, seed=5, blocks=wanted
    )


def stirred(net):
    """The same network with its blocks moved away from the identity."""
    generator = torch.Generator().manual_seed(1)
    for parameter in net.module.blocks.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return replace(net, digest=network_digest(net.spec, net.module, net.blocks))


@pytest.mark.parametrize("block", BLOCKS.names())
def test_every_block_begins_as_the_identity_to_the_bit(block):
    with torch.inference_mode():
        assert torch.equal(network(block).module(PICTURES), network().module(PICTURES))


@pytest.mark.parametrize("name", ["LeNet5", "EfficientNetB0", "ConvNeXtTiny"])
def test_the_ending_stays_behind_the_blocks(name):
    plain, blocked = network(name=name), network("se,spatial", name=name)
    with torch.inference_mode():
        assert torch.equal(blocked.module(PICTURES), plain.module(PICTURES))
    before, after = cut(blocked, BLOCKS_STAGE)
    with torch.inference_mode():
        found = before(PICTURES)
        assert found.ndim == 4
        assert torch.equal(after(found), blocked.module(PICTURES))


def test_squeeze_and_excitation_in_closed_form():
    net = stirred(network("se"))
    before, _ = cut(net, "stage4")
    layer = net.module.blocks[0].layer
    with torch.inference_mode():
        x = before(PICTURES)
        means = x.mean(dim=(2, 3))
        hidden = torch.relu(means @ layer.fc1.weight[:, :, 0, 0].T + layer.fc1.bias)
        gates = torch.sigmoid(hidden @ layer.fc2.weight[:, :, 0, 0].T + layer.fc2.bias)
        expected = (2 * x * gates[:, :, None, None]).mean(dim=(2, 3))
        torch.testing.assert_close(net.module(PICTURES), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "max", "flatten"])
def test_pooling_in_closed_form(pool):
    plain, other = network(size=64), network(pool=pool, size=64)
    pictures = torch.nn.functional.interpolate(PICTURES, 64)
    with torch.inference_mode():
        x = cut(plain, "stage4")[0](pictures)
        expected = {"mean": x.mean((2, 3)), "max": x.amax((2, 3)), "flatten": x.flatten(1)}[pool]
        assert torch.equal(other.module(pictures), expected)
    assert other.num_features == expected.shape[1]


def test_another_ending_leaves_out_what_it_does_not_use():
    plain, pooled = network(name="LeNet5"), network(pool="flatten", name="LeNet5")
    assert pooled.num_features == 16 * 5 * 5
    dense = 400 * 120 + 120 + 120 * 84 + 84
    assert pooled.num_parameters == plain.num_parameters - dense


def test_networks_that_answer_differently_have_different_digests():
    kinds = [
        (None, None),
        ("se", None),
        (None, "mean"),
        (None, "max"),
        ("se", "mean"),
        ("eca", None),
    ]
    assert len({network(*kind).digest for kind in kinds}) == len(kinds)
    assert stirred(network("se")).digest != network("se").digest
    assert network("se").digest == network("SE").digest


@pytest.mark.parametrize(
    ("blocks", "pool", "words"),
    [
        ("sa", None, "Unknown head block 'sa'"),
        ("se:0", None, "a number of 1 or more as its reduction, got 'se:0'"),
        ("se:x", None, "got 'se:x'"),
        ("se:8:9", None, "got 'se:8:9'"),
        ("spatial:4", None, "an odd number"),
        (None, "sum", "`pool` must be one of own, mean, max, flatten, got 'sum'"),
    ],
)
def test_words_that_mean_nothing_are_one_sentence(blocks, pool, words):
    with pytest.raises(UsageError, match=words):
        HeadBlocks.parse(blocks, pool)


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"])
def test_a_network_without_such_a_map_is_refused(name):
    with pytest.raises(UsageError, match="no map of channels x height x width before its head"):
        network("se", name=name, size=224)


def test_too_many_features_are_refused():
    with pytest.raises(UsageError, match="at most 32,768 features, 'flatten' of mini's map"):
        network(pool="flatten", size=256)


@pytest.fixture
def saved(tmp_path):
    net = stirred(network(EVERYTHING, "flatten", weights="bundled"))
    generator = torch.Generator().manual_seed(0)
    coef = torch.randn(3, net.num_features, generator=generator)
    head = FittedHead.linear(coef, torch.zeros(3), penalty=0.1)
    folder = tmp_path / "model"
    save_bundle(folder, network=net, head=head, class_names=("a", "b", "c"), about={})
    return folder, net


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_saved_and_loaded_give_the_same_features_to_the_bit(saved, precision):
    folder, net = saved
    classifier = load_classifier(folder, precision=precision)
    pixels = torch.randint(0, 256, (4, 32, 32, 3), generator=torch.Generator().manual_seed(2))
    pixels = pixels.to(torch.uint8)
    expected = FeatureExtractor(net, classifier.extractor.execution).forward(pixels)
    assert np.array_equal(classifier.extractor.forward(pixels), expected)
    assert classifier.extractor.network.digest == net.digest
    assert classifier.extractor.network.blocks == net.blocks


@pytest.mark.parametrize(
    "stored", [{"blocks": ["sa"]}, {"blocks": "se"}, {"pool": "sum"}, {"blocks": [1]}, [1]], ids=str
)
def test_unknown_blocks_in_a_bundle_are_refused(saved, stored):
    folder, _ = saved
    about = json.loads((folder / BUNDLE_FILE).read_text())
    about["backbone"]["head_blocks"] = stored
    write_json(folder / BUNDLE_FILE, about)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["sha256"][BUNDLE_FILE] = digest_file(folder / BUNDLE_FILE)
    write_json(folder / MANIFEST_FILE, manifest)
    with pytest.raises(BundleError, match=r"'backbone\.head_blocks'"):
        load_classifier(folder)
