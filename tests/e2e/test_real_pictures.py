"""Real pictures, where they are at hand: what `mini` must be able to do with them."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import data_folder

import headstart
from headstart.data import decode, load_table


def test_cats_and_dogs_are_told_apart(pack, tmp_path):
    result = headstart.run(pack("cats-dogs"), out=tmp_path / "run", image_size=64)
    figures = result.metrics["cross_validation"]["figures"]
    assert result.metrics["test"]["num_images"] == 300  # the pack's own test part
    assert figures["accuracy"]["value"] > 0.75  # raw pixels give 0.58, HOG 0.70
    assert figures["accuracy"]["low"] < figures["accuracy"]["value"] < figures["accuracy"]["high"]
    assert result.metrics["test"]["figures"]["accuracy"]["value"] > 0.75


def test_flowers_beat_raw_pixels_by_far(pack, tmp_path):
    result = headstart.run(pack("flowers5"), out=tmp_path / "run", image_size=64)
    assert result.metrics["cross_validation"]["figures"]["accuracy"]["value"] > 0.65  # pixels 0.46
    assert result.record["data"]["class_names"] == [
        "daisy",
        "dandelion",
        "rose",
        "sunflower",
        "tulip",
    ]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_idx_files_are_read(monkeypatch, name):
    folder = data_folder()
    if folder is None or not (folder / name).is_dir():
        pytest.skip(f"the pack '{name}' is not at hand (HEADSTART_DATA)")
    monkeypatch.setenv("HEADSTART_DATA", str(folder))
    table = load_table(name)
    assert len(table) == 70_000
    assert np.array_equal(np.unique(table.splits, return_counts=True)[1], [10_000, 60_000])
    assert np.bincount(table.labels).min() > 6_000
    image, facts = decode(table.read(0), table.paths[0])
    assert (image.mode, image.size, facts.format) == ("RGB", (28, 28), "pixels")
