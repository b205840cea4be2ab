from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from report.stored_runs import edit_json, make_run
from typer.testing import CliRunner

from headstart.cli.app import app
from headstart.cli.evaluate import own_figures
from headstart.errors import UsageError
from headstart.report import write_claim_template, write_report
from headstart.report.judging.facts import find_duplicates, looks_medical
from headstart.report.papers.answers import NUM_ITEMS, parse_answers
from headstart.report.papers.card import plain
from headstart.report.papers.claim import NOT_PROVIDED, chosen_how, item_titles
from headstart.report.reading import read_stored_run


def test_no_run_there(tmp_path):
    with pytest.raises(UsageError, match=r"is no run: it has no run\.json"):
        write_report([tmp_path / "nothing"])
    with pytest.raises(UsageError, match="at least one"):
        write_report([])


def test_an_unfinished_run(tmp_path):
    run = make_run(tmp_path / "run")
    edit_json(run / "run.json", status="running")
    with pytest.raises(UsageError, match=r"is not finished\. Go on with: headstart run --resume"):
        write_report([run])
    assert not (run / "report.html").exists()


def test_a_candidate_is_not_opened_by_a_command_that_we_print(tmp_path, capsys):
    run = make_run(tmp_path / "which" / "mini-probe")
    edit_json(run / "run.json", status="locked")
    told = f"headstart compare --resume --test-all --out {tmp_path / 'which'}"
    with pytest.raises(UsageError, match="keeps closed") as refused:
        write_report([run])
    assert told in str(refused.value)
    with pytest.raises(UsageError, match="keeps closed"):
        own_figures(run)
    assert "run --resume" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", "is not JSON"),
        ("metrics.json", "[]", "missing or damaged"),
        ("predictions.csv", "path,true\na,b\n", "no column 'prob_cat'"),
        ("predictions.csv", "path,true,prob_cat,prob_dog,prob_owl\na,cat,1,x,0\n", "is damaged"),
        ("predictions.csv", "path,true,prob_cat,prob_dog,prob_owl\na,cow,1,0,0\n", "is damaged"),
        ("images.csv", b"path,label\n\xff\xfe,a\n", "is damaged"),
        ("audit.json", '{"findings": [{"code": 1}]}', "a finding without a message"),
        ("claim.yaml", "45: too many", "Line 1 of"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(("n", "v", "l")) else "",
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    run = make_run(tmp_path / "run")
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message):
        write_report([run])


def test_the_page_must_be_a_page(tmp_path):
    run = make_run(tmp_path / "run")
    for wrong in (tmp_path, tmp_path / "report.pdf"):
        with pytest.raises(UsageError, match="must be an HTML file"):
            write_report([run], wrong)
    assert write_report([run], tmp_path / "new" / "r.html").is_file()
    assert (tmp_path / "new" / "claim.csv").is_file()


def claim_rows(run) -> dict[int, dict[str, str]]:
    write_report([run])
    with (run / "claim.csv").open(newline="", encoding="utf-8") as file:
        return {int(row["item"]): row for row in csv.DictReader(file)}


def test_every_item_of_claim_is_there(tmp_path):
    rows = claim_rows(make_run(tmp_path / "run"))
    assert list(rows) == list(range(1, NUM_ITEMS + 1))
    by_run = {n for n, row in rows.items() if row["answered_by"] == "run"}
    assert by_run == {9, 19, 20, *range(22, 31), 32, 35, 37, 38, 39}
    assert all((row["answer"] == NOT_PROVIDED) == (n not in by_run) for n, row in rows.items())
    answers = " ".join(row["answer"] + row["title"] for row in rows.values()).lower()
    assert "ground truth" not in answers
    assert "validation" not in answers.replace("cross-validation", "")


def test_the_author_answers_beside_the_run(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "claim.yaml").write_text("5: Retrospective.\n19: By year too.\nmedical: yes\n")
    rows = claim_rows(run)
    assert rows[5]["answer"] == "Retrospective."
    assert rows[5]["answered_by"] == "author"
    assert rows[19]["answered_by"] == "run and author"
    assert rows[19]["answer"].endswith("By year too.")
    for paper in ("model_card.md", "report.html"):
        assert "Not a medical device" in (run / paper).read_text()


@pytest.mark.parametrize(
    ("name", "medical"),
    [("cxr-covid3", True), ("Chest_XRAY", True), ("brain MRI", True), ("flowers5", False),
     ("cats and dogs", False), ("factory", False)],
)  # fmt: skip
def test_medical_data_are_known_by_their_names(tmp_path, name, medical):
    run = read_stored_run(make_run(tmp_path / "run", name=name))
    assert looks_medical(run, {}) == medical
    assert looks_medical(run, {"medical": "yes"})
    assert not looks_medical(run, {"medical": "no"})


ANSWERS = """\
# a comment
1: A title
"2": "quoted: with a colon"
3: 'it''s quoted'
9: "quoted"   # behind it
10: ''   # nothing
4: begins here
  and goes on here
5: |
  first line
  second line
7: >
  joined
  again
8:
medical: yes
"""


