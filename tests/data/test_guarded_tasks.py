"""Tasks of several images in one decoder process: exactly the bad ones are named."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from networks import on_cpu, tiny_network
from PIL import ImageFile
from test_guarded import ODD_CHILD, picture

from headstart.data import load_table
from headstart.data.colour import DecodingError
from headstart.data.decoding import decode_here
from headstart.data.guarded import pool as pools
from headstart.data.guarded.child import Item
from headstart.data.guarded.pool import DecoderPool
from headstart.data.preparing import Order, prepare_picture
from headstart.data.views import MIRRORED, WHOLE, View
from headstart.errors import UsageError
from headstart.features.passes import extract_features
from headstart.inference import FeatureExtractor, ImageList
from headstart.progress import Progress
from headstart.records import Preprocessing

ORDER = Order(preprocessing=Preprocessing(size=32), fingerprint=True)
# As ODD_CHILD, by the end of the file's name.
NAMED_CHILD = ODD_CHILD.replace("    if path ==", "    if path.split('/')[-1].split('.')[0] ==")


@pytest.fixture(scope="module")
def odd_pool():
    pool = DecoderPool([sys.executable, "-P", "-c", NAMED_CHILD], time_limit_s=20)
    yield pool
    pool.end()


def items(names):
    return [Item(data=picture(i)[0], path=name) for i, name in enumerate(names)]


def outcome(found):
    return ["" if not isinstance(one, DecodingError) else str(one) for one in found]


@pytest.mark.parametrize("views", [(WHOLE,), (MIRRORED, View("crop", 1, 7), WHOLE)])
def test_a_task_gives_what_a_thread_would(odd_pool, views):
    order = replace(ORDER, views=views)
    asked = [
        Item(data=picture(0)[0], path="a.png"),
        Item(data=picture(1, "JPEG", (64, 48))[0], path="b.png"),
        Item(data=picture(2, "GIF")[0], path="c.gif", box=(0.25, 0.0, 1.0, 0.5)),
        Item(data=b"no picture", path="d.png"),
    ]
    found = odd_pool.prepare(asked, order)
    for item, one in zip(asked[:3], found, strict=False):
        here = prepare_picture(item.data, item.path, item.box, order, decode_here)
        assert one.pixels.shape == (len(views), 32, 32, 3)
        assert one.facts == here.facts
        assert np.array_equal(one.pixels, here.pixels)
        assert one.record == here.record
    assert outcome(found)[3] == "not an image"


def test_in_the_middle_of_a_task_each_bad_one_is_named_and_no_other(odd_pool):
    names = [f"good{i}.png" for i in range(20)]
    names[0], names[7], names[8], names[19] = "crashes.png", "leaves.png", "breaks.png", "eats.png"
    told = outcome(odd_pool.prepare(items(names), ORDER))
    assert "signal 11" in told[0]
    assert "exit code 3" in told[7]
    assert "ZeroDivisionError" in told[8]
    if sys.platform == "linux":
        assert told[19] == "too large for the 4 GiB of a decoder"
    assert not any(told[i] for i in range(20) if i not in (0, 7, 8, 19))


def test_one_that_hangs_in_a_task_is_named_and_the_others_are_whole(odd_pool):
    odd_pool.prepare(items(["good.png"]), ORDER)  # it is started
    odd_pool.time_limit_s = 1.0
    names = ["a.png", "b.png", "hangs.png", "c.png"]
    begun = time.monotonic()
    found = odd_pool.prepare(items(names), ORDER)
    odd_pool.time_limit_s = 20
    assert outcome(found) == ["", "", "decoding took longer than 1 s", ""]
    assert time.monotonic() - begun < 20
    expected = prepare_picture(picture(3)[0], "c.png", None, ORDER, decode_here)
    assert np.array_equal(found[3].pixels, expected.pixels)


def test_killing_a_process_while_a_task_runs_costs_no_image(odd_pool):
    names = [f"{i}.png" for i in range(32)]
    for _ in range(4):
        done = threading.Event()

        def kill(done=done):
            while not done.is_set():
                ready = [process for process in list(odd_pool._busy) if process.ready]
                if ready:
                    ready[0].process.kill()
                    return

        killer = threading.Thread(target=kill)
        killer.start()
        found = odd_pool.prepare(items(names), ORDER)
        done.set()
        killer.join()
        assert not any(outcome(found))


def test_a_decoder_that_never_starts_is_said_once_and_not_tried_for_ever():
    pool = DecoderPool([sys.executable, "-c", "import sys; sys.exit(7)"])
    told = outcome(pool.prepare(items(["a.png", "b.png", "c.png"]), ORDER))
    assert told == ["its decoder ended at its start (exit code 7)"] * 3
    pool.end()


def test_a_training_folder_survives_every_kind(odd_pool, tmp_path, monkeypatch):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for seed in range(12):
            (tmp_path / label / f"{seed}.png").write_bytes(picture(seed + 12 * (label == "b"))[0])
    bad = {"a/crashes.png": "signal 11", "b/leaves.png": "exit code 3", "b/breaks.png": "Zero"}
    for name in bad:
        (tmp_path / name).write_bytes(picture(sum(map(ord, name)))[0])
    monkeypatch.setattr("headstart.inference.extractor.shared_pool", lambda: odd_pool)
    extractor = FeatureExtractor(tiny_network(), on_cpu())
    found = extract_features(load_table(tmp_path), extractor, progress=Progress())
    problems = {record.path: record.problem for record in found.facts if record.problem}
    assert problems.keys() == bad.keys()
    assert all(bad[name] in problem for name, problem in problems.items())
    assert found.good.sum() == 24


@pytest.mark.parametrize("isolated", [False, True])
def test_features_do_not_depend_on_where_pictures_are_decoded(isolated):
    source = ImageList([picture(i)[0] for i in range(10)], [f"{i}.png" for i in range(10)])
    extractor = FeatureExtractor(tiny_network(), on_cpu())
    batches = list(extractor.extract(source, range(10), isolated=isolated))
    again = list(extractor.extract(source, range(10), isolated=not isolated))
    assert np.array_equal(batches[0][2], again[0][2])
    assert batches[0][1] == again[0][1]


def test_half_images_are_not_taken_for_whole_ones(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    source = ImageList([picture()[0]], ["a.png"])
    extractor = FeatureExtractor(tiny_network(), on_cpu())
    with pytest.raises(UsageError, match="LOAD_TRUNCATED_IMAGES"):
        list(extractor.extract(source, [0], isolated=True))


def test_few_pictures_start_no_process(monkeypatch):
    def refuse():
        raise AssertionError

    monkeypatch.setattr("headstart.inference.extractor.shared_pool", refuse)
    monkeypatch.setattr(pools, "shared_pool", refuse)
    source = ImageList([picture(i, "JPEG")[0] for i in range(3)], ["a.jpg", "b.jpg", "c.jpg"])
    extractor = FeatureExtractor(tiny_network(), on_cpu())
    ((_, facts, _),) = extractor.extract(source, range(3))
    assert not any(record.problem for record in facts)


def test_a_task_of_large_files_is_cut_into_several(monkeypatch):
    counts = []

    class Spy:
        def prepare(self, items, order):
            counts.append(len(items))
            return [prepare_picture(i.data, i.path, i.box, order, decode_here) for i in items]

    monkeypatch.setattr("headstart.inference.extractor.shared_pool", Spy)
    monkeypatch.setattr("headstart.inference.extractor.TASK_BYTES", 3 * len(picture()[0]) - 1)
    source = ImageList([picture()[0]] * 7, [f"{i}.png" for i in range(7)])
    extractor = FeatureExtractor(tiny_network(), on_cpu())
    assert len(extractor.prepare_many(source, range(7))) == 7
    assert counts == [3, 3, 1]
