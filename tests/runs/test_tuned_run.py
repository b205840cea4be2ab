"""Fine-tuning as a whole run: its files, its bundle, its options, killed and resumed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from test_job import FILES, figures, rows, settings

import headstart
from headstart.errors import DataError, UsageError
from headstart.finetune.records.keeping import Keeper
from headstart.progress import Progress
from headstart.runs import run_job
from headstart.runs.fitting import tuned

TUNED = {
    "strategy": "two-stage", "epochs": "1,2", "lr": 0.003, "batch_size": 8, "folds": 2,
    "head_blocks": "se:8,spatial", "augment": "flip:0.5", "learning_curve": False,
    "profile": True,
}  # fmt: skip


class Notes(Progress):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from pictures import COLOURS, paint

    folder = tmp_path_factory.mktemp("tuned")
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(12):
            paint(folder / "data" / name / f"{i:02d}.png", colour, seed=100 * number + i)
    notes = Notes()
    patch = pytest.MonkeyPatch()
    patch.setenv("HEADSTART_CACHE", str(folder / "cache"))
    result = run_job(settings(folder / "data", folder / "run", **TUNED), progress=notes)
    patch.undo()
    return result, folder / "data", notes.lines


def test_a_tuned_run_is_complete_and_learns(finished):
    result, _, lines = finished
    present = {path.name for path in result.out.iterdir()} - {".lock"}
    assert present == (FILES | {"trains.png", "profile.csv"}) - {"learning_curve.png"}
    assert result.metrics["cross_validation"]["figures"]["accuracy"]["value"] > 0.85
    assert "logistic probe" in result.metrics["baselines"]  # its own score is always told
    assert any(line.startswith("Blocks     se:8+spatial, 384 features") for line in lines)


def test_its_bundle_answers_like_the_run(finished):
    result, data, _ = finished
    about = json.loads((result.out / "model" / "bundle.json").read_text())
    record = json.loads((result.out / "run.json").read_text())
    stored = {"blocks": ["se:8", "spatial"], "pool": "own"}
    assert about["backbone"]["head_blocks"] == stored == record["backbone"]["head_blocks"]
    table = rows(result.out / "predictions.csv")
    found = headstart.load(result.out).predict([data / row["path"] for row in table])
    told = [[float(row[f"prob_{name}"]) for name in found.class_names] for row in table]
    assert np.allclose(told, found.probabilities, atol=1e-6)


def test_tensorboard_has_every_epoch(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[0].out / "tensorboard")).Reload()
    for name in ("train_loss", "inner_log_loss", "inner_accuracy", "rate"):
        told = [(e.step, e.value) for e in events.Scalars(f"fold 1/{name}")]
        history = rows(finished[0].out / "history.csv")
        kept = [(int(r["epoch"]), r[name]) for r in history if r["fold"] == "1" and r[name]]
        assert [step for step, _ in told] == [epoch for epoch, _ in kept]
        assert np.allclose([v for _, v in told], [float(v) for _, v in kept])


def test_the_summary_is_kept(finished):
    lines = (finished[0].out / "summary.txt").read_text().splitlines()
    assert any(line.startswith("blocks.0.layer.fc1") for line in lines)
    assert any(line.split()[:1] == ["head_blocks"] for line in lines)


def test_the_profile_accounts_for_every_second(finished):
    result, _, lines = finished
    table = rows(result.out / "profile.csv")
    phases = {row["name"]: float(row["wall_seconds"]) for row in table if row["of"] == "phase"}
    assert phases == {k: v for k, v in result.record["times"].items() if "peak" not in k}
    cpu = {row["name"]: float(row["cpu_seconds"]) for row in table if row["of"] == "phase"}
    assert cpu == result.record["cpu_times"]
    assert sum(cpu.values()) > 0
    parts = {row["name"]: row for row in table if row["of"] != "phase"}
    assert {"pictures, read", "augment", "forward", "backward", "optimizer", "checkpoint"} <= set(
        parts
    )
    assert {"inner part", "frozen stages", "the rest"} <= set(parts)
    # Two folds of 1 + 2 epochs and the final fit: as many backward passes as steps.
    assert int(parts["backward"]["calls"]) == int(parts["optimizer"]["calls"]) > 6
    whole = sum(float(row["wall_seconds"]) for row in parts.values())
    assert 0.5 * phases["training"] < whole <= phases["training"] + 0.01
    assert sum("part of training" in line for line in lines) == len(parts)


def without_times(folder):
    """The figures of a run, without what the clock says."""
    found = figures(folder)
    for name in ("cv_results.csv", "history.csv"):
        found[name] = [
            {key: value for key, value in row.items() if not key.endswith("seconds")}
            for row in rows(folder / name)
        ]
    return found


def test_a_killed_tuned_run_ends_with_the_same_figures(finished, tmp_path, monkeypatch):
    result, data, _ = finished

    kept, saves = Keeper.save, []

    def stop(self, state, current):
        kept(self, state, current)
        saves.append(sum(state.epochs))
        if len(saves) == 6:  # three epochs and the end of the first fold, two of the second
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(settings(data, tmp_path / "run", **TUNED))
    plain = {**TUNED, "profile": False}  # changes no result, so a resume may do without
    resumed = run_job(settings(data, tmp_path / "run", **plain), resume=True)
    assert without_times(resumed.out) == without_times(result.out)
    assert saves == [1, 2, 3, 3, 1, 2]
    assert len(list((resumed.out / "checkpoints").glob("fold-*.ckpt"))) == 3
    same = (resumed.out / "model" / "weights.safetensors").read_bytes()
    assert same == (result.out / "model" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "other"])
def test_a_picture_that_changes_after_the_pass_is_not_learnt_from(
    colour_folder, tmp_path, monkeypatch, gone
):
    prepare = tuned.prepare_images

    def change(source, extractor, **options):
        path = colour_folder / "red" / "00.png"
        path.unlink() if gone else shutil.copy(colour_folder / "blue" / "00.png", path)
        return prepare(source, extractor, **options)

    monkeypatch.setattr(tuned, "prepare_images", change)
    what = "cannot now" if gone else "holds something else now"
    with pytest.raises(DataError, match=rf"00\.png' could be read a moment ago and {what}"):
        run_job(settings(colour_folder, tmp_path / "run", strategy="full", epochs="1"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head_blocks": "se"}, "`head_blocks` means nothing to the strategy 'probe'"),
        ({"pool": "flatten"}, "`pool` means nothing to the strategy 'probe'"),
        ({"compile": True}, "`compile` means nothing to the strategy 'probe'"),
        ({"strategy": "full", "head_blocks": "sa"}, "Unknown head block 'sa'"),
        ({"strategy": "full", "pool": "sum"}, "`pool` must be one of"),
        ({"strategy": "full", "train": "profile=true"}, "`train` must be a list"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_sentence(tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        settings("digits", tmp_path / "run", **changes)


def test_blocks_without_a_map_leave_nothing_behind(finished, tmp_path):
    _, data, _ = finished
    asked = {**TUNED, "model": "timm:vit_tiny_patch16_224", "weights": "none", "image_size": 224}
    with pytest.raises(UsageError, match="no map of channels x height x width"):
        run_job(settings(data, tmp_path / "run", **asked))
    assert not (tmp_path / "run").exists()


def test_the_report_names_the_blocks(finished):
    from headstart.report.reading import read_stored_run

    run = read_stored_run(finished[0].out)
    assert run.model == "mini with se:8 and spatial, fine-tuned (two-stage)"
