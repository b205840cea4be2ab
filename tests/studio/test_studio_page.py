"""The page by Streamlit's own app tests: every area, real runs, broken ones, hostile names."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("streamlit", reason="the page needs streamlit")

from pictures import COLOURS, paint_colours
from PIL import Image
from report.stored_runs import edit_json, make_run
from streamlit.testing.v1 import AppTest

import headstart
from headstart.progress import Progress
from headstart.records import Predictions
from headstart.runs.files.predictions import write_predictions
from headstart.studio import entry as entry_folder
from headstart.studio.answering import (
    Answer,
    answer_uploads,
    answers_csv,
    card_of,
    promise,
    upload_of,
)
from headstart.studio.areas.runs import walled
from headstart.studio.drawing import render, style
from headstart.studio.plain import as_text

SCRIPT = Path(entry_folder.__file__).with_name("headstart_studio.py")


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    folder = paint_colours(tmp_path_factory.mktemp("pictures") / "colours")
    shutil.copy(folder / "red" / "01.png", folder / "red" / "twin.png")
    return folder


@pytest.fixture(scope="module")
def finished(colours, tmp_path_factory):
    """A real run with an audit; made once, copied where a test needs its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        out = tmp_path_factory.mktemp("made") / "colours"
        headstart.run(colours, out=out, image_size=32, folds=2)
    return out


@pytest.fixture
def runs(finished, tmp_path):
    """A folder of runs: a real one, a hand-made one, an unfinished and a damaged one."""
    place = tmp_path / "runs"
    shutil.copytree(finished, place / "colours")
    make_run(place / "pets", name="pets & co")
    make_run(place / "begun")
    edit_json(place / "begun" / "run.json", status="running")
    (place / "damaged").mkdir()
    (place / "damaged" / "run.json").write_text("{")
    (place / "odd").mkdir()
    shutil.copy(place / "pets" / "run.json", place / "odd" / "run.json")
    (place / "odd" / "metrics.json").write_text('{"cross_validation": {"figures": 3}, "test": {}}')
    return place


@pytest.fixture
def visit(monkeypatch):
    """Open the page on a folder as the server does; query parameters choose area and run."""
    # The page becomes the program's main module, which a process begun by "spawn" would run again.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    def open_page(place, area="predict", run=None):
        monkeypatch.setattr(sys, "argv", ["headstart_studio.py", str(place)])
        page = AppTest.from_file(SCRIPT, default_timeout=120)
        page.query_params["area"] = area
        if run:
            page.query_params["run"] = run
        return checked(page.run())

    return open_page


def checked(page):
    assert not page.exception
    return page


def words(page):
    """Everything the page's own HTML says."""
    return "\n".join(element.value for element in page.html)


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def cards(page):
    return page.session_state["answers"]


# Predict


def known_picture(model, folder):
    """The first picture of a folder that the model does not call unknown."""
    paths = sorted(folder.glob("*.png"))
    unknown = model.predict(paths).unknown
    return next(path for path, strange in zip(paths, unknown, strict=True) if not strange)


def test_an_uploaded_picture_gets_the_answer_of_the_predictor(runs, visit, colours):
    model = headstart.load(runs / "colours")
    picture = known_picture(model, colours / "green")
    page = visit(runs, run="colours")
    assert page.selectbox[0].value == "colours"
    page.file_uploader[0].set_value(
        [
            ("leaf.png", picture.read_bytes(), "image/png"),
            ("broken.jpg", b"\xff\xd8\xff no more", "image/jpeg"),
            ("notes <b>.txt", b"just words", "text/plain"),
        ]
    )
    checked(page.run())
    expected = model.predict(picture)
    text = words(page)
    assert '<p class="big-class"><bdi>green</bdi>' in text
    assert f"{100 * expected.probabilities[0].max():.1f}\u00a0%" in text
    assert expected.names == ["green"]
    assert "2 files could not be read" in text
    assert "<bdi>broken.jpg</bdi>: truncated or damaged JPEG file" in text
    assert "<bdi>notes &lt;b&gt;.txt</bdi>: not an image" in text
    for fact in (model.root_digest, "mini", "research only"):
        assert fact in text
    rows = [answer.row for answer in cards(page).values()]
    assert np.array_equal(rows[0].probabilities, expected.probabilities)


