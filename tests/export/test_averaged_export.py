"""A bundle that averages over mirror images: its ONNX file mirrors by itself and says the same."""

from __future__ import annotations

import json
import runpy
import shutil
import sys

import numpy as np
import pytest
from bundles import coarse_pictures, random_bundle
from PIL import Image

from headstart.bundle import load_classifier
from headstart.bundle.classifier import as_source
from headstart.bundle.onnx_engine import open_session
from headstart.errors import BundleError
from headstart.export import ExportSettings, export_bundle, parity
from headstart.export.quantising import nodes_after_features
from headstart.files import digest_file, read_json, write_json


@pytest.fixture(scope="module", params=[("LeNet5", 32, 16), ("timm:test_vit", 64, 0)], ids=str)
def exported(request, tmp_path_factory):
    """One network's bundle and its export, LeNet5 with an int8 file."""
    name, size, hidden = request.param
    place = tmp_path_factory.mktemp("averaged")
    (place / "pictures").mkdir()
    for number, pixels in enumerate(coarse_pictures(24, seed=4)):
        Image.fromarray(pixels).save(place / "pictures" / f"{number:02d}.png")
    bundle = random_bundle(place / "model", name, size, hidden=hidden, tta="flip")
    wanted = ExportSettings(with_resize=True, int8=name == "LeNet5", data=str(place / "pictures"))
    return bundle, export_bundle(bundle, wanted)


def reference(bundle):
    return load_classifier(bundle, device="cpu", precision="float32")


def test_both_engines_say_the_same(exported):
    bundle, result = exported
    graph = load_classifier(result.out, engine="onnx")
    pictures = coarse_pictures(12, seed=5)
    ours, theirs = reference(bundle).predict(pictures), graph.predict(pictures)
    assert np.abs(ours.probabilities - theirs.probabilities).max() < parity.TOLERANCE
    np.testing.assert_allclose(theirs.outlier_scores, ours.outlier_scores, rtol=0.01)
    turned = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures[:4]]
    assert (
        np.abs(graph.predict(turned).probabilities - theirs.probabilities[:4]).max() < 0.01
    )  # the resize in between rounds


def test_the_file_alone_averages(exported):
    bundle, result = exported
    classifier = reference(bundle)
    source = as_source(coarse_pictures(9, seed=9))
    pixels = np.stack([classifier.extractor.prepare(source, row)[1] for row in range(9)])
    expected = classifier.answer_pixels(pixels)
    session = open_session(result.out / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    assert names == ["probabilities", "features", "mirrored_features", "outlier_score"]
    found = dict(zip(names, session.run(None, {"pixels": pixels}), strict=True))
    assert np.abs(found["probabilities"] - expected.probabilities).max() < parity.TOLERANCE
    np.testing.assert_allclose(found["outlier_score"], expected.outlier_scores, rtol=0.01)
    turned = np.ascontiguousarray(pixels[:, :, ::-1])
    other = dict(zip(names, session.run(None, {"pixels": turned}), strict=True))
    np.testing.assert_allclose(other["mirrored_features"], found["features"], rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(other["probabilities"], found["probabilities"], atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["headstart.tta"]) == "flip"


def test_an_answer_without_averaging_would_be_noticed(exported, tmp_path):
    """The proof compares what it should: the same bundle without `tta` answers otherwise."""
    bundle, result = exported
    for path in bundle.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    about = read_json(tmp_path / "bundle.json")
    about["confidence"]["tta"] = None
    write_json(tmp_path / "bundle.json", about)
    relist(tmp_path)
    pictures = coarse_pictures(12, seed=5)
    plain = reference(tmp_path).predict(pictures)
    averaged = load_classifier(result.out, engine="onnx").predict(pictures)
    assert np.abs(plain.probabilities - averaged.probabilities).max() > 10 * parity.TOLERANCE


def test_a_graph_that_does_not_average_is_refused_beside_such_a_bundle(exported, tmp_path):
    _, result = exported
    for path in result.out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    about = read_json(tmp_path / "bundle.json")
    about["confidence"]["tta"] = None
    write_json(tmp_path / "bundle.json", about)
    relist(tmp_path)
    with pytest.raises(BundleError, match="its averaging over views differs"):
        load_classifier(tmp_path, engine="onnx")


def relist(folder):
    """The manifest of the files as they are now."""
    manifest = read_json(folder / "manifest.json")["sha256"]
    files = {name: digest_file(folder / name) for name in manifest}
    write_json(folder / "manifest.json", {"sha256": files})


def test_the_graph_that_resizes_averages_too(exported):
    _, result = exported
    proved = result.parity["model-resize.onnx"]
    assert proved["largest_probability_difference_on_equal_pixels"] < parity.TOLERANCE


def test_int8_averages_too(exported):
    bundle, result = exported
    if not (result.out / "model-int8.onnx").is_file():
        pytest.skip("int8 was not asked of this network")
    pictures = coarse_pictures(12, seed=5)
    int8 = load_classifier(result.out, engine="onnx-int8").predict(pictures)
    expected = reference(bundle).predict(pictures)
    assert np.abs(int8.probabilities - expected.probabilities).max() < 0.25


@pytest.mark.parametrize("program", ["answer.py", "answer_torch.py"])
def test_the_programs_beside_an_export_average_too(
    exported, tmp_path, monkeypatch, capsys, program
):
    bundle, result = exported
    path = tmp_path / "picture.png"
    Image.fromarray(coarse_pictures(1, seed=3)[0]).save(path)
    expected = reference(bundle).predict(path)
    monkeypatch.setattr(sys, "argv", [program, str(path)])
    monkeypatch.syspath_prepend(str(result.out))
    monkeypatch.delitem(sys.modules, "network", raising=False)
    runpy.run_path(str(result.out / program), run_name="__main__")
    answer = json.loads(capsys.readouterr().out)
    told = [answer["probabilities"][name] for name in expected.class_names]
    np.testing.assert_allclose(told, expected.probabilities[0], atol=parity.TOLERANCE)


def test_nothing_behind_the_rounding_is_quantised(exported, tmp_path):
    """`features` is a part of what the head takes; the walk must begin before it."""
    import onnx

    _, result = exported
    shutil.copy(result.out / "model.onnx", tmp_path)
    kept = set(nodes_after_features(tmp_path / "model.onnx"))
    nodes = list(onnx.load(str(tmp_path / "model.onnx")).graph.node)
    rounding = max(n for n, node in enumerate(nodes) if node.op_type == "Cast"
                   and any(a.i == onnx.TensorProto.FLOAT16 for a in node.attribute))  # fmt: skip
    behind = [node.name for node in nodes[rounding + 1 :] if node.op_type in ("Gemm", "MatMul")]
    assert behind
    assert set(behind) <= kept
