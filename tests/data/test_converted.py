"""Conversion: what comes back is what went in, a stop costs nothing, other folders are refused."""

from __future__ import annotations

import io
import json
import os
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.data import load_table
from headstart.data.converted import ConversionSettings, convert_table
from headstart.data.converted.names import STATE_FILE, folder_names
from headstart.data.decoding import decode
from headstart.data.sources import load_unlabelled_or_labelled
from headstart.errors import DataError, OutputError, UsageError
from headstart.progress import Progress
from headstart.records import ImageTable

CLASSES = ("=SUM(A1)", "-x", "CAT", "T-shirt/top", "cat", "con", "test", "train", "été", "猫")


def table_of(count=40, *, channels=1, classes=CLASSES, splits=("train", "test"), **columns):
    """A table of plain pixels with awkward class names."""
    shape = (count, 6, 6) if channels == 1 else (count, 6, 6, 3)
    given_splits = tuple(splits[row % 4 == 3] if splits else "" for row in range(count))
    return ImageTable(
        name="odd",
        paths=tuple(f"{row:05d}" for row in range(count)),
        labels=np.arange(count) // 4 % len(classes),
        class_names=tuple(sorted(classes)),
        splits=given_splits,
        pixels=np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8),
        **columns,
    )


def convert(table, out, **options):
    strict = options.pop("strict", False)
    progress = options.pop("progress", None)
    chosen = ConversionSettings(**options)
    return convert_table(table, out, chosen, strict=strict, progress=progress)


def content(table, *columns):
    """What a table holds, whatever its images are called: sorted rows of label, split, pixels."""
    rows = []
    for row in range(len(table)):
        pixels = np.asarray(decode(table.read(row), table.paths[row])[0])
        more = tuple(getattr(table, name)[row] for name in columns)
        rows.append((table.label_of(row), table.splits[row], *map(str, more), pixels.tobytes()))
    return sorted(rows)


def state_of(out):
    return {path: path.stat().st_mtime_ns for path in sorted(out.rglob("*"))}


