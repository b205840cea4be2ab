"""The page of a comparison, and the section on a positive class, from files made by hand."""

from __future__ import annotations

import json

import pytest
from report.checks import Page
from report.stored_runs import CLASSES, edit_json, make_run
from typer.testing import CliRunner

from headstart.cli.app import app
from headstart.errors import UsageError
from headstart.files import write_json
from headstart.report import write_report
from headstart.report.judging.alarms import find_alarms
from headstart.report.judging.decision import frequencies, missed_target, rule_text
from headstart.report.reading import read_stored_run
from headstart.report.several.study import pair_rows, steps, warnings

NAMES = ("big-probe", "small-probe", "small-full")
HOSTILE = '"><img src=x onerror=alert(1)>'


def figure(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "method": "bootstrap"}


def candidate(name, accuracy, seconds, **changes):
    return {
        "name": name, "model": "mini", "strategy": "probe", "image_size": 96,
        "weights": "bundled", "pass_s": seconds, "pass_is": "measured", "training_s": 1.0,
        "prediction_ms": 3.0 * seconds, "parameters": 5_900_000, "peak_memory_mib": 400.0,
        "memory_of": "the process", "interrupted": False,
        "accuracy": figure(accuracy, accuracy - 0.03, accuracy + 0.03),
        "macro_f1": figure(accuracy - 0.01), "repeats": 3, "repeats_mean": accuracy,
        "repeats_std": 0.012, "behind_best": figure(accuracy - 0.8, accuracy - 0.83, -0.001),
        "p_to_best_holm": 0.02, "within_noise": False, "front_training": True,
        "front_prediction": True, **changes,
    }  # fmt: skip


def make_comparison(folder, *, opened=("small-probe",), status="finished", names=NAMES):
    """A comparison in which the second of three candidates is recommended."""
    table = [
        candidate(names[0], 0.8, 40.0, behind_best=figure(0.0), within_noise=True),
        candidate(names[1], 0.79, 4.0, within_noise=True, pass_is="from the store, estimated"),
        candidate(names[2], 0.6, 90.0, weights="none", front_training=False, interrupted=True),
    ]
    pairs = [
        {"first": a, "second": b, "repeats": 3, "difference": figure(d, d - 0.02, d + 0.02),
         "sign_flip_p": p, "sign_flip_p_holm": p, "t_difference": figure(d), "t_p": p,
         "t_p_holm": t, "t_method": "a heuristic"}
        for a, b, d, p, t in (
            (names[0], names[1], 0.01, 0.4, None),
            (names[2], names[0], -0.2, 0.0004, 0.01),
            (names[1], names[2], 0.19, 0.0004, 0.01),
        )
    ]  # fmt: skip
    for name in opened:
        make_run(folder / name)
    folder.mkdir(exist_ok=True, parents=True)
    record = {
        "schema_version": 1, "status": status, "begun": "2026-01-02T03:04:05+00:00",
        "locked": "2026-01-02T04:00:00+00:00", "finished": "2026-01-02T04:01:00+00:00",
        "versions": {"headstart": "0.1.0", "torch": "2.13.0"},
        "asked": {"settings": {"data": "flowers/", "folds": "3", "learning_curve": False},
                  "models": ["mini"], "strategies": ["probe", "full"],
                  "vary": {"image_size": [64, 96]}, "repeats": 3, "fast": "training"},
        "compared": {}, "repeats_compared": 1, "num_images": 500, "num_groups": None,
        "table": table, "pairs": pairs, "models": {names[1]: "a" * 64},
        "recommendation": {
            "chosen": names[1], "best": names[0], "within_noise": list(names[:2]),
            "reason": "Within noise of the best, 8.2 times faster in feature pass and training.",
            "fast": "training", "from": "out-of-fold answers on the training part",
        },
        "test": {"opened": list(opened), "test_all": False, "stamp": "",
                 "figures": {n: {"num_images": 24, "accuracy": figure(0.75, 0.6, 0.9),
                                 "macro_f1": figure(0.74)} for n in opened}},
    }  # fmt: skip
    write_json(folder / "comparison.json", record)
    return folder


def page_of(folder, **options):
    page = Page(write_report([folder], **options).read_text(encoding="utf-8"))
    page.check()
    return page


