"""Simple rivals of a run: on all images where these are few, on a sample of equal chances beyond.

Only what a rival looks at is made up: features, labels, folds and perhaps groups.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from headstart.cli.run import rival_text
from headstart.records import ImageTable
from headstart.runs.judging import baselines
from headstart.runs.judging.baselines import baseline_figures
from headstart.runs.parts.dividing import units_of

COUNT, CLASSES = 600, 3


def make_task(seed: int = 0, groups: bool = False):
    """Overlapping clouds of three classes, one of them small."""
    generator = np.random.default_rng(3)
    labels = generator.choice(CLASSES, COUNT, p=[0.6, 0.3, 0.1])
    centres = generator.normal(size=(CLASSES, 8))
    values = (centres[labels] + 1.5 * generator.normal(size=(COUNT, 8))).astype(np.float16)
    table = ImageTable(
        name="clouds",
        paths=tuple(f"{row}.png" for row in range(COUNT)),
        labels=labels.astype(np.int64),
        class_names=("a", "b", "c"),
        splits=("",) * COUNT,
        pixels=np.zeros((COUNT, 1, 1), np.uint8),
        groups=tuple(f"g{row // 2}" for row in range(COUNT)) if groups else None,
    )
    split = SimpleNamespace(train=np.arange(COUNT), fold=np.arange(COUNT) // 2 % 4, num_folds=4)
    units = units_of(table, None)
    return SimpleNamespace(
        table=table, split=split, learnt_features=values, learnt_labels=table.labels,
        num_classes=CLASSES, settings=SimpleNamespace(seed=seed),
        drawn=lambda rows: None if units is None else units.drawn(rows),
    )  # fmt: skip


def test_few_images_are_all_asked(monkeypatch):
    """A bound that is not reached changes nothing and says nothing."""
    whole = baseline_figures(make_task())
    assert all("sample" not in entry for entry in whole.values())
    monkeypatch.setattr(baselines, "MOST_QUERIES", COUNT)
    assert baseline_figures(make_task()) == whole


@pytest.mark.parametrize("groups", [False, True])
def test_a_sample_estimates_what_all_would_give(monkeypatch, groups):
    """Its mean over seeds is theirs, its intervals hold it at about their rate; others stay."""
    whole = baseline_figures(make_task(groups=groups))
    monkeypatch.setattr(baselines, "MOST_QUERIES", 150)
    drawn = [baseline_figures(make_task(seed, groups))["neighbours"] for seed in range(40)]
    accuracy = whole["neighbours"]["accuracy"]
    assert {entry["sample"] for entry in drawn} == {150}
    found = np.array([entry["accuracy"] for entry in drawn])
    assert found.mean() == pytest.approx(accuracy, abs=4 * found.std() / np.sqrt(40))
    assert np.mean([entry["low"] <= accuracy <= entry["high"] for entry in drawn]) >= 0.9
    assert drawn[0]["high"] - drawn[0]["low"] > 1.5 * (
        whole["neighbours"]["high"] - whole["neighbours"]["low"]
    )
    again = baseline_figures(make_task(0, groups))
    assert again["neighbours"] == drawn[0]  # the same seed, the same images
    del again["neighbours"], whole["neighbours"]
    assert again == whole


def test_the_console_says_of_how_many_images_a_rival_speaks():
    entry = {"accuracy": 0.5, "low": 0.4, "high": 0.6}
    assert rival_text(entry) == "0.500 [0.400, 0.600]"
    assert rival_text(entry | {"sample": 5000}) == "0.500 [0.400, 0.600] on a sample of 5,000"
