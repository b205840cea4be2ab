"""Settings: brought to their types or refused by name, and what a name or a path means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import COLOURS

import headstart
from headstart.api import evaluate
from headstart.errors import UsageError
from headstart.runs import RunSettings
from headstart.runs.files.record import RunFile


def settings(**changes):
    return RunSettings(**{"data": "pictures", "out": "run", **changes})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"folds": np.int64(3)}, {"folds": "3"}),
        ({"seed": np.uint32(7)}, {"seed": 7}),
        ({"image_size": np.int32(64)}, {"image_size": 64}),
        ({"test_fraction": np.float64(0.25)}, {"test_fraction": 0.25}),
        ({"weights": Path("some") / "file.pth"}, {"weights": str(Path("some/file.pth"))}),
        ({"data": Path("a"), "out": Path("b"), "test_data": Path("c")},
         {"data": "a", "out": "b", "test_data": "c"}),
    ],
)  # fmt: skip
def test_values_are_brought_to_plain_types(given, kept):
    found = settings(**given)
    for name, value in kept.items():
        assert getattr(found, name) == value
        assert type(getattr(found, name)) is type(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("folds", "many"), ("folds", 2.5), ("folds", True), ("folds", None), ("seed", None),
        ("test_fraction", "0.2"), ("test_fraction", None), ("model", None), ("data", None),
        ("image_size", "64"), ("image_size", 64.0), ("strict", "yes"), ("strict", 1),
    ],
)  # fmt: skip
def test_another_type_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match=f"^`{name}` must be ") as caught:
        settings(**{name: value})
    assert repr(value) in str(caught.value)


def test_an_unknown_setting_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"`foldz` is no setting.*folds.*seed.*weights"):
        headstart.run("digits", out=tmp_path / "run", foldz=3)
    assert not (tmp_path / "run").exists()


def test_a_built_in_name_stays_a_name_beside_a_folder_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    chosen = settings(data="digits", out="run")
    assert chosen.compared()["data"] == "digits"
    (tmp_path / "run").mkdir()
    assert RunFile.begin(tmp_path / "run", chosen).record["settings"]["data"] == "digits"
    folder = settings(data="./digits")
    assert folder.compared()["data"] == str(tmp_path / "digits")


@pytest.mark.parametrize("word", ["auto", "bundled", "hub", "none"])
def test_a_file_called_like_a_choice_of_weights_changes_nothing(tmp_path, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / word).write_text("no weights")
    assert settings(weights=word).compared()["weights"] == word
    assert settings(weights=f"./{word}").compared()["weights"] == str(tmp_path / word)


def test_a_path_means_the_folder_and_not_the_built_in_data(colour_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    colour_folder.rename(tmp_path / "digits")
    data = Path("digits")
    result = headstart.run(data, out="run", folds=3, image_size=32)
    assert result.record["data"]["class_names"] == sorted(COLOURS)
    assert result.record["settings"]["data"] == str(tmp_path / "digits")
    again = headstart.run(data, out="run", folds=3, image_size=32, resume=True)
    assert again.metrics == result.metrics
    assert evaluate("run", data)["digits"]["num_images"] == 36
