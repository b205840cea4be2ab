"""What every backbone of the catalogue promises.

Shapes and preprocessing are looked up at each network's own size on networks without memory;
what is computed runs on fresh weights at a small size.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.backbones import (
    BACKBONES,
    build_network,
    cut,
    find_backbone,
    rebuild_network,
    stage_modules,
)
from headstart.backbones.catalogue import known_architectures
from headstart.backbones.layered import LayeredNetwork
from headstart.backbones.networks import feature_width
from headstart.backbones.origins import make_architecture
from headstart.backbones.survey import WithoutFilling
from headstart.backbones.weights import bundled_file
from headstart.bundle.format import read_spec
from headstart.errors import BundleError
from headstart.files import digest_file
from headstart.inference.preprocessing import normalise, resize_pixels

SMALL = {"LeNet5": 32, "InceptionV3": 96, "DINOv2Small": 56}
LONG = ("VGG19", "EfficientNetB5", "EfficientNetB6", "EfficientNetB7")
LIBRARIES = [spec.name for spec in BACKBONES if spec.origin != "own"]

# What goes into the last stage at the network's own size, from the papers: maps (C, H, W) or
# (tokens, D).
BEFORE_HEAD = {
    "mini": (384, 6, 6),
    "LeNet5": (120,),
    "SmallCNN": (128, 4, 4),
    "AlexNet": (256, 6, 6),
    "GoogLeNet": (1024, 7, 7),
    "VGG16": (512, 7, 7),
    "VGG19": (512, 7, 7),
    "InceptionV3": (2048, 8, 8),
    "ResNet50": (2048, 7, 7),
    "DenseNet121": (1024, 7, 7),
    "MobileNetV2": (320, 7, 7),
    "MobileNetV3Small": (576, 7, 7),
    "EfficientNetB0": (320, 7, 7),
    "EfficientNetB1": (320, 8, 8),
    "EfficientNetB2": (352, 8, 8),
    "EfficientNetB3": (384, 9, 9),
    "EfficientNetB4": (448, 10, 10),
    "EfficientNetB5": (512, 14, 14),
    "EfficientNetB6": (576, 17, 17),
    "EfficientNetB7": (640, 19, 19),
    "ConvNeXtTiny": (768, 7, 7),
    "ViTSmall": (1 + 14 * 14, 384),
    "DINOv2Small": (1 + 16 * 16, 384),
}
PYRAMIDS = {
    "mini": [(24, 48), (24, 48), (48, 24), (160, 12), (384, 6)],
    "LeNet5": [(6, 14), (16, 5)],
    "SmallCNN": [(32, 32), (64, 16), (128, 8), (128, 4)],
    "AlexNet": [(64, 27), (192, 13), (384, 13), (256, 13), (256, 6)],
    "GoogLeNet": [(192, 28), (480, 14), (832, 7), (1024, 7)],
    "VGG16": [(64, 112), (128, 56), (256, 28), (512, 14), (512, 7)],
    "InceptionV3": [(64, 73), (192, 35), (288, 35), (768, 17), (2048, 8)],
    "ResNet50": [(64, 56), (256, 56), (512, 28), (1024, 14), (2048, 7)],
    "DenseNet121": [(64, 56), (128, 28), (256, 14), (512, 7), (1024, 7)],
    "EfficientNetB0": [
        *((32, 112), (16, 112), (24, 56), (40, 28), (80, 14), (112, 14), (192, 7), (320, 7)),
    ],
    "ConvNeXtTiny": [(96, 56), (96, 56), (192, 28), (384, 14), (768, 7)],
}


def without_memory(name):
    with torch.device("meta"), WithoutFilling():
        return make_architecture(find_backbone(name), None)


def marked(names):
    return [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in names]


def test_the_familiar_names_are_there():
    familiar = {
        *("VGG16", "VGG19", "ResNet50", "DenseNet121", "InceptionV3", "GoogLeNet", "AlexNet"),
        *("MobileNetV2", "MobileNetV3Small", "ConvNeXtTiny", "ViTSmall", "DINOv2Small", "LeNet5"),
        "SmallCNN",
        *(f"EfficientNetB{i}" for i in range(8)),
        "mini",
    }
    assert familiar <= set(BACKBONES.names())


@pytest.mark.parametrize("name", BACKBONES.names())
def test_every_name_is_known_to_its_origin(name):
    spec = find_backbone(name)
    assert spec.architecture in known_architectures(spec.origin)
    assert spec.code_licence
    assert spec.weights_licence
    assert without_memory(name).licence


def describe_in_bundle(origin, architecture):
    return {
        "backbone": {
            "name": "x",
            "origin": origin,
            "architecture": architecture,
            "code_licence": "y",
            "weights": {"source": "bundle", "origin": "", "licence": "z"},
        },
        "preprocessing": {"size": 64},
    }


@pytest.mark.parametrize("name", BACKBONES.names())
def test_a_bundle_may_name_it(name, tmp_path):
    spec = find_backbone(name)
    found, record = read_spec(describe_in_bundle(spec.origin, spec.architecture), tmp_path)
    assert (found.origin, found.architecture) == (spec.origin, spec.architecture)
    assert record.licence == "z"


@pytest.mark.parametrize(
    ("origin", "architecture"),
    [("own", "resnet50"), ("torchvision", "resnet50"), ("timm", "hf-hub:a/b"), ("else", "mini")],
)
def test_a_bundle_may_name_nothing_else(origin, architecture, tmp_path):
    with pytest.raises(BundleError, match="which this installation does not have"):
        read_spec(describe_in_bundle(origin, architecture), tmp_path)


@pytest.mark.parametrize("name", ["LeNet5", "GoogLeNet", "DINOv2Small", "MobileNetV3Small"])
def test_it_is_built_again_from_its_tensors(name):
    first = build_network(find_backbone(name), weights="none", image_size=SMALL.get(name, 64))
    again = rebuild_network(
        first.spec, first.module.state_dict(), first.preprocessing, first.weights
    )
    assert again.digest == first.digest
    assert again.preprocessing == first.preprocessing


def test_the_bundled_file_is_the_catalogues():
    assert find_backbone("mini").weights_sha256 == digest_file(bundled_file("mini2"))


@pytest.mark.parametrize("name", BACKBONES.names())
def test_shapes_at_every_stage(name):
    made = without_memory(name)
    module, size = made.module.eval(), made.preprocessing.size
    x = torch.zeros(2, 3, size, size, device="meta")
    shapes = []
    for stage in stage_modules(module, find_backbone(name)).values():
        x = stage(x)
        shapes.append(tuple(x.shape))
    assert {shape[0] for shape in shapes} == {2}
    assert shapes[-1] == (2, feature_width(module))
    assert shapes[-2][1:] == BEFORE_HEAD[name]
    maps = [shape[1:3] for shape in shapes if len(shape) == 4]
    if name in PYRAMIDS:
        assert maps == PYRAMIDS[name]


@pytest.fixture(scope="module", params=marked(BACKBONES.names()))
def network(request):
    """One network at a time; what begins at zero is drawn anew, so that no branch is idle."""
    spec = find_backbone(request.param)
    built = build_network(spec, weights="none", image_size=SMALL.get(request.param, 64))
    generator = torch.Generator().manual_seed(1)
    for parameter in built.module.parameters():
        if parameter.ndim == 1 and parameter.abs().max() < 1e-3:
            parameter.uniform_(-0.2, 0.2, generator=generator)
    return built


def pictures(network):
    size = network.preprocessing.size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_features_are_pooled_frozen_and_repeatable(network):
    assert not network.module.training
    assert not any(p.requires_grad for p in network.module.parameters())
    x = pictures(network)
    first, second = network.module(x), network.module(x)
    assert first.shape == (2, network.num_features)
    assert torch.isfinite(first).all()
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first, second)
    alone = network.module(x[:1])
    assert (alone - first[:1]).norm() < 1e-3 * first[:1].norm()


def test_every_stage_cut_and_rejoined_equals_the_whole(network):
    x = pictures(network)
    whole, kept = network.module(x), x.clone()
    assert len(network.stages) >= 4
    for name in network.stages:
        front, back = cut(network, name)
        between = front(x)
        unchanged = between.clone()
        assert torch.equal(back(between), whole), name
        assert torch.equal(between, unchanged), f"the back of {name} writes into its input"
        assert torch.equal(x, kept)


def test_stages_share_every_parameter(network):
    stages = stage_modules(network.module, network.spec)
    shared = [p for stage in stages.values() for p in stage.parameters()]
    own = list(network.module.parameters())
    assert len(shared) == len(own)
    assert {id(p) for p in shared} == {id(p) for p in own}


def averaged(x, network):
    """Means over places as the papers have them, without the module under test."""
    if x.ndim == 3:  # class and register tokens stand for no place
        return x[:, network.module.num_prefix_tokens :].sum(1) / (
            x.shape[1] - network.module.num_prefix_tokens
        )
    return x.flatten(2).sum(2) / x[0, 0].numel() if x.ndim == 4 else x


def test_layers_are_the_means_of_the_stages_at_length_one(network):
    size, x = network.preprocessing.size, pictures(network)
    layered = LayeredNetwork(network.module, network.spec, network.stages, size)
    parts = layered(x).split(list(layered.layers.values()), dim=1)
    assert list(layered.layers) == list(network.stages)
    assert sum(layered.layers.values()) == layered.num_features
    for stage, part in zip(
        stage_modules(network.module, network.spec).values(), parts, strict=True
    ):
        x = stage(x)
        rows = averaged(x, network)
        torch.testing.assert_close(part.norm(dim=1), torch.ones(2))
        expected = rows / rows.square().sum(1, keepdim=True).sqrt()
        torch.testing.assert_close(part, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("position", [1, -2])
def test_layers_keep_no_more_of_a_network_than_they_need(network, position):
    name, size, x = network.stages[position], network.preprocessing.size, pictures(network)
    whole = LayeredNetwork(network.module, network.spec, network.stages, size)
    expected = dict(zip(whole.layers, whole(x).split(list(whole.layers.values()), 1), strict=True))
    short = LayeredNetwork(copy.deepcopy(network.module), network.spec, [name], size)
    assert torch.equal(short(x), expected[name])
    front, _ = cut(network, name)
    assert sum(p.numel() for p in short.parameters()) == sum(p.numel() for p in front.parameters())


def library_transform(spec, size):
    """The library's own preprocessing of a square picture, its crop left out."""
    if spec.origin == "torchvision":
        from torchvision.models import get_model_weights

        return get_model_weights(spec.architecture).DEFAULT.transforms(
            crop_size=size, resize_size=size
        )
    import timm

    config = timm.data.resolve_data_config(
        pretrained_cfg=timm.get_pretrained_cfg(spec.architecture).to_dict()
    )
    config.update(input_size=(3, size, size), crop_pct=1.0)
    return timm.data.create_transform(**config)


