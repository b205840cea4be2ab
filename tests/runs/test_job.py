"""The main job on easy colours: complete, honest, repeatable, resumable."""

from __future__ import annotations

import csv
import json
import shutil
from importlib.resources import files

import numpy as np
import pytest

import headstart
from headstart.errors import DataError, OutputError, ResumeError, UsageError
from headstart.progress import Progress
from headstart.runs import RunSettings, job, plan_job, run_job
from headstart.runs.files import folder

FILES = {
    "run.json", "images.csv", "splits.csv", "cv_results.csv", "history.csv", "metrics.json",
    "predictions.csv", "out_of_fold_predictions.csv", "classification_report.txt",
    "confusion_matrix.png", "curves.png", "learning_curve.png", "tensorboard", "checkpoints",
    "model", "summary.txt",
}  # fmt: skip
FIGURES = ("metrics.json", "predictions.csv", "out_of_fold_predictions.csv", "cv_results.csv",
           "history.csv", "splits.csv", "images.csv", "classification_report.txt")  # fmt: skip


def settings(data, out, **changes):
    chosen = {"folds": 3, "image_size": 32, "audit": "none", **changes}
    return RunSettings(data=str(data), out=str(out), **chosen)


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def figures(folder):
    return {name: (folder / name).read_bytes() for name in FIGURES}


@pytest.fixture
def finished(colour_folder, tmp_path):
    return run_job(settings(colour_folder, tmp_path / "run"))