def test_a_comparison_has_its_page(tmp_path):
    page = page_of(make_comparison(tmp_path / "which"))
    assert (tmp_path / "which" / "report.html").is_file()
    for words in (
        "Recommended: small-probe", "8.2 times faster", "locked 2026-01-02T04:00:00",
        "within noise of the best", "random weights", "about 4.0", "Paired differences",
        "+20.0 points", "< 0.001", "not defined", "heuristic", "75.0", "1 of 3 pairs cannot",
        "--vary image_size=64,96", "--no-learning-curve", "small-full was interrupted",
    ):  # fmt: skip
        assert words.replace(" ", "") in page.text.replace("\u00a0", "").replace(" ", ""), words
    assert len([a for a in page.of("svg") if "numbered as in the table" in a["aria-label"]]) == 2
    assert page.text.index("Recommended:") < page.text.index("Verdict")  # the run lies below


def test_a_comparison_whose_test_part_is_closed(tmp_path):
    page = page_of(make_comparison(tmp_path / "which", opened=(), status="locked"))
    assert "test part has not been opened" in page.text
    assert "Verdict" not in page.text.replace("Skip to the verdict", "")


def test_all_opened_are_below_and_linked(tmp_path):
    folder = make_comparison(tmp_path / "which", opened=("big-probe", "small-probe"))
    page = page_of(folder)
    links = [a["href"] for a in page.of("a")]
    assert "#r1-verdict" in links
    assert "#r2-verdict" in links
    assert page.text.index("Verdict") < page.text.rindex("Verdict")


def test_hostile_names_of_candidates_stay_text(tmp_path):
    names = (HOSTILE, "small-probe", "{{ 7 * 7 }}<script>")
    text = page_of(make_comparison(tmp_path / "which", names=names)).text
    assert HOSTILE in text
    assert "{{ 7 * 7 }}<script>" in text


def test_what_is_no_whole_comparison_is_refused(tmp_path):
    running = make_comparison(tmp_path / "running", opened=(), status="running")
    with pytest.raises(UsageError, match="has not come to its choice"):
        write_report([running])
    damaged = make_comparison(tmp_path / "damaged", opened=())
    record = json.loads((damaged / "comparison.json").read_text())
    del record["pairs"]
    write_json(damaged / "comparison.json", record)
    with pytest.raises(UsageError, match="it lacks pairs"):
        write_report([damaged])
    with pytest.raises(UsageError, match="Report it alone"):
        write_report([damaged, make_run(tmp_path / "run")])


def test_the_command_takes_a_comparison(tmp_path):
    folder = make_comparison(tmp_path / "which")
    place = tmp_path / "out" / "page.html"
    done = CliRunner().invoke(app, ["report", str(folder), "--no-images", "--out", str(place)])
    assert done.exit_code == 0, done.output
    assert "Recommended" in place.read_text()


def test_a_front_is_drawn_in_steps():
    assert steps([(1.0, 0.5), (3.0, 0.8)]) == [(1.0, 0.5), (3.0, 0.5), (3.0, 0.8)]


def test_differences_name_the_better_first():
    (row,) = pair_rows([
        {"first": "a", "second": "b", "difference": figure(-0.04, -0.06, -0.01),
         "sign_flip_p_holm": 0.03, "t_p_holm": 0.2},
    ])  # fmt: skip
    assert (row["better"], row["worse"], row["real"]) == ("b", "a", True)
    assert row["difference"] == "+4.0 points [1.0, 6.0]"


def test_random_weights_alone_are_no_warning(tmp_path):
    folder = make_comparison(tmp_path / "which", opened=())
    record = json.loads((folder / "comparison.json").read_text())
    for row in record["table"]:
        row["weights"] = "none"
    assert "Random weights beside pretrained ones" not in dict(warnings(record))


DECISION = {
    "positive": "dog", "rule": "sensitivity:0.95", "threshold": 0.31, "num_images": 24,
    "prevalence_here": 1 / 3,
    "counts": {"hits": 6, "misses": 2, "false_alarms": 1, "rejections": 15},
    "figures": {
        "sensitivity": figure(0.75, 0.41, 0.93), "specificity": figure(0.9375, 0.72, 0.99),
        "ppv": figure(0.857, 0.5, 0.97), "npv": figure(0.88, 0.65, 0.97), "f1": figure(0.8),
        "auc": figure(0.91, 0.8, 0.97), "average_precision": figure(0.85),
    },
    "at_prevalence": [
        {"prevalence": 0.05, "ppv": figure(0.387, 0.1, 0.8), "npv": figure(0.986, 0.95, 0.99)}
    ],
    "sensitivity_at_specificity": [{"specificity": 0.9, "sensitivity": figure(0.8, 0.5, 0.95)}],
}  # fmt: skip


