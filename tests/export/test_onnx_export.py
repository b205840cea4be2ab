"""An export answers as its bundle, for every family of networks, or it is not kept."""

from __future__ import annotations

import dataclasses
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundles import CLASSES, coarse_pictures, random_bundle
from PIL import Image

import headstart
from headstart import api
from headstart.bundle import load_classifier
from headstart.bundle.onnx_engine import import_onnxruntime, open_session
from headstart.errors import BundleError, DataError, ExportError, OutputError, UsageError
from headstart.export import ExportSettings, export_bundle, job, parity
from headstart.export.examples import write_examples
from headstart.files import digest_file, write_json

# Name, size, units of a hidden layer of the head: our own, timm's, torchvision's; CNNs and a ViT.
FAMILIES = {
    "mini-mlp": ("mini", 47, 16),
    "timm-resnet": ("timm:test_resnet", 64, 0),
    "timm-vit": ("timm:test_vit", 64, 0),
}
LONG = {
    "LeNet5": ("LeNet5", 32, 0),
    "GoogLeNet": ("GoogLeNet", 64, 0),
    "MobileNetV3Small": ("MobileNetV3Small", 64, 0),
    "ViTSmall": ("ViTSmall", 64, 0),
    "ConvNeXtTiny": ("ConvNeXtTiny", 64, 8),
    "DenseNet121": ("DenseNet121", 64, 0),
}
MARKED = [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)]


@pytest.fixture(scope="module", params=MARKED)
def exported(request, tmp_path_factory):
    """One network's bundle and its export."""
    name, size, hidden = (FAMILIES | LONG)[request.param]
    place = tmp_path_factory.mktemp("exported")
    bundle = random_bundle(place / "model", name, size, hidden=hidden)
    return bundle, export_bundle(bundle, ExportSettings(with_resize=True))


@pytest.fixture(scope="module")
def lenet(tmp_path_factory):
    """The quickest one, with int8; the tests leave it as it is."""
    place = tmp_path_factory.mktemp("lenet")
    bundle = random_bundle(place / "model", "LeNet5", 32)
    return bundle, export_bundle(bundle, ExportSettings(largest_bytes=1), out=place / "out")


@pytest.fixture
def copy(lenet, tmp_path):
    """The export in a place of its own."""
    for path in lenet[1].out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def prepared(classifier, count=5):
    pictures = coarse_pictures(count, seed=9)
    source = headstart.bundle.classifier.as_source(pictures)
    return np.stack([classifier.extractor.prepare(source, row)[1] for row in range(count)])


def relist(folder):
    """The manifest of the files as they are now."""
    manifest = json.loads((folder / "manifest.json").read_text())["sha256"]
    files = {name: digest_file(folder / name) for name in manifest if (folder / name).exists()}
    write_json(folder / "manifest.json", {"sha256": files})


def test_both_engines_say_the_same(exported):
    bundle, result = exported
    reference = load_classifier(bundle, device="cpu", precision="float32")
    graph = load_classifier(result.out, engine="onnx")
    pictures = coarse_pictures(12, seed=5)
    ours, theirs = reference.predict(pictures), graph.predict(pictures)
    assert theirs.class_names == CLASSES
    assert np.abs(ours.probabilities - theirs.probabilities).max() < parity.TOLERANCE
    assert len({tuple(row) for row in ours.probabilities.round(2).tolist()}) > 3, "all alike"
    np.testing.assert_allclose(theirs.outlier_scores, ours.outlier_scores, rtol=0.01)
    near = np.abs(ours.outlier_scores / reference.confidence.outlier_threshold - 1) < 0.01
    assert np.array_equal(ours.unknown[~near], theirs.unknown[~near])
    near = np.abs(1 - ours.probabilities - 0.8) < parity.TOLERANCE
    assert np.array_equal(ours.sets[~near], theirs.sets[~near])


