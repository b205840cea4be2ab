from __future__ import annotations

import json

import pytest
from report.stored_runs import edit_json, make_run
from typer.testing import CliRunner

from headstart.cli.app import app
from headstart.errors import UsageError


def headstart(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_one_run(tmp_path):
    run = make_run(tmp_path / "run")
    done = headstart("report", run, "--no-images")
    assert done.exit_code == 0, done.output
    assert f"Written to {run / 'report.html'}" in done.output.replace("\n", "")
    assert (run / "claim.md").is_file()


def test_several_runs_as_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [make_run(tmp_path / name) for name in ("a", "b")]
    done = headstart("report", *runs, "--json")
    assert json.loads(done.output) == {"report": "report.html"}
    assert (tmp_path / "report.html").is_file()
    done = headstart("report", *runs, "--out", "x/all.html", "--json")
    assert json.loads(done.output) == {"report": "x/all.html"}


def test_claim_template(tmp_path):
    run = make_run(tmp_path / "run")
    assert headstart("report", run, "--claim-template").exit_code == 0
    assert (run / "claim.yaml").is_file()
    assert not (run / "report.html").exists()


def test_wrong_inputs_are_one_sentence(tmp_path):
    unfinished = make_run(tmp_path / "run")
    edit_json(unfinished / "run.json", status="running")
    for wrong in (tmp_path / "nothing", unfinished):
        error = headstart("report", wrong).exception
        assert isinstance(error, UsageError)
        assert error.exit_code == 2
        assert "\n" not in str(error)


def test_a_run_must_be_named():
    assert headstart("report").exit_code == 2


@pytest.mark.parametrize("word", ["--no-images", "--out", "Example: headstart report"])
def test_help(word):
    assert word in headstart("report", "--help").output
