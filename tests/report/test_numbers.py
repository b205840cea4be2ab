from __future__ import annotations

import json
import re
from importlib import resources

import numpy as np
import pytest
from report.stored_runs import edit_json, make_run
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from headstart.files import neutral_cell
from headstart.report.drawing.charts import even_ticks, thinned
from headstart.report.drawing.curves import (
    fold_points,
    heights_at,
    history_charts,
    mean_points,
    precision_recall_points,
    reliability,
    roc_points,
)
from headstart.report.judging.facts import find_duplicates, shell_words
from headstart.report.judging.leakage import leakage_table
from headstart.report.judging.mistakes import confidently_wrong, confused_pairs, torn
from headstart.report.reading import plain_cell, read_stored_run
from headstart.report.several.comparison import undominated
from headstart.report.wording import seconds_text, short_number, value_text


def scores_with_ties(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    positive = generator.random(60) < 0.4
    return np.round(generator.random(60) + 0.3 * positive, 1), positive


@pytest.mark.parametrize("seed", range(3))
def test_roc_is_scikit_learns(seed):
    scores, positive = scores_with_ties(seed)
    points = np.array(roc_points(scores, positive))
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(points, np.stack([false, true], axis=1))
    area = np.trapezoid(points[:, 1], points[:, 0])
    assert area == pytest.approx(roc_auc_score(positive, scores))


@pytest.mark.parametrize("seed", range(3))
def test_precision_and_recall_are_scikit_learns(seed):
    scores, positive = scores_with_ties(seed)
    points = np.array(precision_recall_points(scores, positive))[1:]
    precision, recall, _ = precision_recall_curve(positive, scores)
    np.testing.assert_allclose(points, np.stack([recall, precision], axis=1)[:-1][::-1])


def test_heights_of_a_curve():
    points = [(0.0, 0.0), (0.0, 0.5), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)]
    grid = np.array([0.0, 0.25, 0.5, 1.0])
    np.testing.assert_allclose(heights_at(points, grid), [0.5, 0.5, 1.0, 1.0])
    sloped = [(0.0, 0.0), (1.0, 1.0)]
    np.testing.assert_allclose(heights_at(sloped, grid), grid)


def test_reliability_counts_each_image_once():
    probabilities = np.array([[0.95, 0.05], [0.92, 0.08], [0.55, 0.45], [1.0, 0.0]])
    bins = reliability(probabilities, np.array([0, 1, 0, 0]))
    assert [b["accuracy"] for b in bins] == pytest.approx([1.0, 2 / 3])
    assert bins[1]["confidence"] == pytest.approx((0.95 + 0.92 + 1.0) / 3)
    assert all(b["low"] <= b["accuracy"] <= b["high"] for b in bins)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, (0, 0.2, 0.4, 0.6, 0.8, 1)), (0.61, 0.84, (0.65, 0.7, 0.75, 0.8)), (0, 30, None)],
)
def test_ticks_are_round_and_inside(low, high, ticks):
    found = even_ticks(low, high)
    assert all(low <= value <= high for value in found)
    assert 2 <= len(found) <= 8
    if ticks:
        assert found == pytest.approx(ticks)


def test_a_thinned_curve_keeps_its_ends_and_corners():
    curve = [(x, 0.0) for x in np.linspace(0, 0.5, 900)] + [(0.5, 1.0), (1.0, 1.0)]
    kept = thinned(curve)
    assert len(kept) <= 123
    assert kept[0] == curve[0]
    assert kept[-2:] == curve[-2:]
    assert set(kept) <= set(curve)


def test_the_front_holds_what_nothing_beats():
    points = [(1.0, 0.5), (2.0, 0.8), (3.0, 0.7), (2.0, 0.6), (4.0, 0.9)]
    assert undominated(points) == [(1.0, 0.5), (2.0, 0.8), (4.0, 0.9)]


def test_mistakes_are_counted_and_ordered(tmp_path):
    run = read_stored_run(make_run(tmp_path / "run"))
    matrix = np.array(run.metrics["test"]["confusion_matrix"])
    pairs = confused_pairs(run.tested)
    off = matrix[~np.eye(3, dtype=bool)]
    assert sum(pair.count for pair in pairs) == off.sum()
    assert [pair.count for pair in pairs] == sorted(off[off > 0], reverse=True)
    wrong = confidently_wrong(run.tested)
    assert not any(answer.right for answer in wrong)
    assert [a.confidence for a in wrong] == sorted((a.confidence for a in wrong), reverse=True)
    leads = [a.confidence - a.second_confidence for a in torn(run.tested)]
    assert leads == sorted(leads)


def test_copies_across_the_parts_are_found(tmp_path):
    folder = make_run(tmp_path / "run")
    assert leak_answer(folder, "L1.4") == "unknown"
    images = (folder / "images.csv").read_text()
    (folder / "images.csv").write_text(images.replace("digest-0-13", "digest-1-2"))
    twins = find_duplicates(read_stored_run(folder))
    assert twins.across == ("0/13.png",)
    assert set(twins.labels) == {"0/13.png", "1/02.png"}
    assert leak_answer(folder, "L1.4") == "found"


