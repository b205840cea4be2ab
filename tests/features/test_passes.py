"""One pass: every image once, read back equal, new images only."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from networks import on_cpu, tiny_network
from PIL import Image

from headstart.data import digest_of, load_table
from headstart.data.views import MIRRORED, WHOLE, parse_views
from headstart.errors import DataError
from headstart.features import extract_features, extract_views
from headstart.features.passes import store_keys
from headstart.inference import FeatureExtractor, ImageList
from headstart.progress import Progress


class Counting(Progress):
    def __init__(self):
        self.totals = []

    def phase(self, title, total, unit="images"):
        self.totals.append(total)
        return super().phase(title, total, unit)


@pytest.fixture
def extractor():
    return FeatureExtractor(tiny_network(), on_cpu(), 16)


def test_a_second_pass_reads_back_the_same(colour_folder, extractor):
    table = load_table(str(colour_folder))
    first = extract_features(table, extractor, progress=Progress())
    seen = extractor.module.seen
    second = extract_features(table, extractor, progress=Progress())
    assert (first.computed, second.computed) == (len(table), 0)
    assert extractor.module.seen == seen
    assert np.array_equal(first.values, second.values)
    assert first.facts == second.facts


def test_only_new_images_go_through(colour_folder, extractor):
    from pictures import paint

    extract_features(load_table(str(colour_folder)), extractor, progress=Progress())
    paint(colour_folder / "red" / "new.png", (200, 50, 40), seed=999)
    progress = Counting()
    features = extract_features(load_table(str(colour_folder)), extractor, progress=progress)
    assert features.computed == 1
    assert progress.totals == [len(load_table(str(colour_folder))), 1]  # read, computed


class Changing(ImageList):
    """Images of which one holds something else whenever it is read again."""

    def __init__(self, images, row):
        super().__init__(images, [f"{i}.png" for i in range(len(images))])
        self.row, self.times = row, 0

    def read(self, row):
        if row != self.row:
            return super().read(row)
        self.times += 1
        return self.images[row] + bytes(self.times - 1)


def encoded(seed):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_what_changes_while_it_is_read_is_never_stored_under_its_old_key(extractor):
    images = [encoded(seed) for seed in range(3)]
    with pytest.raises(DataError, match=r"'1\.png' could be read a moment ago and holds something"):
        extract_features(Changing(images, 1), extractor, progress=Progress())
    whole = ImageList(images, ["0.png", "1.png", "2.png"])
    alone = extract_features(whole, extractor, progress=Progress())
    assert alone.computed >= 1  # the old content was not stored
    changed = Changing(images, 1)
    changed.times = 1
    with pytest.raises(DataError, match="holds something else now"):
        extract_views(changed, alone.facts, extractor, [MIRRORED], progress=Progress())


def test_batches_hold_as_many_squares_however_many_views(extractor):
    images = [encoded(seed) for seed in range(20)]
    source = ImageList(images, [f"{i}.png" for i in range(20)])
    views = (WHOLE, *parse_views("flip,crops:3", 0))
    batches = [len(rows) for rows, _, _ in extractor.extract_views(source, range(20), views)]
    assert batches == [3] * 6 + [2]  # 16 squares a batch


def test_identical_files_go_through_once_and_keep_their_names(extractor):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    source = ImageList([pixels, pixels.copy(), pixels[::-1].copy()], ["a", "b", "c"])
    features = extract_features(source, extractor, progress=Progress())
    assert features.computed == 2
    assert [record.path for record in features.facts] == ["a", "b", "c"]
    assert np.array_equal(features.values[0], features.values[1])
    assert not np.array_equal(features.values[0], features.values[2])


def test_unreadable_images_are_tried_again_and_not_stored(colour_folder, extractor):
    (colour_folder / "red" / "00.png").write_text("no image")
    table = load_table(str(colour_folder))
    for expected in (len(table), 1):
        features = extract_features(table, extractor, progress=Progress())
        assert features.computed == expected
        assert (~features.good).sum() == 1


def test_another_network_or_size_shares_nothing(colour_folder):
    table = load_table(str(colour_folder))
    for network in (tiny_network(), tiny_network(seed=1), tiny_network(size=48)):
        features = extract_features(
            table, FeatureExtractor(network, on_cpu(), 16), progress=Progress()
        )
        assert features.computed == len(table)


def test_what_was_finished_before_an_interruption_is_kept(colour_folder, extractor):
    class Interrupting(Progress):
        def phase(self, title, total, unit="images"):
            from contextlib import contextmanager

            if not title.startswith("Features"):
                return super().phase(title, total, unit)

            @contextmanager
            def block():
                def advance(steps=1):
                    raise KeyboardInterrupt

                yield advance

            return block()

    table = load_table(str(colour_folder))
    with pytest.raises(KeyboardInterrupt):
        extract_features(table, extractor, progress=Interrupting())
    features = extract_features(table, extractor, progress=Progress())
    assert features.computed == len(table) - 16


@pytest.mark.parametrize("known", [[], ["zz.jpg"], ["a.dng"], ["a.dng", "zz.jpg"]])
def test_one_content_under_two_endings_is_judged_by_each(tmp_path, extractor, known):
    """A camera file is told by its name: what the store knows of its twin does not count."""
    from PIL import Image

    Image.new("RGB", (40, 40), (200, 50, 40)).save(tmp_path / "zz.jpg")
    (tmp_path / "a.dng").write_bytes((tmp_path / "zz.jpg").read_bytes())

    def passed(names):
        source = ImageList([tmp_path / name for name in names], names)
        return extract_features(source, extractor, progress=Progress())

    if known:
        passed(known)
    for names in (["a.dng", "zz.jpg"], ["zz.jpg", "a.dng"]):
        features = passed(names)
        assert features.good.tolist() == [name == "zz.jpg" for name in names]
        assert "camera RAW" in features.facts[names.index("a.dng")].problem
        assert features.values[names.index("zz.jpg")].any()


@pytest.fixture
def boxed(colour_folder):
    """One picture three times: whole, its left half, its right half; and its real halves."""
    from PIL import Image

    file = colour_folder / "red" / "00.png"
    picture = Image.open(file)
    middle = picture.width // 2
    halves = {
        "left": picture.crop((0, 0, middle, picture.height)),
        "right": picture.crop((middle, 0, picture.width, picture.height)),
    }
    lines = ["path,label,rel_x1,rel_y1,rel_x2,rel_y2", "red/00.png,a,,,,"]
    lines += ["red/00.png,b,0,0,0.5,1", "red/00.png,b,0.5,0,1,1"]
    manifest = colour_folder / "m.csv"
    manifest.write_text("\n".join(lines))
    return load_table(manifest), [np.asarray(picture), *map(np.asarray, halves.values())]


def test_a_box_is_the_same_as_a_cropped_file(boxed, extractor):
    table, pictures = boxed
    expected = extract_features(
        ImageList(pictures, ["a", "b", "c"]), extractor, progress=Progress()
    )
    found = extract_features(table, extractor, progress=Progress())
    assert found.computed == 3
    assert np.array_equal(found.values, expected.values)
    assert "cropped to box (0.500, 0.000, 1.000, 1.000)" in found.facts[2].treatment
    assert "cropped" not in found.facts[0].treatment


def test_one_file_with_two_boxes_has_two_keys(boxed, extractor):
    table, _ = boxed
    keys = store_keys(table, range(3))
    assert len(set(keys.values())) == 3
    assert keys[0] == digest_of(table.read(0)) + ".png"
    assert all(key.startswith(keys[0]) for key in keys.values())
    first = extract_features(table, extractor, progress=Progress())
    again = extract_features(table.take([2, 1, 0]), extractor, progress=Progress())
    assert again.computed == 0
    assert np.array_equal(again.values, first.values[::-1])
    shifted = replace(table, boxes=np.nextafter(table.boxes, 1))
    assert extract_features(shifted, extractor, progress=Progress()).computed == 2
