from __future__ import annotations

import json
import shutil

import pytest
from report.checks import Page
from report.stored_runs import EVERYTHING, LEARNT, TESTED, edit_json, make_run

from headstart.report import write_report

HOSTILE = (
    '"><img src=x onerror=alert(1)>',
    "</style></svg><script>alert(1)</script>",
    "{{ 7777 * 7 }}{% raw %}",
    "=cmd|' /C calc'!A0",
    "a | b\u202e*_`#&amp;",
)


def page_of(run, **options) -> Page:
    page = Page(write_report([run], **options).read_text(encoding="utf-8"))
    page.check()
    return page


def test_one_run_with_its_pictures(tmp_path):
    run = make_run(tmp_path / "run", data=tmp_path / "pets")
    page = page_of(run)
    for title in ("Verdict", "Warnings", "Data", "Figures", "Classes", "Confusion matrix",
                  "Mistakes", "Calibration", "Training", "Leakage", "Reproducing it",
                  "Glossary"):  # fmt: skip
        assert title in page.text
    metrics = json.loads((run / "metrics.json").read_text())
    accuracy = metrics["test"]["figures"]["accuracy"]["value"]
    assert f"{100 * accuracy:.1f}\u00a0%" in "".join(page.words)
    assert f"{LEARNT} + {TESTED}" in page.text
    assert len(page.of("img")) > 3 * 6
    assert "headstart run --data pets/" in page.text
    assert "Apache-2.0" in page.text
    assert "research only" in page.text


def test_the_verdict_comes_before_any_table(tmp_path):
    run = make_run(tmp_path / "run")
    text = write_report([run]).read_text()
    assert text.index("From 36 labelled images") < text.index("<table")
    assert "Always answering \u2018cat\u2019 would have been right for 33.3" in text
    assert "(nearest neighbours) reached" in text
    assert "more images would probably help" in text


def test_everything_a_run_may_measure_is_shown(tmp_path):
    run = make_run(tmp_path / "run")
    edit_json(run / "metrics.json", **EVERYTHING)
    text = page_of(run).text
    for words in ("temperature 1.3", "Approximate.", "87.5", "class owl left out",
                  "93.8", "1.25", "91.0", "97.0", "Do not trust these",
                  "told from file size", "No grouping can mend it.", "two-stage",
                  "Something new", "0.25 [0.125, 0.5]"):  # fmt: skip
        assert words in text, words


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = make_run(tmp_path / "a" / "run", data=tmp_path / "pets", grouped=True)
    edit_json(run / "metrics.json", **EVERYTHING)
    first = {p.name: p.read_bytes() for p in written(run)}
    again = {p.name: p.read_bytes() for p in written(run)}
    assert first == again
    shutil.copytree(run, tmp_path / "b" / "run")
    moved = {p.name: p.read_bytes() for p in written(tmp_path / "b" / "run")}
    assert first == moved


def written(run):
    page = write_report([run])
    return [page, run / "model_card.md", run / "claim.md", run / "claim.csv"]


def test_without_pictures_by_wish_or_because_they_are_gone(tmp_path):
    run = make_run(tmp_path / "run", data=tmp_path / "pets")
    wished = page_of(run, with_images=False)
    assert not wished.of("img")
    assert "asked to show no pictures" in wished.text
    shutil.rmtree(tmp_path / "pets")
    gone = page_of(run)
    assert not gone.of("img")
    assert "not at hand any more" in gone.text


def test_a_picture_that_was_changed_since_is_not_shown(tmp_path):
    run = make_run(tmp_path / "run", data=tmp_path / "pets")
    before = len(page_of(run).of("img"))
    for path in (tmp_path / "pets" / "cat").iterdir():
        shutil.copy(tmp_path / "pets" / "dog" / path.name, path)
    after = page_of(run)
    assert len(after.of("img")) < before
    assert not [a for a in after.of("img") if str(a["alt"]).startswith("Example of cat")]


