"""The audit inside a run: leaks stop it, near-duplicates stay together, everything is written."""

from __future__ import annotations

import json
import shutil

import pytest
from test_job import rows
from test_job import settings as plain_settings

from headstart.audit import audit_table
from headstart.errors import DataError
from headstart.progress import Progress
from headstart.report.writing import write_report
from headstart.runs import run_job


def settings(data, out, **changes):
    return plain_settings(data, out, **{"audit": "auto", **changes})


class Notes(Progress):
    def __init__(self):
        self.lines = []

    def note(self, message):
        self.lines.append(message)


@pytest.fixture
def split_folder(colour_folder, tmp_path):
    """Train and test folders of the colours, nothing on both sides."""
    folder = tmp_path / "split"
    for path in sorted(colour_folder.rglob("*.png")):
        part = "test" if int(path.stem) >= 9 else "train"
        target = folder / part / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def test_a_leak_across_a_given_split_stops_the_run(split_folder, tmp_path):
    shutil.copy(split_folder / "train/red/00.png", split_folder / "test/red/copy.png")
    with pytest.raises(DataError, match="--allow-leaks"):
        run_job(settings(split_folder, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_allowed_leak_is_stamped(split_folder, tmp_path):
    shutil.copy(split_folder / "train/red/00.png", split_folder / "test/red/copy.png")
    result = run_job(settings(split_folder, tmp_path / "run", allow_leaks=True))
    record = json.loads((result.out / "run.json").read_text())
    assert len(record["audit"]["leaks_allowed"]) == 1
    assert "copy.png" in record["audit"]["leaks_allowed"][0]
    write_report([result.out])
    metrics = json.loads((result.out / "metrics.json").read_text())
    bundle = json.loads((result.out / "model/bundle.json").read_text())
    assert metrics["leaks_allowed"] == record["audit"]["leaks_allowed"]
    assert record["audit"]["leaks_allowed"][0] in json.dumps(bundle)
    text = (result.out / "classification_report.txt").read_text()
    assert text.startswith("LEAKS ALLOWED (--allow-leaks): 1 of")
    page = (result.out / "report.html").read_text()
    assert "Leaks were allowed (--allow-leaks)" in page
    assert "images it had never seen" not in page
    assert "Leaks were allowed" in (result.out / "model_card.md").read_text()


def test_an_honest_split_is_stamped_clean(split_folder, tmp_path):
    result = run_job(settings(split_folder, tmp_path / "run"))
    assert result.record["audit"]["leaks_allowed"] == []
    assert "leaks_allowed" not in result.metrics
    assert "LEAKS" not in (result.out / "classification_report.txt").read_text()


def test_copies_stay_on_one_side_of_every_split(colour_folder, tmp_path):
    for number in range(8):
        shutil.copy(colour_folder / f"red/{number:02d}.png", colour_folder / f"red/c{number}.png")
    for seed in range(3):
        result = run_job(settings(colour_folder, tmp_path / str(seed), seed=seed))
        place = {row["path"]: (row["part"], row["fold"]) for row in rows(result.out / "splits.csv")}
        for number in range(8):
            assert place[f"red/{number:02d}.png"] == place[f"red/c{number}.png"]


def test_the_audit_is_told_and_written(colour_folder, tmp_path):
    shutil.copy(colour_folder / "red/00.png", colour_folder / "blue/wrong.png")
    notes = Notes()
    result = run_job(settings(colour_folder, tmp_path / "run"), progress=notes)
    assert any(line.startswith("Audit") and "warning" in line for line in notes.lines)
    assert "labels-exact" in (result.out / "audit.txt").read_text()
    codes = {finding["code"] for finding in result.record["audit"]["findings"]}
    assert "labels-exact" in codes
    by_path = {row["path"]: row for row in rows(result.out / "images.csv")}
    copied, original = by_path["blue/wrong.png"], by_path["red/00.png"]
    assert copied["pixel_digest"] == original["pixel_digest"] != ""
    assert copied["unit"] == original["unit"]


def test_no_audit_where_none_is_wanted(colour_folder, tmp_path):
    result = run_job(settings(colour_folder, tmp_path / "run", audit="none"))
    assert not (result.out / "audit.json").exists()
    assert "audit" not in result.record


def test_candidates_with_the_same_images_share_one_audit(colour_folder, tmp_path, monkeypatch):
    asked = []

    def counted(table, *args, **options):
        asked.append(len(table))
        return audit_table(table, *args, **options)

    monkeypatch.setattr("headstart.runs.auditing.audit_table", counted)
    first = run_job(settings(colour_folder, tmp_path / "1"))
    second = run_job(settings(colour_folder, tmp_path / "2", head="mlp", epochs="1"))
    assert asked == [36]
    for name in ("audit.json", "audit.txt"):
        assert (first.out / name).read_bytes() == (second.out / name).read_bytes()
    assert first.record["splits"]["digest"] == second.record["splits"]["digest"]
    shutil.copy(colour_folder / "red/00.png", colour_folder / "red/11.png")  # other contents
    third = run_job(settings(colour_folder, tmp_path / "3"))
    assert asked == [36, 36]
    assert "duplicates-exact" in (third.out / "audit.txt").read_text()
