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
    from conftest import data_folder

    folder = data_folder()
    if folder is None or not (folder / "cifar10" / "test.parquet").is_file():
        pytest.skip("cifar10 is not at hand (HEADSTART_DATA)")
    table = load_table(Path(folder) / "cifar10" / "test.parquet")
    assert len(table) == 10_000
    assert table.class_names[3] == "cat"
    # The names of the files tell the class a second time.
    assert all(table.label_of(row) == table.paths[row].split("/")[1] for row in range(10_000))
    assert np.bincount(table.labels).tolist() == [1000] * 10