@pytest.mark.parametrize(("grouped", "answer"), [(True, "ruled out"), (False, "unknown")])
def test_independence_is_claimed_with_groups_only(tmp_path, grouped, answer):
    assert leak_answer(make_run(tmp_path / "run", grouped=grouped), "L3.2") == answer


def leak_answer(folder, code) -> str:
    table = {leak.code: leak for leak in leakage_table(read_stored_run(folder))}
    assert list(table) == ["L1.1", "L1.2", "L1.3", "L1.4", "L2", "L3.1", "L3.2", "L3.3", "+"]
    return table[code].answer


@pytest.mark.parametrize("cell", ["=1+1", "plain", "@x", "-3", "'quoted'", "'-", "''=x", "'", ""])
def test_cells_come_back_as_they_were(cell):
    assert plain_cell(str(neutral_cell(cell))) == cell


def test_words():
    assert seconds_text(0.44) == "0.4\u00a0s"
    assert seconds_text(125) == "2\u00a0min 05\u00a0s"
    assert seconds_text(3780) == "1\u00a0h 03\u00a0min"
    assert short_number(1e-5) == "1e-5"
    assert short_number(1200) == "1,200"
    assert value_text({"value": 0.4123}, "log_loss") == "0.412"
    assert value_text({"value": 0.4123}, "accuracy") == "41.2\u00a0%"
    assert shell_words(["-c", "run", "--data", "a b"]) == "headstart run --data 'a b'"


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def themes() -> list[dict[str, str]]:
    style = (resources.files("headstart.report") / "templates" / "style.css").read_text()
    found = re.findall(r"(--[a-z0-9-]+): (#[0-9a-f]{6})", style)
    half = next(i for i, (name, _) in enumerate(found) if i and name == "--ground")
    return [dict(found[:half]), dict(found[half:])]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast_is_enough_for_everybody(dark):
    theme = themes()[dark]
    for ground in ("--ground", "--paper"):
        for ink in ("--ink", "--muted", "--accent", "--alarm", "--warning", "--good"):
            assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)  # WCAG 2.2 AA
        for line in ("--c1", "--c2", "--c3", "--c4", "--c5", "--c6"):
            assert contrast(theme[line], theme[ground]) >= 3, (line, ground)
    for ink, ground in (
        ("--ink", "--alarm-soft"), ("--alarm", "--alarm-soft"), ("--ink", "--warning-soft"),
        ("--warning", "--warning-soft"), ("--accent", "--warning-soft"), ("--ink", "--track"),
        ("--accent", "--alarm-soft"), ("--muted", "--accent-soft"), ("--accent", "--accent-soft"),
    ):  # fmt: skip
        assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)


def test_history_of_epochs_shows_training_beside_the_inner_part():
    rows = [
        {"fold": str(fold), "epoch": str(epoch), "phase": "full", "train_loss": str(1 / epoch),
         "inner_log_loss": str(fold / epoch), "inner_accuracy": ""}
        for fold in (1, 3)
        for epoch in (1, 2, 4)
    ]  # fmt: skip
    charts = history_charts(rows, [2, 1])
    assert [chart.title for chart in charts] == ["Log loss"]
    assert [look for look, _ in charts[0].legend] == ["accent", "c2 d2", "faint"]
    folds = fold_points(rows, "epoch", "inner_log_loss")
    assert mean_points(folds) == [(1.0, 2.0), (2.0, 1.0), (4.0, 0.5)]
    assert history_charts([], None) == []


def test_an_unknown_history_is_drawn_column_by_column():
    rows = [{"trial": str(i), "score": str(i * i), "note": "x"} for i in range(4)]
    assert [chart.title for chart in history_charts(rows, None)] == ["Score"]


def test_what_was_measured_is_gathered_from_every_part(tmp_path):
    folder = make_run(tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["cross_validation"]["calibration"] = {"temperature": 1.2, "before": {"ece": 0.5}}
    metrics["confidence"] = {"calibration": {"note": "x"}}
    metrics["test"]["calibration"] = {"before": {"ece": 0.1}}
    edit_json(folder / "metrics.json", **metrics)
    found = read_stored_run(folder).measured("calibration")
    assert found == {"temperature": 1.2, "note": "x", "before": {"ece": 0.1}}


def test_two_boxes_of_one_picture_are_no_twins(tmp_path):
    run = read_stored_run(make_run(tmp_path / "run"))
    first, second = run.splits[0]["path"], run.splits[1]["path"]
    for row in run.images:
        if row["path"] in (first, second):
            row["digest"] = "same"
            row["treatment"] = f"cropped to box ({0.1 if row['path'] == first else 0.5}, 0, 1, 1)"
    assert not set(find_duplicates(run).labels) & {first, second}
    for row in run.images:
        row["treatment"] = ""
    run.splits[1]["label"] = "another"
    assert {first, second} <= set(find_duplicates(run).labels)
