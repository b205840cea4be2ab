"""Parts of the test part, by columns of the data."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from pictures import paint
from test_job import rows, settings

from headstart.errors import DataError, UsageError
from headstart.records import Predictions
from headstart.report import write_report
from headstart.runs import run_job
from headstart.runs.judging.subgroups import cut, figures_of, place
from headstart.statistics import wilson


@pytest.fixture
def ward(tmp_path):
    """Two colours, each picture with a sex and an age; some have none."""
    folder = tmp_path / "ward"
    lines = []
    for c, (name, colour) in enumerate({"ill": (200, 60, 60), "well": (60, 60, 200)}.items()):
        for i in range(20):
            paint(folder / name / f"{i:02d}.png", colour, seed=100 * c + i)
            lines.append([f"{name}/{i:02d}.png", "FM"[i % 2] if i else "", 20 + 3 * i + c])
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "sex", "age"], *lines])
    return folder


def test_numbers_are_cut_at_their_terciles():
    ages = [str(age) for age in range(30)]
    found = cut([*ages, ""])
    assert found[-1] == ""
    assert [found.count(name) for name in dict.fromkeys(found[:-1])] == [10, 10, 10]
    assert (found[0], found[29]) == ("up to 9", "above 19")
    assert cut(["F", "M", ""]) == ["F", "M", ""]
    assert cut(["1", "2", "1"]) == ["1", "2", "1"]  # few numbers are names


def test_figures_of_some_images_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], dtype=np.float32)
    made = Predictions(paths=("a", "b", "c"), class_names=("x", "y"), problems=("",) * 3,
                       probabilities=probabilities, labels=np.array([0, 0, 1]))  # fmt: skip
    assert figures_of(made, np.array([0, 1]), None, None)["accuracy"]["value"] == 0.5
    assert figures_of(made, np.array([], dtype=np.int64), None, None)["accuracy"] == {
        "value": None, "low": None, "high": None, "method": "",
    }  # fmt: skip


def test_few_groups_have_wide_intervals():
    """Six images of four patients, five right: much wider than of six independent images."""
    probabilities = np.array([[0.9, 0.1]] * 6, dtype=np.float32)
    truth = np.array([0, 0, 0, 0, 0, 1])
    made = Predictions(paths=tuple("abcdef"), class_names=("x", "y"), problems=("",) * 6,
                       probabilities=probabilities, labels=truth)  # fmt: skip
    groups = np.array([0, 0, 1, 1, 2, 3])
    found = figures_of(made, np.arange(6), groups, None)["accuracy"]
    six = wilson(5, 6)
    assert found["low"] < six.low - 0.1
    assert found["high"] > six.high
    assert "groups" in found["method"]


def test_terciles_stand_by_size():
    words = ["not known", "above 9", "up to 4", "above 4, up to 9"]
    assert sorted(words, key=place) == ["up to 4", "above 4, up to 9", "above 9", "not known"]


def test_a_run_is_judged_by_sex_and_age(ward, tmp_path):
    asked = {"subgroups": "sex,age", "positive": "ill", "learning_curve": False}
    result = run_job(settings(ward, tmp_path / "run", **asked))
    sex, age = result.metrics["test"]["subgroups"]
    assert [part["name"] for part in sex["parts"]] == ["F", "M", "not known"]
    assert sum(part["counts"]["train"] + part["counts"]["test"] for part in sex["parts"]) == 40
    assert sex["parts"][2]["counts"]["train"] + sex["parts"][2]["counts"]["test"] == 2
    assert len(age["parts"]) == 3
    tested = {row["path"] for row in rows(result.out / "predictions.csv")}
    assert sum(part["counts"]["test"] for part in age["parts"]) == len(tested)
    assert {"accuracy", "sensitivity", "specificity"} <= set(sex["parts"][0])
    page = write_report([result.out], with_images=False).read_text()
    assert "Subgroups" in page
    assert "By <bdi>sex</bdi>" in page
    claim = (result.out / "claim.md").read_text()
    assert "By sex: F: " in claim  # item 36
    assert "By sex (internal test)" in claim  # item 37


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ("sexx", DataError, "no column 'sexx'. Did you mean 'sex'"),
        ("path", DataError, "columns with 2 to 12 values"),
        ("sex,,age", UsageError, "each once"),
        ("sex,sex", UsageError, "each once"),
    ],
)
def test_columns_that_cannot_be(ward, tmp_path, asked, error, message):
    with pytest.raises(error, match=message):
        run_job(settings(ward, tmp_path / "run", subgroups=asked))
    assert not (tmp_path / "run").exists()
