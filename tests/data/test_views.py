"""Views: the same from the same words, seed and picture; what a hand would cut out and mirror."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from headstart.data.views import (
    MIRRORED,
    SMALLEST_AREA,
    WHOLE,
    View,
    check_tta,
    in_words,
    parse_views,
    view_pixels,
)
from headstart.errors import UsageError
from headstart.records import Preprocessing

SMALL = Preprocessing(size=24)


def picture(width=61, height=47):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_words_become_views():
    assert parse_views(None, 3) == ()
    assert parse_views("flip", 3) == (MIRRORED,)
    crops = (View("crop", 1, 3), View("crop", 2, 3))
    assert parse_views(" Crops:2 , FLIP", 3) == (*crops, MIRRORED)
    assert in_words((WHOLE, MIRRORED, *crops)) == "whole, mirrored, 2 crops"


@pytest.mark.parametrize(
    "text",
    ["", "flip,", "crops", "crops:", "crops:0", "crops:65", "crops:-1", "crops:1.5", "crops:x",
     "flip:2", "turn", "none", "crops:" + "9" * 5000],
)  # fmt: skip
def test_other_words_are_refused_in_a_sentence(text):
    with pytest.raises(UsageError, match=r"^`views` must be a list of flip and crops:1 to"):
        parse_views(text, 0)


@pytest.mark.parametrize("text", ["flip,flip", "crops:2,crops:4"])
def test_nothing_is_named_twice(text):
    with pytest.raises(UsageError, match="twice"):
        parse_views(text, 0)


def test_answers_are_averaged_over_flips_only():
    assert (check_tta(None), check_tta(" Flip ")) == (None, "flip")
    with pytest.raises(UsageError, match="Crops are for --views only"):
        check_tta("flip,crops:4")
    with pytest.raises(UsageError, match="`tta` must be flip"):
        check_tta("yes")


@given(st.text("0123456789abcdef", min_size=32, max_size=32), st.integers(1, 64), st.integers(0, 9))
def test_a_crop_is_a_large_part_of_the_picture(digest, number, seed):
    left, top, right, bottom = View("crop", number, seed).box(digest)
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    # A side is at most that of the picture, which costs a little of the area drawn.
    assert SMALLEST_AREA - 1e-9 <= (right - left) * (bottom - top) <= 1
    assert 0.8 - 1e-9 <= (right - left) / (bottom - top) <= 1.25 + 1e-9


def test_the_boxes_are_these_for_good():
    """Features of crops are stored; another rule must get another number."""
    first = (0.12241270732321122, 0.091671021685018, 0.9202513391721175, 0.9384523980594706)
    assert View("crop", 1, 0).box("0" * 32) == pytest.approx(first, abs=1e-12)
    second = (0.0013908891008866883, 0.27613092765209213, 0.8879509038900614, 0.9984051606867593)
    assert View("crop", 2, 7).box("0123456789abcdef" * 2) == pytest.approx(second, abs=1e-12)


def test_number_seed_and_picture_all_change_the_box():
    boxes = [
        View("crop", number, seed).box(digest)
        for number in (1, 2)
        for seed in (0, 1)
        for digest in ("a" * 32, "b" * 32)
    ]
    assert len(set(boxes)) == 8
    assert len({View("crop", n, s).key for n in (1, 2) for s in (0, 1)}) == 4
    assert WHOLE.key == "whole", "features that are stored keep their name"


def test_views_are_what_a_hand_would_make():
    image, crop = picture(), View("crop", 3, 5)
    made = view_pixels(image, "d" * 32, (WHOLE, crop, MIRRORED), SMALL)
    assert made.shape == (3, 24, 24, 3)
    small = image.resize((24, 24), Image.Resampling.BILINEAR)
    assert np.array_equal(made[0], np.asarray(small))
    assert np.array_equal(made[2], np.asarray(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    left, top, right, bottom = crop.box("d" * 32)
    corners = (round(left * 61), round(top * 47), round(right * 61), round(bottom * 47))
    by_hand = image.crop(corners).resize((24, 24), Image.Resampling.BILINEAR)
    assert np.array_equal(made[1], np.asarray(by_hand))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 50)])
def test_a_crop_of_a_tiny_picture_is_never_empty(size):
    views = parse_views("crops:8", 0)
    assert view_pixels(picture(*size), "e" * 32, views, SMALL).shape == (8, 24, 24, 3)
