"""Two models on the same images: differences that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from bundles import random_bundle
from conftest import paint
from scipy import stats
from sklearn.metrics import f1_score, log_loss

from headstart import api
from headstart.errors import DataError
from headstart.records import Predictions
from headstart.runs.pairing import compare_scored, in_order

NAMES = ("a", "b", "c")


def answers(labels, indices, sure=0.8):
    probabilities = np.full((len(labels), 3), (1 - sure) / 2, dtype=np.float32)
    probabilities[np.arange(len(labels)), indices] = sure
    return Predictions(
        paths=tuple(str(i) for i in range(len(labels))),
        class_names=NAMES,
        probabilities=probabilities,
        labels=np.asarray(labels, dtype=np.int64),
        problems=("",) * len(labels),
    )


@pytest.fixture
def drawn():
    """Labels, and answers of which one model is right nine times in ten, the other six."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 120)
    wrong = (labels + generator.integers(1, 3, 120)) % 3
    first = np.where(generator.random(120) < 0.9, labels, wrong)
    second = np.where(generator.random(120) < 0.6, labels, wrong)
    return labels, answers(labels, first), answers(labels, second, sure=0.6)


def test_differences_are_those_of_the_figures(drawn):
    labels, first, second = drawn
    found = compare_scored(first, second, groups=None, seed=0)
    rights = [p.indices == labels for p in (first, second)]
    assert found["accuracy"]["value"] == pytest.approx(rights[0].mean() - rights[1].mean())
    gap = f1_score(labels, first.indices, average="macro") - f1_score(
        labels, second.indices, average="macro"
    )
    assert found["macro_f1"]["value"] == pytest.approx(gap)
    exact = [p.probabilities.astype(float) for p in (first, second)]
    losses = [log_loss(labels, p / p.sum(axis=1, keepdims=True)) for p in exact]
    assert found["log_loss"]["value"] == pytest.approx(losses[0] - losses[1], abs=1e-6)
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    assert found["accuracy"]["low"] > 0
    assert found["macro_f1"]["low"] > 0


def test_the_test_of_accuracies_is_mcnemars(drawn):
    labels, first, second = drawn
    found = compare_scored(first, second, groups=None, seed=0)
    only = found["only_first_right"], found["only_second_right"]
    expected = stats.binomtest(only[0], sum(only), 0.5).pvalue
    assert found["accuracy"]["p_value"] == pytest.approx(expected)
    table = found["both_right"] + sum(only) + found["neither_right"]
    assert table == len(labels)


def test_the_other_way_round_is_the_negative(drawn):
    _, first, second = drawn
    there = compare_scored(first, second, groups=None, seed=0)
    back = compare_scored(second, first, groups=None, seed=0)
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert there[name]["value"] == pytest.approx(-back[name]["value"])
        assert there[name]["low"] == pytest.approx(-back[name]["high"], abs=1e-9)
    assert there["only_first_right"] == back["only_second_right"]


def test_groups_widen_the_interval(drawn):
    _, first, second = drawn
    order = np.argsort(first.indices == second.indices, kind="stable")
    groups = np.empty(120, dtype=np.int64)
    groups[order] = np.arange(120) // 12  # images that differ stand in few groups
    alone = compare_scored(first, second, groups=None, seed=0)
    grouped = compare_scored(first, second, groups=groups, seed=0)
    for name in ("accuracy", "macro_f1"):
        assert grouped[name]["value"] == pytest.approx(alone[name]["value"])
        width, narrow = (r[name]["high"] - r[name]["low"] for r in (grouped, alone))
        assert width > 1.3 * narrow
        assert "over groups" in grouped[name]["method"]
    assert grouped["accuracy"]["p_value"] > alone["accuracy"]["p_value"]


def test_columns_are_brought_into_one_order(drawn):
    _, first, _ = drawn
    turned = Predictions(
        paths=first.paths,
        class_names=("c", "a", "b"),
        probabilities=first.probabilities[:, [2, 0, 1]],
        labels=first.labels,
        problems=first.problems,
    )
    assert np.array_equal(in_order(turned, NAMES).probabilities, first.probabilities)


def test_models_of_other_classes_are_refused_in_one_sentence(tmp_path):
    random_bundle(tmp_path / "one", "LeNet5", 32)
    random_bundle(tmp_path / "two", "LeNet5", 32, class_names=("cat", "dog", "lynx"))
    for name in ("cat", "dog"):
        paint(tmp_path / "data" / name / "0.png", (10, 20, 30), seed=0)
        paint(tmp_path / "data" / name / "1.png", (10, 20, 30), seed=1)
    with pytest.raises(DataError, match=r"as 'lynx', which only '.*two' knows"):
        api.evaluate_pair(tmp_path / "one", tmp_path / "two", tmp_path / "data")
