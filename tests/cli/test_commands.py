"""Every command as a user types it, in this process: output, exit codes, wrong inputs."""

from __future__ import annotations

import csv
import json
import os
import sys

import pytest

from headstart.cli import main


@pytest.fixture
def headstart(monkeypatch, capsys, tmp_path):
    """Type a command; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADSTART_DEBUG", raising=False)

    def type_command(*words):
        monkeypatch.setattr(sys, "argv", ["headstart", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        output = capsys.readouterr()
        return caught.value.code or 0, output.out, output.err

    return type_command


@pytest.fixture
def run(headstart, colour_folder, tmp_path):
    code, out, err = headstart(
        "run", "--data", colour_folder, "--folds", 3, "--image-size", 32, "--out", "run"
    )
    assert code == 0, err
    return tmp_path / "run", out, err


def test_a_run_ends_with_a_table_and_paths(run):
    _, out, err = run
    for word in (
        "Accuracy",
        "Macro F1",
        "cross-validation (30 images)",
        "test (6 images)",
        "run/model",
    ):
        assert word in out
    assert "Engine" in err
    assert "Engine" not in out


def test_json_is_nothing_but_json(headstart, colour_folder):
    code, out, _ = headstart(
        "run", "--data", colour_folder, "--folds", 3, "--image-size", 32, "--out", "r", "--json"
    )
    told = json.loads(out)
    assert code == 0
    assert told["metrics"]["test"]["figures"]["accuracy"]["value"] == 1.0
    assert len(told["choice"]["model_digest"]) == 64


def test_a_dry_run_writes_nothing(headstart, colour_folder, tmp_path):
    code, out, _ = headstart("run", "--data", colour_folder, "--out", "r", "--dry-run")
    assert code == 0
    for word in ("36 images, 3 classes", "5 folds x 10 penalties", "Time", "Disk", "squash"):
        assert word in out
    assert not (tmp_path / "r").exists()
    code, out, _ = headstart("run", "--data", colour_folder, "--dry-run", "--json")
    assert json.loads(out)["num_passes"] == 36


@pytest.mark.parametrize("existing", [True, False], ids=["there", "new"])
def test_a_dry_run_leaves_no_trace_in_folder_or_store(
    headstart, colour_folder, tmp_path, own_cache, existing
):
    if existing:
        (tmp_path / "r").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, _, err = headstart(
        "run", "--data", colour_folder, "--image-size", 32, "--out", "r", "--dry-run"
    )
    assert code == 0, err
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(own_cache.rglob("*"))


def test_resume_without_a_run_says_that_it_needs_one(headstart, tmp_path):
    for words in (("--out", "nothere"), ("--out", "nothere", "--dry-run"), ()):
        code, out, err = headstart("run", "--resume", *words)
        assert (code, out) == (2, "")
        assert "`--resume` needs the run to go on with" in err
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_repeated_from_its_record(headstart, run, tmp_path):
    folder, _, _ = run
    code, _, err = headstart("run", "--from", folder / "run.json", "--out", "again")
    assert code == 0, err
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert again == json.loads((folder / "metrics.json").read_text())


def test_resume_remembers_the_settings(headstart, run):
    code, out, err = headstart("run", "--resume", "--out", "run")
    assert code == 0
    assert "finished already" in err
    assert "Accuracy" in out


def test_predict_files_and_folders(headstart, run, colour_folder):
    code, out, _ = headstart("predict", "run", colour_folder / "red/00.png", colour_folder / "blue")
    lines = out.strip().splitlines()
    assert code == 0
    assert len(lines) == 13
    assert "red.png  red" in lines[0].replace("red/00", "red")
    assert all("png  blue " in line for line in lines[1:])


def test_predict_json_and_csv(headstart, run, colour_folder, tmp_path):
    code, out, _ = headstart(
        "predict", "run/model", colour_folder / "green", "--json", "--csv", "answers.csv"
    )
    told = json.loads(out)
    assert code == 0
    assert {entry["class"] for entry in told} == {"green"}
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == ["green"] * 12
    assert float(rows[0]["prob_green"]) == pytest.approx(told[0]["confidence"], abs=1e-5)


def test_predictions_cannot_carry_formulas(headstart, run, colour_folder, tmp_path):
    os.rename(colour_folder / "red/00.png", tmp_path / "=cmd.png")
    code, _, _ = headstart("predict", "run", "=cmd.png", "--csv", "answers.csv")
    assert code == 0
    assert (tmp_path / "answers.csv").read_text().splitlines()[1].startswith("'=cmd.png,")


def test_predict_names_what_it_cannot_read(headstart, run, colour_folder, tmp_path):
    (tmp_path / "text.jpg").write_text("text")
    code, out, err = headstart("predict", "run", "text.jpg", colour_folder / "red/01.png")
    assert code == 0
    assert "text.jpg" in out.splitlines()[0]
    assert "no answer" in out.splitlines()[0]
    assert "1 of 2 images cannot be read" in err
    code, _, _ = headstart("predict", "run", "text.jpg")
    assert code == 2


def test_evaluate_shows_the_runs_own_figures(headstart, run):
    code, out, _ = headstart("evaluate", "run")
    assert code == 0
    assert "cross-validation (30 images)" in out


def test_evaluate_on_other_pictures(headstart, run, colour_folder, tmp_path):
    code, out, _ = headstart("evaluate", "run", "--data", colour_folder, "--out", "e", "--json")
    assert code == 0
    assert json.loads(out)["colours"]["num_images"] == 36
    assert {path.name for path in (tmp_path / "e").iterdir()} == {
        "predictions.csv", "classification_report.txt", "confusion_matrix.png", "metrics.json",
    }  # fmt: skip


def test_evaluate_warns_of_images_it_learnt_from(headstart, run, colour_folder):
    code, out, err = headstart("evaluate", "run", "--data", colour_folder, "--json")
    assert code == 0
    assert json.loads(out)["colours"]["num_learnt_from"] == 30
    assert "Warning" in err
    assert "learnt from 30 of these 36 images" in " ".join(err.split())
    assert "Warning" not in out


def test_damaged_figures_are_one_sentence_and_resume_mends_them(headstart, run):
    folder, _, _ = run
    before = (folder / "metrics.json").read_bytes()
    for damaged in (before[:100], b"\xff\xfe"):
        (folder / "metrics.json").write_bytes(damaged)
        refused(headstart("evaluate", "run"), "metrics.json")
    assert headstart("run", "--resume", "--out", "run")[0] == 0
    assert (folder / "metrics.json").read_bytes() == before
    assert headstart("evaluate", "run")[0] == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"versions": None},
        {"settings": []},
        {"settings": None},
        {"status": 3},
        {"test_openings": ""},
    ],
    ids=lambda damage: "-".join(f"{name}-{value}" for name, value in damage.items()),
)
def test_a_record_that_is_not_whole_is_one_sentence(headstart, colour_folder, tmp_path, damage):
    folder = tmp_path / "run"
    folder.mkdir()
    record = {
        "schema_version": 1, "status": "running", "versions": {}, "test_openings": 0,
        "settings": {"data": str(colour_folder), "out": "run"},
    }  # fmt: skip
    kept = {name: value for name, value in {**record, **damage}.items() if value is not None}
    (folder / "run.json").write_text(json.dumps(kept))
    (name,) = damage
    for words in (
        ("run", "--resume", "--out", "run"),
        ("run", "--from", "run/run.json", "--out", "other"),
        ("run", "--data", colour_folder, "--resume", "--out", "run"),
        ("evaluate", "run"),
    ):
        refused(headstart(*words), name)
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    assert not (tmp_path / "other").exists()


def refused(answer, word):
    """Exit code 2 and one line on standard error that holds the word."""
    code, out, err = answer
    assert (code, out) == (2, "")
    assert word in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_evaluate_refuses_unknown_classes(headstart, run, colour_folder):
    os.rename(colour_folder / "red", colour_folder / "pink")
    code, _, err = headstart("evaluate", "run", "--data", colour_folder)
    assert code == 2
    assert "does not know the class 'pink'" in err


def test_models(headstart):
    code, out, _ = headstart("models")
    assert code == 0
    assert out.splitlines()[0].startswith("mini ")
    assert "in the package" in out.splitlines()[0]
    code, out, _ = headstart("models", "resnet10", "--json")
    assert "resnet10t" in {entry["name"] for entry in json.loads(out)}
    _, out, _ = headstart("models", "zzzz")
    assert "No backbone's name contains 'zzzz'" in out


def test_cache_shows_and_clears(headstart, run):
    _, out, _ = headstart("cache", "--json")
    assert json.loads(out)[0]["images"] == 36
    _, out, _ = headstart("cache", "clear")
    assert "Cleared" in out
    _, out, _ = headstart("cache", "--json")
    assert json.loads(out) == []


def test_cache_limits_and_tells_the_last_use(headstart, run, monkeypatch):
    from datetime import datetime

    monkeypatch.setenv("HEADSTART_CACHE_SIZE", "3GB")
    _, out, _ = headstart("cache")
    assert "of at most 3.0 GB" in out
    assert "last used 20" in out
    found = json.loads(headstart("cache", "--json")[1])
    assert all(datetime.fromisoformat(entry["last_used"]).tzinfo for entry in found)
    code, out, _ = headstart("cache", "--limit", "1GB", "--json")
    assert (code, json.loads(out)["files"]) == (0, 0)
    code, out, _ = headstart("cache", "--limit", "0")
    assert (code, f"in {len(found)} files" in out) == (0, True)
    assert json.loads(headstart("cache", "--json")[1]) == []


def test_cache_names_what_is_in_use(headstart):
    from headstart.features import FeatureStore

    store = FeatureStore("a", 4)
    code, out, err = headstart("cache", "clear")
    assert (code, "Cleared 0.0 MB in 0 files" in out) == (1, True)
    assert "1 of the files are in use by other processes and stay" in err
    store.close()
    assert headstart("cache", "clear")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("drop",), "takes 'show' or 'clear', got 'drop'"),
        (("--limit", "lots"), "--limit must be a size such as 20GB, 500MB or 1.5GiB"),
        (("clear", "--limit", "1GB"), "leaves nothing to limit"),
    ],
)
def test_cache_refuses(headstart, words, message):
    code, _, err = headstart("cache", *words)
    assert code == 2
    assert message in err


def test_doctor_tells_what_is_missing(headstart, monkeypatch, tmp_path):
    monkeypatch.delenv("HEADSTART_DATA", raising=False)
    code, out, _ = headstart("doctor")
    assert code == 0
    for word in ("torch", "mini", "in the package", "HEADSTART_WEIGHTS", "digits", "feature store"):
        assert word in out
    found = json.loads(headstart("doctor", "--json")[1])
    assert found["Data"]["mnist"].startswith("missing")


def test_version_and_bare_call(headstart):
    assert headstart("--version")[1].startswith("headstart 0.")
    code, out, err = headstart()
    assert code in (0, 2)
    assert "Commands" in out + err


COMMANDS = ("run", "predict", "evaluate", "models", "cache", "doctor")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(headstart, command):
    code, out, _ = headstart(command, "--help")
    assert code == 0
    assert f"Example: headstart {command}" in out


def few(folder, **counts):
    from pictures import paint

    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            paint(folder / name / f"{i}.png", (10, 200, 10), seed=i)
    return folder


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--data", "empty"), "holds no images"),
        (("--data", "one"), "one class only, 'a'"),
        (("--data", "tiny"), "got 1 of 'b'"),
        (("--data", "small", "--folds", 6), "`folds` must be between 2 and the smallest class's"),
        (("--data", "nowhere"), "`--data nowhere` does not exist"),
        (("--data", "small", "--out", "/proc/run"), "'/proc/run' cannot be written to"),
        (("--data", "small", "--model", "ResNet50"), "--model mini needs no download"),
        (("--data", "digts"), "Did you mean 'digits'"),
        (("--data", "small", "--model", "resnt50"), "Did you mean 'resnet50'"),
        (("--data", "small", "--folds", 2, "--weights", "no.pth"), "'no.pth' does not exist"),
        (("--data", "small", "--folds", 2, "--device", "tpu"), "`device` must be one of"),
        (("--data", "small", "--precision", "int3"), "`precision` must be one of"),
        (("--data", "small", "--folds", "two"), "--folds"),
        ((), "`--data` is missing"),
        (("--resume", "--data", "small"), "needs the run to go on with"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    headstart, monkeypatch, tmp_path, words, sentence
):
    (tmp_path / "empty").mkdir()
    few(tmp_path / "one", a=5)
    few(tmp_path / "tiny", a=5, b=1)
    few(tmp_path / "small", a=6, b=6)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    out = () if {"--resume", "--out"} & set(words) else ("--out", "run")
    code, printed, err = headstart("run", *words, *out)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert printed == ""
    assert not (tmp_path / "run").exists()


def test_a_size_the_network_cannot_take_is_one_sentence(headstart, tmp_path):
    few(tmp_path / "small", a=6, b=6)
    code, out, err = headstart(
        "run", "--data", "small", "--folds", 2, "--model", "InceptionV3", "--weights", "none",
        "--image-size", 32, "--out", "run",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert "InceptionV3 cannot take pictures of 32 px" in err
    assert "Leave --image-size out" in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_an_output_folder_in_use_is_refused(headstart, colour_folder, tmp_path):
    from headstart.files import locked

    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"):
        code, _, err = headstart("run", "--data", colour_folder, "--out", "run")
    assert code == 2
    assert "in use by another Headstart process" in err


def test_an_output_folder_with_other_files_is_left_alone(headstart, colour_folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("precious")
    code, _, err = headstart("run", "--data", colour_folder, "--out", "run")
    assert code == 2
    assert "holds other files" in err
    assert (tmp_path / "run/thesis.txt").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_refused(headstart, colour_folder, tmp_path):
    (tmp_path / "sealed").mkdir(mode=0o500)
    code, _, err = headstart("run", "--data", colour_folder, "--out", "sealed/run")
    assert code == 2
    assert "cannot be written to" in err


def test_a_defect_is_one_line_with_a_way_to_see_more(headstart, monkeypatch):
    monkeypatch.setattr("headstart.api.examine", lambda: 1 / 0)
    code, _, err = headstart("doctor")
    assert code == 1
    assert "A defect in Headstart: ZeroDivisionError" in err
    assert "Traceback" not in err
