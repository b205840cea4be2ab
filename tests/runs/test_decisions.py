"""A positive class, its threshold, a part kept aside, sets by class, pictures of other things."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from test_job import rows, settings
from typer.testing import CliRunner

import headstart
from headstart.api import evaluate
from headstart.bundle.confidence import Decision
from headstart.cli.app import app
from headstart.errors import BundleError, DataError, UsageError
from headstart.files import digest_file, write_csv, write_json
from headstart.metrics import ThresholdRule, choose_threshold
from headstart.runs import run_job
from headstart.runs.judging.decision import (
    choose_decision,
    cross_fit_called,
    decision_record,
    threshold_of,
)

LEVELS = {"ill": 150, "well": 115}


def overlapping(folder, num=40, seed=0):
    """Two classes of grey pictures that overlap, two pictures of each patient."""
    generator = np.random.default_rng(seed)
    for name, level in LEVELS.items():
        for patient in range(num):
            grey = generator.normal(level, 22)
            for view in range(2):
                noise = generator.normal(grey, 25, (32, 36))
                path = folder / name / f"{name}{patient:02d}_{view}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path)
    return folder


ASKED = {
    "group_by": r"(\w+)_\d", "positive": "ill", "threshold": "sensitivity:0.9",
    "prevalence": "0.05,0.3", "calibration_split": 0.3, "sets": "by-class", "alpha": 0.2,
    "learning_curve": False, "ood_data": "digits",
}  # fmt: skip


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """A run with everything of this file, and its pictures."""
    place = tmp_path_factory.mktemp("decided")
    data = overlapping(place / "chests")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(place / "cache"))
        patch.setattr("headstart.runs.judging.far.MOST_FAR", 60)
        return run_job(settings(data, place / "run", **ASKED)), data


def simulated(num, seed):
    """Probabilities of two classes that know something of the labels, and labels."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(num) < 0.4).astype(np.int64)
    score = 1 / (1 + np.exp(-(generator.normal(size=num) + 1.5 * labels - 0.75)))
    return np.column_stack([1 - score, score]).astype(np.float32), labels


@pytest.mark.parametrize("prevalence", [None, 0.02, 0.7])
def test_costs_are_least_at_the_chosen_threshold(prevalence):
    """Brute force over every threshold; equal costs of one half are Youden's rule."""
    probabilities, labels = simulated(150, seed=1)
    scores, positive = probabilities[:, 1].astype(np.float64), labels == 1
    share = positive.mean() if prevalence is None else prevalence

    def cost(threshold):
        called = scores >= threshold
        misses, alarms = (~called[positive]).mean(), called[~positive].mean()
        return 4 * share * misses + (1 - share) * alarms

    rule = ThresholdRule.parse("cost:4")
    found = choose_threshold(scores, positive, rule, prevalence=prevalence)
    best = min(cost(t) for t in [-1.0, *scores, 2.0])
    assert cost(found.threshold) == pytest.approx(best)
    even = choose_threshold(scores, positive, ThresholdRule.parse("cost:1"), prevalence=0.5)
    assert even == choose_threshold(scores, positive, ThresholdRule())


def test_a_threshold_can_be_given():
    probabilities, labels = simulated(80, seed=2)
    given = ThresholdRule.parse("0.3")
    decision, about = choose_decision(probabilities, labels, ("no", "yes"), "yes", given, ())
    assert decision.threshold == 0.3
    assert "nothing was chosen" in about["note"]


def test_thresholds_that_accept_nothing_can_be_kept():
    """Specificity 1 where the highest score is a negative's: nothing is called positive."""
    scores, positive = np.array([0.2, 0.6, 1.0]), np.array([False, True, False])
    threshold = threshold_of(scores, positive, ThresholdRule.parse("specificity:1"), ())
    assert 1 < threshold < 1.001
    decision = Decision(positive="a", index=0, threshold=threshold, rule="specificity:1")
    assert not decision.called(np.ones((2, 2), dtype=np.float32)).any()


def test_a_threshold_between_two_neighbours_in_32_bits():
    """The lower of them is refused and the upper accepted, as where it was chosen."""
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    middle = (float(low) + float(high)) / 2
    decision = Decision(positive="a", index=0, threshold=middle, rule="youden")
    assert decision.called(np.array([[low, 0], [high, 0]], dtype=np.float32)).tolist() == [
        False,
        True,
    ]


