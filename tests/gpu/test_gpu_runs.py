"""Whole runs on a GPU: they learn, repeat themselves, resume, and their bundles work elsewhere."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from pictures import paint_colours
from placing import DEVICE, ON_DEVICE, ON_GPU, needs_gpu

import headstart
from headstart.backbones import build_network, find_backbone
from headstart.data import load_images
from headstart.errors import ResumeError
from headstart.features import extract_features
from headstart.finetune.records.keeping import Keeper
from headstart.inference import FeatureExtractor
from headstart.progress import Progress
from headstart.runs import RunSettings, run_job
from headstart.runs.files import outputs
from headstart.runs.fitting import tuned
from headstart.runtime import choose_execution

pytestmark = ON_DEVICE

FIGURES = ("metrics.json", "predictions.csv", "out_of_fold_predictions.csv", "splits.csv")
PROBE = {"strategy": "probe"}
TWO_STAGE = {
    "strategy": "two-stage", "epochs": "1,1", "lr": 0.003, "batch_size": 8,
    "augment": "flip:0.5", "train": "clip_norm=1",
}  # fmt: skip
KINDS = {
    "logistic": PROBE,
    "mlp": {**PROBE, "head": "mlp"},
    "full": {"strategy": "full", "epochs": "1", "lr": 0.001, "batch_size": 8},
    "partial": {"strategy": "partial", "epochs": "1", "lr": 0.001, "batch_size": 8},
    "two-stage": TWO_STAGE,
    "scratch": {"strategy": "scratch", "weights": "none", "epochs": "1", "batch_size": 8},
}
# Largest difference of a probability between a GPU in bfloat16 and a processor in float32.
IN_BFLOAT16 = 0.05


def settings(data, out, **changes):
    common = {
        "folds": 2, "image_size": 32, "audit": "none", "learning_curve": False, "device": DEVICE,
    }  # fmt: skip
    return RunSettings(data=str(data), out=str(out), **{**common, **changes})


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def figures(folder):
    """The figures of a run, without what the clock says."""
    found = {name: (folder / name).read_bytes() for name in FIGURES}
    for name in ("cv_results.csv", "history.csv"):
        found[name] = [
            {key: value for key, value in row.items() if not key.endswith("seconds")}
            for row in read_csv(folder / name)
        ]
    return found


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Three classes of twelve pictures."""
    return paint_colours(tmp_path_factory.mktemp("gpu-runs") / "colours")


@pytest.fixture(autouse=True)
def runs_draw_nothing(monkeypatch):
    """Drawing is most of the time of a small run, and has nothing to do with a GPU."""
    for module in (outputs, tuned):
        monkeypatch.setattr(module, "write_figure", lambda path, figure: path.touch())


@pytest.fixture(scope="module")
def finished(colours, tmp_path_factory):
    """A function that gives the finished run of a kind, made once."""
    made = {}

    def run(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("HEADSTART_CACHE", str(folder / "cache"))
                made[kind] = run_job(settings(colours, folder / "run", **KINDS[kind]))
        return made[kind]

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_on_the_device_and_learns(finished, kind):
    result = finished(kind)
    assert result.record["status"] == "finished"
    assert result.record["engine"]["device"] == DEVICE
    accuracy = result.metrics["cross_validation"]["figures"]["accuracy"]["value"]
    assert kind == "scratch" or accuracy > 0.8  # one epoch from random weights learns nothing


@pytest.mark.parametrize("kind", KINDS)
def test_its_bundle_answers_alike_on_the_device_and_on_the_processor(finished, colours, kind):
    result = finished(kind)
    told = read_csv(result.out / "predictions.csv")
    pictures = [colours / row["path"] for row in told]
    there = headstart.load(result.out, device=DEVICE).predict(pictures)
    written = [[float(row[f"prob_{name}"]) for name in there.class_names] for row in told]
    assert np.allclose(written, there.probabilities, atol=1e-5)
    here = headstart.load(result.out, device="cpu", precision="float32").predict(pictures)
    assert np.abs(here.probabilities - there.probabilities).max() < IN_BFLOAT16


@pytest.mark.parametrize("kind", ["logistic", "mlp", "full", "two-stage"])
def test_the_same_seed_gives_the_same_figures(finished, colours, tmp_path, kind):
    again = run_job(settings(colours, tmp_path / "again", **KINDS[kind]))
    assert figures(again.out) == figures(finished(kind).out)
    same = (again.out / "model" / "weights.safetensors").read_bytes()
    assert same == (finished(kind).out / "model" / "weights.safetensors").read_bytes()


def test_an_interrupted_run_ends_with_the_same_figures(finished, colours, tmp_path, monkeypatch):
    kept, saves = Keeper.save, []

    def stop(self, state, current):
        kept(self, state, current)
        saves.append(sum(state.epochs))
        if len(saves) == 4:  # two epochs and the end of the first fold, one of the second
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(settings(colours, tmp_path / "run", **TWO_STAGE))
    resumed = run_job(settings(colours, tmp_path / "run", **TWO_STAGE), resume=True)
    assert figures(resumed.out) == figures(finished("two-stage").out)


@needs_gpu
def test_a_run_that_began_on_the_gpu_does_not_go_on_elsewhere(colours, tmp_path, monkeypatch):
    def stop(self, state, current):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(settings(colours, tmp_path / "run", **TWO_STAGE, precision="float32"))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["settings"]["device"] = "cpu"
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    there = {**TWO_STAGE, "device": "cpu", "precision": "float32"}
    asked = settings(colours, tmp_path / "run", **there)
    with pytest.raises(ResumeError, match=r"began on .*-cuda-float32-ieee.* go on with .*-cpu-"):
        run_job(asked, resume=True)


def test_features_of_two_devices_and_precisions_are_kept_apart(colours, monkeypatch):
    placings = [{}, {"device": "cpu", "precision": "float32"}]
    placings += [{"precision": "float32"}] if ON_GPU else []
    keys = {choose_execution(**{"device": DEVICE, **placing}).key for placing in placings}
    launched, passed = FeatureExtractor._launched, []

    def counted(self, pixels):
        passed.append(len(pixels))
        return launched(self, pixels)

    monkeypatch.setattr(FeatureExtractor, "_launched", counted)
    for number, placing in enumerate(placings):
        table = load_images([colours])
        network = build_network(find_backbone("mini"), image_size=32)
        extractor = FeatureExtractor(network, choose_execution(**{"device": DEVICE, **placing}))
        extract_features(table, extractor, progress=Progress())
        extract_features(table, extractor, progress=Progress())
        assert sum(passed) == 36 * min(number + 1, len(keys))
    assert len(keys) == (3 if ON_GPU else 1)