def test_a_run_is_complete(finished):
    present = {path.name for path in finished.out.iterdir()} - {".lock"}
    assert present == FILES
    assert any((finished.out / "tensorboard").iterdir())
    record = json.loads((finished.out / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["test_openings"] == 1
    assert record["data"]["class_names"] == ["blue", "green", "red"]
    assert record["backbone"]["weights"]["source"] == "bundled"
    assert record["choice"]["locked"] <= record["finished"]


def test_easy_colours_are_learnt(finished):
    assert finished.metrics["test"]["figures"]["accuracy"]["value"] == 1.0
    low = finished.metrics["test"]["figures"]["accuracy"]["low"]
    assert 0.5 < low < 1.0  # few images: even a perfect score has a wide interval


def test_every_image_is_in_one_part_and_predicted_once(finished):
    splits = rows(finished.out / "splits.csv")
    assert len({row["path"] for row in splits}) == len(splits) == 36
    tested = {row["path"] for row in splits if row["part"] == "test"}
    assert {row["path"] for row in rows(finished.out / "predictions.csv")} == tested
    learnt = {row["path"] for row in splits if row["part"] == "train"}
    assert {row["path"] for row in rows(finished.out / "out_of_fold_predictions.csv")} == learnt
    for part in (tested, learnt):
        assert {path.split("/")[0] for path in part} == {"blue", "green", "red"}


def test_prediction_columns(finished):
    row = rows(finished.out / "predictions.csv")[0]
    columns = ["path", "true", "predicted", "prob_blue", "prob_green", "prob_red"]
    assert list(row) == [*columns, "set", "unknown", "outlier_score"]
    assert sum(float(row[f"prob_{name}"]) for name in ("blue", "green", "red")) == pytest.approx(
        1, abs=1e-5
    )


def test_the_bundle_answers_like_the_run(finished, colour_folder):
    table = rows(finished.out / "predictions.csv")
    predictions = headstart.load(finished.out).predict([colour_folder / r["path"] for r in table])
    for row, probabilities in zip(table, predictions.probabilities, strict=True):
        told = [float(row[f"prob_{name}"]) for name in predictions.class_names]
        assert np.allclose(told, probabilities, atol=1e-6)
    assert predictions.names == [row["predicted"] for row in table]


def test_the_same_seed_gives_the_same_figures(colour_folder, tmp_path):
    first = run_job(settings(colour_folder, tmp_path / "a"))
    second = run_job(settings(colour_folder, tmp_path / "b"))
    assert figures(first.out) == figures(second.out)
    weights = "model/weights.safetensors"
    assert (first.out / weights).read_bytes() == (second.out / weights).read_bytes()
    other = run_job(settings(colour_folder, tmp_path / "c", seed=1))
    assert rows(other.out / "splits.csv") != rows(first.out / "splits.csv")


@pytest.mark.parametrize(
    "phase", ["read", "split", "fit_folds", "score_folds", "fit_final", "lock", "test", "finish"]
)
def test_a_killed_run_resumes_to_the_same_figures(colour_folder, tmp_path, monkeypatch, phase):
    whole = run_job(settings(colour_folder, tmp_path / "whole"))
    original = getattr(job.Job, phase)

    def interrupted(self, *arguments):
        if phase != "test":  # else interrupt before the phase
            original(self, *arguments)
        raise KeyboardInterrupt

    if phase != "finish":
        monkeypatch.setattr(job.Job, phase, interrupted)
    else:
        monkeypatch.setattr(
            job.outputs, "write_metrics", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
    with pytest.raises(KeyboardInterrupt):
        run_job(settings(colour_folder, tmp_path / "run"))
    monkeypatch.undo()
    with pytest.raises(OutputError, match="--resume"):
        run_job(settings(colour_folder, tmp_path / "run"))
    resumed = run_job(settings(colour_folder, tmp_path / "run"), resume=True)
    assert figures(resumed.out) == figures(whole.out)
    assert resumed.record["status"] == "finished"


def test_a_finished_run_is_not_done_again(finished, colour_folder):
    before = (finished.out / "run.json").read_bytes()
    again = run_job(settings(colour_folder, finished.out), resume=True)
    assert (finished.out / "run.json").read_bytes() == before
    assert again.metrics == finished.metrics


def test_a_finished_run_that_lost_a_part_is_made_whole(finished, colour_folder):
    before = figures(finished.out)
    for gone in ("model", "model/weights.safetensors", "metrics.json"):
        place = finished.out / gone
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        again = run_job(settings(colour_folder, finished.out), resume=True)
        assert again.metrics == finished.metrics, gone
        assert figures(finished.out) == before, gone
        assert again.record["status"] == "finished"
        loaded = headstart.load(finished.out)
        assert loaded.root_digest == again.record["choice"]["model_digest"]
        assert loaded.predict(colour_folder / "red/00.png").names == ["red"]


def interrupt(colour_folder, out, monkeypatch, **asked):
    with monkeypatch.context() as patch:
        patch.setattr(job.Job, "fit_final", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_job(settings(colour_folder, out, **asked))


def test_damaged_checkpoints_are_fitted_again(finished, colour_folder, tmp_path, monkeypatch):
    out = tmp_path / "other"
    interrupt(colour_folder, out, monkeypatch)
    kept = out / "checkpoints" / "folds.bin"
    raw = kept.read_bytes()
    for damaged in (b"x" * len(raw), raw[: len(raw) // 2], b""):
        kept.write_bytes(damaged)
        (out / "metrics.json").unlink(missing_ok=True)  # else it is finished after the first
        resumed = run_job(settings(colour_folder, out), resume=True)
        assert figures(resumed.out) == figures(finished.out)
        assert kept.read_bytes() == raw


def test_resuming_with_other_settings_names_them(colour_folder, tmp_path, monkeypatch):
    interrupt(colour_folder, tmp_path / "run", monkeypatch)
    with pytest.raises(ResumeError, match=r"folds was '3', now '4'.*seed was 0, now 7"):
        run_job(settings(colour_folder, tmp_path / "run", folds=4, seed=7), resume=True)


def test_resuming_with_other_images_is_refused(colour_folder, tmp_path, monkeypatch):
    from pictures import paint

    interrupt(colour_folder, tmp_path / "run", monkeypatch)
    paint(colour_folder / "red" / "00.png", (200, 50, 40), seed=77)
    with pytest.raises(ResumeError, match="have changed"):
        run_job(settings(colour_folder, tmp_path / "run"), resume=True)
    assert (tmp_path / "run" / "run.json").exists()


def test_resuming_with_other_weights_under_the_same_name_is_refused(
    colour_folder, tmp_path, monkeypatch
):
    """Heads that were kept know nothing of another network's features: 12 % right, no word said."""
    from safetensors.torch import load_file, save_file

    bundled = files("headstart.weights") / "mini2.safetensors"
    weights = tmp_path / "mine.safetensors"
    shutil.copy(str(bundled), weights)
    asked = {"weights": str(weights)}
    interrupt(colour_folder, tmp_path / "run", monkeypatch, **asked)
    tensors = {name: value * 1.5 for name, value in load_file(weights).items()}
    save_file(tensors, weights)
    with pytest.raises(ResumeError, match=r"began with other weights \(\w{12}\)"):
        run_job(settings(colour_folder, tmp_path / "run", **asked), resume=True)
    shutil.copy(str(bundled), weights)
    assert run_job(settings(colour_folder, tmp_path / "run", **asked), resume=True)


def test_unreadable_images_are_named_and_left_out(colour_folder, tmp_path):
    (colour_folder / "red" / "text.jpg").write_text("not an image")
    (colour_folder / "red" / "empty.jpg").write_bytes(b"")
    cut = (colour_folder / "blue" / "00.png").read_bytes()
    (colour_folder / "blue" / "cut.png").write_bytes(cut[: len(cut) // 2])
    result = run_job(settings(colour_folder, tmp_path / "run"))
    told = {r["path"]: r["problem"] for r in rows(result.out / "images.csv") if r["problem"]}
    assert set(told) == {"red/text.jpg", "red/empty.jpg", "blue/cut.png"}
    assert result.record["data"]["num_left_out"] == 3
    parts = {row["path"]: row["part"] for row in rows(result.out / "splits.csv")}
    assert {path for path, part in parts.items() if part == "unused"} == set(told)


def test_strict_stops_and_leaves_nothing(colour_folder, tmp_path):
    (colour_folder / "red" / "text.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"1 of 37 images cannot be read: red/text\.jpg"):
        run_job(settings(colour_folder, tmp_path / "run", strict=True))
    assert not (tmp_path / "run").exists()


def test_a_refused_run_leaves_an_existing_folder_empty(colour_folder, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match="folds"):
        run_job(settings(colour_folder, tmp_path / "run", folds=11))
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("existed", [True, False], ids=["there", "new"])
@pytest.mark.parametrize(
    ("change", "match"), [({"strict": True}, "text.jpg"), ({"folds": 11}, "folds")]
)
def test_a_refused_run_removes_only_its_own_files(
    colour_folder, tmp_path, monkeypatch, existed, change, match
):
    out = tmp_path / "run"
    if existed:
        out.mkdir()
    (colour_folder / "red" / "text.jpg").write_text("not an image")
    seed_everything = job.seed_everything

    def meanwhile(seed):
        (out / "notes.txt").write_text("precious")
        seed_everything(seed)

    monkeypatch.setattr(job, "seed_everything", meanwhile)
    with pytest.raises(DataError, match=match):
        run_job(settings(colour_folder, out, **change))
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    assert (out / "notes.txt").read_text() == "precious"


def test_a_run_that_finished_while_another_began_is_left_alone(
    colour_folder, tmp_path, monkeypatch
):
    """The folder is looked at again by its owner, not only before it is owned."""
    out, make_folder = tmp_path / "run", folder.make_folder

    def late(place):
        with monkeypatch.context() as patch:
            patch.setattr(folder, "make_folder", make_folder)
            run_job(settings(colour_folder, out))
        make_folder(place)

    monkeypatch.setattr(folder, "make_folder", late)
    with pytest.raises(OutputError, match="holds a run already"):
        run_job(settings(colour_folder, out, folds=4))
    assert {path.name for path in out.iterdir()} - {".lock"} == FILES
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["settings"]["folds"]) == ("finished", "3")


def test_names_decide_with_contents_whatever_the_store_holds(colour_folder, tmp_path):
    """The same bytes under two names: each is judged by its own, first and later."""
    from PIL import Image

    Image.open(colour_folder / "red/00.png").save(colour_folder / "red/zz.jpg", "JPEG")
    (colour_folder / "red/a.dng").write_bytes((colour_folder / "red/zz.jpg").read_bytes())
    png = (colour_folder / "blue/00.png").read_bytes()
    for name in ("x.jpg", "y.png"):
        (colour_folder / "blue" / name).write_bytes(png)
    for number in range(2):
        result = run_job(settings(colour_folder, tmp_path / f"run{number}"))
        told = {row["path"]: row for row in rows(result.out / "images.csv")}
        assert "camera RAW" in told["red/a.dng"]["problem"]
        assert [path for path, row in told.items() if row["problem"]] == ["red/a.dng"]
        wrong = [path for path, row in told.items() if "named" in row["treatment"]]
        assert wrong == ["blue/x.jpg"]
        assert told["blue/x.jpg"]["treatment"] == "PNG named .jpg"
        assert "red/zz.jpg" in {row["path"] for row in rows(result.out / "splits.csv")}


def test_own_test_part_is_used(colour_folder, tmp_path):
    from pictures import COLOURS, paint

    for name, colour in COLOURS.items():
        for i in range(2):
            paint(tmp_path / "other" / name / f"{i}.png", colour, seed=500 + i)
    result = run_job(settings(colour_folder, tmp_path / "run", test_data=str(tmp_path / "other")))
    assert result.metrics["test"]["num_images"] == 6
    assert result.metrics["cross_validation"]["num_images"] == 36


def test_the_test_part_changes_nothing_that_was_learnt(colour_folder, tmp_path):
    """Other test images, even mislabelled ones, leave folds and model as they were."""
    from pictures import COLOURS, paint

    models = []
    for number in range(2):
        place = tmp_path / f"other{number}"
        for name, colour in zip(
            COLOURS, list(COLOURS.values())[:: -1 if number else 1], strict=True
        ):
            paint(place / name / "0.png", colour, seed=900 + number)  # no copy of a training image
        result = run_job(settings(colour_folder, tmp_path / f"run{number}", test_data=str(place)))
        models.append((result.out / "model/weights.safetensors").read_bytes())
        models.append((result.out / "out_of_fold_predictions.csv").read_bytes())
    assert models[:2] == models[2:]


def test_shuffled_labels_score_at_chance(tmp_path):
    """No leak anywhere in the folds: labels without meaning are not predicted."""
    from pictures import paint

    generator = np.random.default_rng(0)
    for i in range(120):
        paint(tmp_path / "d" / "ab"[i % 2] / f"{i}.png", tuple(generator.integers(0, 255, 3)), i)
    result = run_job(settings(tmp_path / "d", tmp_path / "run", folds=5))
    figures = result.metrics["cross_validation"]["figures"]
    assert 0.3 < figures["accuracy"]["value"] < 0.7
    assert 0.3 < figures["macro_auc"]["value"] < 0.7


def test_a_full_disk_keeps_what_was_finished(colour_folder, tmp_path, monkeypatch):
    import errno

    from headstart.errors import StorageError

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("headstart.bundle.format.write_json", full)
        with pytest.raises(StorageError, match="disk is full"):
            run_job(settings(colour_folder, tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "running"
    assert not (tmp_path / "run" / "model").exists()
    resumed = run_job(settings(colour_folder, tmp_path / "run"), resume=True)
    assert resumed.record["status"] == "finished"


def test_a_plan_writes_nothing(colour_folder, tmp_path):
    plan = plan_job(settings(colour_folder, tmp_path / "run"))
    assert (plan.num_images, plan.num_train + plan.num_test) == (36, 36)
    assert (plan.num_passes, plan.num_known) == (36, 0)
    assert not (tmp_path / "run").exists()
    run_job(settings(colour_folder, tmp_path / "run"))
    plan = plan_job(settings(colour_folder, tmp_path / "other"))
    assert (plan.num_passes, plan.num_known) == (0, 36)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"folds": 1}, "`folds` must be at least 2"),
        ({"test_fraction": 1.5}, "`test_fraction`"),
        ({"seed": -1}, "`seed`"),
        ({"head": "forest"}, "Unknown head 'forest'"),
    ],
)
def test_bad_settings_are_one_sentence(change, match):
    with pytest.raises(UsageError, match=match):
        settings("x", "y", **change)


def test_progress_tells_what_was_chosen(colour_folder, tmp_path):
    class Listening(Progress):
        def __init__(self):
            self.notes = []

        def note(self, message):
            self.notes.append(message)

    progress = Listening()
    run_job(settings(colour_folder, tmp_path / "run"), progress=progress)
    text = "\n".join(progress.notes)
    for word in ("36 images, 3 classes", "mini", "squash", "Engine", "to learn from in 3 folds"):
        assert word in text


def test_damaged_checkpoints_are_fitted_again_to_the_same_figures(
    colour_folder, tmp_path, monkeypatch
):
    whole = run_job(settings(colour_folder, tmp_path / "whole"))
    interrupt(colour_folder, tmp_path / "run", monkeypatch)
    kept = tmp_path / "run" / "checkpoints" / "folds.bin"
    raw = bytearray(kept.read_bytes())
    raw[-40:] = bytes(40)
    kept.write_bytes(raw)
    resumed = run_job(settings(colour_folder, tmp_path / "run"), resume=True)
    assert figures(resumed.out) == figures(whole.out)


@pytest.mark.parametrize("text", ["[]", "{}", '{"test": 3}', "no json"])
def test_damaged_figures_are_written_again(finished, colour_folder, text):
    before = figures(finished.out)
    (finished.out / "metrics.json").write_text(text)
    run_job(settings(colour_folder, finished.out), resume=True)
    assert figures(finished.out) == before


def test_a_finished_run_names_images_that_hold_something_else_now(colour_folder, tmp_path):
    asked = settings(colour_folder, tmp_path / "run")
    run_job(asked)
    run_job(asked, resume=True)
    before = figures(tmp_path / "run")
    pictures = sorted(colour_folder.glob("*/*"))
    kept = [picture.read_bytes() for picture in pictures[:2]]
    pictures[0].write_bytes(kept[1])
    name = pictures[0].relative_to(colour_folder).as_posix()
    with pytest.raises(ResumeError, match=rf"1 of its \d+ images hold something else .*'{name}'"):
        run_job(asked, resume=True)
    pictures[0].write_bytes(kept[0])
    pictures[1].write_bytes(kept[1] + b"one more byte")
    with pytest.raises(ResumeError, match="hold something else now"):
        run_job(asked, resume=True)
    pictures[1].write_bytes(kept[1])
    run_job(asked, resume=True)
    assert figures(tmp_path / "run") == before


def test_other_folds_do_not_go_on_from_kept_heads(colour_folder, tmp_path, monkeypatch):
    """A head would be scored on images that it has learnt from."""
    whole = run_job(settings(colour_folder, tmp_path / "whole"))
    lines = (whole.out / "splits.csv").read_text().splitlines()
    given = tmp_path / "given.csv"
    given.write_text("\n".join(lines) + "\n")
    chosen = {"splits": str(given)}
    with monkeypatch.context() as patch:
        patch.setattr(job.Job, "score_folds", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_job(settings(colour_folder, tmp_path / "run", **chosen))
    moved = [line.replace(",train,1", ",train,9").replace(",train,2", ",train,1") for line in lines]
    given.write_text("\n".join(line.replace(",train,9", ",train,2") for line in moved) + "\n")
    with pytest.raises(ResumeError, match="began with other parts and folds"):
        run_job(settings(colour_folder, tmp_path / "run", **chosen), resume=True)
    given.write_text("\n".join(lines) + "\n")
    resumed = run_job(settings(colour_folder, tmp_path / "run", **chosen), resume=True)
    assert resumed.record["status"] == "finished"


def test_an_error_late_in_a_run_costs_nothing_that_was_done(colour_folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(job.Job, "lock", lambda *_: (_ for _ in ()).throw(DataError("away")))
        with pytest.raises(DataError, match="away"):
            run_job(settings(colour_folder, tmp_path / "run"))
    whole = run_job(settings(colour_folder, tmp_path / "whole"))
    resumed = run_job(settings(colour_folder, tmp_path / "run"), resume=True)
    assert figures(resumed.out) == figures(whole.out)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "scratch"}, "must start from random weights"),
        ({"strategy": "partial", "trainable": "stages:99"}, "stages"),
        ({"strategy": "full", "augment": "zoom:1"}, "must have a possible amount"),
    ],
    ids=["scratch", "stages", "augmentation"],
)
def test_what_cannot_be_trained_is_refused_before_the_pass(
    colour_folder, tmp_path, monkeypatch, changes, words
):
    monkeypatch.setattr(job.Job, "read", lambda *_: 1 / 0)
    for begin in (plan_job, run_job):
        with pytest.raises(UsageError, match=words):
            begin(settings(colour_folder, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()
