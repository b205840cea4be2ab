"""The pass on a CUDA device against the processor's in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import tiny_network

from headstart.backbones import build_network, find_backbone
from headstart.data.views import MIRRORED, WHOLE, View
from headstart.errors import WeightsError
from headstart.inference import FeatureExtractor, ImageList, placing
from headstart.runtime import choose_execution

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

VIEWS = (WHOLE, MIRRORED, View("crop", 1, 0))
TOLERANCE = {"bfloat16": 2e-2, "float32": 2e-3}  # cuDNN's float32 may multiply in TF32


@pytest.fixture(scope="module")
def network():
    return build_network(find_backbone("mini"), weights="bundled", image_size=64)


@pytest.fixture(scope="module")
def source():
    """150 pictures of plain blocks; number 5 cannot be read, and a last batch of 32 has 22."""
    coarse = np.random.default_rng(0).integers(0, 256, (150, 6, 6, 3), dtype=np.uint8)
    images = list(np.kron(coarse, np.ones((1, 12, 12, 1), dtype=np.uint8)))
    images[5] = OSError("gone")
    return ImageList(images, [f"{i}" for i in range(150)])


def all_features(extractor, source, views=VIEWS):
    parts = list(extractor.extract_views(source, range(len(source)), views))
    assert [row for rows, _, _ in parts for row in rows] == list(range(len(source)))
    problems = [f.path for _, facts, _ in parts for f in facts if f.problem]
    assert problems == ["5"]
    return np.concatenate([values for *_, values in parts])


def relative_errors(found, exact):
    """Of each row, by its length; the one that cannot be read left out."""
    kept = np.arange(len(found)) != 5
    exact, found = exact[kept].astype(np.float64), found[kept].astype(np.float64)
    return np.linalg.norm(found - exact, axis=-1) / np.linalg.norm(exact, axis=-1)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("batch_size", [32, 256])
def test_features_are_near_those_of_the_processor(network, source, precision, batch_size):
    extractor = FeatureExtractor(network, choose_execution("cuda", precision), batch_size)
    assert extractor.lag > 0
    found = all_features(extractor, source)
    exact = all_features(FeatureExtractor(network, choose_execution("cpu", "float32")), source)
    assert not found[5].any()
    assert relative_errors(found, exact).max() < TOLERANCE[precision]


def test_batches_in_flight_do_not_meet(network, source):
    """Many small batches, each fetched late, are what each gives when it is waited for."""
    extractor = FeatureExtractor(network, choose_execution("cuda"), 16)
    waited = np.zeros((150, extractor.num_features), dtype=np.float16)
    for start in range(0, 150, 16):  # the same batches, and the same shapes
        part = [row for row in range(start, min(start + 16, 150)) if row != 5]
        pixels = [extractor.prepare(source, row)[1] for row in part]
        waited[part] = extractor.forward(torch.from_numpy(np.stack(pixels)))
    for _ in range(5):
        found = all_features(extractor, source, (WHOLE,))[:, 0]
        np.testing.assert_array_equal(found, waited)


def test_launching_waits_for_nothing(network, source):
    """A launch behind a device that is busy for long returns before the device is done."""
    extractor = FeatureExtractor(network, choose_execution("cuda"), 32)
    blocks = [extractor.prepare(source, row)[1][None] for row in range(6, 38)]
    expected = extractor.launch(blocks)()  # chooses kernels, reserves pinned memory
    busy = torch.cuda.Event()
    torch.cuda._sleep(2_000_000_000)  # cycles: about a second
    busy.record()
    fetch = extractor.launch(blocks)
    assert not busy.query()
    np.testing.assert_array_equal(fetch(), expected)
    assert busy.query()


def test_features_that_do_not_fit_are_an_error_on_the_device_too(source):
    network = tiny_network()
    network.module.body[3].weight.mul_(1e8)
    with pytest.raises(WeightsError, match="do not fit 16 bits"):
        all_features(FeatureExtractor(network, choose_execution("cuda")), source)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_folded_normalisations_give_the_same(network, source, precision, monkeypatch):
    execution = choose_execution("cuda", precision)
    exact = all_features(FeatureExtractor(network, choose_execution("cpu", "float32")), source)
    monkeypatch.setattr(placing, "FOLDING_DEVICES", frozenset({"cpu", "cuda"}))
    folded = FeatureExtractor(network, execution, 32)
    assert folded.key.endswith("-folded")
    assert relative_errors(all_features(folded, source), exact).max() < TOLERANCE[precision]
