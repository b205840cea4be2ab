"""What a caller may hand to `predict`: every mode, and one bad picture among good ones."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import headstart
from headstart.backbones import build_network, find_backbone
from headstart.bundle import FittedHead, save_bundle
from headstart.errors import DataError, UsageError

CLASSES = ("cat", "dog")
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    network = build_network(find_backbone("mini"), weights="none", image_size=32, seed=3)
    generator = torch.Generator().manual_seed(0)
    head = FittedHead.linear(
        torch.randn(2, network.num_features, generator=generator), torch.zeros(2), penalty=0.1
    )
    folder = tmp_path_factory.mktemp("bundle") / "model"
    save_bundle(folder, network=network, head=head, class_names=CLASSES, about={})
    return headstart.load(folder)


def picture(mode):
    if mode == "I;16":
        return Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(PIXELS[..., 0].astype(np.float32) / 255)
    if mode == "LAB":
        return Image.frombytes("LAB", (40, 50), PIXELS.tobytes())
    return Image.fromarray(PIXELS).convert(mode)


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "HSV", "LAB", "F", "YCbCr")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_an_answer(classifier, mode):
    image = picture(mode)
    assert image.mode == mode
    predictions = classifier.predict(image)
    assert predictions.problems == ("",)
    assert predictions.names[0] in CLASSES
    assert predictions.probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16", "F"])
def test_grey_is_the_same_grey_in_every_mode(classifier, mode):
    grey = Image.fromarray(PIXELS[..., 0])
    same = grey.convert(mode) if mode in ("LA", "RGBA", "L") else picture(mode)
    expected = classifier.predict(PIXELS[..., 0]).probabilities
    assert np.array_equal(classifier.predict(same).probabilities, expected)


def encoded(image_format="PNG"):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, image_format)
    return stream.getvalue()


def truncated(image_format):
    raw = encoded(image_format)
    return Image.open(io.BytesIO(raw[: len(raw) * 3 // 4]))


def closed():
    image = Image.open(io.BytesIO(encoded()))
    image.close()
    return image


def left_open_block():
    with Image.open(io.BytesIO(encoded())) as image:
        pass
    return image


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: truncated("PNG"), "truncated"),
        (lambda: truncated("JPEG"), "truncated"),
        (closed, "closed"),
        (lambda: Image.new("RGB", (0, 0)), "empty"),
        (lambda: Image.new("L", (0, 7)), "empty"),
        (lambda: Image.new("RGBA", (0, 0)), "empty"),
        (left_open_block, "cannot be decoded"),
    ],
    ids=["cut-png", "cut-jpeg", "closed", "no-pixels", "no-width", "no-alpha", "left-block"],
)
def test_one_bad_pil_image_leaves_the_others_answered(classifier, make, told):
    predictions = classifier.predict([PIXELS, make(), Image.fromarray(PIXELS)])
    assert [bool(problem) for problem in predictions.problems] == [False, True, False]
    assert told in predictions.problems[1]
    assert np.isnan(predictions.probabilities[1]).all()
    assert predictions.names[1] == ""
    assert predictions.names[0] == predictions.names[2] in CLASSES


def test_a_bytearray_is_answered_like_bytes(classifier):
    raw = encoded()
    expected = classifier.predict(raw).probabilities
    assert np.array_equal(classifier.predict(bytearray(raw)).probabilities, expected)
    assert np.array_equal(classifier.predict([bytearray(raw)]).probabilities, expected)


@pytest.mark.parametrize(
    "images",
    [None, 5, torch.rand(3, 8, 8), [[PIXELS]], [1, 2], [None], [PIXELS, [PIXELS]], PIXELS / 255],
    ids=["none", "number", "tensor", "nested", "numbers", "nones", "mixed", "floats"],
)
def test_what_is_no_picture_is_refused(classifier, images):
    with pytest.raises(UsageError, match=r"`images` (holds|must be)|An image array must be"):
        classifier.predict(images)


def test_a_path_that_is_not_there_is_refused_beside_a_good_picture(classifier):
    with pytest.raises(DataError, match=r"'missing\.jpg' does not exist"):
        classifier.predict(["missing.jpg", Image.fromarray(PIXELS)])


@pytest.mark.parametrize("images", ["", [""], [PIXELS, ""]], ids=["alone", "listed", "mixed"])
def test_an_empty_path_is_refused(classifier, images):
    with pytest.raises(DataError, match="must not be empty"):
        classifier.predict(images)


def test_every_entry_of_a_list_has_its_rows(classifier, tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    a = tmp_path / "a.png"
    predictions = classifier.predict([tmp_path, a, a, PIXELS, tmp_path])
    assert [path.rsplit("/", 1)[-1] for path in predictions.paths] == [
        "a.png", "b.png", "a.png", "a.png", "image 4", "a.png", "b.png",
    ]  # fmt: skip
    assert len(set(predictions.names)) == 1
    assert predictions.problems == ("",) * 7