def test_the_file_alone_says_it_too(exported):
    bundle, result = exported
    reference = load_classifier(bundle, device="cpu", precision="float32")
    session = open_session(result.out / "model.onnx")
    pixels = prepared(reference, 9)
    expected = reference.answer_pixels(pixels)
    names = [output.name for output in session.get_outputs()]
    assert names == ["probabilities", "features", "outlier_score"]
    found = dict(zip(names, session.run(None, {"pixels": pixels}), strict=True))
    assert np.abs(found["probabilities"] - expected.probabilities).max() < parity.TOLERANCE
    np.testing.assert_allclose(found["outlier_score"], expected.outlier_scores, rtol=0.01)
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, atol=1e-5)
    for count in (1, 2, 9):  # traced with two; any number must pass
        (alone,) = session.run(["probabilities"], {"pixels": pixels[:count]})
        np.testing.assert_allclose(alone, found["probabilities"][:count], atol=1e-5)


def test_the_proof_is_written_down_and_true(exported):
    bundle, result = exported
    stored = json.loads((result.out / "parity.json").read_text())
    proof = stored["model.onnx"]
    assert proof["num_images"] == 64
    assert "drawn" in stored["images"]
    assert proof["same_class"] >= 63
    assert proof["largest_probability_difference"] <= stored["tolerance"]
    assert proof["headstart_onnx"]["largest_probability_difference"] <= stored["tolerance"]
    assert stored["exported_from"] == digest_file(bundle / "manifest.json")
    resizing = stored["model-resize.onnx"]
    assert resizing["largest_pixel_difference"] <= 1
    assert resizing["equal_pixels_fraction"] > 0.99


def test_the_resizing_graph_takes_any_size(exported):
    bundle, result = exported
    reference = load_classifier(bundle, device="cpu", precision="float32")
    session = open_session(result.out / "model-resize.onnx")
    for picture in coarse_pictures(3, seed=2):
        (chances,) = session.run(["probabilities"], {"image": picture[None]})
        expected = reference.predict(picture).probabilities
        assert np.abs(chances - expected).max() < 0.02


