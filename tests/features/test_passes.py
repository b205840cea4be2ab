"""One pass: every image once, read back equal, new images only."""

from __future__ import annotations

import numpy as np
import pytest
from networks import on_cpu, tiny_network

from headstart.data import load_table
from headstart.features import extract_features
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
    from conftest import paint

    extract_features(load_table(str(colour_folder)), extractor, progress=Progress())
    paint(colour_folder / "red" / "new.png", (200, 50, 40), seed=999)
    progress = Counting()
    features = extract_features(load_table(str(colour_folder)), extractor, progress=progress)
    assert features.computed == 1
    assert progress.totals == [1]


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
