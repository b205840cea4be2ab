"""Stages: the library's own activations, other members of the families, sharing, errors."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import tiny_network

from headstart.backbones import build_network, cut, find_backbone, stage_modules
from headstart.errors import UsageError

FURTHER = {  # members of the families beyond the catalogue, with a light size
    "resnet18d": 64,
    "seresnext26d_32x4d": 64,
    "densenetblur121d": 64,
    "efficientnet_lite0": 64,
    "mobilenetv4_conv_small_035": 64,
    "mobilenetv3_rw": 64,
    "regnetx_002": 64,
    "convnext_atto": 64,
    "vit_tiny_patch16_224": 64,
    "vit_wee_patch16_reg1_gap_256": 64,
    "swin_tiny_patch4_window7_224": 64,
}


def built(name, size):
    network = build_network(find_backbone(f"timm:{name}"), weights="none", image_size=size)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return network, x


@pytest.mark.parametrize(("name", "size"), FURTHER.items())
def test_further_members_of_the_families_can_be_cut(name, size):
    network, x = built(name, size)
    whole = network.module(x)
    for stage in (network.stages[0], network.stages[-2]):
        front, back = cut(network, stage)
        assert torch.equal(back(front(x)), whole)


def test_activations_are_those_of_the_library():
    network, x = built("resnet18", 64)
    _, expected = network.module.forward_intermediates(x)
    for name, activation in zip(
        ("layer1", "layer2", "layer3", "layer4"), expected[1:], strict=True
    ):
        assert torch.equal(cut(network, name)[0](x), activation)


def test_transformer_groups_are_those_of_the_library():
    network, x = built("vit_tiny_patch16_224", 64)
    _, expected = network.module.forward_intermediates(
        x, indices=[2, 5, 8, 11], output_fmt="NLC", return_prefix_tokens=False
    )
    for group, activation in enumerate(expected, start=1):
        tokens = cut(network, f"quarter{group}")[0](x)
        assert torch.equal(tokens[:, 1:], activation)


def test_freezing_a_stage_freezes_that_part_of_the_network():
    network = build_network(find_backbone("mini"), weights="none", image_size=32)
    stages = stage_modules(network.module, network.spec)
    stages["stage4"].requires_grad_(True)
    trained = {name for name, p in network.module.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in network.module.named_parameters() if n.startswith("stage4.")}


def test_a_cut_sees_what_the_network_learns():
    network, x = built("vit_tiny_patch16_224", 64)
    front, _ = cut(network, "embed")
    before = front(x)
    network.module.pos_embed.add_(1.0)
    torch.testing.assert_close(front(x), before + 1.0)


def test_a_copy_of_a_cut_is_on_its_own():
    network, x = built("vit_tiny_patch16_224", 64)
    front, back = cut(network, "quarter2")
    other = copy.deepcopy(torch.nn.Sequential(front, back))
    expected = other(x)
    network.module.pos_embed.zero_()
    network.module.norm.weight.zero_()
    assert torch.equal(other(x), expected)
    half = copy.deepcopy(front).to(torch.bfloat16)
    assert half(x.bfloat16()).dtype == torch.bfloat16


def test_errors_name_the_network_and_what_to_do():
    network = tiny_network()
    assert network.stages == ()
    with pytest.raises(UsageError, match=r"stages of tiny are not known.*Use it whole"):
        cut(network, "stem")
    with pytest.raises(UsageError, match=r"mini has no stage 'layer1'.*stem, stage1"):
        cut(build_network(find_backbone("mini"), weights="none"), "layer1")
