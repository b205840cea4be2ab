"""A run, exported with int8: what is proved on its own pictures, what is refused, two compared."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys

import numpy as np
import pytest
from bundles import random_bundle
from conftest import COLOURS, paint

from headstart.bundle import load_classifier
from headstart.cli import main
from headstart.export import quantising
from headstart.runs import RunSettings, run_job

NOISY = {"blue": (90, 100, 140), "green": (95, 135, 105), "red": (140, 105, 95)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of `mini` on three colours, its export, and new pictures that are harder."""
    folder = tmp_path_factory.mktemp("shipping")
    for number, name in enumerate(COLOURS):
        for i in range(14):
            paint(folder / "colours" / name / f"{i}.png", NOISY[name], seed=100 * number + i)
        for i in range(10):
            mixed = tuple((2 * a + 200) // 4 for a in NOISY[name])
            paint(folder / "new" / name / f"{i}.png", mixed, seed=9000 + 100 * number + i)
    settings = RunSettings(
        data=str(folder / "colours"), out=str(folder / "run"), folds=3, image_size=32,
        audit="none", learning_curve=False,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(folder / "cache"))
        run_job(settings)
        code, out, err = typed(patch, "export", folder / "run", "--onnx", "--int8", "--json")
    assert code == 0, err
    (folder / "told.json").write_text(out)
    return folder


def typed(patch, *words):
    """A command in this process; exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    patch.delenv("HEADSTART_DEBUG", raising=False)
    patch.setattr(sys, "argv", ["headstart", *map(str, words)])
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with streams[0], streams[1], pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code or 0, out.getvalue(), err.getvalue()


@pytest.fixture
def headstart(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *words: typed(monkeypatch, *words)


def test_the_proof_is_on_the_runs_own_pictures(place):
    told = json.loads((place / "told.json").read_text())
    parity = told["parity"]
    assert told["out"] == str(place / "run" / "export")
    assert parity["images"] == "the run's test part"
    assert parity["model.onnx"]["num_images"] == 9
    int8 = parity["model-int8.onnx"]
    assert int8["calibrated_on"] == "the run's training part"
    assert int8["num_calibrating"] == 33
    assert 0.2 < int8["size_ratio"] < 0.35
    assert int8["num_labelled"] == 9
    difference = int8["accuracy"] - int8["accuracy_float32"]
    assert int8["difference"]["value"] == pytest.approx(difference)
    assert int8["verdict"]
    assert int8["speed"]["speed_ratio"] > 0


def test_int8_is_another_answer_but_nearly_the_same(place):
    pictures = sorted((place / "new").rglob("*.png"))
    float32 = load_classifier(place / "run", engine="onnx").predict(pictures)
    int8 = load_classifier(place / "run", engine="onnx-int8").predict(pictures)
    gap = np.abs(float32.probabilities - int8.probabilities).max()
    assert 0 < gap < 0.5
    assert (float32.indices == int8.indices).mean() > 0.8


def test_only_the_network_is_quantised(place):
    import onnx

    model = onnx.load(str(place / "run" / "export" / "model-int8.onnx"))
    made_by = {output: node for node in model.graph.node for output in node.output}
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") > 5
    reached = {"features"}
    for node in model.graph.node:
        if reached & set(node.input):
            assert node.op_type not in ("QuantizeLinear", "DequantizeLinear")
            reached |= set(node.output)
    assert made_by["probabilities"]


def test_commands_answer_with_every_engine(place, headstart):
    picture = place / "new" / "red" / "0.png"
    found = {}
    for engine in ("torch", "onnx", "onnx-int8"):
        options = ["--precision", "float32"] if engine == "torch" else []
        code, out, err = headstart(
            "predict", place / "run", picture, "--engine", engine, "--json", *options
        )
        assert code == 0, err
        (found[engine],) = json.loads(out)
    assert set(found["onnx"]) == set(found["torch"])
    for name, chance in found["torch"]["probabilities"].items():
        assert found["onnx"]["probabilities"][name] == pytest.approx(chance, abs=1e-3)
    code, out, _ = headstart("evaluate", place / "run", "--data", place / "new", "--engine", "onnx")
    assert code == 0
    assert "new (30 images)" in out


def test_two_are_compared_on_the_same_pictures(place, headstart, tmp_path):
    code, out, err = headstart(
        "evaluate", place / "run", place / "run" / "export", "--data", place / "new",
        "--engine", "torch,onnx-int8", "--out", "both",
    )  # fmt: skip
    assert code == 0, err
    assert "First minus second, on the same 30 images" in out
    record = json.loads((tmp_path / "both" / "comparison.json").read_text())
    first, second = record["models"]
    paired = record["paired"]
    for name in ("accuracy", "log_loss", "macro_f1"):
        gap = first["figures"][name]["value"] - second["figures"][name]["value"]
        assert paired[name]["value"] == pytest.approx(gap, abs=1e-9)
    right = paired["both_right"] + paired["only_first_right"]
    assert right / 30 == pytest.approx(first["figures"]["accuracy"]["value"])
    for folder in ("first", "second"):
        assert (tmp_path / "both" / folder / "predictions.csv").exists()
    assert (first["engine"], second["engine"]) == ("torch", "onnx-int8")


def test_a_copy_of_a_model_does_not_differ_from_it(place, headstart):
    code, out, _ = headstart(
        "evaluate", place / "run", place / "run" / "model", "--data", place / "new", "--json"
    )
    paired = json.loads(out)["paired"]
    assert code == 0
    assert paired["accuracy"]["value"] == paired["log_loss"]["value"] == 0
    assert paired["accuracy"]["p_value"] == 1
    assert paired["same_answer"] == 30


def test_data_may_be_given_and_are_then_taken_for_all(place, headstart, tmp_path):
    random_bundle(tmp_path / "alone", "LeNet5", 32, class_names=tuple(sorted(COLOURS)))
    code, out, err = headstart(
        "export", "alone", "--data", place / "new", "--int8", "--json", "--with-resize"
    )
    assert code == 0, err
    told = json.loads(out)
    assert told["out"] == str(tmp_path / "alone-onnx")
    int8 = told["parity"]["model-int8.onnx"]
    assert (int8["num_calibrating"], int8["num_images"]) == (15, 15)
    assert told["parity"]["model-resize.onnx"]["num_images"] == 15


def test_pictures_that_are_gone_are_said_to_be(place, headstart, tmp_path):
    shutil.copytree(place / "run", tmp_path / "moved")
    record = json.loads((tmp_path / "moved" / "run.json").read_text())
    record["settings"]["data"] = str(tmp_path / "nothere")
    (tmp_path / "moved" / "run.json").write_text(json.dumps(record))
    code, _, err = headstart("export", "moved", "--int8", "--out", "x")
    assert code == 2
    assert "own images cannot be read" in err
    assert "Name labelled ones with --data" in err
    assert not (tmp_path / "x").exists()


def test_an_export_of_another_model_is_not_taken_for_the_runs(place, headstart, tmp_path):
    shutil.copytree(place / "run", tmp_path / "again")
    with (tmp_path / "again" / "model" / "manifest.json").open("a") as file:
        file.write(" ")  # another digest, the same contents
    picture = place / "new" / "red" / "0.png"
    code, _, err = headstart("predict", "again", picture, "--engine", "onnx")
    assert code == 2
    assert "not exported from the model that the run holds" in err
    assert headstart("predict", "again", picture)[0] == 0
    assert headstart("predict", "again/export", picture, "--engine", "onnx")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "nothere"], "no such folder"),
        (["export", "{place}/colours"], "is no bundle"),
        (["export", "{place}/run"], "is there already"),
        (["export", "{place}/run", "--out", "{place}/told.json"], "is a file"),
        (["evaluate", "{place}/run", "{place}/run"], "Name them by --data"),
        (["evaluate", "{place}/run", "nothere", "--data", "{place}/new"], "no such folder"),
        (["predict", "{place}/run", "a.png", "--engine", "x"], "must be one of"),
        (
            [
                "evaluate",
                "{place}/run",
                "{place}/run",
                "--data",
                "{place}/new",
                "--engine",
                "a,b,c",
            ],
            "one or two names",
        ),
    ],
)
def test_wrong_inputs_are_one_sentence(place, headstart, words, said):
    code, _, err = headstart(*(word.format(place=place) for word in words))
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_a_run_that_is_not_finished_has_nothing_to_export(place, headstart, tmp_path):
    (tmp_path / "begun").mkdir()
    shutil.copy(place / "run" / "run.json", tmp_path / "begun")
    code, _, err = headstart("export", "begun")
    assert code == 2
    assert "is not finished" in err


def test_a_verdict_says_what_it_costs():
    base = {"num_images": 200, "same_class": 190, "num_labelled": 200, "accuracy": 0.8}
    good = base | {"difference": {"value": -0.005, "low": -0.01, "high": 0.0}}
    bad = base | {"difference": {"value": -0.2, "low": -0.3, "high": -0.1}}
    assert "not quantise well" not in quantising.verdict(good)
    assert "-20.0 points of accuracy [-30.0, -10.0]" in quantising.verdict(bad)
    assert "does not quantise well" in quantising.verdict(bad)
    blind = {"num_images": 200, "same_class": 150, "accuracy": None}
    assert "150 of 200 answers" in quantising.verdict(blind)
    assert "does not quantise well" in quantising.verdict(blind)