def test_pictures_outlive_a_look_at_another_area_and_another_model(runs, visit, colours, finished):
    shutil.copytree(finished, runs / "second")
    manifest = json.loads((runs / "second" / "model" / "manifest.json").read_text())
    (runs / "second" / "model" / "manifest.json").write_text(json.dumps(manifest))  # other digest
    page = visit(runs, run="colours")
    picture = (colours / "red" / "05.png").read_bytes()
    checked(page.file_uploader[0].upload("tomato.png", picture).run())
    checked(page.segmented_control[0].set_value("Runs").run())
    assert "All runs" in words(page)
    assert "tomato.png" not in words(page)
    checked(page.segmented_control[0].set_value("Predict").run())
    assert "tomato.png" in words(page)
    assert len(cards(page)) == 1
    checked(page.selectbox[0].set_value("second").run())
    assert "tomato.png" in words(page)
    assert len(cards(page)) == 2  # both models were asked
    clear = next(button for button in page.button if button.label == "Clear")
    checked(clear.click().run())
    assert "tomato.png" not in words(page)


def test_a_picture_taken_out_of_the_drop_zone_goes(runs, visit, colours):
    page = visit(runs, run="colours")
    files = [(f"{n}.png", (colours / n / "07.png").read_bytes(), "image/png") for n in COLOURS]
    checked(page.file_uploader[0].set_value(files).run())
    assert len(page.session_state["uploads"]) == 3
    checked(page.file_uploader[0].set_value(None).run())
    assert page.session_state["uploads"] == []


def test_more_than_the_page_holds_is_refused_by_number(runs, visit, monkeypatch):
    monkeypatch.setattr("headstart.studio.areas.predict.MOST_UPLOADS", 2)
    page = visit(runs, run="colours")
    noise = np.random.default_rng(0)
    files = [
        (f"{i}.png", png(noise.integers(0, 255, (8, 8, 3), dtype=np.uint8)), "image/png")
        for i in range(5)
    ]
    checked(page.file_uploader[0].set_value(files).run())
    assert "3 files were not taken" in page.warning[0].value
    assert len(page.session_state["uploads"]) == 2


def test_the_table_is_what_the_command_writes(finished, colours, tmp_path):
    model = headstart.load(finished)
    paths = [colours / "red" / "02.png", colours / "blue" / "02.png", tmp_path / "bad.png"]
    paths[2].write_bytes(b"no picture")
    answers = answer_uploads(
        model, [upload_of(str(p), p.read_bytes()) for p in paths], progress=Progress()
    )
    write_predictions(tmp_path / "answers.csv", model.predict(paths))
    assert answers_csv(answers) == (tmp_path / "answers.csv").read_bytes()
    assert len(list(csv.reader(io.StringIO(answers_csv(answers).decode())))) == 4


@pytest.mark.parametrize("kind", ["rotated", "grey16", "cmyk", "palette", "wide"])
def test_preprocessing_cannot_differ(finished, tmp_path, kind):
    """Turned, deep, printed, indexed and wide pictures: the very same numbers as a path's."""
    pixels = np.random.default_rng(3).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    path, image = tmp_path / "picture.jpg", Image.fromarray(pixels)
    if kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    elif kind == "cmyk":
        image.convert("CMYK").save(path)
    elif kind == "wide":
        image.resize((300, 20)).save(path)
    else:
        path = path.with_suffix(".png")
        deep = Image.fromarray((pixels[..., 0].astype(np.uint16)) * 257)
        (deep if kind == "grey16" else image.convert("P")).save(path)
    model = headstart.load(finished)
    expected = model.predict(path)
    (found,) = answer_uploads(model, [upload_of(path.name, path.read_bytes())], progress=Progress())
    assert np.array_equal(found.row.probabilities, expected.probabilities)
    assert np.array_equal(found.row.sets, expected.sets)
    assert found.row.outlier_scores == expected.outlier_scores
    assert bool(found.treatment) == (kind != "wide")
    assert found.seen.startswith("data:image/jpeg")


@pytest.fixture(scope="module")
def answered(finished, colours):
    model = headstart.load(finished)
    picture = (colours / "red" / "03.png").read_bytes()
    (answer,) = answer_uploads(model, [upload_of("a.png", picture)], progress=Progress())
    return model, replace(
        answer, row=replace(answer.row, unknown=np.array([False]), sets=np.eye(3, dtype=bool)[2:])
    )


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ([], "No class fits well"),
        ([2], "rules out every class but \u2018red\u2019."),
        ([1, 2], "cannot decide between \u2018red\u2019 and \u2018green\u2019, and rules out the "
         "other one."),
        ([0, 1, 2], "cannot rule out any class"),
    ],
)  # fmt: skip
def test_a_set_is_told_in_words(answered, held, told):
    _, answer = answered
    sets = np.zeros((1, 3), dtype=bool)
    sets[0, held] = True
    chances = np.array([[0.1, 0.2, 0.7]], dtype=np.float32)
    row = replace(answer.row, sets=sets, probabilities=chances)
    assert told in card_of(replace(answer, row=row), all_classes=True)["sentence"]


