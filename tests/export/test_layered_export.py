"""A bundle on features of several stages: its ONNX files say the same."""

from __future__ import annotations

import numpy as np
import pytest
from bundles import coarse_pictures, random_bundle
from PIL import Image

from headstart.bundle import load_classifier
from headstart.bundle.classifier import as_source
from headstart.bundle.onnx_engine import open_session
from headstart.export import ExportSettings, export_bundle, parity

KINDS = [("mini", 32, "3"), ("mini", 32, "stage1,stage3"), ("timm:test_vit", 64, "2")]


@pytest.fixture(scope="module", params=KINDS, ids=str)
def exported(request, tmp_path_factory):
    """One network's bundle and its export, the first with an int8 file."""
    name, size, layers = request.param
    place = tmp_path_factory.mktemp("layered")
    (place / "pictures").mkdir()
    for number, pixels in enumerate(coarse_pictures(24, seed=4)):
        Image.fromarray(pixels).save(place / "pictures" / f"{number:02d}.png")
    bundle = random_bundle(place / "model", name, size, layers=layers)
    wanted = ExportSettings(int8=layers == "3", data=str(place / "pictures"))
    return bundle, export_bundle(bundle, wanted)


def test_both_engines_say_the_same(exported):
    bundle, result = exported
    pictures = coarse_pictures(12, seed=5)
    ours = load_classifier(bundle, device="cpu", precision="float32").predict(pictures)
    theirs = load_classifier(result.out, engine="onnx").predict(pictures)
    assert np.abs(ours.probabilities - theirs.probabilities).max() < parity.TOLERANCE
    np.testing.assert_allclose(theirs.outlier_scores, ours.outlier_scores, rtol=0.01)
    assert ours.probabilities.std(axis=0).max() > 0.05, "pictures are told apart"


def test_every_part_of_the_graphs_features_has_length_one(exported):
    bundle, result = exported
    classifier = load_classifier(bundle, device="cpu", precision="float32")
    source = as_source(coarse_pictures(4, seed=9))
    pixels = np.stack([classifier.extractor.prepare(source, row)[1] for row in range(4)])
    session = open_session(result.out / "model.onnx")
    features = session.run(["features"], {"pixels": pixels})[0]
    ends = np.cumsum(list(classifier.network.layers.values()))[:-1]
    for part in np.split(features, ends, axis=1):
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), 1, atol=1e-3)


def test_int8_answers_too(exported):
    bundle, result = exported
    if not (result.out / "model-int8.onnx").is_file():
        pytest.skip("int8 was not asked of this bundle")
    pictures = coarse_pictures(12, seed=5)
    int8 = load_classifier(result.out, engine="onnx-int8").predict(pictures)
    ours = load_classifier(bundle, device="cpu", precision="float32").predict(pictures)
    assert np.abs(int8.probabilities - ours.probabilities).max() < 0.25
