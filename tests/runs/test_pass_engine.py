"""The engine of a run's pass: in the record, never mixed, the same for all that are compared."""

from __future__ import annotations

import importlib.util
import json

import pytest

from headstart.errors import ResumeError, UsageError
from headstart.runs import RunSettings, run_job
from headstart.studies.candidates import ComparisonSettings


def settings(data, out, **changes):
    chosen = {"folds": 3, "image_size": 32, "audit": "none", "learning_curve": False, **changes}
    return RunSettings(data=str(data), out=str(out), device="cpu", **chosen)


def test_the_record_names_engine_and_reason(colour_folder, tmp_path):
    engine = run_job(settings(colour_folder, tmp_path / "run")).record["engine"]
    assert engine["name"] == "eager"
    assert engine["chosen"] == "no other engine is known to be clearly faster for this network"
    assert engine["key"].startswith("torch")


def test_a_run_goes_on_with_its_own_engine_only(colour_folder, tmp_path):
    out = run_job(settings(colour_folder, tmp_path / "run")).out
    record = json.loads((out / "run.json").read_text())
    record["status"] = "running"
    record["engine"]["key"] += "-openvino2026.4.1-batch64"
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(ResumeError, match=r"openvino.*cannot go on.*Choose the same engine"):
        run_job(settings(colour_folder, out), resume=True)


def test_an_unknown_engine_is_refused(colour_folder, tmp_path):
    with pytest.raises(UsageError, match="`pass_engine` must be one of auto, eager, openvino"):
        run_job(settings(colour_folder, tmp_path / "run", pass_engine="onnx"))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")
def test_openvino_learns_as_pytorch_does(colour_folder, tmp_path):
    result = run_job(settings(colour_folder, tmp_path / "run", pass_engine="OpenVINO"))
    assert result.record["engine"]["name"] == "openvino"
    assert result.metrics["test"]["figures"]["accuracy"]["value"] == 1.0


@pytest.mark.parametrize(
    ("strategies", "engines"), [(("probe",), {"auto"}), (("probe", "full"), {"eager"})]
)
def test_what_is_compared_has_one_engine(strategies, engines):
    study = ComparisonSettings(out="study", settings={"data": "digits"}, strategies=strategies)
    assert {candidate.settings.pass_engine for candidate in study.candidates} == engines