@pytest.mark.parametrize("to", ["folders", "manifest"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_comes_back_is_what_went_in(tmp_path, to, channels):
    table = table_of(channels=channels)
    done = convert(table, tmp_path / "out", to=to)
    assert (done.written, done.kept, done.problems) == (40, 0, {})
    again = load_table(done.load)
    assert again.class_names == table.class_names
    assert content(again) == content(table)
    with Image.open(next(done.out.rglob("*.png"))) as image:
        assert image.mode == ("L" if channels == 1 else "RGB")


@pytest.mark.parametrize("to", ["folders", "manifest"])
def test_groups_sources_and_boxes_go_along(tmp_path, to):
    boxes = np.random.default_rng(1).random((40, 4)) / 2 + [0, 0, 0.5, 0.5]
    boxes[3] = np.nan
    table = table_of(
        groups=tuple(f"=p{row % 7}" for row in range(40)),
        sources=tuple("AB"[row % 2] for row in range(40)),
        boxes=boxes,
    )
    again = load_table(convert(table, tmp_path / "out", to=to).load)
    columns = ("groups", "sources", "boxes")
    assert content(again, *columns) == content(table, *columns)


def test_without_splits_there_are_none(tmp_path):
    table = table_of(classes=("a/b", "train", "test"), splits=())
    again = load_table(convert(table, tmp_path / "out").load)
    assert set(again.splits) == {""}
    assert content(again) == content(table)


def test_parts_of_a_conversion_keep_their_classes(tmp_path):
    out = convert(table_of(), tmp_path / "out").out
    parts = load_table(out / "train", test_data=out / "test")
    assert content(parts) == content(table_of())


@pytest.mark.parametrize(("size", "channels"), [(12, 3), (3, 1), (6, 3)])
def test_size_and_channels(tmp_path, size, channels):
    table = table_of(8, classes=("a", "b"))
    out = convert(table, tmp_path / "out", size=size, channels=channels).out
    image = Image.open(out / "train/a/00001.png")
    assert image.size == (size, size)
    expected = Image.fromarray(table.pixels[0]).resize((size, size), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(image.convert("L")), np.asarray(expected))
    assert image.mode == ("RGB" if channels == 3 else "L")


def test_the_shorter_side_counts(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(stream, "PNG")
    table = ImageTable(
        name="wide",
        paths=("a.png", "b.png"),
        labels=np.array([0, 1]),
        class_names=("a", "b"),
        splits=("", ""),
        blobs=(stream.getvalue(),) * 2,
    )
    out = convert(table, tmp_path / "out", size=10).out
    assert Image.open(out / "a/00001.png").size == (20, 10)


def test_a_second_call_does_nothing(tmp_path):
    table = table_of()
    out = convert(table, tmp_path / "out", to="folders").out
    before = state_of(out)
    again = convert(table, out)
    assert (again.written, again.kept) == (0, 40)
    assert {p: t for p, t in state_of(out).items() if p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }


class StopAfter(Progress):
    """Ends the work after some steps, as Ctrl-C would."""

    def __init__(self, steps):
        self.left = steps

    def phase(self, title, total, unit="images"):
        from contextlib import contextmanager

        @contextmanager
        def counting():
            def advance(steps=1):
                self.left -= steps
                if self.left <= 0:
                    raise KeyboardInterrupt

            yield advance

        return counting()


def test_a_stopped_one_goes_on(tmp_path):
    table = table_of()
    whole = convert(table, tmp_path / "whole").out
    with pytest.raises(KeyboardInterrupt):
        convert(table, tmp_path / "out", progress=StopAfter(13))
    about = json.loads((tmp_path / "out" / STATE_FILE).read_text())
    assert about["complete"] is False
    done = convert(table, tmp_path / "out")
    assert done.kept >= 12
    assert done.written + done.kept == 40
    names = [str(p.relative_to(whole)) for p in sorted(whole.rglob("*.*")) if p.is_file()]
    log = ".conversion.log"  # the order of its lines says how the work went
    for name in names:
        if not name.endswith(log):
            assert (whole / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert sorted(p.name for p in whole.rglob("*")) == sorted(
        p.name for p in (tmp_path / "out").rglob("*")
    )


def test_damaged_and_missing_files_are_made_again(tmp_path):
    table = table_of()
    out = convert(table, tmp_path / "out").out
    first, second, third = sorted(out.rglob("*.png"))[:3]
    original = first.read_bytes()
    first.write_bytes(original[:-1])
    second.unlink()
    third.write_bytes(original)
    with (out / ".conversion.log").open("a") as log:
        log.write("torn li")
    done = convert(table, out)
    assert (done.written, done.kept) == (3, 37)
    assert content(load_table(out)) == content(table)
    assert convert(table, out).kept == 40


def test_other_data_replace_what_differs_and_nothing_else_stays(tmp_path):
    table = table_of()
    out = convert(table, tmp_path / "out").out
    fewer = table.take(range(30))
    assert convert(fewer, out).kept == 30
    assert content(load_table(out)) == content(fewer)


def test_other_settings_are_refused(tmp_path):
    out = convert(table_of(), tmp_path / "out").out
    with pytest.raises(OutputError, match="another conversion: its settings"):
        convert(table_of(), out, size=12)
    (out / STATE_FILE).write_text("{")
    with pytest.raises(OutputError, match="is damaged"):
        convert(table_of(), out)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(OutputError, match=r"holds other files, 'mine\.txt' is one"):
        convert(table_of(), tmp_path)
    with pytest.raises(OutputError, match="must be a folder"):
        convert(table_of(), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_bad_images_are_named_and_left_out(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    table = ImageTable(
        name="bad",
        paths=("a.png", "b.png", "c.png"),
        labels=np.array([0, 1, 1]),
        class_names=("a", "b"),
        splits=("",) * 3,
        blobs=(stream.getvalue(), b"", stream.getvalue()),
    )
    done = convert(table, tmp_path / "out")
    assert done.problems == {"b.png": "empty file"}
    assert done.written == 2
    assert json.loads((done.out / STATE_FILE).read_text())["problems"] == done.problems
    assert len(load_table(done.load)) == 2
    with pytest.raises(DataError, match=r"'b\.png' cannot be read: empty file"):
        convert(table, tmp_path / "strict", strict=True)


def test_unlabelled_images_go_into_a_manifest_only(tmp_path):
    table = table_of(8, classes=("a", "b"))
    table.labels[2] = -1
    done = convert(table, tmp_path / "folders")
    assert (done.written, done.left_aside) == (7, 1)
    listed = load_table(convert(table, tmp_path / "listed", to="manifest").load)
    assert sorted(listed.labels) == sorted(table.labels)


@pytest.mark.parametrize(
    ("options", "clause"),
    [
        ({"to": "zip"}, "`to` must be one of folders, manifest"),
        ({"size": 0}, "`size` must be between 1 and 8192"),
        ({"channels": 2}, "`channels` must be 1 or 3"),
        ({"format": "gif"}, "`format` must be png"),
    ],
)
def test_settings_that_cannot_be(options, clause):
    with pytest.raises(UsageError, match=clause):
        ConversionSettings(**options)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.text(max_size=100), max_size=12))
def test_every_class_has_a_folder_of_its_own_on_every_system(labels):
    names = folder_names(sorted(labels))
    folded = {unicodedata.normalize("NFC", name.casefold()) for name in names.values()}
    assert len(folded) == len(labels)
    for name in names.values():
        assert name
        assert name == os.path.basename(name)
        assert not set(name) & set('\\:*?"<>|\n\r\t\x00')
        assert not name.startswith((".", "-"))
        assert not name.endswith((".", " "))
        assert len(name.encode()) < 200


def test_plain_names_stay_as_they_are():
    labels = ["Ankle boot", "Trouser", "0", "ナマズ", "été"]
    assert folder_names(labels) == {label: label for label in labels}


def test_fashion_mnist(tmp_path, monkeypatch):
    from pictures import data_folder

    folder = data_folder()
    if folder is None or not (folder / "fashion-mnist").is_dir():
        pytest.skip("fashion-mnist is not at hand (HEADSTART_DATA)")
    monkeypatch.setenv("HEADSTART_DATA", str(folder))
    table = load_table("fashion-mnist")
    few = table.take([*range(300), *range(60_000, 60_100)])
    done = convert(few, tmp_path / "out")
    assert done.classes == {"T-shirt_top": "T-shirt/top"}
    again = load_table(done.load)
    assert again.class_names == table.class_names
    assert content(again) == content(few)


def test_a_log_of_somebody_else_removes_nothing_outside(tmp_path):
    table = table_of()
    out = convert(table, tmp_path / "out").out
    mine = tmp_path / "mine.txt"
    mine.write_text("x")
    with (out / ".conversion.log").open("a") as log:
        log.write(f"a\tb\t../mine.txt\na\tb\t{mine}\n")
    convert(table, out)
    assert mine.exists()


def pictures_of(folder, *names):
    """A table of files, one colour each, in two classes by turns."""
    for number, name in enumerate(names):
        file = folder / ("cat" if number % 2 else "dog") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (20 * number, 90, 7)).save(file)
    return load_table(folder)


def test_a_picture_that_can_no_longer_be_read_leaves_no_other_in_its_place(tmp_path):
    convert(pictures_of(tmp_path / "in", *["a.png", "b.png", "c.png", "d.png"]), tmp_path / "out")
    (tmp_path / "in" / "dog" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    done = convert(load_table(tmp_path / "in"), tmp_path / "out")
    assert list(done.problems) == ["dog/a.png"]
    assert sorted(path.name for path in (tmp_path / "out" / "dog").iterdir()) == ["00002.png"]


def test_groups_that_are_asked_for_no_more_go(tmp_path):
    pictures_of(tmp_path / "in", "p1-a.png", "p1-b.png", "p2-c.png", "p2-d.png")
    grouped = load_table(tmp_path / "in", group_by=r"(p\d)-")
    convert(grouped, tmp_path / "out")
    assert (tmp_path / "out" / "metadata.csv").exists()
    convert(load_table(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out" / "metadata.csv").exists()


def test_what_is_half_converted_is_not_learnt_from(tmp_path):
    class Stopped(Progress):
        def phase(self, title, total, unit="images"):
            raise KeyboardInterrupt

    table = pictures_of(tmp_path / "in", "a.png", "b.png", "c.png", "d.png")
    with pytest.raises(KeyboardInterrupt):
        convert(table, tmp_path / "out", progress=Stopped())
    (tmp_path / "out" / "cat").mkdir(exist_ok=True)
    with pytest.raises(DataError, match="of a conversion that was not finished"):
        load_table(tmp_path / "out")
    with pytest.raises(DataError, match="was not finished"):
        load_table(tmp_path / "in", test_data=tmp_path / "out")
    with pytest.raises(DataError, match="was not finished"):
        load_unlabelled_or_labelled(tmp_path / "out" / "cat", ("cat", "dog"))
    convert(table, tmp_path / "out")
    assert len(load_table(tmp_path / "out")) == 4


def test_a_user_s_own_sheet_stays(tmp_path):
    table = pictures_of(tmp_path / "in", "a.png", "b.png", "c.png", "d.png")
    convert(table, tmp_path / "out")
    (tmp_path / "out" / "metadata.csv").write_text("path,group\ncat/00001.png,g\n")
    assert convert(table, tmp_path / "out").kept == 4
    assert (tmp_path / "out" / "metadata.csv").exists()


def test_one_split_alone_is_no_folder(tmp_path):
    table = table_of(24, classes=("cat", "dog"), splits=("train", "train"), groups=tuple("gh" * 12))
    convert(table, tmp_path / "out")
    loaded = load_table(tmp_path / "out")
    assert set(loaded.class_names) == {"cat", "dog"}
    assert set(loaded.groups) == {"g", "h"}
