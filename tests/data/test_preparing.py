"""What becomes of a picture before a network sees it, at no more pixels than it needs."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from headstart.data.decoding import decode, decode_here, decoded_scale
from headstart.data.guarded.child import Item
from headstart.data.guarded.pool import DecoderPool
from headstart.data.preparing import (
    Order,
    goes_together,
    least_side,
    prepare_picture,
    prepare_together,
)
from headstart.data.resizing import resize_alike, resize_pixels
from headstart.data.views import MIRRORED, WHOLE, parse_views
from headstart.records import ImageFacts, Preprocessing

SMALL, LARGE = Preprocessing(size=32), Preprocessing(size=96)


def photograph(width, height, kind="JPEG"):
    generator = np.random.default_rng(width)
    coarse = Image.fromarray(generator.integers(0, 256, (8, 6, 3), dtype=np.uint8))
    stream = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(stream, kind, quality=92)
    return stream.getvalue()


def prepared(data, order, box=None):
    """What `prepare_picture` gives, and the size of every picture that it had decoded."""
    found = []

    def decode(source, path, *, min_side=None):
        image, facts = decode_here(source, path, min_side=min_side)
        found.append(image.size)
        return image, facts

    return prepare_picture(data, "a.jpg", box, order, decode), found


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((640, 512), (80, 64)),  # twice the 32 px of the network stay
        ((600, 511), (150, 128)),
        ((127, 400), (127, 400)),
        ((128, 400), (64, 200)),
    ],
)
def test_a_large_jpeg_is_decoded_no_larger_than_needed(size, decoded):
    picture, sizes = prepared(photograph(*size), Order(preprocessing=SMALL))
    assert sizes == [decoded]
    assert (picture.facts.width, picture.facts.height) == size
    whole = Image.open(io.BytesIO(photograph(*size))).resize((32, 32), Image.Resampling.BILINEAR)
    difference = np.abs(picture.pixels[0].astype(int) - np.asarray(whole))
    assert difference.mean() < 1.5
    assert picture.pixels.shape == (1, 32, 32, 3)


def test_other_formats_are_decoded_whole():
    _, sizes = prepared(photograph(640, 512, "PNG"), Order(preprocessing=SMALL))
    assert sizes == [(640, 512)]


def test_a_box_keeps_its_own_pixels():
    box = (0.5, 0.5, 0.75, 0.75)
    assert least_side(SMALL, box) == 128
    picture, sizes = prepared(photograph(640, 512), Order(preprocessing=SMALL), box)
    assert sizes == [(320, 256)]
    assert picture.facts.treatment.startswith("cropped to")
    assert least_side(SMALL, (0.5, 0.5, 0.5, 0.9)) > 10_000  # an empty box: nothing to divide by


@pytest.mark.parametrize("size", [(640, 512), (100, 90), (400, 300)])
@pytest.mark.parametrize("box", [None, (0.25, 0.1, 0.9, 0.8)])
def test_company_changes_no_pixel(size, box):
    data = photograph(*size)
    joint, sizes = prepared(data, Order(preprocessing=SMALL, second=LARGE, fingerprint=True), box)
    small, _ = prepared(data, Order(preprocessing=SMALL), box)
    large, _ = prepared(data, Order(preprocessing=LARGE, fingerprint=True), box)
    np.testing.assert_array_equal(joint.pixels, small.pixels)
    np.testing.assert_array_equal(joint.second, large.pixels[0])
    assert joint.record == large.record
    assert len(sizes) == len(set(sizes))  # no picture is decoded twice at one size
    assert (small.record, small.second, large.second) == (b"", None, None)


@pytest.mark.parametrize("box", [None, (0.25, 0.1, 0.9, 0.8)])
def test_all_views_come_from_one_decoding_and_know_nothing_of_each_other(box):
    data, views = photograph(640, 512), parse_views("flip,crops:3", 0)
    together, sizes = prepared(data, Order(preprocessing=SMALL, views=(WHOLE, *views)), box)
    assert len(sizes) == 1
    for place, view in enumerate((WHOLE, *views)):
        alone, _ = prepared(data, Order(preprocessing=SMALL, views=(view,)), box)
        np.testing.assert_array_equal(alone.pixels[0], together.pixels[place])
    assert min(sizes[0]) >= 2 * least_side(SMALL, box), "so that crops are no enlargements"


def test_a_process_gives_the_same():
    views = parse_views("crops:1,flip", 0)
    order = Order(preprocessing=SMALL, second=LARGE, fingerprint=True, views=views)
    data = photograph(640, 512)
    pool = DecoderPool(processes=1)
    try:
        found = pool.prepare([Item(data=data, path="a.jpg"), Item(data=b"no", path="b.jpg")], order)
    finally:
        pool.end()
    expected, _ = prepared(data, order)
    np.testing.assert_array_equal(found[0].pixels, expected.pixels)
    np.testing.assert_array_equal(found[0].second, expected.second)
    assert (found[0].record, found[0].facts) == (expected.record, expected.facts)
    assert isinstance(found[1], Exception)


def test_the_scale_is_told_from_the_facts():
    facts = ImageFacts(path="a.jpg", width=640, height=512, format="JPEG")
    assert [decoded_scale(facts, side) for side in (None, 300, 128, 64, 32, 1)] == [
        1,
        1,
        2,
        4,
        8,
        8,
    ]
    assert decoded_scale(ImageFacts(path="a.png", width=640, height=512, format="PNG"), 32) == 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (32, 32, 3), (97, 97), (150, 150, 3)])
@pytest.mark.parametrize("side", [16, 32, 131])
def test_pictures_resized_together_are_those_resized_alone(interpolation, shape, side):
    preprocessing = Preprocessing(size=side, interpolation=interpolation)
    stack = np.random.default_rng(side).integers(0, 256, (5, *shape), dtype=np.uint8)
    alone = [resize_pixels(Image.fromarray(p).convert("RGB"), preprocessing) for p in stack]
    np.testing.assert_array_equal(resize_alike(stack, preprocessing), np.stack(alone))


def test_pictures_prepared_together_are_those_prepared_alone():
    generator, order = np.random.default_rng(3), Order(preprocessing=Preprocessing(size=24))
    shapes = [(28, 28), (9, 9, 3), (28, 28), (28, 28, 3), (9, 9, 3)]
    stack = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    assert all(goes_together(pixels, None, order) for pixels in stack)
    named = [(pixels, f"{i}.png") for i, pixels in enumerate(stack)]
    together = prepare_together(named, order.preprocessing)
    for (pixels, path), found in zip(named, together, strict=True):
        alone = prepare_picture(pixels, path, None, order, decode)
        assert found.facts == alone.facts
        np.testing.assert_array_equal(found.pixels, alone.pixels)
        assert found.pixels.shape == alone.pixels.shape


def test_what_needs_more_than_its_square_is_prepared_alone():
    order, pixels = Order(preprocessing=Preprocessing(size=24)), np.zeros((8, 8), dtype=np.uint8)
    assert goes_together(pixels, None, order)
    assert not goes_together(pixels, (0.0, 0.0, 0.5, 0.5), order)
    assert not goes_together(np.zeros((8, 8, 4), dtype=np.uint8), None, order)
    assert not goes_together(np.zeros((0, 8), dtype=np.uint8), None, order)
    assert not goes_together(np.zeros((9, 8), dtype=np.uint8), None, order)
    assert not goes_together(pixels.astype(np.float32), None, order)
    assert not goes_together(np.zeros((300, 300), dtype=np.uint8), None, order)
    for other in ({"fingerprint": True}, {"views": (MIRRORED,)}, {"second": order.preprocessing}):
        assert not goes_together(pixels, None, dataclasses.replace(order, **other))