def test_a_large_photo_is_proved_as_the_network_sees_it(lenet, tmp_path):
    """A JPEG of 512 px is decoded at an eighth for 32 px; its full size is told apart."""
    bundle, _ = lenet
    noise = np.random.default_rng(0).integers(0, 256, (512, 640, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for number in range(2):
        Image.fromarray(noise[:, ::-1] if number else noise).save(
            tmp_path / "photos" / f"{number}.jpg", quality=95
        )
    settings = ExportSettings(with_resize=True, data=str(tmp_path / "photos"))
    found = export_bundle(bundle, settings, out=tmp_path / "out").parity["model-resize.onnx"]
    assert found["num_scaled_in_decoding"] == found["num_images"] == 2
    assert found["largest_pixel_difference"] <= 1
    assert found["largest_probability_difference_of_full_decoding"] > 0


def test_the_torch_program_builds_every_family(exported, tmp_path, monkeypatch, capsys):
    """In this process: where torch and torchvision do not fit, timm needs Headstart's remedy."""
    bundle, result = exported
    pictures = turned_and_grey(tmp_path)
    monkeypatch.setattr(sys, "argv", ["answer_torch.py", *map(str, pictures)])
    monkeypatch.syspath_prepend(str(result.out))
    monkeypatch.delitem(sys.modules, "network", raising=False)
    runpy.run_path(str(result.out / "answer_torch.py"), run_name="__main__")
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = load_classifier(bundle, device="cpu", precision="float32").predict(pictures)
    chances = np.array([[a["probabilities"][name] for name in CLASSES] for a in found])
    assert np.abs(chances - expected.probabilities).max() < parity.TOLERANCE


def test_a_network_that_no_library_builds_gets_no_torch_program(lenet, tmp_path):
    classifier = load_classifier(lenet[0])
    network = classifier.network
    assert "answer_torch.py" in write_examples(tmp_path, classifier)
    wrapped = torch.nn.Sequential(network.module)
    classifier.extractor.network = dataclasses.replace(network, module=wrapped)
    assert write_examples(tmp_path, classifier) == ["answer.py"]


def test_metadata_say_everything(lenet):
    bundle, result = lenet
    about = json.loads((bundle / "bundle.json").read_text())
    model = onnx.load(str(result.out / "model.onnx"), load_external_data=False)
    stored = {e.key.removeprefix("headstart."): json.loads(e.value) for e in model.metadata_props}
    assert stored["class_names"] == list(CLASSES)
    assert stored["preprocessing"] == about["preprocessing"]
    assert "32 x 32 px" in stored["resize_policy"]
    assert stored["decoder_version"] == about["decoder_version"]
    assert stored["temperature"] == 1.3
    assert stored["sets"]["thresholds"] == [0.8] * 3
    assert stored["outlier_threshold"] == about["confidence"]["outlier_threshold"]
    assert stored["decision"] == about["confidence"]["decision"]
    assert stored["decision"]["threshold"] == 0.3
    assert stored["weights_licence"] == about["backbone"]["weights"]["licence"]
    assert stored["exported_from"] == load_classifier(bundle).root_digest


def test_large_tensors_lie_beside_the_graph_and_under_the_manifest(copy):
    listed = json.loads((copy / "manifest.json").read_text())["sha256"]
    assert {"model.onnx", "model.onnx.data", "parity.json"} <= set(listed)
    answered = load_classifier(copy, engine="onnx").predict(coarse_pictures(3)).probabilities
    expected = load_classifier(copy, precision="float32", device="cpu").predict(coarse_pictures(3))
    assert np.abs(answered - expected.probabilities).max() < parity.TOLERANCE
    raw = bytearray((copy / "model.onnx.data").read_bytes())
    raw[100] ^= 1
    (copy / "model.onnx.data").write_bytes(raw)
    with pytest.raises(BundleError, match=r"model\.onnx\.data' was changed"):
        load_classifier(copy, engine="onnx")


def test_the_export_is_a_bundle_with_a_digest_of_its_own(lenet):
    bundle, result = lenet
    source, export = load_classifier(bundle), load_classifier(result.out)
    pictures = coarse_pictures(4)
    assert np.array_equal(
        source.predict(pictures).probabilities, export.predict(pictures).probabilities
    )
    assert export.root_digest == result.model_digest != source.root_digest
    assert load_classifier(result.out, engine="onnx", expect_digest=result.model_digest)


def test_a_tampered_graph_is_refused(copy):
    raw = bytearray((copy / "model.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / "model.onnx").write_bytes(raw)
    with pytest.raises(BundleError, match=r"model\.onnx' was changed"):
        load_classifier(copy, engine="onnx")


def change_metadata(folder, **changes):
    path = folder / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    kept |= {f"headstart.{key}": json.dumps(value) for key, value in changes.items()}
    onnx.helper.set_model_props(model, {k: v for k, v in kept.items() if v != "null"})
    path.write_bytes(model.SerializeToString())
    relist(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata_version": 99}, "Update Headstart"),
        ({"metadata_version": None}, "not exported by Headstart"),
        ({"class_names": ["dog", "cat", "ötter/x"]}, "its class names differs"),
        ({"preprocessing": {"size": 32}}, "its preprocessing differs"),
    ],
)
def test_a_graph_of_another_model_is_refused_though_digests_fit(copy, changes, said):
    change_metadata(copy, **changes)
    with pytest.raises(BundleError, match=said):
        load_classifier(copy, engine="onnx")


def test_a_graph_that_the_manifest_does_not_list_is_not_run(lenet, copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["sha256"]["model.onnx"]
    write_json(copy / "manifest.json", manifest)
    with pytest.raises(BundleError, match=r"has no model\.onnx"):
        load_classifier(copy, engine="onnx")


def test_what_is_no_graph_is_one_sentence(copy):
    (copy / "model.onnx").write_bytes(b"not a graph")
    relist(copy)
    with pytest.raises(BundleError, match="cannot be run"):
        load_classifier(copy, engine="onnx")


@pytest.mark.parametrize("place", ["{elsewhere}/data", "../elsewhere/data", "link", "data"])
def test_a_graph_cannot_read_files_elsewhere(copy, tmp_path_factory, monkeypatch, place):
    """Not by name, not by a link, and not from where the program happens to be."""
    elsewhere = copy.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (copy / "model.onnx.data").rename(elsewhere / "data")
    (copy / "link").symlink_to(elsewhere / "data")
    monkeypatch.chdir(elsewhere)
    model = onnx.load(str(copy / "model.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place.format(elsewhere=elsewhere)
    (copy / "model.onnx").write_bytes(model.SerializeToString())
    relist(copy)
    with pytest.raises(BundleError, match="cannot be run"):
        load_classifier(copy, engine="onnx")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "tensorrt"}, "must be one of torch, onnx, onnx-int8"),
        ({"engine": "onnx", "device": "cuda"}, "computes on the processor"),
        ({"engine": "onnx", "precision": "bfloat16"}, "the precision of its file"),
        ({"engine": "onnx-int8"}, r"has no model-int8\.onnx.*--int8"),
    ],
)
def test_settings_that_an_engine_lacks_are_refused(lenet, options, said):
    with pytest.raises(UsageError, match=said):
        load_classifier(lenet[1].out, **options)


def test_a_difference_above_the_tolerance_leaves_nothing(tmp_path, monkeypatch):
    bundle = random_bundle(tmp_path / "model", "LeNet5", 32)
    wrong = load_classifier(bundle, device="cpu", precision="float32")
    wrong.confidence = headstart.bundle.confidence.Confidence(temperature=2.0)
    real = job.write_graph

    def write_other(folder, classifier, **options):
        return real(folder, wrong, **options)

    monkeypatch.setattr(job, "write_graph", write_other)
    with pytest.raises(ExportError, match=r"does not answer as its bundle.*0\.001 is let pass"):
        export_bundle(bundle, ExportSettings())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert ExportError.exit_code == 1


def test_a_folder_that_is_taken_is_left_as_it_is(lenet, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    for out, said in ((tmp_path, "is there already"), (tmp_path / "mine.txt", "is a file")):
        with pytest.raises(OutputError, match=said):
            export_bundle(lenet[0], ExportSettings(), out=out)
    assert (tmp_path / "mine.txt").read_text() == "x"


def test_int8_needs_real_pictures(lenet, tmp_path):
    with pytest.raises(UsageError, match="there are none at hand"):
        export_bundle(lenet[0], ExportSettings(int8=True), out=tmp_path / "out")
    with pytest.raises(DataError, match="nothere"):
        api.export(lenet[0], data=tmp_path / "nothere", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_names_its_install_command(lenet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(headstart.errors.MissingExtraError, match=r"headstart\[export\]"):
        export_bundle(lenet[0], ExportSettings(), out=tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(headstart.errors.MissingExtraError, match=r"headstart\[export\]"):
        load_classifier(lenet[1].out, engine="onnx")


BLOCKED = """
import runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "headstart":
            raise ImportError("headstart is blocked")
sys.meta_path.insert(0, Block())
program, *pictures = sys.argv[1:]
sys.argv = [program, *pictures]
sys.path[0] = str(__import__("pathlib").Path(program).parent)
runpy.run_path(program, run_name="__main__")
assert "headstart" not in sys.modules
"""


def answers_alone(program: Path, pictures: list[Path]) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(program), *map(str, pictures)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def turned_and_grey(folder: Path) -> list[Path]:
    """A turned JPEG, a grey PNG and a plain PNG."""
    first, second, third = (Image.fromarray(p) for p in coarse_pictures(3, seed=7))
    exif = Image.Exif()
    exif[0x0112] = 6
    first.save(folder / "turned.jpg", exif=exif)
    second.convert("L").save(folder / "grey.png")
    third.save(folder / "plain.png")
    return [folder / name for name in ("turned.jpg", "grey.png", "plain.png")]


@pytest.mark.parametrize("program", ["answer.py", "answer_torch.py"])
def test_the_programs_answer_without_headstart(copy, tmp_path_factory, program):
    pictures = turned_and_grey(tmp_path_factory.mktemp("pictures"))
    expected = load_classifier(copy, device="cpu", precision="float32").predict(pictures)
    found = answers_alone(copy / program, pictures)
    assert [a["class"] for a in found] == expected.names
    chances = np.array([[a["probabilities"][name] for name in CLASSES] for a in found])
    assert np.abs(chances - expected.probabilities).max() < parity.TOLERANCE
    assert [a["called_positive"] for a in found] == expected.called.tolist()
    assert {a["positive"] for a in found} == {CLASSES[1]}
    if program == "answer.py":
        sets = [[n for n, held in zip(CLASSES, row, strict=True) if held] for row in expected.sets]
        assert [a["set"] for a in found] == sets
        assert [a["unknown"] for a in found] == expected.unknown.tolist()


def test_the_program_is_about_thirty_lines(lenet):
    program = (lenet[1].out / "answer.py").read_text()
    assert sum(bool(line.strip()) for line in program.splitlines()) <= 37


def test_telemetry_is_off(monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    import_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
