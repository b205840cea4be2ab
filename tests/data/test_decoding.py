"""Decoding: every mode and orientation comes out upright and in RGB, everything else is refused."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from headstart.data import decoding
from headstart.data.decoding import DecodingError, decode, digest_of, upright_size
from headstart.data.formats import FACTORIES
from headstart.errors import DataError, UsageError

ORIENTATION_TAG = 274
# What a camera stores so that the given orientation brings the scene upright.
STORED = {
    1: lambda scene: scene,
    2: lambda scene: scene[:, ::-1],
    3: lambda scene: scene[::-1, ::-1],
    4: lambda scene: scene[::-1],
    5: lambda scene: scene.transpose(1, 0, 2),
    6: lambda scene: np.rot90(scene, 1),
    7: lambda scene: scene[::-1, ::-1].transpose(1, 0, 2),
    8: lambda scene: np.rot90(scene, -1),
}


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def scene_of(height=6, width=9):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 20, columns * 20, rows * columns], axis=-1).astype(np.uint8)


def photo(width=64, height=48):
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 90 * np.sin(rows / 7.0) * np.cos(columns / 9.0)
    return Image.fromarray(np.stack([waves, waves[::-1], 255 - waves], axis=-1).astype(np.uint8))


def png(width, height, depth, colour_type, raw):
    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pixels_of(data, path="a"):
    image, facts = decode(data, path)
    assert image.mode == "RGB"
    return np.asarray(image), facts


JPEG = encoded(photo(), "JPEG", quality=90)
PROGRESSIVE = encoded(photo(), "JPEG", progressive=True)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_comes_out_upright(orientation, format):
    scene = scene_of()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](scene)))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    image, facts = decode(encoded(stored, format, exif=exif, **options), "a")
    np.testing.assert_array_equal(np.asarray(image), scene)
    assert (facts.width, facts.height) == stored.size
    assert facts.treatment == ("" if orientation == 1 else f"rotated by EXIF {orientation}")
    assert image.getexif().get(ORIENTATION_TAG, 1) == 1


@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_of_a_jpeg_comes_out_upright_at_any_scale(orientation):
    scene = np.zeros((32, 64, 3), np.uint8)
    scene[:16, :32] = 255
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](scene)))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    data = encoded(stored, "JPEG", quality=95, exif=exif)
    for min_side, scale in ((None, 1), (8, 2), (1, 8)):
        image, facts = decode(data, "a.jpg", min_side=min_side)
        found = np.asarray(image, dtype=int)
        assert found.shape == (32 // scale, 64 // scale, 3)
        assert np.abs(found - scene[::scale, ::scale]).max() < 10
        assert (facts.width, facts.height) == stored.size


def test_plain_rgb_is_left_alone():
    found, facts = pixels_of(encoded(photo()), "cat/1.png")
    np.testing.assert_array_equal(found, np.asarray(photo()))
    assert (facts.path, facts.format, facts.mode) == ("cat/1.png", "PNG", "RGB")
    assert (facts.width, facts.height, facts.treatment, facts.problem) == (64, 48, "", "")


def test_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    found, facts = pixels_of(encoded(image))
    assert found.tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert facts.treatment == "P to RGB"


def test_palette_with_transparency_is_composited_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    found, facts = pixels_of(encoded(image, transparency=1))
    assert found.tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert facts.treatment == "P to RGB, transparency on white"


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_rgba_is_composited_on_white(format):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0], pixels[:2, :, 3] = 200, 255
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    found, facts = pixels_of(encoded(Image.fromarray(pixels), format, **options))
    assert found[0, 0].tolist() == [200, 0, 0]
    assert found[3, 0].tolist() == [255, 255, 255]
    assert facts.treatment == "RGBA to RGB, transparency on white"


def test_half_transparent_grey_is_half_white():
    image = Image.merge("LA", (Image.new("L", (1, 1), 0), Image.new("L", (1, 1), 128)))
    found, _ = pixels_of(encoded(image))
    assert found.tolist() == [[[127, 127, 127]]]


def test_opaque_alpha_is_only_dropped():
    found, facts = pixels_of(encoded(photo().convert("RGBA")))
    np.testing.assert_array_equal(found, np.asarray(photo()))
    assert facts.treatment == "RGBA to RGB"


def test_transparent_colour_of_an_rgb_png():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    found, facts = pixels_of(encoded(image, transparency=(1, 2, 3)))
    assert found.tolist() == [[[255, 255, 255], [9, 9, 9]]]
    assert "transparency on white" in facts.treatment


def test_cmyk_jpeg_keeps_its_colours():
    red = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    found, facts = pixels_of(encoded(red, "JPEG", quality=95))
    assert np.abs(found.astype(int) - [250, 10, 10]).max() < 8
    assert facts.mode == "CMYK"


SIXTEEN_BIT = np.array([[0, 257, 257 * 100, 65535], [128, 129, 385, 386]], np.uint16)
EIGHT_BIT = [[0, 1, 100, 255], [0, 1, 1, 2]]


def big_endian_tiff():
    """A minimal big-endian TIFF of `SIXTEEN_BIT`."""
    height, width = SIXTEEN_BIT.shape
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 122), (277, 1)]
    tags += [(278, height), (279, 16)]
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = b"MM\x00*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4)
    return head + SIXTEEN_BIT.astype(">u2").tobytes()


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(SIXTEEN_BIT), "PNG"),
        encoded(Image.fromarray(SIXTEEN_BIT), "TIFF"),
        b"P5 4 2 65535\n" + SIXTEEN_BIT.astype(">u2").tobytes(),
        encoded(Image.fromarray(SIXTEEN_BIT.astype(np.int32)), "TIFF"),
        big_endian_tiff(),
    ],
    ids=["png", "tiff", "pgm", "tiff-int32", "tiff-big-endian"],
)
def test_16_bit_grey_is_divided_by_257_and_rounded(data):
    found, facts = pixels_of(data)
    for channel in range(3):
        assert found[..., channel].tolist() == EIGHT_BIT
    assert facts.treatment == f"{facts.mode} to RGB"


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize(("largest", "bits"), [(255, 8), (256, 12), (4095, 12), (4096, 16)])
def test_few_bits_in_16_do_not_come_out_black(format, largest, bits):
    values = np.linspace(0, largest, 12).astype(np.uint16).reshape(3, 4)
    found, facts = pixels_of(encoded(Image.fromarray(values), format))
    exact = values * (255 / (2**bits - 1))
    assert np.abs(found[..., 0] - exact).max() <= 0.5
    told = f", {bits}-bit values in 16 bits" if bits < 16 else ""
    assert facts.treatment == f"{facts.mode} to RGB{told}"


def test_a_black_16_bit_picture_is_black():
    found, facts = pixels_of(encoded(Image.fromarray(np.zeros((3, 4), np.uint16))))
    assert not found.any()
    assert facts.treatment == "I;16 to RGB"


def test_12_bits_in_16_bit_colour_are_refused():
    row = b"\0" + np.array([4095, 100, 128], ">u2").tobytes()
    with pytest.raises(DecodingError, match="would come out black: save it with 8 bits"):
        decode(png(1, 1, 16, 2, row), "a.png")


def test_white_is_zero_in_16_bit_tiff():
    data = encoded(Image.fromarray(SIXTEEN_BIT), "TIFF", tiffinfo={262: 0})
    found, _ = pixels_of(data)
    assert found[0, :, 0].tolist() == [255, 254, 155, 0]


def test_16_bit_colour_is_noted():
    row = b"\0" + np.array([65535, 1000, 128], ">u2").tobytes()
    found, facts = pixels_of(png(1, 1, 16, 2, row))
    assert found.tolist() == [[[255, 3, 0]]]
    assert facts.treatment == "16-bit colour to 8 bit"


@pytest.mark.parametrize("value", [-1, 65536, 2**31 - 1])
def test_integers_beyond_16_bits_are_refused(value):
    image = Image.fromarray(np.full((2, 2), value, np.int32))
    with pytest.raises(DecodingError, match="beyond 16 bits"):
        decode(encoded(image, "TIFF"), "a.tif")


@pytest.mark.parametrize(("values", "expected"), [([0, 0.5, 1], 128), ([0, 7.6, 255], 8)])
def test_floating_point_within_its_range(values, expected):
    found, _ = pixels_of(encoded(Image.fromarray(np.array([values], np.float32)), "TIFF"))
    assert found[0, :, 0].tolist() == [0, expected, 255]


@pytest.mark.parametrize("value", [-0.1, 255.5, np.nan, np.inf])
def test_floating_point_outside_its_range_is_refused(value):
    image = Image.fromarray(np.array([[0, value]], np.float32))
    with pytest.raises(DecodingError, match="floating point"):
        decode(encoded(image, "TIFF"), "a.tif")


def test_bilevel():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    found, _ = pixels_of(encoded(image))
    assert found[..., 0].tolist() == [[0, 255]]


@pytest.mark.parametrize("mode", ["LAB", "YCbCr", "L"])
def test_other_modes_of_tiff_become_rgb(mode):
    grey = Image.new("RGB", (8, 8), (128, 128, 128))
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(grey, srgb, lab, outputMode="LAB")
    else:
        image = grey.convert(mode)
    found, facts = pixels_of(encoded(image, "TIFF"))
    assert np.abs(found.astype(int) - 128).max() <= 2
    assert facts.mode == mode


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    found, facts = pixels_of(data)
    assert (found == [255, 0, 0]).all()
    assert "first of 3 frames" in facts.treatment


def test_multi_picture_jpeg_of_a_phone():
    data = encoded(photo(), "MPO", save_all=True, append_images=[photo().rotate(180)])
    image, facts = decode(data, "a.jpg", min_side=8)
    assert image.size == (32, 24)
    assert (facts.format, facts.width, facts.treatment) == ("MPO", 64, "first of 2 frames")


@pytest.mark.skipif("AVIF" not in FACTORIES, reason="this build of Pillow reads no AVIF")
def test_avif():
    found, facts = pixels_of(encoded(photo(), "AVIF", quality=95), "a.avif")
    assert np.abs(found.astype(int) - np.asarray(photo())).mean() < 4
    assert (facts.format, facts.treatment) == ("AVIF", "")


def test_wrong_extension_decodes_and_is_noted():
    assert decode(encoded(photo()), "a.JPG")[1].treatment == "PNG named .jpg"
    assert decode(JPEG, "a.jpeg")[1].treatment == ""
    assert decode(JPEG, "a.heic")[1].treatment == "JPEG named .heic"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_careless_exif_does_not_cost_the_image():
    data = encoded(photo(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert decode(data, "a.jpg")[0].size == (64, 48)


@pytest.mark.parametrize("width", range(31, 70))
def test_draft_keeps_twice_the_asked_side(width):
    data = encoded(photo(width, 100), "JPEG")
    image, _ = decode(data, "a.jpg", min_side=8)
    assert 16 <= min(image.size) <= 32
    whole = decode(data, "a.jpg", min_side=width)[0]
    assert whole.size == (width, 100)


def test_draft_shows_the_same_picture():
    data = encoded(photo(256, 192), "JPEG", quality=95)
    small = np.asarray(decode(data, "a.jpg", min_side=24)[0].resize((32, 24)), dtype=int)
    full = np.asarray(decode(data, "a.jpg")[0].resize((32, 24)), dtype=int)
    assert np.abs(small - full).mean() < 2


@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE], ids=["baseline", "progressive"])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.5, 0.8, 0.95])
def test_truncated_jpeg_is_refused(data, fraction):
    with pytest.raises(DecodingError, match="truncated"):
        decode(data[: max(4, int(len(data) * fraction))], "a.jpg")


@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE], ids=["baseline", "progressive"])
def test_no_cut_gives_other_pixels(data):
    whole = decode(data, "a.jpg")[0].tobytes()
    for length in range(1, len(data), 7):
        try:
            image, _ = decode(data[:length], "a.jpg")
        except DecodingError:
            continue
        assert image.tobytes() == whole


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("fraction", [0.2, 0.6, 0.9])
def test_other_truncated_formats_are_refused(format, fraction):
    data = encoded(photo(), format)
    with pytest.raises(DecodingError, match=r"truncated|damaged|not an image"):
        decode(data[: int(len(data) * fraction)], "a")


@pytest.mark.parametrize(
    ("data", "clause"),
    [
        (b"", "empty file"),
        (b"just a text", "not an image"),
        (b"BMW drives well", "not an image"),
        (b"P5 is a string quintet", "not an image"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(20), "a HEIC image: convert it to JPEG or PNG"),
        (b"\x00\x00\x00\x18ftypmif1" + bytes(20), "a HEIC image: convert it to JPEG or PNG"),
        (b"\xff\x0a" + bytes(20), "a JPEG XL image: convert it to JPEG or PNG"),
        (b"\x00\x00\x00\x0cjP  \r\n", "a JPEG 2000 image: convert it to JPEG or PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "an EPS or PostScript file: convert it to JPEG or PNG"),
        (b"%PDF-1.7", "a PDF file: convert its pages to JPEG or PNG"),
        (b"8BPS\x00\x01", "a Photoshop file: convert it to JPEG or PNG"),
        (b"<?xml version='1.0'?><svg>", "an SVG drawing: convert it to JPEG or PNG"),
    ],
)
def test_what_is_not_read_is_named(data, clause):
    with pytest.raises(DecodingError) as caught:
        decode(data, "a.jpg")
    assert str(caught.value) == clause
    assert isinstance(caught.value, DataError)


def test_camera_raw_is_named_before_its_thumbnail_is_taken():
    with pytest.raises(DecodingError, match="a camera RAW image"):
        decode(encoded(photo(), "TIFF"), "a.NEF")


def test_bomb_is_refused_from_its_header():
    with pytest.raises(DecodingError, match="too large: 40000x40000 pixels, the limit is 180,000"):
        decode(png(40000, 40000, 8, 2, b""), "a.png")


def test_size_limit_is_exact_and_independent_of_pillow(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 64 * 48)
    assert decode(JPEG, "a.jpg")[0].size == (64, 48)
    with pytest.raises(DecodingError, match="too large: 65x48 pixels"):
        decode(encoded(photo(65, 48), "JPEG"), "a.jpg")
    assert not recwarn.list


def test_permission_to_read_half_images_is_refused(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UsageError, match="LOAD_TRUNCATED_IMAGES"):
        decode(JPEG, "a.jpg")


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_plain_pixels(shape):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    image, facts = decode(pixels, "digits/0")
    expected = pixels if len(shape) == 3 else np.stack([pixels] * 3, axis=-1)
    np.testing.assert_array_equal(np.asarray(image), expected)
    assert (facts.format, facts.width, facts.height) == ("pixels", 7, 5)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2)), np.zeros((0, 2), np.uint8)]
)
def test_other_arrays_are_refused(pixels):
    with pytest.raises(DecodingError, match="an array of shape"):
        decode(pixels, "a")


def test_digest_tells_sources_apart():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    digests = {digest_of(pixels), digest_of(pixels.reshape(4, 3)), digest_of(pixels.tobytes())}
    assert len(digests) == 3
    assert all(len(digest) == 32 for digest in digests)
    assert digest_of(pixels[:, ::2]) == digest_of(pixels[:, ::2].copy())


def test_threads_and_repetition_give_the_same_pixels():
    first, facts = decode(PROGRESSIVE, "a.jpg", min_side=8)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: decode(PROGRESSIVE, "a.jpg", min_side=8), range(16)))
    assert all(image.tobytes() == first.tobytes() and again == facts for image, again in results)


SEEDS = [
    JPEG,
    *(encoded(photo(16, 12), format) for format in ("PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM")),
    encoded(Image.fromarray(SIXTEEN_BIT), "TIFF"),
]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=12),
    length=st.integers(0, 4000),
)
@pytest.mark.filterwarnings("ignore")
def test_mutated_bytes_decode_or_are_refused(seed, edits, length):
    data = bytearray(seed)
    for position, value in edits:
        data[position % len(data)] = value
    check_decodes_or_refuses(bytes(data[: max(length, len(data) // 2)]))


@settings(max_examples=100, deadline=None)
@given(magic=st.sampled_from([seed[:12] for seed in SEEDS] + [b""]), rest=st.binary(max_size=200))
@pytest.mark.filterwarnings("ignore")
def test_random_bytes_decode_or_are_refused(magic, rest):
    check_decodes_or_refuses(magic + rest)


def check_decodes_or_refuses(data):
    try:
        image, facts = decode(data, "a.jpg", min_side=8)
    except DecodingError:
        return
    assert image.mode == "RGB"
    assert facts.digest == digest_of(data)


@pytest.mark.parametrize("place", ["none", "before", "behind"])
def test_the_size_of_a_png_is_told_without_its_pixels(monkeypatch, place):
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(stream, "PNG", exif=b"" if place == "none" else exif)
    data = stream.getvalue()
    if place == "behind":  # Pillow writes the chunk before the pixels
        start = data.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        data = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    expected = (30, 20) if place == "none" else (20, 30)
    assert decode(data, "a.png")[0].size == expected
    if place != "behind":
        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _: 1 / 0)
    assert upright_size(data) == expected


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("kind", ["PNG with XMP", "PNG with a raw profile", "TIFF with XMP"])
def test_sizes_are_those_of_pictures_turned_by_other_ways(kind):
    stream = io.BytesIO()
    picture = Image.new("RGB", (30, 20))
    if kind == "TIFF with XMP":
        picture.save(stream, "TIFF", tiffinfo={700: XMP.encode()})
    else:
        text = PngImagePlugin.PngInfo()
        if kind == "PNG with XMP":
            text.add_itxt("XML:com.adobe.xmp", XMP)
        else:
            exif = Image.Exif()
            exif[0x0112] = 6
            body = exif.tobytes()
            text.add_text("Raw profile type exif", f"\nexif\n{len(body)}\n{body.hex()}\n", zip=True)
        picture.save(stream, "PNG", pnginfo=text)
    data = stream.getvalue()
    assert decode(data, "a")[0].size == (20, 30)
    assert upright_size(data) == (20, 30)