def test_an_old_run_with_few_files(tmp_path):
    run = make_run(tmp_path / "run")
    for name in ("images", "splits", "history", "predictions", "out_of_fold_predictions"):
        (run / f"{name}.csv").unlink()
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["baselines"], metrics["learning_curve"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    page = page_of(run)
    assert f"{LEARNT} + {TESTED}" in page.text
    assert "ROC" not in [w.strip() for w in page.words]


def test_a_rival_on_a_sample_says_so_wherever_it_is_named(tmp_path):
    """In the verdict, in the warning, beside its bar; one on all images says nothing."""
    run = make_run(tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    assert "on a sample of" not in page_of(run).text
    metrics["baselines"]["neighbours"] |= {"accuracy": 1.0, "high": 1.0, "sample": 5000}
    (run / "metrics.json").write_text(json.dumps(metrics))
    text = page_of(run).text
    assert "reached 100.0 % on a sample of 5,000 images, this model" in text
    assert "reaches 100.0 % on a sample of 5,000 images, this model" in text
    assert "cross-validation on a sample of 5,000 images" in text


@pytest.mark.parametrize("where", ["classes", "data"])
def test_hostile_names_stay_text(tmp_path, where):
    classes = HOSTILE if where == "classes" else ("cat", "dog")
    run = make_run(tmp_path / "run", classes=classes, name=HOSTILE[1])
    edit_json(run / "run.json", command=["headstart", *HOSTILE], machine=HOSTILE[0])
    (run / "audit.json").write_text(json.dumps({"findings": [
        {"code": HOSTILE[0], "severity": "error", "message": HOSTILE[1], "count": 1,
         "paths": list(HOSTILE)}]}))  # fmt: skip
    page = page_of(run)
    raw = "".join(page.words)
    assert HOSTILE[1] in raw
    assert HOSTILE[2] in raw
    assert "54439" not in raw
    if where == "classes":
        assert all(name in raw for name in HOSTILE)
    assert "<script" not in (run / "model_card.md").read_text()
    assert "<script" not in (run / "claim.md").read_text()
    assert "\n=cmd" not in (run / "claim.csv").read_text()


def test_nothing_is_loaded_and_nothing_can_run(tmp_path):
    text = write_report([make_run(tmp_path / "run", data=tmp_path / "pets")]).read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_many_classes_stay_readable(tmp_path):
    run = make_run(tmp_path / "run", classes=tuple(f"class {i:03d}" for i in range(40)))
    page = page_of(run)
    assert "mean of 40 classes" in page.text
    assert "Every class has 12 images" in page.text
    assert len((run / "report.html").read_bytes()) < 400_000


def test_two_classes_have_one_curve(tmp_path):
    page = page_of(make_run(tmp_path / "run", classes=("no", "yes")))
    lines = [a["class"] for a in page.of("polyline") if str(a["class"]).startswith("line c")]
    assert lines == ["line c1 d1", "line c1 d1"]  # ROC, precision and recall


def test_several_runs_side_by_side(tmp_path):
    runs = [make_run(tmp_path / f"run{i}", seed=i) for i in range(3)]
    edit_json(runs[1] / "run.json", times={"features": 9.0, "folds": 30.0})
    page = Page(write_report(runs, tmp_path / "all.html").read_text())
    page.check()
    assert "3 runs compared" in page.text
    assert "All runs used the same images" in page.text
    assert "Accuracy against time" in page.text
    assert not (runs[0] / "model_card.md").exists()
    assert not (tmp_path / "model_card.md").exists()


def test_runs_on_other_data_are_not_ranked(tmp_path):
    runs = [make_run(tmp_path / f"run{i}") for i in range(2)]
    record = json.loads((runs[0] / "run.json").read_text())
    edit_json(runs[0] / "run.json", data={**record["data"], "digest": "e" * 32})
    page = Page(write_report(runs, tmp_path / "all.html").read_text())
    assert "do not rank them" in page.text
    assert "highest accuracy" not in page.text


def test_errors_by_group(tmp_path):
    run = make_run(tmp_path / "run", grouped=True)
    assert "each whole in one part and one fold" in page_of(run).text
    torn = (run / "splits.csv").read_text().replace("g0-test-12", "g0-train-1")
    (run / "splits.csv").write_text(torn)
    text = page_of(run).text
    assert "Groups in both parts" in text
    assert "Do not trust these figures yet" in text