def test_the_promise_names_its_rate(answered):
    model, _ = answered
    if model.confidence.sets is None:
        pytest.skip("too few pictures for sets")
    assert "about 90 times in 100" in promise(model)


def test_unknown_is_shown_plainly(answered):
    _, answer = answered
    row = replace(answer.row, unknown=np.array([True]))
    card = card_of(replace(answer, row=row), all_classes=True)
    text = render("answers.html", cards=[card], promise="")
    assert '<p class="big-class unknown">unknown</p>' in text
    assert "unlike everything the model has learnt from" in text
    assert not card["sentence"]


# Runs


def test_every_folder_is_listed_whatever_its_state(runs, visit):
    page = visit(runs, "runs", "pets")
    text = words(page)
    for name in ("colours", "pets", "begun", "damaged", "odd"):
        assert f"<bdi>{name}</bdi>" in text
    assert "3 folders without figures" in text
    assert "headstart run --resume --out" in text
    assert "is damaged: it is not JSON" in text
    assert "pets &amp; co" in text
    for shown in ("Confusion matrix", "Each class on the test part", "Curves", "Against simple"):
        assert shown in text
    head = text[text.index("Each class on the test part") :].partition("</thead>")[0]
    columns = [part.partition("<")[0] for part in head.split('scope="col"')[1:]]
    assert columns == [">Class", ' class="n">Precision', ' class="n">Recall', ' class="n">F1',
                       ' class="n">Images']  # fmt: skip
    assert "data:image/svg+xml;base64," in text
    assert "<svg" not in text  # Streamlit would take it away


def test_the_best_out_of_fold_comes_first_and_other_data_apart(runs, visit):
    page = visit(runs, "runs", "colours")
    metrics = json.loads((runs / "pets" / "metrics.json").read_text())
    metrics["cross_validation"]["figures"]["accuracy"]["value"] = 0.999
    make_run(runs / "worse", name="pets & co")
    (runs / "worse" / "metrics.json").write_text(json.dumps(metrics))
    text = words(checked(page.run()))
    assert text.index("<bdi>worse</bdi>") < text.index("<bdi>pets</bdi>")
    assert text.count('<tr class="group">') == 2


def test_the_report_is_shown_behind_a_wall(runs, visit):
    page = visit(runs, "runs", "colours")
    assert any(b.label == "Download report.html" for b in page.download_button)
    assert not page.get("iframe")
    checked(page.toggle[0].set_value(True).run())
    assert page.get("iframe")
    page = walled('<script>alert("1")</script>')
    assert '<iframe sandbox=""' in page
    assert "<script>" not in page


@pytest.mark.parametrize("area", ["predict", "runs", "data"])
def test_a_broken_run_is_a_sentence_in_every_area(runs, visit, area):
    page = visit(runs, area, "begun")
    for run in ("begun", "damaged", "odd"):
        checked(page.selectbox[0].set_value(run).run())
        told = words(page) + " ".join(e.value for e in [*page.error, *page.info])
        assert any(word in told.lower() for word in ("not finished", "damaged", "no model")), run


def test_a_damaged_comparison_hides_no_run(runs, visit):
    for name, text in (("torn", "{"), ("older", '{"recommendation": {"chosen": "x"}}')):
        (runs / name).mkdir()
        (runs / name / "comparison.json").write_text(text)
    page = visit(runs, "runs", "pets")
    told = [caption.value for caption in page.caption]
    assert sum("It cannot be shown" in text for text in told) == 2
    assert "pets &amp; co" in words(page)
    assert not page.error


def test_names_from_files_are_text_and_no_markdown():
    hostile = "![x](https://evil.example/p.png) :red[a] $x$ `b` <i> a_b*c*"
    text = as_text(hostile)
    assert "\\!\\[x\\](https\\://evil.example/p.png)" in text
    assert re.sub(r"\\(.)", r"\1", text) == hostile
    assert as_text("RuntimeError: out of cheese") == "RuntimeError: out of cheese"


def test_the_card_says_what_the_threshold_makes_of_a_picture():
    row = Predictions(
        paths=("a.png",), class_names=("benign", "malignant"),
        probabilities=np.array([[0.75, 0.25]], dtype=np.float32),
        labels=np.array([-1]), problems=("",), positive="malignant", called=np.array([True]),
    )  # fmt: skip
    answer = Answer(row=row, picture="", seen="", stored="", treatment="")
    card = card_of(answer, all_classes=False)
    assert card["call"] == {"positive": "malignant", "called": True, "chance": 0.25}
    text = render("answers.html", promise="", threshold=0.2, cards=[card])
    assert "Called <b><bdi>malignant</bdi></b>: 25.0\u00a0%, the threshold is 20.0\u00a0%" in text