def decided_run(folder, decision=DECISION, **options):
    run = make_run(folder, **options)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"]["decision"] = decision
    metrics["cross_validation"]["decision"] = {
        key: decision[key] for key in ("figures", "at_prevalence", "counts")
    }
    about = {"positive": decision["positive"], "note": "chosen on out-of-fold answers"}
    edit_json(
        run / "metrics.json", **metrics, confidence={"decision": about},
    )  # fmt: skip
    return run


def test_a_decision_has_its_section_and_its_sentence(tmp_path):
    run = decided_run(tmp_path / "run")
    page = page_of(run)
    text = page.text.replace("\u00a0", " ")
    for words in (
        "Decision: dog or not", "at least 0.31", "sensitivity is at least 95 %",
        "found 6 of 8", "let 15 of 16 others pass", "50 would be", "about 38 found and 12 missed",
        "about 59 false alarms", "Positive predictive value at a prevalence of 5 %", "38.7 %",
        "Sensitivity where specificity is 90 %", "where \u2018dog\u2019 is decided",
        "The threshold misses its target",
    ):  # fmt: skip
        assert words in text, words
    assert "found 6 of 8" in (run / "model_card.md").read_text()
    claim = (run / "claim.csv").read_text()
    assert "found 6 of 8" in claim
    assert "sensitivity:0.95, chosen out of fold" in claim


def test_a_hostile_positive_class_stays_text(tmp_path):
    classes = (HOSTILE, "cat")
    run = decided_run(tmp_path / "run", {**DECISION, "positive": HOSTILE}, classes=classes)
    assert HOSTILE in page_of(run).text


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("youden", "highest (Youden)"), ("specificity:0.9", "specificity is at least 90\u00a0%"),
        ("cost:5", "costs as much as 5 false alarms"), ("0.3", "at least 0.3, as was asked"),
    ],
)  # fmt: skip
def test_rules_in_words(rule, words):
    assert words in rule_text(rule, "dog")


def test_a_target_within_its_interval_is_no_warning():
    within = {**DECISION, "figures": {**DECISION["figures"], "sensitivity": figure(0.9, 0.8, 0.96)}}
    assert missed_target(within, {}) == ""
    below = {"figures": {"sensitivity": figure(0.87, 0.79, 0.93)}}
    assert "in cross-validation it is" in missed_target(within, below)
    assert "was to reach a sensitivity of 95" in missed_target(DECISION, {})


def test_frequencies_add_up():
    """At 50 %: 500 of 1,000, three quarters found; of the others one in sixteen is an alarm."""
    text = frequencies(DECISION, {"prevalence": 0.5})
    assert "500 would be" in text
    assert "about 375 found and 125 missed" in text
    assert "31 false alarms" in text


def test_old_runs_have_no_such_section(tmp_path):
    run = make_run(tmp_path / "run")
    assert "Decision:" not in page_of(run).text
    assert set(CLASSES) == {"cat", "dog", "owl"}


