"""What else computes on a GPU: features, comparison, export, service, estimator, doctor, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import coarse_pictures
from pictures import paint_colours
from placing import DEVICE, ON_DEVICE, ON_GPU, needs_gpu

import headstart
from headstart.api import evaluate
from headstart.backbones import build_network, find_backbone
from headstart.inference import FeatureExtractor, ImageList
from headstart.runs import RunSettings, run_job
from headstart.runtime import choose_execution

pytestmark = ON_DEVICE

ROOT = Path(__file__).parents[2]


def features_of(network, device, precision, batch_size=0):
    source = ImageList(coarse_pictures(20), [str(i) for i in range(20)])
    extractor = FeatureExtractor(network, choose_execution(device, precision), batch_size)
    return np.concatenate([values for _, _, values in extractor.extract(source, range(20))])


def apart(found, expected):
    """Relative difference, root mean square."""
    expected = expected.astype(np.float64)
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


@pytest.fixture(scope="module")
def mini():
    return build_network(find_backbone("mini"), image_size=64)


def test_float32_means_float32(mini):
    """In TF32 the features would be off by about 1e-3; rounded to 16 bits they are off by 3e-4."""
    expected = features_of(mini, "cpu", "float32")
    assert apart(features_of(mini, DEVICE, "float32"), expected) < 3e-4


@needs_gpu
def test_bfloat16_is_near(mini):
    assert apart(features_of(mini, DEVICE, "bfloat16"), features_of(mini, "cpu", "float32")) < 0.02


def test_a_pass_repeats_itself_to_the_bit(mini):
    passes = [features_of(mini, DEVICE, "auto") for _ in range(2)]
    assert np.array_equal(*passes)


def test_auto_takes_the_gpu():
    execution = choose_execution()
    assert execution.device == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Three classes of twelve pictures."""
    return paint_colours(tmp_path_factory.mktemp("gpu-elsewhere") / "colours")


@pytest.fixture(scope="module")
def learnt(colours):
    """A run of a linear head on `mini`, made on the device."""
    out = colours.parent / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(colours.parent / "cache"))
        run_job(settings(colours, out))
    return out


def settings(data, out, **changes):
    common = {"folds": 2, "image_size": 32, "audit": "none", "learning_curve": False}
    return RunSettings(data=str(data), out=str(out), device=DEVICE, **{**common, **changes})


def test_evaluation_agrees_with_the_processor(learnt, colours):
    found = [
        evaluate(learnt, colours, device=device, precision="float32") for device in (DEVICE, "cpu")
    ]
    (there,), (here,) = [list(one.values()) for one in found]
    figures = [part["figures"]["log_loss"]["value"] for part in (there, here)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)


def test_a_comparison_tells_the_memory_of_the_device(colour_folder, tmp_path):
    from headstart.studies import ComparisonSettings, compare_jobs

    common = {
        "data": str(colour_folder), "folds": "2", "image_size": 32, "audit": "none",
        "epochs": "1", "device": DEVICE,
    }  # fmt: skip
    asked = ComparisonSettings(
        out=str(tmp_path / "which"), settings=common, models=["mini"],
        strategies=["probe", "full"], repeats=1,
    )  # fmt: skip
    out = compare_jobs(asked).out
    measured = [json.loads(path.read_text()) for path in out.glob("*/candidate.json")]
    assert len(measured) == 2
    for one in measured:
        assert one["memory_of"] == ("the GPU" if ON_GPU else "the process")
        assert one["peak_memory_mib"] > 10


def test_an_export_of_a_model_from_the_device_is_proved(colours, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from headstart.export import ExportSettings, export_bundle

    tuned = {"strategy": "full", "epochs": "1", "batch_size": 8}
    run_job(settings(colours, tmp_path / "run", **tuned))
    result = export_bundle(tmp_path / "run", ExportSettings())
    assert "model.onnx" in result.files
    proof = result.parity["model.onnx"]
    assert proof["largest_probability_difference"] < result.parity["tolerance"]


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_the_served_model_passes_its_golden_check(learnt, precision):
    from headstart.serve.model import load_model
    from headstart.serve.settings import ServeSettings

    asked = ServeSettings(bundle=str(learnt), engine="torch", device=DEVICE, precision=precision)
    served = load_model(asked)
    assert served.classifier.extractor.execution.device == DEVICE
    found = served.classifier.predict([served.golden.picture])
    assert served.golden_problem(found.probabilities[0]) == ""
    pixels = np.stack([served.classifier.extractor.prepare(ImageList([p], ["p"]), 0)[1]
                       for p in coarse_pictures(3)])  # fmt: skip
    assert len(served.answer(pixels)) == 3


@pytest.mark.parametrize("head", ["logistic", "mlp"])
def test_the_estimator_agrees_with_the_processor(colour_folder, head):
    paths = sorted(str(path) for path in colour_folder.glob("*/*.png"))
    labels = [path.split("/")[-2] for path in paths]
    options = {"image_size": 32, "head": head, "precision": "float32"}
    there = headstart.ImageClassifier(**options, device=DEVICE).fit(paths, labels)
    here = headstart.ImageClassifier(**options, device="cpu").fit(paths, labels)
    assert there.score(paths, labels) > 0.9
    assert np.abs(there.predict_proba(paths) - here.predict_proba(paths)).max() < 0.02


def test_the_doctor_names_the_device():
    from headstart.survey import examine_installation

    machine = examine_installation()["Machine"]
    if ON_GPU:
        assert str(machine["device"]).startswith("cuda in ")
        assert torch.cuda.get_device_name() in str(machine["machine"])


def test_a_picture_alone_and_among_others_get_one_answer(learnt):
    classifier = headstart.load(learnt, device=DEVICE, precision="float32")
    pictures = coarse_pictures(20)
    together = classifier.predict(pictures).probabilities
    alone = np.concatenate([classifier.predict([p]).probabilities for p in pictures[:3]])
    assert np.abs(together[:3] - alone).max() < 1e-3


def test_pictures_are_decoded_by_processes_beside_the_gpu(learnt, colours):
    classifier = headstart.load(learnt, device=DEVICE)
    found = classifier.predict(colours)
    assert len(found.paths) == 36
    assert found.good.all()


STARVED = """
import sys, torch
torch.cuda.set_per_process_memory_fraction(0.0005)
from headstart.cli import main
main()
"""


@needs_gpu
def test_a_full_memory_is_one_sentence_and_leaves_the_run(colour_folder, tmp_path):
    out = tmp_path / "run"
    words = ["run", "--data", colour_folder, "--out", out, "--image-size", "448", "--device"]
    words += ["cuda", "--folds", "2", "--audit", "none"]
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    found = subprocess.run(
        [sys.executable, "-c", STARVED, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
    )
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("headstart: The GPU's memory is full (CUDA out of memory"), found.stderr
    assert "--batch-size" in last
    assert "Traceback" not in found.stderr
    assert found.returncode == 2
    assert (out / "run.json").is_file()
