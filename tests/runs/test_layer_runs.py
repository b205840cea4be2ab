"""Runs on features of several stages: chosen honestly, answered alike, repeated and resumed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from pictures import COLOURS, paint
from test_job import figures, rows, settings

import headstart
from headstart.cli.app import main
from headstart.errors import ResumeError, UsageError
from headstart.files import read_json
from headstart.progress import Progress
from headstart.runs import RunSettings, job, plan_job, run_job, settings_from
from headstart.runs.fitting import layers
from headstart.runs.fitting.layers import LayeredFitting

MLP = {"head": "mlp", "hidden": "8", "epochs": 6, "lr": 0.01, "batch_size": 8}


class Told(Progress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three colours, some of them so noisy that a fold is not sure."""
    place = tmp_path_factory.mktemp("colours")
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(12):
            near = tuple(int(118 + (c - 118) * (0.1 if i % 4 == 0 else 0.5)) for c in colour)
            paint(place / name / f"{i:02d}.png", near, seed=100 * number + i)
    return place


@pytest.fixture(scope="module")
def chosen(folder, tmp_path_factory):
    """A finished run that chose its layers, and what it told."""
    place = tmp_path_factory.mktemp("chosen")
    patch = pytest.MonkeyPatch()
    patch.setenv("HEADSTART_CACHE", str(place / "cache"))
    progress = Told()
    result = run_job(settings(folder, place / "run", layers="auto"), progress=progress)
    patch.undo()
    return result, progress.notes


def test_every_fold_keeps_the_layers_that_its_inner_rows_like_best(chosen):
    result, notes = chosen
    table = rows(result.out / "layers.csv")
    names = ["head", "stage3,head", "stage2,stage3,head", "stage1,stage2,stage3,head"]
    assert [row["layers"] for row in table] == names * 3
    assert [int(row["features"]) for row in table] == [384, 544, 592, 616] * 3
    kept = [row for row in table if row["kept"] == "yes"]
    assert [row["fold"] for row in kept] == ["1", "2", "3"]
    for row in kept:
        rivals = [float(r["inner_log_loss"]) for r in table if r["fold"] == row["fold"]]
        assert float(row["inner_log_loss"]) == min(rivals)
    told = rows(result.out / "cv_results.csv")[:3]
    assert [(r["layers"], r["penalty"]) for r in told] == [
        (r["layers"], r["penalty"]) for r in kept
    ]
    about = result.metrics["layers"]
    assert about["kept_by_folds"] == [row["layers"] for row in kept]
    best = min(about["candidates"], key=lambda entry: entry["inner_log_loss"])
    assert result.record["choice"]["layers"] == best["layers"] == about["final"]
    assert result.record["settings"]["layers"] == "auto"
    line = next(note for note in notes if note.startswith("Layers     chosen"))
    assert line.startswith(f"Layers     chosen: {best['layers']}; inner log loss ")
    assert all(f"({name}: " in line for name in names)


def test_the_bundle_is_cut_to_the_layers_and_answers_alike(chosen, folder):
    result, _ = chosen
    model = headstart.load(result.out)
    kept = result.record["choice"]["layers"]
    assert ",".join(model.network.layers) == kept
    assert model.head.num_inputs == model.network.num_features
    assert read_json(result.out / "model" / "bundle.json")["backbone"]["layers"] == kept.split(",")
    table = rows(result.out / "predictions.csv")
    found = model.predict([folder / row["path"] for row in table])
    told = [[float(row[f"prob_{name}"]) for name in found.class_names] for row in table]
    assert np.allclose(told, found.probabilities, atol=1e-6)
    scores = [float(row["outlier_score"]) for row in table]
    np.testing.assert_allclose(scores, found.outlier_scores, atol=0.01)
    assert "has learnt from" not in result.metrics["confidence"]["outliers"]["note"]


def test_the_learning_curve_ends_where_the_folds_do(chosen):
    result, _ = chosen
    points = result.metrics["learning_curve"]["points"]
    assert (
        points[-1]["accuracy"] == result.metrics["cross_validation"]["figures"]["accuracy"]["value"]
    )


def test_a_killed_run_keeps_its_choice(chosen, folder, tmp_path, monkeypatch):
    result, _ = chosen

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(LayeredFitting, "fit_final", stop)
    with pytest.raises(KeyboardInterrupt):
        run_job(settings(folder, tmp_path / "run", layers="auto"))
    monkeypatch.undo()
    monkeypatch.setattr(layers, "fit_with_chosen_columns", stop)
    resumed = run_job(settings(folder, tmp_path / "run", layers="auto"), resume=True)
    assert figures(resumed.out) == figures(result.out)
    for name in ("layers.csv", "model/weights.safetensors"):
        assert (resumed.out / name).read_bytes() == (result.out / name).read_bytes()


