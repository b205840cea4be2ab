"""The mlp head, class weights, simple rivals, the learning curve and samples, in whole runs."""

from __future__ import annotations

import csv
import json
import statistics

import numpy as np
import pytest
from pictures import COLOURS, paint
from test_job import figures, rows, settings

import headstart
from headstart.cli.options import RUN_OPTIONS
from headstart.data import load_table
from headstart.errors import UsageError
from headstart.features import scratch
from headstart.progress import Progress
from headstart.records import ImageTable
from headstart.runs import RunSettings, run_job
from headstart.runs.fitting import mlp_search
from headstart.runs.fitting.mlp import MlpFitting
from headstart.runs.judging.learning_curve import nested_shares, verdict
from headstart.runs.parts.dividing import sample_table


class Notes(Progress):
    def __init__(self):
        self.told = []

    def note(self, message):
        self.told.append(message)


MLP = {"head": "mlp", "hidden": "16,8", "epochs": 12, "lr": 0.01, "batch_size": 8}


@pytest.fixture
def finished(colour_folder, tmp_path):
    return run_job(settings(colour_folder, tmp_path / "mlp", **MLP))


def test_an_mlp_run_learns_and_its_bundle_answers_alike(finished, colour_folder):
    assert finished.metrics["cross_validation"]["figures"]["accuracy"]["value"] > 0.85
    assert finished.record["choice"]["head"] == "mlp"
    assert 1 <= finished.record["choice"]["epochs"] <= 12
    table = rows(finished.out / "predictions.csv")
    found = headstart.load(finished.out).predict([colour_folder / row["path"] for row in table])
    told = [[float(row[f"prob_{name}"]) for name in found.class_names] for row in table]
    assert np.allclose(told, found.probabilities, atol=1e-6)
    assert len(headstart.load(finished.out).head.layers) == 3


def test_a_killed_mlp_run_keeps_its_folds(finished, colour_folder, tmp_path, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(MlpFitting, "fit_final", stop)
    with pytest.raises(KeyboardInterrupt):
        run_job(settings(colour_folder, tmp_path / "run", **MLP))
    monkeypatch.undo()
    monkeypatch.setattr(MlpFitting, "_fit_and_keep", stop)
    resumed = run_job(settings(colour_folder, tmp_path / "run", **MLP), resume=True)
    assert figures(resumed.out) == figures(finished.out)


TUNE = {"head": "mlp", "tune": 9, "hidden": "8", "epochs": 9, "batch_size": 8}


def test_a_tuned_mlp_run_keeps_a_setting_a_fold(colour_folder, tmp_path, monkeypatch):
    """Its table, its figures, its bundle; killed before the final fit, it ends alike."""
    chosen = TUNE | {"learning_curve": False}
    result = run_job(settings(colour_folder, tmp_path / "run", **chosen))
    tuning = rows(result.out / "tuning.csv")
    assert len(tuning) == 3 * 9
    kept = [row for row in tuning if row["kept"] == "yes"]
    assert [row["fold"] for row in kept] == ["1", "2", "3"]
    for fold, row in enumerate(kept):
        rivals = [r for r in tuning if r["fold"] == row["fold"] and r["epochs"] == row["epochs"]]
        assert float(row["inner_log_loss"]) == min(float(r["inner_log_loss"]) for r in rivals)
        told = rows(result.out / "cv_results.csv")[fold]
        assert f"lr={row['lr']} " in told["setting"]
        assert told["epochs"] == row["best_epoch"]
    searched = result.metrics["tuning"]
    assert searched["epochs"] == 3 * (9 + 3 * 3 + 9)
    assert searched["epochs_of_the_full_grid"] == 3 * 81
    choice = result.record["choice"]
    assert choice["hidden"] == "8"
    assert f"lr={choice['lr']} " in searched["final"]
    assert result.metrics["cross_validation"]["figures"]["accuracy"]["value"] > 0.8
    assert headstart.load(result.out).head.chosen["lr"] == choice["lr"]

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(MlpFitting, "fit_final", stop)
    with pytest.raises(KeyboardInterrupt):
        run_job(settings(colour_folder, tmp_path / "killed", **chosen))
    monkeypatch.undo()
    monkeypatch.setattr(mlp_search, "successive_halving", stop)
    resumed = run_job(settings(colour_folder, tmp_path / "killed", **chosen), resume=True)
    assert figures(resumed.out) == figures(result.out)
    assert (resumed.out / "tuning.csv").read_bytes() == (result.out / "tuning.csv").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune": 9}, "means nothing to 'logistic'. Take --head mlp, or leave --tune out"),
        ({"tune": 9, "strategy": "full"}, "means nothing to 'full'"),
        ({"tune": 1, "head": "mlp"}, "`tune` must be between 2 and 200 settings, got 1"),
        ({"tune": 37, "head": "mlp", "lr": 0.1}, "must be at most the 36 settings"),
    ],
)
def test_tuning_that_cannot_be_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        RunSettings(data="digits", out="x", **changes)


