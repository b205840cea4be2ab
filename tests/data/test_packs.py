"""Packs of image bytes: Hugging Face's and others', names of classes, splits, what is damaged."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import decode, load_table
from headstart.data.sources import load_unlabelled_or_labelled
from headstart.errors import DataError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def png(value):
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), (value, 7, 7)).save(stream, "PNG")
    return stream.getvalue()


def write(file, columns, metadata=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns).replace_schema_metadata(metadata), file)
    return file


def hugging_face(names):
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def red_of(table, row):
    return decode(table.read(row), table.paths[row])[0].getpixel((0, 0))[0]


def labels_of(table):
    return [table.label_of(row) for row in range(len(table))]


@pytest.fixture
def folder(tmp_path):
    """A pack in two parts as Hugging Face writes it."""
    for split, count in (("train", 4), ("test", 2)):
        images = [{"bytes": png(10 * n), "path": f"{n}.png"} for n in range(count)]
        columns = {"image": images, "label": [n % 2 for n in range(count)], "site": ["A"] * count}
        file = tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        write(file, columns, hugging_face(["wild cat", "dog"]))
    return tmp_path


def test_hugging_face_pack(folder):
    table = load_table(folder)
    assert table.class_names == ("dog", "wild cat")
    assert table.splits == ("train",) * 4 + ("test",) * 2
    assert table.paths == (*(f"train/{n}.png" for n in range(4)), "test/0.png", "test/1.png")
    assert labels_of(table) == ["wild cat", "dog"] * 3
    assert [red_of(table, row) for row in range(6)] == [0, 10, 20, 30, 0, 10]
    assert table.sources == ("A",) * 6
    assert (table.files, table.pixels) == (None, None)
    last = table.take([5])
    assert (red_of(last, 0), last.paths, labels_of(last)) == (10, ("test/1.png",), ["dog"])


def test_one_pack_alone_is_no_split(folder):
    table = load_table(folder / "data" / "test-00000-of-00001.parquet")
    assert set(table.splits) == {""}
    finished = load_unlabelled_or_labelled(
        folder / "data" / "test-00000-of-00001.parquet", ("wild cat", "dog")
    )
    assert finished.labels.tolist() == [0, 1]


def test_a_pack_tells_its_own_splits(tmp_path):
    columns = {"image": [png(n) for n in range(6)], "label": list("ababab")}
    columns["Split"] = ["train", "TEST", "train", "train", "test", None]
    columns["use"] = [1, 1, 1, 1, 1, 0]
    file = write(tmp_path / "train.parquet", columns)
    table = load_table(file)
    assert table.splits == ("train",) * 4 + ("test",) * 2
    assert [red_of(table, row) for row in range(6)] == [0, 2, 3, 5, 1, 4]
    assert load_table(file, columns="split=Split").splits == table.splits
    assert set(load_table(file, columns="split=").splits) == {""}
    taken = load_table(file, columns="only=use")
    assert [red_of(taken, row) for row in range(5)] == [0, 2, 3, 1, 4]
    finished = load_unlabelled_or_labelled(file, ("a", "b"))
    assert [red_of(finished, row) for row in range(2)] == [1, 4]


def test_splits_of_a_pack_by_number(tmp_path):
    columns = {"image": [png(n) for n in range(4)], "label": list("abab"), "split": [0, 0, 1, 1]}
    features = {"split": {"names": ["train", "test"], "_type": "ClassLabel"}}
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    file = write(tmp_path / "p.parquet", columns, about)
    assert load_table(file).splits == ("train", "train", "test", "test")


@pytest.mark.parametrize(
    ("wanted", "clause"),
    [
        ("split=label", "the split 'a' is neither train, val nor test"),
        ("root=img", "cannot have a root for"),
        ("only=nothing", "has no column 'nothing'"),
        ("box=label", "the box must be four numbers"),
        ("only=zero", "has no row to take"),
    ],
)
def test_words_that_a_pack_cannot_honour(tmp_path, wanted, clause):
    columns = {"image": [png(1), png(2)], "label": ["a", "b"], "zero": [0, 0]}
    file = write(tmp_path / "p.parquet", columns)
    with pytest.raises(DataError, match=clause):
        load_table(file, columns=wanted)


@pytest.mark.parametrize("layout", ["list", "corners", "text"])
def test_boxes_of_a_pack(tmp_path, layout):
    columns = {"image": [png(1), png(2)], "label": ["a", "b"]}
    if layout == "corners":
        columns |= {"x1": [3, None], "y1": [0, None], "x2": [6, None], "y2": [2, None]}
    else:
        columns["bbox"] = [[3, 0, 6, 2] if layout == "list" else "3 0 6 2", None]
    table = load_table(write(tmp_path / "p.parquet", columns))
    assert table.box_of(0) == (0.5, 0, 1, 0.5)
    assert table.box_of(1) is None
    wide = load_table(tmp_path / "p.parquet", crop_margin=0.5)
    assert wide.box_of(0) == (0.25, 0, 1, 0.75)
    assert any("are read as left, top" in note for note in table.notes) == (layout != "corners")


def test_one_picture_of_a_pack_with_two_boxes_is_a_group(tmp_path):
    columns = {"image": [png(1), png(1), png(2), png(3)], "label": list("abab")}
    columns["bbox"] = ["0 0 3 4", "3 0 6 4", "0 0 6 4", "0 0 6 4"]
    groups = load_table(write(tmp_path / "p.parquet", columns)).groups
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


def test_a_pack_cannot_be_its_own_test_set(tmp_path):
    columns = {"image": [png(1), png(2)], "label": ["a", "b"]}
    file = write(tmp_path / "d" / "p.parquet", columns)
    for link in (tmp_path / "d", tmp_path / "link.parquet"):
        if not link.exists():
            link.symlink_to(file)
        with pytest.raises(DataError, match=r"p\.parquet|itself"):
            load_table(file, test_data=link)
    copies = write(tmp_path / "e" / "p.parquet", columns)
    assert load_table(file, test_data=copies).splits == ("train",) * 2 + ("test",) * 2


def test_missing_words_and_names_nested_too_deeply(tmp_path):
    columns = {"image": [png(n) for n in range(4)], "label": ["a", "NaN", "b", "NaN"]}
    file = write(tmp_path / "p.parquet", columns)
    assert load_table(file).notes[0].startswith("2 rows have a label that may stand for a missing")
    (tmp_path / "classes.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="must be a JSON list of class names"):
        load_table(file)


def test_groups_and_numbered_names(tmp_path):
    columns = {"image": [png(n) for n in range(4)], "class": list("abab"), "video": [1, 1, 2, None]}
    file = write(tmp_path / "p.parquet", columns)
    table = load_table(file)
    assert table.paths == ("p/000000", "p/000001", "p/000002", "p/000003")
    assert "'video' may name groups" in table.notes[0]
    with pytest.raises(DataError, match="gives no group to 1 of 4 images"):
        load_table(file, group_by="video")


@pytest.mark.parametrize("beside", [{"names": ["x", "y, z"]}, ["x", "y, z"]])
def test_names_of_classes_beside_the_pack(tmp_path, beside):
    (tmp_path / "classes.json").write_text(json.dumps(beside))
    file = write(tmp_path / "p.parquet", {"image": [png(1), png(2)], "label": [1, 0]})
    assert labels_of(load_table(file)) == ["y, z", "x"]


def test_images_without_labels(tmp_path):
    columns = {"image": [png(n) for n in range(4)], "label": [1, 0, -1, None]}
    table = load_table(write(tmp_path / "p.parquet", columns, {b"classes": b"a,b"}))
    assert labels_of(table) == ["b", "a", "", ""]
    assert table.notes == ("2 images have no label and are left aside.",)


def test_a_label_that_is_no_class(tmp_path):
    columns = {"image": [png(1), png(2)], "label": [0, 2]}
    write(tmp_path / "p.parquet", columns, {b"classes": b"a,b"})
    with pytest.raises(DataError, match="the label '2' is none of the 2 classes"):
        load_table(tmp_path / "p.parquet")


def test_cifar10_and_tiny_imagenet_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_DATA", str(tmp_path))
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    for name in ("cifar10", "tiny-imagenet"):
        with pytest.raises(DataError, match=f"'{name}' is not at hand") as caught:
            load_table(name)
        assert f"must be in '{tmp_path / name}'" in str(caught.value)
    for file in ("cifar10/train", "cifar10/test", "tiny-imagenet/train", "tiny-imagenet/val"):
        columns = {"image": [png(1), png(2)], "label": [0, 1]}
        write(tmp_path / f"{file}.parquet", columns, {b"classes": b"airplane,automobile"})
    assert load_table("cifar10").splits == ("train", "train", "test", "test")
    assert load_table("cifar10").class_names == ("airplane", "automobile")
    assert load_table("tiny-imagenet").splits == ("train", "train", "val", "val")


def test_the_real_packs():
    from pictures import data_folder

    folder = data_folder()
    if folder is None or not (folder / "cifar10" / "test.parquet").is_file():
        pytest.skip("cifar10 is not at hand (HEADSTART_DATA)")
    table = load_table(Path(folder) / "cifar10" / "test.parquet")
    assert len(table) == 10_000
    assert table.class_names[3] == "cat"
    # The names of the files tell the class a second time.
    assert all(table.label_of(row) == table.paths[row].split("/")[1] for row in range(10_000))
    assert np.bincount(table.labels).tolist() == [1000] * 10


def test_labels_that_are_lists_are_one_sentence(tmp_path):
    images = [{"bytes": png(10 * n), "path": f"{n}.png"} for n in range(3)]
    columns = {"image": images, "label": [[0], [1, 2], [0]], "kind": ["a", "b", "a"]}
    write(tmp_path / "a.parquet", columns)
    with pytest.raises(DataError, match="'label' holds lists, and an image has one label here"):
        load_table(tmp_path)
    assert load_table(tmp_path, columns="label=kind").class_names == ("a", "b")
