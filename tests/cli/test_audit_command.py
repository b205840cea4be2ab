"""`headstart data audit`: text, JSON, files of several data sets, exit codes."""

from __future__ import annotations

import json
import shutil

import pytest

import headstart.cli.app as app
from headstart.cli.data_audit import folders_of


def run(monkeypatch, capsys, *arguments):
    """Exit code, standard output and standard error of one command."""
    monkeypatch.setattr("sys.argv", ["headstart", "data", "audit", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        app.main()
    streams = capsys.readouterr()
    return caught.value.code, streams.out, streams.err


@pytest.fixture
def leaking(colour_folder, tmp_path):
    """A folder with train and test, one picture on both sides."""
    for part in ("train", "test"):
        shutil.copytree(colour_folder, tmp_path / "leaking" / part)
    for file in (tmp_path / "leaking" / "test").glob("*/0[1-9].png"):
        file.unlink()
    return tmp_path / "leaking"


def test_text_without_a_folder_says_how_to_get_the_files(leaking, monkeypatch, capsys):
    code, text, _ = run(monkeypatch, capsys, leaking)
    assert code == 0
    assert "ERROR    leak-exact" in text
    assert "--out FOLDER adds images.csv" in text


def test_several_data_sets_as_json_with_a_folder_each(
    colour_folder, leaking, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    code, text, _ = run(monkeypatch, capsys, colour_folder, leaking, "--out", out, "--json")
    assert code == 0
    first, second = json.loads(text)
    assert (first["num_images"], second["num_images"]) == (36, 45)
    for name, summary in (("colours", first), ("leaking", second)):
        files = {path.name for path in (out / name).iterdir()}
        assert {"audit.json", "audit.txt", "images.csv"} <= files
        assert json.loads((out / name / "audit.json").read_text())["data"] == summary["data"]


def test_strict_ends_with_one_where_there_is_an_error(colour_folder, leaking, monkeypatch, capsys):
    assert run(monkeypatch, capsys, leaking, "--strict", "--json")[0] == 1
    assert run(monkeypatch, capsys, colour_folder, "--strict", "--json")[0] == 0


def test_a_data_set_that_is_not_there_is_one_sentence(tmp_path, monkeypatch, capsys):
    code, text, err = run(monkeypatch, capsys, tmp_path / "nowhere")
    assert code == 2
    assert text == ""
    assert len(err.strip().splitlines()) == 1


def test_folders_never_meet(tmp_path):
    for place in ("a/train", "b/train", "v1.0"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "m.csv").touch()
    names = [str(tmp_path / place) for place in ("a/train", "b/train", "v1.0", "m.csv")]
    found = folders_of(names, str(tmp_path / "out"))
    assert [folder.name for folder in found] == ["train", "train-2", "v1.0", "m"]
    assert folders_of(names[:1], "out")[0].name == "out"
    assert folders_of(names, None) == [None] * 4
