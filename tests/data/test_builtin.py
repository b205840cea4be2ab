"""The data sets known by name, with idx files made here."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from headstart.data.builtin import DATASETS, FASHION
from headstart.data.decoding import decode
from headstart.data.sources import load_table
from headstart.errors import DataError

FILES = {
    "train-images-idx3-ubyte": np.arange(10 * 3 * 4, dtype=np.uint8).reshape(10, 3, 4),
    "train-labels-idx1-ubyte": np.arange(10, dtype=np.uint8)[::-1],
    "t10k-images-idx3-ubyte": np.full((2, 3, 4), 9, np.uint8),
    "t10k-labels-idx1-ubyte": np.array([0, 9], np.uint8),
}


def idx(values):
    head = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + values.tobytes()


@pytest.fixture
def idx_folder(tmp_path, monkeypatch):
    """A folder for 'fashion-mnist' with small plain idx files."""
    monkeypatch.setenv("HEADSTART_DATA", str(tmp_path))
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for name, values in FILES.items():
        (folder / name).write_bytes(idx(values))
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test asks the network; those of the downloads ask a server of their own."""
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")


def refusal_of(name):
    with pytest.raises(DataError) as caught:
        load_table(name)
    return str(caught.value)


def test_digits():
    table = load_table("digits")
    assert (len(table), table.name) == (1797, "digits")
    assert table.class_names == tuple("0123456789")
    assert len(set(table.paths)) == 1797
    assert table.paths[0] == "digits/0000"
    assert set(table.splits) == {""}
    assert table.pixels.shape == (1797, 8, 8)
    assert (table.pixels.min(), table.pixels.max()) == (0, 255)


def test_digits_are_scaled_by_their_own_range():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    table = load_table("digits")
    expected = {value: round(value * 255 / 16) for value in range(17)}
    assert table.pixels[5].tolist() == [
        [expected[int(value)] for value in row] for row in bunch.images[5]
    ]
    np.testing.assert_array_equal(table.labels, bunch.target)


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist_is_sorted_and_relabelled(idx_folder, packed):
    if packed:
        for file in list(idx_folder.iterdir()):
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    table = load_table("fashion-mnist")
    assert table.class_names == tuple(sorted(FASHION))
    assert table.class_names[0] == "Ankle boot"
    assert [table.label_of(row) for row in range(12)] == [*FASHION[::-1], FASHION[0], FASHION[9]]
    assert table.splits == ("train",) * 10 + ("test",) * 2
    assert (table.paths[0], table.paths[-1]) == ("train/00000", "test/00001")
    np.testing.assert_array_equal(table.pixels[:10], FILES["train-images-idx3-ubyte"])
    assert decode(table.read(0), table.paths[0])[0].size == (4, 3)


def test_mnist_keeps_its_labels(idx_folder):
    idx_folder.rename(idx_folder.parent / "mnist")
    table = load_table("mnist")
    assert table.labels.tolist() == [*range(9, -1, -1), 0, 9]
    assert table.class_names == tuple("0123456789")


def test_plain_file_comes_before_the_packed_one(idx_folder):
    (idx_folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    assert len(load_table("fashion-mnist")) == 12


def test_data_not_at_hand(tmp_path, monkeypatch):
    monkeypatch.delenv("HEADSTART_DATA", raising=False)
    message = refusal_of("mnist")
    assert "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz" in message
    assert "HEADSTART_DATA is not set, and HEADSTART_OFFLINE forbids to download them" in message
    monkeypatch.setenv("HEADSTART_DATA", str(tmp_path))
    message = refusal_of("mnist")
    assert f"must be in '{tmp_path / 'mnist'}'; HEADSTART_DATA is '{tmp_path}'" in message


def test_only_missing_files_are_listed(idx_folder):
    (idx_folder / "t10k-labels-idx1-ubyte").unlink()
    message = refusal_of("fashion-mnist")
    assert "at hand: t10k-labels-idx1-ubyte.gz must be in" in message


@pytest.mark.parametrize(
    ("name", "content", "clause"),
    [
        ("train-images-idx3-ubyte", b"", "does not begin like an idx file with 3 axes"),
        ("train-images-idx3-ubyte", idx(np.zeros(5, np.uint8)), "does not begin like an idx file"),
        ("train-images-idx3-ubyte", b"PK\x03\x04" + bytes(40), "does not begin like an idx file"),
        (
            "train-images-idx3-ubyte",
            idx(FILES["train-images-idx3-ubyte"])[:-1],
            "promises 10x3x4 values and holds 119",
        ),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(3, np.uint8)), "holds 3 labels for 2 images"),
        (
            "t10k-labels-idx1-ubyte",
            idx(np.array([0, 10], np.uint8)),
            "holds the label 10 of 10 classes",
        ),
        ("t10k-images-idx3-ubyte", idx(np.zeros((2, 5, 5), np.uint8)), "of another size"),
    ],
)
def test_damaged_file_is_named(idx_folder, name, content, clause):
    (idx_folder / name).write_bytes(content)
    message = refusal_of("fashion-mnist")
    assert message.startswith(f"'{idx_folder / name}' is damaged: ")
    assert clause in message
    assert message.endswith("Fetch it again.")


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(bytes(1000), mtime=0)[:-12]],
    ids=["no-gzip", "cut"],
)
def test_damaged_packing_is_named(idx_folder, content):
    (idx_folder / "train-images-idx3-ubyte").unlink()
    (idx_folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    assert "train-images-idx3-ubyte.gz' is damaged: " in refusal_of("fashion-mnist")


@pytest.mark.parametrize("spec", DATASETS, ids=lambda spec: spec.name)
def test_every_data_set_says_what_it_is(spec):
    assert spec.name == spec.name.casefold()
    assert spec.summary
    assert spec.licence
    assert spec.name in DATASETS