def test_inner_folds_choose_the_penalty_and_keep_the_parts(colour_folder, tmp_path):
    plain = run_job(settings(colour_folder, tmp_path / "a", learning_curve=False))
    nested = run_job(
        settings(
            colour_folder, tmp_path / "b", learning_curve=False, inner_folds=3, num_penalties=6
        )
    )
    history = rows(nested.out / "history.csv")
    assert len(history) == 3 * 6
    assert (plain.out / "splits.csv").read_bytes() == (nested.out / "splits.csv").read_bytes()
    told = [run.record["splits"]["inner_folds"] for run in (plain, nested)]
    assert told == [1, 3]
    assert plain.record["splits"]["digest"] != nested.record["splits"]["digest"]
    means = {}
    for row in history:
        means.setdefault(row["penalty"], []).append(float(row["inner_log_loss"]))
    contenders = {row["penalty"] for row in history if row["contender"] == "yes"}
    best = min(contenders, key=lambda penalty: statistics.mean(means[penalty]))
    assert nested.record["choice"]["penalty"] == pytest.approx(float(best))


@pytest.mark.parametrize(
    "changes",
    [{}, MLP, {"views": "flip", "tta": "flip", "inner_folds": 2}],
    ids=["logistic", "mlp", "views"],
)
def test_features_on_the_disk_change_no_figure(colour_folder, tmp_path, monkeypatch, changes):
    """No memory for any array, and all of it for each: the same run to the bit."""
    shapes, true_array = [], scratch.scratch_array

    def watched(shape, dtype):
        shapes.append((*shape, np.dtype(dtype).name))
        return true_array(shape, dtype)

    monkeypatch.setattr(scratch, "scratch_array", watched)
    monkeypatch.setenv("HEADSTART_MEMORY", "unlimited")
    notes = Notes()
    in_memory = run_job(settings(colour_folder, tmp_path / "a", **changes), progress=notes)
    assert not shapes
    assert "Memory " not in "".join(notes.told)
    monkeypatch.setenv("HEADSTART_MEMORY", "0")
    on_disk = run_job(settings(colour_folder, tmp_path / "b", **changes), progress=notes)
    assert "Memory     arrays of more than 0.0 MB, an eighth of 0.0 MB, lie" in "".join(notes.told)
    num_learnt = len(rows(on_disk.out / "out_of_fold_predictions.csv"))
    assert (36, 384, "float16") in shapes
    assert (num_learnt, 384, "float16") in shapes
    if "views" in changes:
        assert (2, num_learnt, 384, "float16") in shapes
    assert figures(on_disk.out) == figures(in_memory.out)
    weights = "model/weights.safetensors"
    assert (on_disk.out / weights).read_bytes() == (in_memory.out / weights).read_bytes()
    assert {path.name for path in on_disk.out.iterdir()} == {
        p.name for p in in_memory.out.iterdir()
    }