def test_a_bundle_alone_answers_and_says_what_it_lacks(finished, visit, tmp_path, colours):
    shutil.copytree(finished / "model", tmp_path / "shipped")
    picture = known_picture(headstart.load(tmp_path / "shipped"), colours / "blue")
    page = visit(tmp_path / "shipped")
    checked(page.file_uploader[0].upload("a.png", picture.read_bytes()).run())
    assert '<p class="big-class"><bdi>blue</bdi>' in words(page)
    for area in ("Runs", "Data"):
        checked(page.segmented_control[0].set_value(area).run())
        assert "the model alone" in page.info[0].value


def test_a_changed_bundle_is_refused_in_one_sentence(runs, visit):
    weights = runs / "colours" / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    page = visit(runs, run="colours")
    assert "weights.safetensors" in page.error[0].value


def test_a_defect_is_no_traceback(runs, visit, monkeypatch, capfd):
    def broken(*_):
        raise RuntimeError("out of cheese")

    monkeypatch.setattr("headstart.studio.areas.runs.show_run", broken)
    page = visit(runs, "runs", "pets")
    assert "A defect in Headstart: RuntimeError: out of cheese" in page.error[0].value


# Data


def test_the_audit_is_told_and_twins_stand_side_by_side(runs, visit):
    text = words(visit(runs, "data", "colours"))
    assert "What the audit found" in text
    assert "Copies of the same picture" in text
    assert "Pictures that are alike" in text
    assert text.count('<li class="pair">') >= 1
    assert "data:image/jpeg;base64," in text


def test_labels_can_be_filtered_sorted_and_paged(runs, visit):
    page = visit(runs, "data", "colours")
    assert words(page).count("<li class=") >= 24
    box = {b.label: b for b in page.selectbox}
    checked(box["Class"].set_value("green").run())
    text = words(page)
    shown = text[text.index('<ul class="browser">') :]
    assert shown.count("<li class=") == 12
    assert "<bdi>green</bdi>" in shown
    assert "<b><bdi>blue</bdi></b><br>" not in shown
    box = {b.label: b for b in page.selectbox}
    checked(box["Class"].set_value("all").run())
    following = [b for b in page.button if b.label == "Next"][-1]  # below the pictures
    checked(following.click().run())
    assert "Pictures 25 to 37 of 37" in [caption.value for caption in page.caption]


def test_the_most_confident_mistake_comes_first(visit, tmp_path):
    make_run(tmp_path / "runs" / "pets")
    table = list(csv.DictReader((tmp_path / "runs/pets/out_of_fold_predictions.csv").open()))
    wrong = [row for row in table if row["true"] != row["predicted"]]
    tested = list(csv.DictReader((tmp_path / "runs/pets/predictions.csv").open()))
    wrong += [row for row in tested if row["true"] != row["predicted"]]
    surest = max(wrong, key=lambda row: float(row[f"prob_{row['predicted']}"]))
    text = words(visit(tmp_path / "runs", "data", "pets"))
    first = text[text.index('<ul class="browser">') :].partition("</li>")[0]
    assert surest["path"] in first
    assert 'class="wrong"' in first


def test_pictures_that_are_gone_are_said_to_be(runs, visit):
    text = words(visit(runs, "data", "pets"))
    assert "not at hand any more" in text
    assert "data:image/jpeg" not in text
    assert "were not audited" in text


def test_hostile_names_stay_words(visit, tmp_path):
    names = ("<script>alert(1)</script>", "a\"onload='x'", "plain")
    make_run(tmp_path / "runs" / "x<img src=y>", classes=names, name="<b>bold</b>")
    for area in ("runs", "data"):
        text = words(visit(tmp_path / "runs", area))
        assert "<script" not in text
        assert "<img src=y" not in text
        assert "<b>bold" not in text
        assert "&lt;script&gt;" in text


def test_a_folder_that_loses_its_runs_says_so(runs, visit):
    page = visit(runs, "runs", "colours")
    shutil.rmtree(runs)
    checked(page.run())
    assert "no run and no bundle" in page.info[0].value


def test_the_style_sheet_takes_the_report_s_colours_for_both_modes():
    text = style()
    assert "--accent: light-dark(#1a5a96, #82b7ee);" in text
    assert text.startswith(".hs {")