def test_no_fold_helps_to_choose_its_own_threshold():
    probabilities, labels = simulated(200, seed=3)
    fold, rule = np.arange(200) % 4, ThresholdRule()
    called, thresholds = cross_fit_called(probabilities, labels, fold, 1, rule, ())
    turned = labels.copy()
    turned[fold == 2] = 1 - turned[fold == 2]
    other, moved = cross_fit_called(probabilities, turned, fold, 1, rule, ())
    assert moved[2] == thresholds[2]
    assert (other[fold == 2] == called[fold == 2]).all()
    assert moved[0] != thresholds[0]


def test_a_target_is_reached_on_average_out_of_fold():
    """Simulation: the mean sensitivity on new images lies at the target, not clearly below."""
    rule, reached = ThresholdRule.parse("sensitivity:0.9"), []
    for seed in range(60):
        chosen_on, labels = simulated(400, seed=100 + seed)
        threshold = threshold_of(chosen_on[:, 1], labels == 1, rule, ())
        new, truth = simulated(2000, seed=10_000 + seed)
        reached.append((new[truth == 1, 1] >= threshold).mean())
    assert np.mean(reached) == pytest.approx(0.9, abs=0.015)


def test_figures_of_a_decision_by_hand():
    """Of ten images four are positive: three hits, one miss, two false alarms."""
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    score = np.array([0.9, 0.8, 0.7, 0.1, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    probabilities = np.column_stack([1 - score, score])
    decision = Decision(positive="b", index=1, threshold=0.5, rule="0.5")
    found = decision_record(decision, probabilities, labels, (0.1,), groups=None, seed=0)
    assert found["counts"] == {"hits": 3, "misses": 1, "false_alarms": 2, "rejections": 4}
    values = {name: entry["value"] for name, entry in found["figures"].items()}
    assert values["sensitivity"] == 0.75
    assert values["specificity"] == pytest.approx(4 / 6)
    assert values["ppv"] == 0.6
    assert values["npv"] == 0.8
    (at,) = found["at_prevalence"]
    assert at["ppv"]["value"] == pytest.approx(0.075 / (0.075 + 0.9 / 3))
    assert found["sensitivity_at_specificity"][0]["sensitivity"]["value"] == 0.75


def test_the_record_agrees_with_the_files(decided):
    """Threshold from the out-of-fold file's labels, counts from the predictions' columns."""
    result, _ = decided
    tested = result.metrics["test"]["decision"]
    table = rows(result.out / "predictions.csv")
    called = np.array([row["decision_ill"] == "yes" for row in table])
    truth = np.array([row["true"] == "ill" for row in table])
    assert tested["counts"]["hits"] == (called & truth).sum()
    assert tested["counts"]["false_alarms"] == (called & ~truth).sum()
    threshold = tested["threshold"]
    scores = np.array([float(row["prob_ill"]) for row in table])
    assert (called == (scores >= threshold)).all()
    assert [e["prevalence"] for e in tested["at_prevalence"]] == [0.05, 0.3]
    about = result.metrics["confidence"]["decision"]
    assert about["chosen_at"]["sensitivity"] >= 0.9
    assert len(result.metrics["cross_validation"]["decision"]["by_fold"]) == 3


def test_the_decision_travels_in_the_bundle(decided):
    result, data = decided
    classifier = headstart.load(result.out)
    threshold = result.metrics["test"]["decision"]["threshold"]
    assert classifier.confidence.decision == Decision(
        positive="ill", index=0, threshold=threshold, rule="sensitivity:0.9"
    )
    table = rows(result.out / "predictions.csv")
    found = classifier.predict([data / row["path"] for row in table])
    assert found.positive == "ill"
    assert ["yes" if c else "no" for c in found.called] == [row["decision_ill"] for row in table]
    pixels = np.stack([np.full((32, 32, 3), level, dtype=np.uint8) for level in (40, 220)])
    assert classifier.answer_pixels(pixels).called is not None


def test_the_command_line_answers_at_the_threshold(decided, tmp_path):
    result, data = decided
    path = rows(result.out / "predictions.csv")[0]["path"]
    said = rows(result.out / "predictions.csv")[0]["decision_ill"] == "yes"
    asked = ["predict", str(result.out), str(data / path), "--csv", str(tmp_path / "a.csv")]
    plain = CliRunner().invoke(app, asked)
    assert f"-> {'ill' if said else 'not ill'}" in plain.output
    assert rows(tmp_path / "a.csv")[0]["decision_ill"] == ("yes" if said else "no")
    (answer,) = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert (answer["positive"], answer["called_positive"]) == ("ill", said)


def test_a_decision_about_a_class_that_is_not_there_is_refused(decided, tmp_path):
    bundle = tmp_path / "model"
    shutil.copytree(decided[0].out / "model", bundle)
    about = json.loads((bundle / "bundle.json").read_text())
    about["confidence"]["decision"]["positive"] = "dead"
    write_json(bundle / "bundle.json", about)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["sha256"]["bundle.json"] = digest_file(bundle / "bundle.json")
    write_json(bundle / "manifest.json", manifest)
    with pytest.raises(BundleError, match="'dead' is not in the class order"):
        headstart.load(bundle)


def test_other_data_are_judged_at_the_same_threshold(decided, tmp_path):
    data = overlapping(tmp_path / "ward", num=8, seed=9)
    (figures,) = evaluate(
        decided[0].out, data, group_by=r"(\w+)_\d", prevalence="0.2", ood_data="digits",
        out=tmp_path / "out",
    ).values()  # fmt: skip
    decision = figures["decision"]
    assert decision["threshold"] == decided[0].metrics["test"]["decision"]["threshold"]
    assert decision["at_prevalence"][0]["prevalence"] == 0.2
    assert sum(decision["counts"].values()) == 32
    assert figures["conformal"]["num_images"] == 32
    assert "groups" in decision["figures"]["sensitivity"]["method"]
    assert figures["outliers"]["far"][0]["num_known"] == 32
    assert "decision_ill" in rows(tmp_path / "out" / "predictions.csv")[0]


def test_the_part_kept_aside_is_whole_groups_and_nobody_learns_from_it(decided):
    result, _ = decided
    parts = {}
    for row in rows(result.out / "splits.csv"):
        parts.setdefault(row["part"], set()).add(row["path"].rsplit("_", 1)[0])
    assert set(parts) == {"train", "calibration", "test"}
    assert not parts["calibration"] & (parts["train"] | parts["test"])
    learnt = {row["path"] for row in rows(result.out / "out_of_fold_predictions.csv")}
    tested = {row["path"] for row in rows(result.out / "predictions.csv")}
    aside = {r["path"] for r in rows(result.out / "splits.csv") if r["part"] == "calibration"}
    assert not aside & (learnt | tested)
    about = result.metrics["confidence"]["conformal"]
    assert about["num_calibration"] == len(aside)
    assert about["guaranteed"] is True
    assert about["note"].startswith("guaranteed")
    assert "not exchangeable" in about["note"]
    assert set(about["thresholds"]) == {"ill", "well"}


def test_thresholds_come_from_the_final_models_answers_to_that_part(decided):
    """By hand: the score up to which patients of a class hold (n + 1)(1 - alpha) of weight."""
    result, data = decided
    aside = [r for r in rows(result.out / "splits.csv") if r["part"] == "calibration"]
    found = headstart.load(result.out).predict([data / row["path"] for row in aside])
    for c, name in enumerate(("ill", "well")):
        own = [row["label"] == name for row in aside]
        scores = np.sort(1 - found.probabilities[own, c].astype(np.float64))
        patients = len(scores) // 2  # two pictures of each, half a weight a picture
        place = int(np.ceil(2 * ((patients + 1) * 0.8 - 1e-9)))
        told = result.metrics["confidence"]["conformal"]["thresholds"][name]
        assert told == pytest.approx(scores[place - 1], abs=1e-6)


def test_classes_have_coverage_and_size_with_intervals(decided):
    for entry in decided[0].metrics["test"]["conformal"]["by_class"]:
        for name in ("coverage", "mean_size"):
            figure = entry[name]
            assert figure["value"] is not None
            assert figure["low"] is None or figure["low"] <= figure["value"] <= figure["high"]


def test_digits_are_told_from_chests(decided):
    (far,) = decided[0].metrics["test"]["outliers"]["far"]
    assert far["name"] == "digits"
    assert far["num_images"] == 60
    assert far["auroc"]["value"] > 0.9
    assert far["fpr95"]["low"] <= far["fpr95"]["value"] <= far["fpr95"]["high"]


def test_parts_with_a_calibration_part_can_be_given_back(decided, tmp_path):
    result, data = decided
    asked = ASKED | {"calibration_split": None, "splits": str(result.out), "ood_data": None}
    again = run_job(settings(data, tmp_path / "again", **asked))
    assert again.metrics["test"]["decision"] == result.metrics["test"]["decision"]
    both = asked | {"calibration_split": 0.3}
    with pytest.raises(DataError, match="the file of parts names one"):
        run_job(settings(data, tmp_path / "both", **both))


def test_a_calibration_part_that_leaks_is_told_as_such(decided, tmp_path):
    """One picture of a patient that is learnt from stands in the calibration part."""
    result, data = decided
    table = rows(result.out / "splits.csv")
    own = [row for row in table if row["part"] == "train"]
    patient = own[0]["path"].rpartition("_")[0]
    moved = next(row for row in own if row["path"].startswith(patient))
    moved |= {"part": "calibration", "fold": ""}
    parts = tmp_path / "parts.csv"
    write_csv(parts, list(table[0]), ([*row.values()] for row in table))
    asked = ASKED | {"calibration_split": None, "splits": str(parts), "ood_data": None}
    with pytest.raises(DataError, match=r"^1 of \d+ calibration images .*the calibration would"):
        run_job(settings(data, tmp_path / "refused", **asked))
    made = run_job(settings(data, tmp_path / "allowed", **asked, allow_leaks=True))
    (told,) = made.metrics["leaks_allowed"]
    assert told.startswith("1 calibration images belong together")
    assert made.record["splits"]["leaks"] == 0
    sets = made.metrics["confidence"]["conformal"]
    assert not sets["guaranteed"]
    assert sets["note"].startswith("not guaranteed")


def test_a_calibration_part_that_cannot_be_read_stops_the_run(tmp_path):
    data = overlapping(tmp_path / "chests", num=6)
    pictures = sorted(path for path in data.rglob("*.png"))
    parts = tmp_path / "parts.csv"
    for path in pictures[:2]:
        path.write_bytes(b"no picture")
    part_of = dict.fromkeys(pictures[:2], "calibration") | dict.fromkeys(pictures[4:6], "test")
    lines = ((str(p.relative_to(data)), part_of.get(p, "train")) for p in pictures)
    write_csv(parts, ["path", "part"], lines)
    asked = {"splits": str(parts), "learning_curve": False, "folds": 2, "alpha": 0.4}
    with pytest.raises(DataError, match="None of the 2 images of the calibration part"):
        run_job(settings(data, tmp_path / "run", **asked))


def test_coverage_holds_with_a_part_aside():
    """Simulation of the promise: a head fitted on one part, thresholds on another, new images."""
    from sklearn.linear_model import LogisticRegression

    from headstart.conformal import evaluate_sets, fit_conformal

    covered = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        labels = generator.integers(3, size=1260)
        features = generator.normal(size=(1260, 4)) + 1.2 * np.eye(3, 4)[labels]
        learnt, aside, new = slice(0, 60), slice(60, 260), slice(260, None)
        model = LogisticRegression().fit(features[learnt], labels[learnt])
        chances = model.predict_proba(features)
        rule = fit_conformal(chances[aside], labels[aside], ("a", "b", "c"), alpha=0.1)
        held = evaluate_sets(rule.sets(chances[new]), labels[new], seed=0)
        covered.append(held.coverage.value)
    # Exact: k / (n + 1) = 181 / 201 on average; deviation of a mean of 40 about 0.004.
    assert np.mean(covered) == pytest.approx(181 / 201, abs=0.012)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"positive": "il"}, UsageError, "must be a class of 'chests', got 'il'. Did you mean"),
        ({"alpha": 0.01}, DataError, "need at least 99 groups of every class in the calibration"),
        (
            {"alpha": 0.01, "calibration_split": None},
            DataError,
            "at least 99 images of every class in the training part, got 64 of 'ill'",
        ),
        (
            {"sets": "marginal", "alpha": 0.01, "calibration_split": 0.1},
            DataError,
            "keeps 6 groups aside, and sets with alpha 0.01 need at least 99",
        ),
        ({"ood_data": "no/such/folder"}, DataError, "no/such/folder"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(decided, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        run_job(settings(decided[1], tmp_path / "run", **(ASKED | changes)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": "youden"}, "name it by --positive"),
        ({"prevalence": 0.05}, "name it by --positive"),
        ({"positive": "a", "threshold": "best"}, "threshold rule"),
        ({"positive": "a", "prevalence": "often"}, "`prevalence` must be a share"),
        ({"positive": "a", "prevalence": 1.5}, "prevalence lies between"),
        ({"sets": "both"}, "`sets` must be marginal or by-class"),
        ({"alpha": 0.0}, "`alpha`"),
        ({"calibration_split": 0.9}, "`calibration_split` must be above 0 and at most 0.5"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(UsageError, match=message):
        settings("digits", "out", **changes)


def test_numbers_do_as_well_as_text():
    chosen = settings("digits", "out", positive="3", threshold=0.3, prevalence=[0.01, 0.1])
    assert (chosen.threshold, chosen.prevalence) == ("0.3", "0.01,0.1")