def test_a_memory_that_is_no_size_is_refused_before_the_pass(colour_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_MEMORY", "some")
    with pytest.raises(UsageError, match="HEADSTART_MEMORY must be a size such as 20GB"):
        run_job(settings(colour_folder, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_history_has_a_line_a_fold_and_epoch(finished):
    history = rows(finished.out / "history.csv")
    assert {row["fold"] for row in history} == {"1", "2", "3"}
    assert all(float(row["train_loss"]) > 0 for row in history)
    chosen = [int(row["epochs"]) for row in rows(finished.out / "cv_results.csv")[:3]]
    assert finished.record["choice"]["epochs"] == statistics.median_low(chosen)


@pytest.mark.parametrize("name", ["hidden", "dropout", "lr", "epochs", "batch_size"])
def test_settings_of_steps_are_refused_by_a_head_without_steps(name):
    value = "8" if name == "hidden" else 1
    with pytest.raises(UsageError, match=f"`{name}` means nothing to the logistic head"):
        RunSettings(data="digits", out="x", **{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "mlp", "hidden": "8,x"}, "`hidden` must be whole numbers"),
        ({"head": "mlp", "epochs": 0}, "epochs"),
        ({"head": "mlp", "dropout": 1.5}, "dropout"),
        ({"class_weights": "heavy"}, "`class_weights` must be none or balanced"),
        ({"max_images": 0}, "`max_images` must be at least 1"),
        ({"crop_margin": -0.1}, "`crop_margin` must be between 0 and 1"),
        ({"inner_folds": 0}, "`inner_folds` must be between 1 and 20, got 0. Correct --inner-fo"),
        ({"num_penalties": 101}, "`num_penalties` must be between 1 and 100, got 101"),
        ({"inner_folds": 3, "ratio": "70/15/15"}, "and so does `inner_folds` 3. Leave one out"),
    ],
    ids=[
        "hidden",
        "epochs",
        "dropout",
        "class-weights",
        "max-images",
        "crop-margin",
        "inner-folds",
        "penalties",
        "ratio",
    ],
)
def test_bad_settings_are_one_sentence(changes, message):
    with pytest.raises(UsageError, match=message):
        RunSettings(data="digits", out="x", **changes)


def test_every_setting_but_the_folder_is_an_option():
    import dataclasses

    fields = {field.name for field in dataclasses.fields(RunSettings)} - {"out"}
    assert {option.name for option in RUN_OPTIONS} == fields


def test_baselines_and_learning_curve_are_written(colour_folder, tmp_path):
    result = run_job(settings(colour_folder, tmp_path / "run"))
    metrics = json.loads((result.out / "metrics.json").read_text())
    share = metrics["baselines"]["commonest class"]
    assert share["low"] <= share["accuracy"] <= share["high"] < 1
    assert len(metrics["baselines"]) >= 3
    points = metrics["learning_curve"]["points"]
    assert [point["num_images"] for point in points] == sorted(p["num_images"] for p in points)
    assert points[-1]["accuracy"] == metrics["cross_validation"]["figures"]["accuracy"]["value"]
    assert (result.out / "learning_curve.png").is_file()
    without = run_job(settings(colour_folder, tmp_path / "none", learning_curve=False))
    assert "learning_curve" not in without.metrics
    assert not (without.out / "learning_curve.png").exists()
    assert without.metrics["test"] == result.metrics["test"]


def test_shares_are_nested_stratified_and_grouped():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    groups = np.arange(120) // 2
    fold = (np.arange(120) // 2 + generator.integers(0, 1)) % 4
    shares = nested_shares(labels, fold, groups, seed=3)
    assert shares.fractions == (0.125, 0.25, 0.5, 1.0)
    for small, large in zip(shares.learns, shares.learns[1:], strict=False):
        assert not (small & ~large).any()
    for k, learns in enumerate(shares.learns[0]):
        assert not (learns & (fold == k)).any()
        assert all(len(set(learns[groups == g])) == 1 for g in np.unique(groups))
        counts = np.bincount(labels[learns])
        assert counts.max() - counts.min() <= 2


def test_tiny_data_give_a_short_curve():
    labels = np.repeat(np.arange(2), 6)
    shares = nested_shares(labels, np.arange(12) % 3, None, seed=0)
    assert len(shares.fractions) == 2  # four to learn from in a class: halved once


def test_class_weights_change_the_fit_of_unequal_classes(colour_folder, tmp_path):
    for path in sorted((colour_folder / "red").iterdir())[5:]:
        path.unlink()
    for number in range(5):  # two classes that nothing but their frequency tells apart
        paint(colour_folder / "red" / f"{number:02d}.png", COLOURS["green"], seed=900 + number)
    plain = run_job(settings(colour_folder, tmp_path / "a"))
    balanced = run_job(settings(colour_folder, tmp_path / "b", class_weights="balanced"))
    assert (plain.out / "model/weights.safetensors").read_bytes() != (
        balanced.out / "model/weights.safetensors"
    ).read_bytes()

    def certainty(result):
        with (result.out / "out_of_fold_predictions.csv").open() as file:
            return np.mean([float(row["prob_red"]) for row in csv.DictReader(file)])

    assert certainty(balanced) > certainty(plain)


def test_a_sample_keeps_classes_and_splits_in_their_share():
    labels = np.repeat(np.arange(3), [60, 30, 10])
    splits = tuple("test" if i % 5 == 0 else "train" for i in range(100))
    table = ImageTable(
        name="x", paths=tuple(f"{i:03d}" for i in range(100)), labels=labels,
        class_names=("a", "b", "c"), splits=splits, pixels=np.zeros((100, 4, 4), np.uint8),
    )  # fmt: skip
    sample = sample_table(table, 50, seed=0)
    assert np.bincount(sample.labels).tolist() == [30, 15, 5]
    assert sample.splits.count("test") == 10
    assert list(sample.paths) == sorted(sample.paths)
    assert sample_table(table, 50, seed=0).paths == sample.paths
    assert sample_table(table, 50, seed=1).paths != sample.paths
    assert sample_table(table, None, seed=0) is sample_table(table, 100, seed=0) is table
    assert set(np.unique(sample_table(table, 1, seed=0).labels)) == {0, 1, 2}


def test_a_run_on_a_sample(tmp_path):
    result = run_job(settings("digits", tmp_path / "run", max_images=120))
    assert abs(result.record["data"]["num_images"] - 120) <= 10
    assert len(load_table("digits")) == 1797


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.01, 0.06, "Still rising"), (-0.004, 0.006, "Flat"), (-0.02, 0.09, "Not clear")],
    ids=["rising", "flat", "unclear"],
)
def test_the_verdict_follows_the_interval(low, high, word):
    points = [{"num_images": 50}, {"num_images": 100}]
    sentence = verdict((low + high) / 2, low, high, points)
    assert sentence.startswith(word)
    assert "from 50 to 100 images" in sentence
