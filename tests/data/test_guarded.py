"""Decoders in processes of their own: what crashes, hangs or is killed costs one image at most."""

from __future__ import annotations

import io
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from headstart.data import load_table
from headstart.data.decoding import THREAD_PIXELS, DecodingError, decode, decode_here
from headstart.data.guarded import pool as pools
from headstart.data.guarded.pool import DecoderPool
from headstart.data.guarded.squares import DecodingLimits, command_for, decode_square
from headstart.data.resizing import resize_pixels
from headstart.errors import ProcessError
from headstart.inference import Extractor, ImageList, extractor
from headstart.records import Preprocessing

# A process whose decoder does what the picture's name says before it decodes.
ODD_CHILD = """
import os, signal, time
from headstart.data.decoding import decode_here
from headstart.data.guarded.child import serve

def odd(data, path, *, min_side=None):
    if path == "hangs":
        time.sleep(60)
    if path == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path == "leaves":
        os._exit(3)
    if path == "eats":
        bytearray(8 << 30)
    if path == "breaks":
        raise ZeroDivisionError
    if path == "prints":
        print("x" * 100_000)
    return decode_here(data, path, min_side=min_side)

serve(odd)
"""


def picture(seed=0, format="PNG", size=(9, 6)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue(), pixels


@pytest.fixture(scope="module")
def odd_pool():
    pool = DecoderPool([sys.executable, "-P", "-c", ODD_CHILD], time_limit_s=20)
    yield pool
    pool.end()


def check_works(pool):
    data, pixels = picture()
    image, facts = pool.decode(data, "good.png")
    assert np.array_equal(np.asarray(image), pixels)
    assert facts == decode(data, "good.png")[1]


@pytest.mark.parametrize(
    ("name", "clause"),
    [
        ("crashes", r"its decoder crashed \(signal 11\)"),
        ("leaves", r"its decoder crashed \(exit code 3\)"),
        ("breaks", r"its decoder failed \(ZeroDivisionError\)"),
        pytest.param(
            *("eats", "too large for the 4 GiB of a decoder"),
            marks=pytest.mark.skipif(sys.platform != "linux", reason="no limit of memory there"),
        ),
    ],
)
def test_an_odd_picture_costs_itself_alone(odd_pool, name, clause):
    with pytest.raises(DecodingError, match=clause):
        odd_pool.decode(picture()[0], name)
    check_works(odd_pool)


def test_what_a_library_prints_disturbs_no_answer(odd_pool):
    data, pixels = picture(1)
    assert np.array_equal(np.asarray(odd_pool.decode(data, "prints")[0]), pixels)


def test_a_decoder_that_hangs_is_killed(odd_pool):
    check_works(odd_pool)
    odd_pool.time_limit_s = 0.5
    begun = time.monotonic()
    with pytest.raises(DecodingError, match=r"longer than 0\.5 s"):
        odd_pool.decode(picture()[0], "hangs")
    assert time.monotonic() - begun < 10
    odd_pool.time_limit_s = 20
    check_works(odd_pool)


def test_a_process_killed_from_outside_costs_nothing(odd_pool):
    check_works(odd_pool)
    victim = odd_pool._idle[-1].process

    def kill():
        time.sleep(0.05)
        os.kill(victim.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    for _ in range(40):
        check_works(odd_pool)
    killer.join()
    victim.wait()
    check_works(odd_pool)
    assert victim.returncode == -signal.SIGKILL


def test_a_process_that_does_not_start_is_no_fault_of_the_picture(monkeypatch):
    pool = DecoderPool([sys.executable, "-c", "raise SystemExit(7)"])
    monkeypatch.setattr(extractor, "shared_pool", lambda: pool)
    source = ImageList([picture()[0]], ["a.png"])
    with pytest.raises(ProcessError, match=r"'a.png' could not be decoded: its decoder ended at"):
        Extractor(Preprocessing(size=32), 1, 8).prepare_many(source, [0])


def test_pipes_of_ordinary_size_do_where_no_larger_ones_are_granted(monkeypatch):
    start, sizes = subprocess.Popen, []

    def popen(*words, pipesize=-1, **options):
        sizes.append(pipesize)
        if pipesize > 0:
            raise PermissionError(1, "Operation not permitted")
        return start(*words, pipesize=pipesize, **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    pool = DecoderPool()
    check_works(pool)
    pool.end()
    assert sizes == [1 << 20, -1]


def test_all_processes_killed_while_they_wait_cost_nothing():
    pool = DecoderPool()
    idle = [pool._start() for _ in range(2)]
    for process in idle:
        process.process.kill()
        process.process.wait()
    pool._idle += idle
    check_works(pool)
    check_works(pool)
    pool.end()


@pytest.mark.parametrize("format", ["GIF", "TIFF", "PPM"])
def test_a_process_gives_what_this_one_would(format):
    data, _ = picture(2, format)
    image, facts = decode(data, "a.png")
    here, facts_here = decode_here(data, "a.png")
    assert image.tobytes() == here.tobytes()
    assert facts == facts_here


def test_many_threads_share_the_processes():
    pictures = [picture(seed, "TIFF") for seed in range(24)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda pair: decode(pair[0], "a.tif")[0], pictures))
    for image, (_, pixels) in zip(found, pictures, strict=True):
        assert np.array_equal(np.asarray(image), pixels)
    assert 1 <= len(pools.shared_pool()._idle) <= pools.shared_pool().processes


def asked(monkeypatch):
    """Names of the images that go to another process."""
    names = []

    class Spy:
        def decode(self, data, path, min_side=None):
            names.append(path)
            return decode_here(data, path, min_side=min_side)

    monkeypatch.setattr(pools, "shared_pool", Spy)
    return names


def test_only_the_risky_ones_leave_this_process(monkeypatch):
    names = asked(monkeypatch)
    for format in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        decode(picture(0, format)[0], format)
    assert names == ["GIF", "TIFF", "PPM"]


def test_large_pictures_and_jpegs_of_many_scans_leave_this_process(monkeypatch):
    names = asked(monkeypatch)
    side = int(THREAD_PIXELS**0.5) + 1
    stream = io.BytesIO()
    Image.new("1", (side, side)).save(stream, "PNG")
    decode(stream.getvalue(), "large.png")
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "JPEG", progressive=True)
    few = stream.getvalue()
    scan = few[few.rindex(b"\xff\xda") : -2]
    decode(few, "few.jpg")
    decode(few[:-2] + scan * 80 + few[-2:], "many.jpg")
    assert names == ["large.png", "many.jpg"]


def test_ten_thousand_frames_cost_one():
    frames = [Image.new("L", (4, 4), shade % 256) for shade in range(2)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=20)
    data = stream.getvalue()
    second = data.index(b"\x21\xf9", data.index(b"\x21\xf9") + 1)
    many = data[:second] + data[second:-1] * 9_999 + data[-1:]
    begun = time.monotonic()
    image, facts = decode(many, "a.gif")
    assert time.monotonic() - begun < 10
    assert facts.treatment.endswith("first of 10,000 frames")
    assert np.asarray(image).max() == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.filterwarnings("error")
def test_a_folder_of_traps_is_read_to_its_end(tmp_path):
    from networks import on_cpu, tiny_network

    from headstart.features.passes import extract_features
    from headstart.inference import FeatureExtractor
    from headstart.progress import Progress

    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for seed in range(3):
            (tmp_path / label / f"{seed}.png").write_bytes(picture(seed)[0])
    jpeg = picture(0, "JPEG", (64, 64))[0]
    (tmp_path / "a/cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "a/empty.jpg").touch()
    (tmp_path / "a/text.png").write_text("no picture")
    bomb = picture()[0]
    (tmp_path / "a/bomb.png").write_bytes(
        bomb[:16] + b"\x00\x01\x00\x00\x00\x01\x00\x00" + bomb[24:]
    )
    (tmp_path / "b/gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "b/loop.jpg").symlink_to(tmp_path / "b/loop.jpg")
    (tmp_path / "b/up").symlink_to(tmp_path)
    (tmp_path / "b/folder.jpg").mkdir()
    os.mkfifo(tmp_path / "a/pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "b/socket.png"))
    secret = tmp_path / "a/secret.png"
    secret.write_bytes(picture()[0])
    secret.chmod(0)
    table = load_table(tmp_path)
    extractor = FeatureExtractor(tiny_network(), on_cpu())
    found = extract_features(table, extractor, progress=Progress())
    problems = {record.path: record.problem for record in found.facts if record.problem}
    expected = {"a/bomb.png", "a/cut.jpg", "a/empty.jpg", "a/text.png", "b/gone.jpg", "b/loop.jpg"}
    if os.geteuid():  # root reads everything
        expected.add("a/secret.png")
    assert set(problems) == expected
    assert problems["a/empty.jpg"] == "empty file"
    assert problems["a/cut.jpg"].startswith("truncated")


LIMITS = DecodingLimits(max_pixels=5000, max_frames=3, formats=("PNG", "GIF", "TIFF", "JPEG"))


def animation(frames, format):
    pictures = [Image.fromarray(picture(seed)[1]) for seed in range(frames)]
    stream = io.BytesIO()
    pictures[0].save(stream, format, save_all=True, append_images=pictures[1:])
    return stream.getvalue()


def with_chunks(count):
    data, _ = picture()
    chunk = struct.pack(">I", 3) + b"tEXta\0b" + struct.pack(">I", zlib.crc32(b"tEXta\0b"))
    return data[:33] + chunk * count + data[33:]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (picture(size=(100, 51))[0], "too_many_pixels"),
        (picture(format="WEBP")[0], "unsupported_format"),
        (b"nonsense", "unsupported_format"),
        (picture()[0][:-40], "undecodable_image"),
        (animation(4, "GIF"), "too_many_frames"),
        (animation(4, "TIFF"), "too_many_frames"),
        (with_chunks(2001), "undecodable_image"),
        (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 3000, "undecodable_image"),
        (b"GIF89a" + bytes(7) + b"\x21\xfe\x00" * 3000, "undecodable_image"),
    ],
)
def test_strangers_pictures_have_limits(data, code):
    with pytest.raises(DecodingError) as caught:
        decode_square(data, "", limits=LIMITS, preprocessing=Preprocessing(size=8))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "data",
    [picture(size=(100, 50))[0], animation(3, "GIF"), animation(3, "TIFF"), with_chunks(1000)],
)
def test_a_square_of_another_process_is_the_one_of_this(data):
    preprocessing = Preprocessing(size=8, interpolation="bicubic")
    pool = DecoderPool(command_for(LIMITS, preprocessing), processes=1)
    square, facts = pool.decode(data, "a.png")
    pool.end()
    image, known = decode(data, "a.png")
    assert np.array_equal(np.asarray(square), resize_pixels(image, preprocessing))
    assert facts == known


def test_a_limit_has_a_code_across_processes():
    pool = DecoderPool(command_for(LIMITS, Preprocessing(size=8)), processes=1)
    with pytest.raises(DecodingError, match=r"the limit is 5,000 pixels") as caught:
        pool.decode(picture(size=(100, 51))[0], "")
    pool.end()
    assert caught.value.code == "too_many_pixels"