@pytest.mark.parametrize("name", LIBRARIES)
def test_preprocessing_is_the_librarys_own(name):
    spec, preprocessing = find_backbone(name), without_memory(name).preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)
    image = Image.fromarray(np.kron(pixels, np.ones((5, 5, 1), dtype=np.uint8)))
    expected = library_transform(spec, preprocessing.size)(image)
    ours = resize_pixels(image, preprocessing)
    batch = normalise(torch.from_numpy(np.array(ours))[None], preprocessing)
    torch.testing.assert_close(batch[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_size_is_the_librarys_own(name):
    spec, size = find_backbone(name), without_memory(name).preprocessing.size
    if spec.origin == "torchvision":
        from torchvision.models import get_model_weights

        assert [size] == get_model_weights(spec.architecture).DEFAULT.transforms().crop_size
    else:
        import timm

        native = timm.get_pretrained_cfg(spec.architecture).input_size[-1]
        assert size == (224 if name == "DINOv2Small" else native)


@pytest.mark.parametrize("size", [32, 47, 64, 96, 224])
def test_mini_takes_any_size(size):
    network = build_network(find_backbone("mini"), image_size=size)
    # Soft blobs: of pixels that know nothing of each other hardly a feature wakes.
    coarse = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    features = network.module(torch.nn.functional.interpolate(coarse, size=size, mode="bilinear"))
    assert features.shape == (2, 384)
    assert torch.isfinite(features).all()
    assert (features.std(dim=0) > 0).float().mean() > 0.3
