"""The whole comparison on easy colours: locked before the test part, resumable, stamped."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from headstart.cli import compare
from headstart.cli.app import app
from headstart.errors import OutputError, ResumeError, UsageError, WeightsError
from headstart.runs.files import outputs
from headstart.studies import ComparisonSettings, compare_jobs, comparing, locking


@pytest.fixture(autouse=True)
def runs_draw_nothing(monkeypatch):
    """The figures of single runs are tested elsewhere, and drawing is most of the time here."""
    monkeypatch.setattr(outputs, "write_figure", lambda path, figure: path.touch())


def settings(data, out, **changes):
    common = {"data": str(data), "folds": "2", "image_size": 32, "audit": "none", "epochs": "1"}
    chosen = {"models": ["LeNet5@none"], "strategies": ["probe", "full"], "repeats": 2, **changes}
    own = chosen.pop("settings", {})
    return ComparisonSettings(out=str(out), settings={**common, **own}, **chosen)


def read(folder, name="comparison.json"):
    return json.loads((folder / name).read_text())


def test_the_test_part_is_opened_once_for_the_chosen_one(colour_folder, tmp_path, monkeypatch):
    out, opened = tmp_path / "which", []
    true_test = locking.Job.test

    def watched(self, *arguments):
        record = read(out)
        assert record["locked"]  # the choice is on the disk before
        opened.append((self.name, record["recommendation"]["chosen"]))
        return true_test(self, *arguments)

    monkeypatch.setattr(locking.Job, "test", watched)
    result = compare_jobs(settings(colour_folder, out))
    chosen = result.record["recommendation"]["chosen"]
    assert opened == [(chosen, chosen)]
    assert result.opened == (out / chosen,)
    (other,) = {"LeNet5-none-probe", "LeNet5-none-full"} - {chosen}
    assert read(out / chosen, "run.json")["test_openings"] == 1
    assert read(out / chosen, "run.json")["status"] == "finished"
    assert read(out / other, "run.json")["test_openings"] == 0
    assert read(out / other, "run.json")["status"] == "locked"
    assert not (out / other / "predictions.csv").exists()
    choice = read(out / chosen, "run.json")["choice"]
    assert choice["model_digest"] == result.record["models"][chosen]  # the locked model, no other
    assert choice["locked"] <= result.record["locked"]

    before = result.record
    again = compare_jobs(settings(colour_folder, out), test_all=True, resume=True)
    assert [name for name, _ in opened] == [chosen, other]
    assert again.record["test"]["test_all"] is True
    assert "no honest estimate" in again.record["test"]["stamp"]
    for name in ("table", "pairs", "recommendation", "locked", "models"):
        assert again.record[name] == before[name]
    assert "opened for every candidate" in (out / "comparison.txt").read_text()
    assert compare_jobs(settings(colour_folder, out), resume=True).record["test"]["test_all"]
    assert len(opened) == 2

    with pytest.raises(OutputError, match="holds a comparison already"):
        compare_jobs(settings(colour_folder, out))
    with pytest.raises(ResumeError, match="repeats was 2, now 3"):
        compare_jobs(settings(colour_folder, out, repeats=3), resume=True)
    with pytest.raises(ResumeError, match="candidates were"):
        compare_jobs(settings(colour_folder, out, strategies=["full"]), resume=True)


def test_a_picture_that_changes_between_candidates_stops_the_comparison(
    colour_folder, tmp_path, monkeypatch
):
    """Under the same names other pixels: the first candidate is locked, the second sees them."""
    asked = settings(
        colour_folder, tmp_path / "which", strategies=["probe"], settings={"epochs": None},
        vary={"class_weights": ["none", "balanced"]},
    )  # fmt: skip
    true_lock, locked = comparing.lock_candidate, []

    def stop_before_the_second(*arguments, **options):
        if locked:
            raise KeyboardInterrupt
        locked.append(true_lock(*arguments, **options))
        return locked[0]

    with monkeypatch.context() as patch:
        patch.setattr(comparing, "lock_candidate", stop_before_the_second)
        with pytest.raises(KeyboardInterrupt):
            compare_jobs(asked)
    pictures = sorted(colour_folder.rglob("*.png"))
    shutil.copy(pictures[0], pictures[1])
    with pytest.raises(ResumeError, match=r"pictures changed between the candidates .*balanced"):
        compare_jobs(asked, resume=True)
    assert read(tmp_path / "which")["status"] == "running"


def test_an_interrupted_comparison_goes_on_with_the_same_figures(
    colour_folder, tmp_path, monkeypatch
):
    chosen = {
        "models": ["LeNet5@none"],
        "strategies": ["probe"],
        "vary": {"class_weights": ["none", "balanced"]},
    }
    own = {"epochs": None}
    whole = compare_jobs(settings(colour_folder, tmp_path / "a", settings=own, **chosen))
    assert whole.record["repeats_compared"] == 2

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(comparing, "read_answers", stop)
        patch.setattr(locking.LockingJob, "measure", stop)
        with pytest.raises(KeyboardInterrupt):
            compare_jobs(settings(colour_folder, tmp_path / "b", settings=own, **chosen))
    record = read(tmp_path / "b")
    assert record["status"] == "running"
    assert "recommendation" not in record
    asked = settings(colour_folder, tmp_path / "b", settings=own, **chosen)
    result = compare_jobs(asked, resume=True)
    first = next(row for row in result.record["table"] if "none" in row["name"])
    assert first["interrupted"] is True
    for name in result.record["models"]:
        one, two = (tmp_path / place / name / "repeated_folds.csv" for place in ("a", "b"))
        assert one.read_bytes() == two.read_bytes()
    strip = [
        [{k: pair[k] for k in ("difference", "sign_flip_p", "t_p")} for pair in r["pairs"]]
        for r in (whole.record, result.record)
    ]
    assert strip[0] == strip[1]


def test_repetitions_have_other_folds_and_the_first_is_the_run_s(colour_folder, tmp_path):
    asked = settings(
        colour_folder, tmp_path / "a", strategies=["probe"],
        settings={"epochs": None, "inner_folds": 2}, repeats=3,
    )  # fmt: skip
    result = compare_jobs(asked)
    folder = tmp_path / "a" / "LeNet5-none-probe"
    with (folder / "repeated_folds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "splits.csv").open(newline="") as file:
        folds = {r["path"]: r["fold"] for r in csv.DictReader(file) if r["part"] == "train"}
    assert {r["path"]: str(int(r["fold_1"]) + 1) for r in rows} == folds
    drawn = [tuple(r[f"fold_{k}"] for r in rows) for k in (1, 2, 3)]
    assert len(set(drawn)) == 3
    (row,) = result.record["table"]
    assert row["repeats"] == 3
    assert row["parameters"] > 50_000
    assert row["prediction_ms"] > 0
    assert "only candidate" in result.record["recommendation"]["reason"]


def test_missing_weights_are_refused_before_any_work(colour_folder, tmp_path):
    out = tmp_path / "which"
    with pytest.raises(WeightsError):
        compare_jobs(settings(colour_folder, out, models=["mini", "ResNet50"]))
    assert not out.exists()


def test_refused_data_leave_nothing_behind(colour_folder, tmp_path):
    for path in sorted((colour_folder / "red").iterdir())[1:]:
        path.unlink()
    out = tmp_path / "which"
    with pytest.raises(UsageError):
        compare_jobs(settings(colour_folder, out))
    assert not out.exists()


def test_a_damaged_candidate_is_named(tmp_path):
    assert locking.read_measured(tmp_path) is None
    (tmp_path / "run.json").write_text('{"status": "running"}')
    assert locking.read_measured(tmp_path) is None
    (tmp_path / "run.json").write_text('{"status": "locked"}')
    with pytest.raises(ResumeError, match="is damaged"):
        locking.read_measured(tmp_path)
    (tmp_path / "candidate.json").write_text("{}")
    with pytest.raises(ResumeError, match=r"repeated_folds.csv is missing"):
        locking.read_measured(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategies": ["probe", "PROBE"]}, "names 'probe' twice"),
        ({"models": []}, "nothing to compare"),
        ({"models": ["minj"]}, "mini"),
        ({"vary": {"seed": [1, 2]}}, "must name a setting of the model"),
        ({"vary": {"lr": []}}, "nothing to compare"),
        ({"repeats": 0}, "between 1 and 100"),
        ({"fast": "soon"}, "training or prediction"),
        ({"strategies": ["probe"]}, "`epochs` means nothing"),
        ({"settings": {"data": ""}}, "`--data` is missing"),
        ({"settings": {"model": "mini"}}, "`model` is a setting of one run, got 'mini'"),
        ({"settings": {"strategy": "full"}}, "a comparison takes `strategies`"),
        ({"models": "mini"}, "`models` must be a list, got 'mini'"),
        ({"vary": {"lr": "0.1"}}, "`vary lr` must be a list"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_in_a_sentence(changes, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        settings("digits", tmp_path / "x", **changes)


def test_candidates_take_only_the_settings_that_are_theirs(tmp_path):
    asked = settings(
        "digits", tmp_path, models=["mini"], strategies=["probe", "partial", "scratch"],
        vary={"lr": [0.1, 0.01], "image_size": [32, 48]}, settings={"head": "mlp"},
    )  # fmt: skip
    names = [candidate.name for candidate in asked.candidates]
    assert len(set(names)) == len(names) == 12
    assert {c.settings.weights for c in asked.candidates} == {"auto", "none"}
    by_name = {c.name: c.settings for c in asked.candidates}
    assert by_name["mini-partial-lr=0.1-image-size=32"].head == "logistic"
    assert by_name["mini-probe-lr=0.1-image-size=32"].epochs == "1"  # of its mlp head
    assert by_name["mini-scratch-lr=0.1-image-size=32"].weights == "none"
    plain = settings("digits", tmp_path, vary={"lr": [0.1, 0.01]})
    assert [c.name for c in plain.candidates] == [
        "LeNet5-none-probe", "LeNet5-none-full-lr=0.1", "LeNet5-none-full-lr=0.01"
    ]  # fmt: skip


def test_settings_may_be_paths_and_numpy_s_numbers_and_are_kept_as_plain_ones(
    tmp_path, monkeypatch
):
    (tmp_path / "flowers").mkdir()
    (tmp_path / "w.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    asked = ComparisonSettings(
        out="x",
        settings={"data": Path("flowers"), "seed": np.int64(3), "head": "mlp"},
        vary={"hidden": [(512, 64), 32], "weights": ["auto", Path("w.safetensors")]},
    )
    stored = json.loads(json.dumps(asked.asked()))
    assert stored["settings"] == {"data": str(tmp_path / "flowers"), "seed": 3, "head": "mlp"}
    assert stored["vary"]["hidden"] == ["512,64", "32"]
    names = [candidate.name for candidate in asked.candidates]
    assert "mini-probe-hidden=32-weights=w.safetensors" in names
    monkeypatch.chdir("/")  # another folder: the same comparison
    again = ComparisonSettings(**stored, out=str(tmp_path / "x"))
    assert again.compared() == asked.compared()


def test_a_head_is_varied_with_settings_of_one_of_them(tmp_path):
    asked = ComparisonSettings(
        out=str(tmp_path),
        settings={"data": "digits", "epochs": "3"},
        vary={"head": ["logistic", "mlp"]},
    )
    assert [(c.settings.head, c.settings.epochs) for c in asked.candidates] == [
        ("logistic", None), ("mlp", "3"),
    ]  # fmt: skip


def test_weights_named_for_one_backbone_are_not_varied(tmp_path):
    asked = ComparisonSettings(
        out=str(tmp_path),
        settings={"data": "digits"},
        models=["mini@none", "LeNet5"],
        vary={"weights": ["auto", "none"]},
    )
    assert [c.name for c in asked.candidates] == [
        "mini-none-probe", "LeNet5-probe-weights=auto", "LeNet5-probe-weights=none",
    ]  # fmt: skip
    assert asked.candidates[0].settings.weights == "none"


def test_a_copied_file_does_not_make_a_measured_pass_an_estimate(colour_folder, tmp_path):
    (colour_folder / "red" / "twin.png").write_bytes(
        (colour_folder / "red" / "01.png").read_bytes()
    )
    asked = settings(
        colour_folder, tmp_path / "x", strategies=["probe"],
        settings={"epochs": None, "audit": "auto"},
    )  # fmt: skip
    result = compare_jobs(asked)
    measured = read(result.out / "LeNet5-none-probe", "candidate.json")
    assert measured["pass_is"] == locking.COMPUTED
    times = read(result.out / "LeNet5-none-probe", "run.json")["times"]
    assert 0 < measured["pass_s"] < times["features"]  # the audit's share is not the candidate's


def test_the_largest_seed_has_repetitions_too(colour_folder, tmp_path):
    asked = settings(
        colour_folder, tmp_path / "x", strategies=["probe"],
        settings={"epochs": None, "seed": 2**32 - 1},
    )  # fmt: skip
    assert compare_jobs(asked).record["recommendation"]


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_json_and_goes_on_without_its_options(colour_folder, tmp_path):
    out = tmp_path / "which"
    done = invoke(
        "compare", "--data", colour_folder, "--out", out, "--folds", 2,
        "--model", "LeNet5@none,mini",
        "--image-size", 32, "--repeats", 1, "--audit", "none", "--json", "--no-images",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout[done.stdout.index("{") :])
    chosen = record["recommendation"]["chosen"]
    assert chosen in {"LeNet5-none-probe", "mini-probe"}
    assert (out / chosen / "report.html").is_file()
    done = invoke("compare", "--resume", "--out", out, "--no-images")
    assert done.exit_code == 0, done.output
    assert f"Recommended: {chosen}" in done.stdout


@pytest.mark.parametrize("vary", ["lr", "lr=", "lr=fast", "=1"])
def test_a_bad_variation_is_refused(vary, tmp_path):
    done = invoke("compare", "--data", "digits", "--out", tmp_path / "x", "--vary", vary)
    assert isinstance(done.exception, UsageError)
    assert "`vary`" in str(done.exception)


def test_truth_values_are_varied_by_their_names(tmp_path):
    assert compare.pairs_of(["compile=true,False"]) == {"compile": [True, False]}
    with pytest.raises(UsageError, match="'yes' must be true or false"):
        compare.pairs_of(["compile=yes"])