def test_what_was_chosen_can_be_asked_for_by_name(chosen, folder, tmp_path):
    """A run on the chosen layers has the features, and for folds that agreed the figures, of it."""
    result, _ = chosen
    kept = result.record["choice"]["layers"]
    named = run_job(settings(folder, tmp_path / "run", layers=kept))
    networks = [headstart.load(run.out).network for run in (result, named)]
    assert networks[0].digest == networks[1].digest
    agreed = [fold for fold in result.metrics["layers"]["kept_by_folds"] if fold == kept]
    if len(agreed) == 3:
        probabilities = [
            [float(row["prob_red"]) for row in rows(run.out / "out_of_fold_predictions.csv")]
            for run in (result, named)
        ]
        np.testing.assert_allclose(*probabilities, atol=0.01)


def test_the_choice_of_a_fold_does_not_hang_on_the_labels_it_is_scored_on(
    folder, tmp_path, monkeypatch
):
    """Planted: before heads are fitted, other labels for what the first fold is scored on."""
    plain = run_job(settings(folder, tmp_path / "a", layers="auto", learning_curve=False))
    original = job.logistic_fitting

    def disturbed(task):
        labels, scored = task.table.labels.copy(), task.split.train[task.split.fold == 0]
        labels[scored] = (labels[scored] + 1) % 3
        return original(replace(task, table=replace(task.table, labels=labels)))

    monkeypatch.setitem(job.HEAD_FITTINGS, "logistic", disturbed)
    other = run_job(settings(folder, tmp_path / "b", layers="auto", learning_curve=False))
    first, second = (rows(run.out / "layers.csv") for run in (plain, other))
    assert [row["kept"] for row in first[:4]] == [row["kept"] for row in second[:4]]
    losses = np.array([[float(row["inner_log_loss"]) for row in each] for each in (first, second)])
    np.testing.assert_allclose(losses[0, :4], losses[1, :4], rtol=1e-3)
    assert np.abs(losses[0, 4:] - losses[1, 4:]).min() > 0.05, "other folds learn from them"


@pytest.mark.parametrize("more", [{}, MLP, {"views": "flip", "tta": "flip"}], ids=str)
def test_named_layers_answer_alike(folder, tmp_path, more):
    result = run_job(settings(folder, tmp_path / "run", layers="2", **more))
    assert result.record["backbone"]["layers"] == {"stage3": 160, "head": 384}
    assert result.metrics["cross_validation"]["figures"]["accuracy"]["value"] > 0.7
    table = rows(result.out / "predictions.csv")
    found = headstart.load(result.out).predict([folder / row["path"] for row in table])
    told = [[float(row[f"prob_{name}"]) for name in found.class_names] for row in table]
    assert np.allclose(told, found.probabilities, atol=1e-6)
    assert not (result.out / "layers.csv").exists()
    assert "layers" not in result.metrics


def test_views_and_averaged_answers_go_with_chosen_layers(folder, tmp_path):
    result = run_job(
        settings(folder, tmp_path / "run", layers="auto", views="flip", tta="flip", inner_folds=2)
    )
    table = rows(result.out / "predictions.csv")
    found = headstart.load(result.out).predict([folder / row["path"] for row in table])
    told = [[float(row[f"prob_{name}"]) for name in found.class_names] for row in table]
    assert np.allclose(told, found.probabilities, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layers": "2", "strategy": "full"},
            "`layers` is of the strategy 'probe'.*Leave --layers",
        ),
        (
            {"layers": "auto", **MLP},
            "`layers` can be 'auto' for a logistic head alone, got .*'mlp'",
        ),
        ({"layers": "0"}, r"`layers` must be auto, a number .* got '0'. Correct --layers"),
        ({"layers": "stage3,,head"}, "`layers` must be auto"),
        ({"layers": True}, "`layers` must be text, got True"),
    ],
)
def test_layers_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        RunSettings(data="digits", out="x", **changes)


def test_a_number_from_python_is_a_number():
    assert RunSettings(data="digits", out="x", layers=3).layers == "3"


def test_a_stage_that_is_not_there_leaves_nothing_behind(folder, tmp_path, monkeypatch, capsys):
    place = tmp_path / "run"
    words = ["headstart", "run", "--data", str(folder), "--out", str(place), "--layers", "layer4"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "mini has no stage 'layer4'" in capsys.readouterr().err
    assert not place.exists()


def test_other_layers_are_refused_on_resume_and_repeated_from_a_record(chosen, folder):
    result, _ = chosen
    with pytest.raises(ResumeError, match="layers was 'auto', now '2'"):
        run_job(settings(folder, result.out, layers="2"), resume=True)
    stored = json.loads((result.out / "run.json").read_text())["settings"]
    assert settings_from(stored, out="other").layers == "auto"
    assert settings_from(stored, out="other", strategy="full").layers is None


def test_the_plan_tells_of_layers(folder, tmp_path):
    plan = plan_job(settings(folder, tmp_path / "run", layers="auto"))
    assert "3 folds x 10 penalties x layers at once" in plan.fits
