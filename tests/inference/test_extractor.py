"""The one forward path: order, batches, unreadable images, 16 bits, the plain way."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from networks import on_cpu, tiny_network
from PIL import Image

from headstart.backbones import build_network, find_backbone
from headstart.errors import HeadstartError
from headstart.inference import FeatureExtractor, ImageList
from headstart.inference.placing import place_module
from headstart.inference.preprocessing import normalise, resize_pixels
from headstart.records import Preprocessing
from headstart.runtime import choose_execution


def pictures(count, size=40, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return ImageList(list(pixels), [f"{i}" for i in range(count)])


def features(extractor, source, rows=None):
    rows = range(len(source)) if rows is None else rows
    return np.concatenate([values for _, _, values in extractor.extract(source, rows)])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_picture_has_the_same_features_in_every_batch(precision):
    network, source = tiny_network(), pictures(21)
    whole = features(FeatureExtractor(network, on_cpu(precision), 64), source)
    for batch_size in (1, 5, 16):
        extractor = FeatureExtractor(network, on_cpu(precision), batch_size)
        assert np.array_equal(features(extractor, source), whole)
    backwards = features(FeatureExtractor(network, on_cpu(precision), 8), source, range(20, -1, -1))
    assert np.array_equal(backwards[::-1], whole)


def test_a_picture_alone_has_the_same_features_with_one_thread():
    """In float32 some kernels change their order of summation between 12 and 16 images."""
    network = build_network(find_backbone("EfficientNetB0"), weights="none", image_size=64)
    extractor = FeatureExtractor(network, choose_execution("cpu", "float32"))
    source, threads = pictures(16, 64), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = features(extractor, source)
        assert np.array_equal(features(extractor, source, range(3)), whole[:3])
    finally:
        torch.set_num_threads(threads)


def test_features_are_those_of_the_plain_way():
    network, source = tiny_network(), pictures(10)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    expected = []
    for image in source.images:
        small = Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
        expected.append(network.module(((x - mean) / std)[None])[0].numpy())
    found = features(FeatureExtractor(network, on_cpu(), 4), source)
    assert np.allclose(found, np.stack(expected), atol=2e-3)


def test_bfloat16_stays_near_float32():
    network, source = tiny_network(), pictures(16)
    exact = features(FeatureExtractor(network, on_cpu("float32")), source).astype(np.float32)
    rounded = features(FeatureExtractor(network, on_cpu("bfloat16")), source).astype(np.float32)
    assert np.abs(exact - rounded).max() < 0.02 * np.abs(exact).max()


def test_unreadable_images_are_named_and_the_rest_goes_on():
    source = pictures(9)
    source.images[4] = b"this is no image"
    rows, facts, values = next(
        FeatureExtractor(tiny_network(), on_cpu(), 16).extract(source, range(9))
    )
    assert [bool(record.problem) for record in facts] == [row == 4 for row in rows]
    assert not values[4].any()
    assert values[5].any()


def test_a_missing_file_is_named():
    class Broken(ImageList):
        def read(self, row):
            raise PermissionError(13, "Permission denied")

    source = Broken([b""], ["secret.png"])
    _, facts, _ = next(FeatureExtractor(tiny_network(), on_cpu()).extract(source, [0]))
    assert facts[0].path == "secret.png"
    assert "Permission denied" in facts[0].problem


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    source = ImageList([tmp_path / "pipe.png"], ["pipe.png"])
    _, facts, _ = next(FeatureExtractor(tiny_network(), on_cpu()).extract(source, [0]))
    assert facts[0].problem == "unreadable file (a pipe, socket or device, not a file)"


def test_a_full_memory_costs_one_image():
    class Greedy(ImageList):
        def read(self, row):
            if row == 1:
                raise MemoryError
            return super().read(row)

    source = pictures(3)
    greedy = Greedy(source.images, source.paths)
    _, facts, _ = next(FeatureExtractor(tiny_network(), on_cpu()).extract(greedy, range(3)))
    assert [record.problem for record in facts] == ["", "too large for the memory", ""]


def test_features_that_do_not_fit_16_bits_are_an_error():
    network = tiny_network()
    network.module.body[3].weight.mul_(1e8)
    with pytest.raises(HeadstartError, match="do not fit 16 bits"):
        features(FeatureExtractor(network, on_cpu()), pictures(2))


def test_batch_norms_keep_float32_statistics():
    network = tiny_network()
    network.module.body[1].running_mean.fill_(1 / 3)
    placed = place_module(network.module, on_cpu("bfloat16"))
    assert placed.body[1].running_mean.dtype == torch.float32
    assert torch.equal(placed.body[1].running_mean, network.module.body[1].running_mean)
    assert placed.body[0].weight.dtype == torch.bfloat16
    assert network.module.body[0].weight.dtype == torch.float32


def test_resizing_keeps_the_whole_picture():
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, :6], pixels[:, -6:] = (255, 0, 0), (0, 0, 255)
    small = resize_pixels(Image.fromarray(pixels), Preprocessing(size=32))
    assert small.shape == (32, 32, 3)
    assert small[16, 0, 0] > 200
    assert small[16, -1, 2] > 200


def test_normalising_matches_its_formula():
    preprocessing = Preprocessing(size=4, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    pixels = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    x = normalise(pixels, preprocessing)
    mean, std = torch.tensor([0.5, 0.25, 0.0]), torch.tensor([0.5, 0.25, 1.0])
    assert torch.allclose(x.permute(0, 2, 3, 1), (pixels / 255 - mean) / std, atol=1e-6)
