"""`headstart data convert`: words, exit codes, and a process that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from test_data_command import run

from headstart import api
from headstart.data import load_table


def test_convert_says_what_it_did_and_how_to_use_it(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    code, text, _ = run(monkeypatch, capsys, "data", "convert", "digits", out, "--size", 16)
    assert code == 0
    assert "Written    1,797 pictures, 0 were there" in text
    assert f"--data {out}" in text
    assert (out / "7/00001.png").is_file()
    code, text, _ = run(monkeypatch, capsys, "data", "convert", "digits", out, "--size", 16)
    assert (code, "0 pictures, 1,797 were there" in text) == (0, True)


def test_to_a_manifest_as_json(colour_folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    (colour_folder / "red/00.png").write_text("no picture")
    given = ("data", "convert", colour_folder, out, "--to", "manifest", "--json")
    code, text, _ = run(monkeypatch, capsys, *given)
    assert code == 0
    result = json.loads(text)
    assert result["load"] == str(out / "manifest.csv")
    assert result["problems"] == {"red/00.png": "not an image"}
    assert result["written"] == 35
    assert len(load_table(out / "manifest.csv")) == 35


@pytest.mark.parametrize(
    ("given", "clause"),
    [
        (["digitz", "out"], "Did you mean 'digits'"),
        (["digits", "out", "--to", "zip"], "`to` must be one of"),
        (["digits", "out", "--channels", "2"], "`channels` must be 1 or 3"),
        (["digits", "taken"], "holds other files"),
        (["colours", "colours/out"], "must not lie inside the data"),
    ],
)
def test_a_mistake_is_one_sentence(colour_folder, monkeypatch, capsys, given, clause):
    monkeypatch.chdir(colour_folder.parent)
    (colour_folder.parent / "taken").mkdir()
    (colour_folder.parent / "taken/x").touch()
    code, text, error = run(monkeypatch, capsys, "data", "convert", *given)
    assert (code, text) == (2, "")
    assert clause in error
    assert error.count("\n") == 1
    assert not (colour_folder.parent / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_killed_conversion_goes_on(tmp_path):
    out = tmp_path / "out"
    code = "from headstart.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "convert", "digits", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    log = out / ".conversion.log"
    deadline = time.monotonic() + 60
    while not (log.is_file() and log.stat().st_size > 5_000) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(log.read_text().splitlines())
    done = api.convert("digits", out)
    assert done["written"] + done["kept"] == 1797
    assert done["kept"] >= before - 1
    table = load_table(out)
    assert len(table) == 1797
    assert not list(out.rglob(".new-*"))
