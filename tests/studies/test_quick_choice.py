"""`compare --quick`: scores, rule, closed test part, backbones that cannot be had, bad input."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from pictures import COLOURS, paint
from sklearn.neighbors import KNeighborsClassifier
from typer.testing import CliRunner

from headstart import api
from headstart.cli.app import app
from headstart.cli.quick import next_command
from headstart.errors import DataError, OutputError, UsageError, WeightsError
from headstart.records import ImageTable
from headstart.runs import RunSettings, run_job
from headstart.runs.parts.dividing import units_of
from headstart.studies.quick import QuickSettings, choose_quickly, choosing
from headstart.studies.quick.judging import judge_quickly
from headstart.studies.quick.sample import Sample
from headstart.studies.quick.scoring import Scores, score_features
from headstart.studies.quick.writing import quick_figure, quick_text

FILES = {"quick.csv", "quick.json", "quick.png", "quick.txt", "quick_images.csv"}


def settings(data, out, **changes):
    own = {"data": str(data), "folds": "2", "image_size": 32, "audit": "none"}
    own |= changes.pop("settings", {})
    return QuickSettings(out=str(out), settings=own, **changes)


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def image_rows(folder) -> list[dict[str, str]]:
    with (folder / "quick_images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# Scores


def features_of(labels, *, spread: float, seed: int = 0):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(len(labels), 8)) * spread + 4 * np.eye(8)[labels]
    return values.astype(np.float16)


def test_neighbours_are_scikit_learn_s_of_the_other_folds():
    labels = np.arange(90) % 3
    fold = (np.arange(90) // 3) % 5
    inner = np.stack([(fold == (k + 1) % 5) for k in range(5)])
    values = features_of(labels, spread=4.0)
    found = score_features(values, labels, fold, inner, 3)
    wanted = np.empty_like(labels)
    for k in range(5):
        rival = KNeighborsClassifier(10, metric="cosine", algorithm="brute")
        rival.fit(values[fold != k].astype(np.float32), labels[fold != k])
        wanted[fold == k] = rival.predict(values[fold == k].astype(np.float32))
    assert np.array_equal(found.neighbours, wanted)
    assert 0.4 < (wanted == labels).mean() < 1.0  # neither trivial nor hopeless


def test_better_features_score_higher_in_all_three_and_a_fold_never_sees_itself():
    labels = np.arange(60) % 3
    fold = (np.arange(60) // 3) % 2
    inner = np.stack([(fold == 1) & (np.arange(60) < 30), (fold == 0) & (np.arange(60) < 30)])
    good, bad = (
        score_features(features_of(labels, spread=s), labels, fold, inner, 3) for s in (0.5, 8.0)
    )
    for name in ("neighbours", "probe"):
        shares = [(getattr(s, name) == labels).mean() for s in (good, bad)]
        assert shares[0] > shares[1] + 0.2
    assert good.logme > bad.logme
    unlearnable = np.zeros((60, 8), dtype=np.float16)
    unlearnable[np.arange(60), np.arange(60) % 8] = 1
    other = labels.copy()
    other[fold == 0] = (other[fold == 0] + 1) % 3
    one = score_features(unlearnable, labels, fold, inner, 3)
    two = score_features(unlearnable, other, fold, inner, 3)
    own = fold == 1  # learns from fold 0, whose labels changed; fold 0's answers must not
    assert np.array_equal(one.neighbours[~own], two.neighbours[~own])
    assert np.array_equal(one.probe[~own], two.probe[~own])


# The rule

M = 100


def judged(wrong: dict[str, int], seconds: list[float], weights: str = "hub", groups=None):
    """Backbones of which each answers its first images wrongly."""
    labels = np.arange(M) % 2
    table = ImageTable(
        name="made", paths=tuple(map(str, range(M))), labels=labels, class_names=("a", "b"),
        splits=("",) * M, blobs=(b"",) * M, groups=groups,
    )  # fmt: skip
    sample = Sample(
        table=table, units=units_of(table, None), num_all=500, num_train=400, origin="made",
        test_drawn=True,
    )  # fmt: skip
    scores, rows = [], []
    for (name, count), cost in zip(wrong.items(), seconds, strict=True):
        answers = np.where(np.arange(M) < count, 1 - labels, labels)
        one = Scores(neighbours=labels, probe=answers, logme=-float(count), seconds=1.0)
        scores.append(one)
        rows.append(
            {
                "name": name, "model": name, "weights": weights, "weights_licence": "x",
                "image_size": 32, "parameters": 1000, "num_features": 8,
                "images_per_s": 500 / cost, "rate_is": "measured", "seconds": 1.0,
                "all_images_s": cost,
            }
        )  # fmt: skip
    record = judge_quickly(rows, scores, sample, seed=0)
    about = {"data": "made", "num_images": M, "num_train": 400, "num_all": 500, "num_groups": None,
             "num_folds": 5, "num_neighbours": 10, "left_out": []}  # fmt: skip
    return {**record, **about}


def test_the_quickest_pass_within_noise_is_recommended():
    found = judged({"poor": 40, "best": 5, "near": 7, "slow": 6}, [1.0, 50.0, 10.0, 90.0])
    advice = found["recommendation"]
    assert (advice["best"], advice["chosen"]) == ("best", "near")
    assert advice["within_noise"] == ["best", "near", "slow"]
    assert advice["reason"] == (
        "'near' is within noise of the most accurate, 'best' (-2.0 points [-5.0, +0.0]), and 5.0 "
        "times faster in the feature pass."
    )
    assert [row["name"] for row in found["table"]] == ["best", "slow", "near", "poor"]
    assert [row["front"] for row in found["table"]] == [True, False, True, True]
    assert found["table"][0]["neighbours"]["value"] == 1.0
    (warning,) = found["warnings"]
    assert warning == (
        "near may be up to 5.0 points less accurate than the best: 100 images tell no more. Raise "
        "--max-images; there are 400 to learn from."
    )
    assert judged({"poor": 40, "best": 5}, [1.0, 50.0])["warnings"] == []


def test_groups_are_the_sample_where_there_are_some():
    wrong, seconds = {"best": 0, "other": 10}, [9.0, 1.0]
    assert judged(wrong, seconds)["recommendation"]["chosen"] == "best"
    one_group_errs = tuple(f"g{i // 10}" for i in range(M))
    grouped = judged(wrong, seconds, groups=one_group_errs)
    assert grouped["recommendation"]["chosen"] == "other"


def test_text_and_picture_say_it_plainly():
    found = judged({"best": 5, "near": 7}, [50.0, 10.0], weights="none")
    text = quick_text(found)
    assert text.startswith("Recommended: near\n")
    assert "on 100 of 400 training images; the test part was not opened" in text
    assert "Warning: best, near have random weights, as asked" in text
    figure = quick_figure(found)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "predicted seconds of the pass over all 500 images"
    assert {t.get_text() for t in axes.texts} == {"1", "2"}


# The whole


def test_the_choice_sees_only_what_a_run_would_learn_from(tmp_path, monkeypatch):
    """Same audit, same seed, same test part: copies and groups stay where a run puts them."""
    data = tmp_path / "colours"
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(12):
            paint(data / name / f"{i:02d}.png", colour, seed=100 * number + i)
        for i in (0, 3, 5):
            shutil.copy(data / name / f"{i:02d}.png", data / name / f"copy{i:02d}.png")
    seen: set[str] = set()
    true_pass = choosing.timed_pass

    def watched(extractor, table, progress):
        seen.update(table.paths)
        return true_pass(extractor, table, progress)

    monkeypatch.setattr(choosing, "timed_pass", watched)
    asked = settings(
        data, tmp_path / "q", models=["mini", "LeNet5@none"], settings={"audit": "auto"}
    )
    result = choose_quickly(asked)
    common = {"data": str(data), "folds": "2", "image_size": 32, "learning_curve": False}
    run_job(RunSettings(out=str(tmp_path / "r"), **common))
    with (tmp_path / "r" / "splits.csv").open(newline="") as file:
        parts = {row["path"]: row["part"] for row in csv.DictReader(file)}
    assert seen == {path for path, part in parts.items() if part == "train"}
    assert result.record["num_all"] == len(parts) == 45
    rows = image_rows(tmp_path / "q")
    fold = {row["path"]: row["fold"] for row in rows}
    assert set(fold) == seen
    copies = [path for path in seen if "copy" in path]
    assert len(copies) > 3
    for path in copies:
        assert fold[path] == fold[path.replace("copy", "")]


def test_the_command_tries_what_can_be_had_and_says_what_not(colour_folder, tmp_path):
    out = tmp_path / "which"
    options = ("compare", "--quick", "--data", colour_folder, "--folds", 2, "--image-size", 32,
               "--audit", "none", "--model", "ResNet50,mini,SmallCNN@none")  # fmt: skip
    done = invoke(*options, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout[done.stdout.index("{\n") :])
    written = {entry.name for entry in out.iterdir() if entry.name != ".lock"}
    assert written == FILES | {"report.html"}
    assert [one["name"] for one in record["left_out"]] == ["ResNet50"]
    assert "not at hand" in record["left_out"][0]["reason"]
    names = {row["name"] for row in record["table"]}
    assert names == {"mini", "SmallCNN@none"}
    for row in record["table"]:
        assert row["images_per_s"] > 0
        assert row["all_images_s"] == pytest.approx(36 / row["images_per_s"], rel=0.01, abs=1e-3)
        assert 0 <= row["accuracy"]["low"] <= row["accuracy"]["value"] <= row["accuracy"]["high"]
    assert "SmallCNN@none has random weights" in record["warnings"][0]
    assert record["num_images"] == record["num_train"] == 30  # 2 of 12 of each class are tested on
    with (out / "quick.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == [row["name"] for row in record["table"]]
    assert sum(line["recommended"] == "yes" for line in lines) == 1
    rows = image_rows(out)
    for row in record["table"]:
        share = np.mean([line[row["name"]] == line["label"] for line in rows])
        assert row["accuracy"]["value"] == pytest.approx(share)

    again = invoke(*options, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert "~" in again.stdout  # times from the store are estimates
    assert f"headstart run --data {colour_folder}" in again.stdout
    second = json.loads((tmp_path / "again" / "quick.json").read_text())
    repeated = {row["name"]: row for row in second["table"]}  # equal ones are ordered by time
    for one in record["table"]:
        two = repeated[one["name"]]
        for name in ("accuracy", "neighbours", "logme"):
            assert one[name] == two[name]
        assert two["rate_is"].startswith("from the store")


def test_a_sample_is_stratified_seeded_and_from_python_too(colour_folder, tmp_path):
    taken = []
    for number, seed in enumerate((0, 0, 1)):
        result = api.compare_quick(
            colour_folder, out=tmp_path / str(number), models=["LeNet5@none"], max_images=12,
            folds=2, image_size=32, audit="none", seed=seed,
        )  # fmt: skip
        rows = image_rows(result.out)
        labels = [row["label"] for row in rows]
        assert {name: labels.count(name) for name in COLOURS} == dict.fromkeys(COLOURS, 4)
        taken.append([row["path"] for row in rows])
    assert taken[0] == taken[1] != taken[2]
    assert "only candidate" in result.record["recommendation"]["reason"]


def test_unreadable_images_are_left_out_and_named(colour_folder, tmp_path):
    (colour_folder / "red" / "00.png").write_bytes(b"no picture")
    found = [
        choose_quickly(
            settings(colour_folder, tmp_path / kind, models=["LeNet5@none"],
                     settings={"audit": kind, "test_fraction": 0.1})
        )
        for kind in ("none", "full")
    ]  # fmt: skip
    assert found[1].record["num_all"] == 35
    assert "may be tested on there" in found[0].record["warnings"][0]
    assert "cannot be read" not in str(found[1].record["warnings"])
    for result in found:
        assert "red/00.png" not in {row["path"] for row in image_rows(result.out)}
    with pytest.raises(DataError, match=r"1 of 36 images cannot be read: red/00\.png"):
        choose_quickly(
            settings(colour_folder, tmp_path / "strict", models=["LeNet5@none"],
                     settings={"audit": "full", "strict": True})
        )  # fmt: skip


def test_no_backbone_at_all_is_an_error_before_any_work(colour_folder, tmp_path):
    out = tmp_path / "which"
    done = invoke("compare", "--quick", "--data", colour_folder, "--out", out, "--folds", 2,
                  "--model", "ResNet50,VGG16")  # fmt: skip
    assert isinstance(done.exception, WeightsError)
    assert done.exception.exit_code == 2
    for words in ("None of 2 backbones can be tried: ResNet50, VGG16. ResNet50: ", "not at hand"):
        assert words in str(done.exception)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": []}, "names nothing to compare"),
        ({"models": ["mini", "MINI"]}, "names 'mini' twice"),
        ({"models": ["minj"]}, "mini"),
        ({"max_images": 0}, "`max_images` must be at least 1"),
        ({"settings": {"data": ""}}, "`--data` is missing"),
        ({"settings": {"strategy": "full"}}, "`strategy` means nothing with --quick"),
        ({"settings": {"folds": "leave-one-group-out"}}, "`folds` must be a number with --quick"),
        ({"settings": {"image_size": 7}}, "`image_size` must be between"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_in_a_sentence(changes, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        settings("digits", tmp_path / "x", **changes)


@pytest.mark.parametrize(
    "option", [["--vary", "lr=1,2"], ["--repeats", "2"], ["--fast", "training"], ["--resume"],
               ["--test-all"], ["--head", "mlp"]],
)  # fmt: skip
def test_options_of_the_full_comparison_are_refused(option, tmp_path):
    done = invoke("compare", "--quick", "--data", "digits", "--out", tmp_path / "x", *option)
    assert isinstance(done.exception, UsageError)
    assert f"`{option[0][2:].replace('-', '_')}` means nothing with --quick" in str(done.exception)


def test_a_folder_that_holds_something_is_refused(colour_folder, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="holds other files"):
        choose_quickly(settings(colour_folder, tmp_path / "taken"))
    choose_quickly(settings(colour_folder, tmp_path / "a", models=["LeNet5@none"]))
    with pytest.raises(OutputError, match="holds a quick choice already"):
        choose_quickly(settings(colour_folder, tmp_path / "a"))
    (tmp_path / "a" / "quick.json").unlink()  # written last: it was interrupted before
    choose_quickly(settings(colour_folder, tmp_path / "a", models=["LeNet5@none"]))
    assert (tmp_path / "a" / "quick.json").exists()


def test_the_next_command_is_that_of_the_recommended_backbone():
    record = {"recommendation": {"chosen": "LeNet5@none"}}
    given = {"data": "my flowers", "allow_leaks": True, "image_size": 64}
    assert next_command(record, given) == (
        "headstart run --data 'my flowers' --allow-leaks --image-size 64 --model LeNet5 "
        "--weights none"
    )