@pytest.mark.parametrize(("leaks", "level", "points"), [(1, "alarm", "4.2"), (0, "alarm", "")])
def test_leaks_say_what_they_can_do(tmp_path, leaks, level, points):
    """One of 24 test images is much; one of 24,000 is no reason to distrust the figure."""
    run = make_run(tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    edit_json(run / "run.json", **record, splits={"leaks": leaks})
    finding = {"code": "leak-near", "severity": "error", "message": "One has a near-duplicate."}
    write_json(run / "audit.json", {"findings": [finding]})
    (alarm,) = [a for a in leaks_of(run) if "near-duplicate" in a.text]
    assert alarm.level == level
    assert ("at most" in alarm.text) == bool(points)
    assert points in alarm.text
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"]["num_images"] = 24_000
    write_json(run / "metrics.json", metrics)
    (alarm,) = [a for a in leaks_of(run) if "near-duplicate" in a.text]
    assert alarm.level == ("warning" if leaks else "alarm")


@pytest.mark.parametrize(("asked", "told"), [("none", "as was asked"), ("auto", "data are large")])
def test_a_run_without_an_audit_says_so(tmp_path, asked, told):
    run = make_run(tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    edit_json(run / "run.json", settings=record["settings"] | {"audit": asked})
    (alarm,) = [a for a in leaks_of(run) if a.title == "Not audited"]
    assert told in alarm.text
    assert "not audited" in page_of(run).text  # in the verdict too
    write_json(run / "audit.json", {"findings": []})
    assert "Not audited" not in [a.title for a in leaks_of(run)]


def leaks_of(run):
    return find_alarms(read_stored_run(run), medical=False)


def test_a_source_that_no_grouping_can_separate_is_named_in_the_banner(tmp_path):
    run = make_run(tmp_path / "run")
    note = "No grouping can separate source from class here: 'cat' against 'owl' have no source."
    entry = {"name": "the source", "balanced_accuracy": 0.9, "low": 0.8, "high": 1.0,
             "chance": 0.33, "alarm": True, "note": note}  # fmt: skip
    edit_json(run / "metrics.json", shortcuts=[entry])
    text = page_of(run).text
    banner = text.index("Do not trust these figures yet")
    said = text.index("and no grouping can separate source from class here")
    assert said < text.index("Verdict", banner)  # before anything is claimed


def make_quick(folder, *, names=("mini", "ResNet50")):
    """A quick choice in which the second, quicker backbone is recommended."""
    rows = [
        {"name": name, "model": name, "weights": weights, "image_size": 96, "parameters": 5_900_000,
         "num_features": 384, "images_per_s": 300.0 * number, "rate_is": rate, "seconds": 2.0,
         "all_images_s": 12.0 / number, "logme": -0.25, "accuracy": figure(0.9, 0.87, 0.93),
         "neighbours": figure(0.7, 0.6, 0.8), "behind_best": behind, "p_to_best_holm": p,
         "within_noise": True, "front": True}
        for number, name, weights, rate, behind, p in (
            (1, names[0], "hub", "measured", figure(0.0), 1.0),
            (2, names[1], "none", "from the store, estimated", figure(-0.01, -0.04, 0.02), 0.4),
        )
    ]  # fmt: skip
    record = {
        "schema_version": 1, "created": "2026-11-27", "versions": {"headstart": "0.1.0"},
        "asked": {"settings": {"data": "flowers", "seed": 3, "strict": False},
                  "models": list(names), "max_images": 400},
        "engine": {"key": "cpu", "reason": "no GPU"}, "data": "flowers", "num_images": 400,
        "num_train": 1000, "num_all": 1250, "num_classes": 5, "num_groups": 90, "num_folds": 5,
        "num_neighbours": 10, "test_part": "closed: held out", "seconds": 4.0, "table": rows,
        "recommendation": {"chosen": names[1], "best": names[0], "within_noise": list(names),
                           "reason": "It is twice as fast.", "rule": "the quickest within noise"},
        "warnings": ["Few images tell little."],
        "left_out": [{"name": "VGG16", "reason": "its weights are not at hand."}],
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    write_json(folder / "quick.json", record)
    return folder


def test_a_quick_choice_has_a_page(tmp_path):
    path = write_report([make_quick(tmp_path / "which")])
    assert path == tmp_path / "which" / "report.html"
    page = Page(path.read_text())
    page.check()
    text = page.text
    assert "Recommended: ResNet50" in text
    assert "It is twice as fast." in text
    assert "400 of 1,000 training images" in text
    assert "90 independent groups" in text
    assert "-1.0 points" in text
    assert "about 600" in text  # images/s, estimated
    assert "Few images tell little." in text
    assert "VGG16" in text
    assert (
        "headstart compare --quick --data flowers --model mini,ResNet50 --max-images 400 "
        "--seed 3 --no-strict --out NEW"
    ) in text


def test_names_in_a_quick_choice_stay_text(tmp_path):
    path = write_report([make_quick(tmp_path / "q", names=(HOSTILE, "mini"))])
    assert not Page(path.read_text()).of("img")


def test_a_damaged_quick_choice_or_company_is_refused(tmp_path):
    folder = make_quick(tmp_path / "q")
    with pytest.raises(UsageError, match=r"is a quick choice .* Report it alone\."):
        write_report([folder, folder])
    record = json.loads((folder / "quick.json").read_text())
    for lost in set(record) - {"schema_version", "created", "engine", "num_classes", "seconds"}:
        write_json(folder / "quick.json", {k: v for k, v in record.items() if k != lost})
        with pytest.raises(UsageError, match=f"lacks {lost}"):
            write_report([folder])
    (folder / "quick.json").write_text("{")
    with pytest.raises(UsageError, match="is damaged"):
        write_report([folder])
