"""Fingerprints against the imagehash package, Pillow and closed forms."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dct

from headstart.data.hashing import (
    border_facts,
    colour_cells,
    cosine_basis,
    is_flat,
    jpeg_quantisation,
    metadata_facts,
    perceptual_hashes,
    pixel_digest,
    thumbnail,
)


def smooth_picture(seed: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """A picture of large soft patches, as photographs are."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def as_array(value: int) -> np.ndarray:
    octets = np.frombuffer(value.to_bytes(8, "big"), dtype=np.uint8)
    return np.unpackbits(octets).astype(bool)


def test_the_cosine_basis_is_that_of_scipy():
    values = np.random.default_rng(0).normal(size=32)
    assert np.allclose(cosine_basis() @ values, dct(values, type=2)[:8])


@pytest.mark.parametrize("seed", range(8))
def test_hash_equals_imagehash(seed):
    imagehash = pytest.importorskip("imagehash")
    image = smooth_picture(seed)
    mine, mirrored = perceptual_hashes(thumbnail(image))
    assert np.array_equal(as_array(mine), imagehash.phash(image).hash.ravel())
    turned = imagehash.phash(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).hash.ravel()
    assert (as_array(mirrored) != turned).sum() <= 2  # a resize is not exactly symmetric


def test_mirrored_hash_is_the_hash_of_the_mirrored_thumbnail():
    grey = thumbnail(smooth_picture(3))
    assert perceptual_hashes(grey)[1] == perceptual_hashes(grey[:, ::-1])[0]


def test_pixel_digest_sees_pixels_and_shape_only():
    image = smooth_picture(1)
    again = Image.open(io.BytesIO(encoded(image, "BMP"))).convert("RGB")
    other = np.asarray(image).copy()
    other[5, 5, 0] ^= 1
    assert pixel_digest(again) == pixel_digest(image)
    assert pixel_digest(Image.fromarray(other)) != pixel_digest(image)
    tall, wide = Image.new("RGB", (4, 8)), Image.new("RGB", (8, 4))
    assert pixel_digest(tall) != pixel_digest(wide)


def test_flat_pictures_are_known():
    assert is_flat(thumbnail(Image.new("RGB", (50, 40), (9, 200, 3))))
    assert not is_flat(thumbnail(smooth_picture(0)))


def test_border_of_a_framed_picture():
    grey = np.full((32, 32), 100, dtype=np.uint8)
    grey[:2] = 250
    top, bottom, left, right = border_facts(grey)[:4]
    assert (top, bottom) == (250, 100)
    assert left == right == pytest.approx(100 + 150 / 16, abs=0.1)


@pytest.mark.parametrize("quality", [20, 75, 95])
def test_quantisation_is_that_of_the_first_table(quality):
    data = encoded(smooth_picture(2), "JPEG", quality=quality)
    expected = np.mean(Image.open(io.BytesIO(data)).quantization[0])
    assert jpeg_quantisation(data) == pytest.approx(expected)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xdb\x00", b"\x89PNG"])
def test_quantisation_of_other_or_broken_files_is_zero(data):
    assert jpeg_quantisation(data) == 0


def test_cells_are_means_of_a_grid():
    image = smooth_picture(5, (64, 48))
    means = np.asarray(image, dtype=float).reshape(8, 6, 8, 8, 3).mean(axis=(1, 3))
    assert np.abs(colour_cells(image) - means).max() <= 1


def test_metadata_of_a_jpeg_are_counted():
    image, exif = smooth_picture(6), Image.Exif()
    exif[0x010F] = "a maker"
    bare = metadata_facts(encoded(image, "JPEG"))
    told = metadata_facts(encoded(image, "JPEG", exif=exif, comment=b"by hand"))
    assert bare == (0, 14, 1)  # the JFIF segment that Pillow writes
    assert told[0] == len(exif.tobytes())
    assert told[1] >= 7
    assert told[2] & (1 << 1)
    assert told[2] & (1 << 14)


def test_metadata_of_a_png_are_counted():
    image, exif = smooth_picture(6), Image.Exif()
    exif[0x010F] = "a maker"
    assert metadata_facts(encoded(image)) == (0, 0, 0)
    told = metadata_facts(encoded(image, exif=exif, dpi=(72, 72)))
    assert told[0] == len(exif.tobytes()) - len(b"Exif\x00\x00")
    assert told[1:] == (9, (1 << 15) | (1 << 3))


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_cut_files_have_metadata_without_an_error(length):
    for kind in ("JPEG", "PNG", "WEBP"):
        assert len(metadata_facts(encoded(smooth_picture(6), kind)[:length])) == 3
