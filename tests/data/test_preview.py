"""Which images a preview shows, and cropping to whole pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import crop_to_box, load_table
from headstart.data.preview import choose_rows, find_row
from headstart.errors import DataError, UsageError


def test_classes_take_turns_and_the_seed_decides(colour_folder):
    table = load_table(colour_folder)
    rows = choose_rows(table, 7, seed=1)
    assert [table.label_of(row) for row in rows] == ["blue", "green", "red"] * 2 + ["blue"]
    assert rows == choose_rows(table, 7, seed=1)
    assert rows != choose_rows(table, 7, seed=2)
    assert len(set(choose_rows(table, 36, seed=0))) == 36


def test_unreadable_images_are_passed_over(colour_folder):
    for file in (colour_folder / "red").iterdir():
        file.write_text("no image")
    table = load_table(colour_folder)
    assert {table.label_of(row) for row in choose_rows(table, 20, seed=0)} == {"blue", "green"}
    with pytest.raises(DataError, match=r"'red/00.png' cannot be shown: not an image"):
        find_row(table, "red/00.png")


def test_an_image_by_its_name_or_its_file(colour_folder, monkeypatch):
    table = load_table(colour_folder)
    row = table.paths.index("red/03.png")
    assert find_row(table, "red/03.png") == row
    assert find_row(table, str(colour_folder / "red" / "03.png")) == row
    monkeypatch.chdir(colour_folder / "red")
    assert find_row(table, "03.png") == row
    with pytest.raises(DataError, match=r"none of the 36 images of 'colours'. Did you mean"):
        find_row(table, "rad/03.png")
    with pytest.raises(UsageError, match="`num` must be between 1 and 40, got 0"):
        choose_rows(table, 0, seed=0)
    assert not Path("rad").exists()


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (128, 96), (4000, 3)])
def test_pixel_boxes_come_back_exactly(size):
    width, height = size
    pixels = np.arange(width * height, dtype=np.uint32).reshape(height, width) % 251
    picture = Image.fromarray(pixels.astype(np.uint8))
    generator = np.random.default_rng(0)
    for _ in range(20):
        left, top = generator.integers(0, width), generator.integers(0, height)
        right = generator.integers(left + 1, width + 1)
        bottom = generator.integers(top + 1, height + 1)
        box = (left / width, top / height, right / width, bottom / height)
        np.testing.assert_array_equal(
            np.asarray(crop_to_box(picture, box)), np.asarray(picture)[top:bottom, left:right]
        )
    assert crop_to_box(picture, (1 - 1e-9, 0, 1, 1e-9)).size == (1, 1)
