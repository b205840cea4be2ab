"""The battery of shortcuts: planted ones raise the alarm, sound data do not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from headstart.audit import Audit, AuditSettings, audit_table, audit_text
from headstart.audit.association import Association
from headstart.audit.fingerprints import RECORD, Examined
from headstart.audit.shortcuts import Evidence, shortcut_battery
from headstart.data import load_table
from headstart.records import Features, ImageTable

NUM_IMAGES = 48
KEYS = {"name", "balanced_accuracy", "low", "high", "chance", "alarm", "note"}


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shortcut-cache")


@pytest.fixture(autouse=True)
def shared_cache(own_cache, shared_folder, monkeypatch):
    """Tests of this file show the same pictures: each is embedded once."""
    monkeypatch.setenv("HEADSTART_CACHE", str(shared_folder))


def picture(number: int) -> Image.Image:
    coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((60, 48), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": 75} | options if kind == "JPEG" else options))
    return stream.getvalue()


def plain(number: int, label: int) -> bytes:
    return encoded(picture(number))


def framed(number: int, label: int) -> bytes:
    """A white frame of 2 or 3 px round one class and of 5 or 6 px round the other."""
    width = 2 + 3 * label + number // 2 % 2
    inner = picture(number).resize((60 - 2 * width, 48 - 2 * width))
    return encoded(ImageOps.expand(inner, width, "white"))


def compressed(number: int, label: int) -> bytes:
    return encoded(picture(number), quality=90 if label else 60)


def described(number: int, label: int) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "a maker" if label else "another maker"
    return encoded(picture(number), exif=exif)


def table_of(folder: Path, make=plain, sources=None, labels=None) -> ImageTable:
    if labels is None:
        labels = np.arange(NUM_IMAGES, dtype=np.int64) % 2
    files = []
    for number, label in enumerate(labels.tolist()):
        files.append(folder / f"{number:03d}.jpg")
        files[-1].write_bytes(make(number, label))
    return ImageTable(
        name="planted",
        paths=tuple(f"{'abc'[label]}/{n:03d}.jpg" for n, label in enumerate(labels.tolist())),
        labels=labels,
        class_names=("a", "b", "c")[: int(labels.max()) + 1],
        splits=("",) * len(labels),
        groups=None,
        sources=sources,
        files=tuple(files),
    )


def battery(audit: Audit) -> dict[str, dict]:
    entries = audit.summary["shortcuts"]
    assert all(set(entry) == KEYS for entry in entries)
    assert all(0 <= e["low"] <= e["balanced_accuracy"] <= e["high"] <= 1 for e in entries)
    alarms = [entry["alarm"] for entry in entries]
    assert alarms == sorted(alarms, reverse=True)
    return {entry["name"]: entry for entry in entries}


def alarms(audit: Audit) -> set[str]:
    return {name for name, entry in battery(audit).items() if entry["alarm"]}


def made_up_evidence(gain: float) -> Evidence:
    """Features that tell two classes right in this share of the images, else by chance."""
    generator = np.random.default_rng(0)
    labels = np.arange(400, dtype=np.int64) % 2
    seen = np.where(generator.random(400) < gain, labels, generator.integers(0, 2, 400))
    features = Features(
        values=np.repeat(seen[:, None], 4, axis=1).astype(np.float16),
        facts=(),
        good=np.ones(400, dtype=bool),
        computed=0,
    )
    return Evidence(
        class_names=("a", "b"),
        labels=labels,
        sources=None,
        units=np.arange(400, dtype=np.int64),
        examined=Examined(features=features, records=np.zeros(400, dtype=RECORD), seconds=0),
        rows=np.arange(400, dtype=np.int64),
        seed=0,
    )


def told(value: float) -> Association:
    return Association(
        value=value, low=value - 0.02, high=min(1, value + 0.02), chance=0.5, num_images=400
    )


@pytest.mark.parametrize(
    ("gain", "value", "alarm"),
    [(1.0, 0.97, True), (1.0, 0.9, False), (0.7, 0.84, True), (0.4, 0.72, False)],
    ids=["all", "too little of it", "all of less", "below the margin"],
)
def test_the_border_is_measured_by_what_the_whole_picture_gives(gain, value, alarm):
    entries = shortcut_battery(made_up_evidence(gain), {"border": told(value)}, AuditSettings())
    assert {e["name"]: e["alarm"] for e in entries}["the border"] is alarm


def test_file_facts_together_are_an_alarm_only_where_none_alone_is():
    evidence = made_up_evidence(1.0)

    def loud(**kinds: float) -> set[str]:
        facts = {name.replace("_", " "): told(value) for name, value in kinds.items()}
        found = shortcut_battery(evidence, facts, AuditSettings())
        return {entry["name"] for entry in found if entry["alarm"]}

    assert loud(format=0.6, all_file_facts=0.9) == {"all file facts"}
    assert loud(format=0.9, all_file_facts=0.9) == {"the format"}
    assert loud(format=0.6, all_file_facts=0.66) == set()


def test_sound_data_raise_no_alarm(tmp_path):
    audit = audit_table(table_of(tmp_path))
    assert alarms(audit) == set()
    small = battery(audit)["an 8x8 thumbnail"]
    assert small["low"] < small["chance"] == 0.5
    assert "ALARM" not in audit_text(audit)


def test_the_width_of_a_frame_raises_the_alarm(tmp_path):
    audit = audit_table(table_of(tmp_path, framed))
    assert "the border" in alarms(audit)
    assert "Crop the frame" in battery(audit)["the border"]["note"]
    assert "ALARM  the border: " in audit_text(audit)
    covered = battery(audit)["the picture with its centre covered"]
    assert covered["low"] > covered["chance"] + 0.1
    assert not battery(audit)["an 8x8 thumbnail"]["alarm"]


@pytest.mark.parametrize(
    ("make", "name"),
    [(compressed, "the JPEG quality"), (described, "EXIF and other metadata")],
    ids=["quality", "exif"],
)
def test_what_the_file_says_raises_the_alarm(tmp_path, make, name):
    audit = audit_table(table_of(tmp_path, make))
    assert name in alarms(audit)
    assert battery(audit)[name]["low"] > 0.95
    assert "All file facts together give 100%" in battery(audit)[name]["note"]
    assert "all file facts" not in battery(audit)  # one banner, not two, for one thing
    assert "the picture with its centre covered" not in alarms(audit)


def test_sources_that_are_the_classes_cannot_be_separated(tmp_path):
    labels = np.arange(NUM_IMAGES, dtype=np.int64) % 3
    sources = tuple("clinic" if label == 2 else "archive" for label in labels)

    def tinted(number: int, label: int) -> bytes:
        image = picture(number)
        return encoded(ImageOps.expand(image, 8, "white") if label == 2 else image)

    audit = audit_table(table_of(tmp_path, tinted, sources, labels))
    entry = battery(audit)["the source"]
    assert entry["alarm"]
    assert entry["balanced_accuracy"] == pytest.approx(2 / 3)
    assert "No grouping can separate source from class here: 'a', 'b' against 'c'" in entry["note"]
    apart = "the picture with its centre covered, between classes without a common source"
    assert apart in alarms(audit)
    assert battery(audit)["the features, asked for the source"]["low"] > 0.8
    assert not any("within" in name for name in battery(audit))


def test_the_source_is_asked_for_within_one_class(tmp_path):
    sources = tuple("bright" if number // 2 % 2 else "dark" for number in range(NUM_IMAGES))

    def lit(number: int, label: int) -> bytes:
        share = 0.4 if number // 2 % 2 else 1.0
        return encoded(picture(number).point(lambda value: int(value * share)))

    found = battery(audit_table(table_of(tmp_path, lit, sources)))
    within = found["the features, asked for the source within 'a'"]
    assert within["low"] > within["chance"]
    assert not within["alarm"]
    assert not found["the source"]["alarm"]
    assert found["the source"]["low"] <= 0.5


def test_a_source_that_often_tells_the_label(tmp_path):
    sources = tuple(f"s{n % 2 if n % 15 else 1 - n % 2}" for n in range(NUM_IMAGES))
    entry = battery(audit_table(table_of(tmp_path, sources=sources)))["the source"]
    assert entry["alarm"]
    assert "whole sources held out" in entry["note"]


def test_the_battery_is_the_same_each_time_and_in_any_order(tmp_path):
    table = table_of(tmp_path, framed, tuple("xyz"[n % 3] for n in range(NUM_IMAGES)))
    order = np.random.default_rng(0).permutation(NUM_IMAGES)
    first = audit_table(table).summary["shortcuts"]
    assert first == audit_table(table).summary["shortcuts"]
    assert first == audit_table(table.take(order)).summary["shortcuts"]


def test_unlabelled_and_single_classes_have_no_battery(tmp_path):
    labels = np.zeros(12, dtype=np.int64)
    assert audit_table(table_of(tmp_path, labels=labels)).summary["shortcuts"] == []


@pytest.mark.slow
def test_chest_radiographs_of_two_archives_raise_the_alarm(pack):
    table = load_table(pack("cxr-covid3"), group_by="patient_id")
    audit = audit_table(table.take(np.arange(0, len(table), 2)))
    assert "the source" in alarms(audit)
    assert "No grouping can separate" in battery(audit)["the source"]["note"]
    assert battery(audit)["the features, asked for the source"]["low"] > 0.8