def test_answers_are_read_as_yaml_reads_them():
    yaml = pytest.importorskip("yaml")
    ours = parse_answers(ANSWERS, "claim.yaml")
    theirs = yaml.load(ANSWERS, Loader=yaml.BaseLoader)
    assert ours == {key: value.strip() for key, value in theirs.items() if value}


@pytest.mark.parametrize(
    "text", ["0: x", "45: x", "colour: x", "  indented", "no colon", "1: a\n1: b", "- 1: a"]
)
def test_wrong_answers_are_named(text):
    with pytest.raises(UsageError, match=r"Line \d of 'claim\.yaml'"):
        parse_answers(text, "claim.yaml")


def test_the_template_can_be_filled_in(tmp_path):
    run = make_run(tmp_path / "run")
    path = write_claim_template(run)
    assert parse_answers(path.read_text(), "claim.yaml") == {}
    bare = "\n".join(line[2:] if line[2:3].isdigit() or ":" in line.split("#")[1] else line
                     for line in path.read_text().splitlines() if line)  # fmt: skip
    assert bare.count("\n5:") == 1
    assert parse_answers(bare, "claim.yaml") == {"medical": "yes"}  # prompts are no answers
    behind = bare.replace(
        "5:  # Prospective or retrospective", "5:  # Prospective?\n  Retrospective."
    )
    assert parse_answers(behind, "claim.yaml")["5"] == "Retrospective."
    filled = path.read_text().replace("# 11:  # De-identification", "11: By the hospital.")
    assert parse_answers(filled, "claim.yaml") == {"11": "By the hospital."}
    with pytest.raises(UsageError, match="is there already"):
        write_claim_template(run)
    assert [number for number, _ in item_titles()] == list(range(1, NUM_ITEMS + 1))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b", r"a \| b"),
        ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;"),
        ("two\nlines", "two lines"),
        ("1. no list", r"1\. no list"),
        ("- no list", r"\- no list"),
        ("9.5 %", "9.5 %"),
        ("snake_case", r"snake\_case"),
    ],
)
def test_markdown_is_plain(text, shown):
    assert plain(text) == shown


def test_claim_says_what_this_run_did(tmp_path):
    run = make_run(tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["splits"] = {"scheme": "leave-one-source-out", "inner_folds": 3}
    record["choice"] = {"backbone": "mini", "head": "linear", "epochs": [4], "strategy": "full",
                        "gradient_tolerance": 0.001, "model_digest": "a" * 64}  # fmt: skip
    record["settings"] |= {"strategy": "full", "lr": 0.002, "augment": "standard"}
    record["times_lost"] = True
    edit_json(run / "run.json", **record)
    rows = {number: row["answer"] for number, row in claim_rows(run).items()}
    assert "in 3 folds (leave one source out)," in rows[19]
    assert "gradient_tolerance" not in rows[25]
    assert "epochs [4], lr 0.002, augment standard" in rows[25]
    assert "s since it was resumed." in rows[25]
    assert "Settings were chosen on an inner part" in rows[26]
    assert "images unlike the training images" not in rows[30]
    page = (run / "report.html").read_text()
    assert "(A logistic head on frozen features.)" in page
    assert "Time since it was resumed" in page


def test_the_calibration_part_is_in_the_flow_and_is_no_training_part(tmp_path):
    run = make_run(tmp_path / "run", grouped=True)
    rows = (run / "splits.csv").read_text().splitlines()
    moved = [row.replace("train,1", "calibration,") if ",train,1" in row else row for row in rows]
    (run / "splits.csv").write_text("\n".join(moved) + "\n")
    claim = {number: row["answer"] for number, row in claim_rows(run).items()}
    assert "24 for training, 12 for thresholds alone, 24 for the test" in claim[35]
    assert "cat: 8 training, 4 for thresholds, 8 test" in claim[35]
    stored = read_stored_run(run)
    twin = [row | {"digest": "same"} if row["path"] in ("0/00.png", "0/12.png") else row
            for row in stored.images]  # fmt: skip
    assert not find_duplicates(replace(stored, images=twin)).across  # calibration and test


@pytest.mark.parametrize(
    ("rule", "told"), [("0.5", "given beforehand"), ("youden", "youden, chosen out of fold")]
)
def test_where_a_threshold_comes_from(rule, told):
    assert chosen_how(rule) == told


def test_evaluate_passes_over_no_option(tmp_path):
    run = make_run(tmp_path / "run")
    for options in (["--group-by", "patient"], ["--out", tmp_path / "x"], ["--ood-data", "digits"],
                    ["--engine", "onnx-int8"]):  # fmt: skip
        done = CliRunner().invoke(app, ["evaluate", str(run), *map(str, options)])
        assert "needs labelled pictures to measure on" in str(done.exception)
    both = ["evaluate", str(run), str(run), "--data", "digits", "--prevalence", "0.1"]
    assert "`prevalence` is of one model" in str(CliRunner().invoke(app, both).exception)
    metrics = json.loads((run / "metrics.json").read_text())
    edit_json(run / "metrics.json", **{"leaks_allowed": ["2 images on both sides"], **metrics})
    shown = CliRunner().invoke(app, ["evaluate", str(run)]).stdout
    assert "LEAKS ALLOWED (--allow-leaks): 2 images on both sides" in shown
