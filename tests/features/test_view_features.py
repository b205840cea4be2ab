"""Views in the pass and in the store: each computed once, each what a hand would make."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import on_cpu, tiny_network
from PIL import Image

from headstart.data import load_table
from headstart.data.boxes import crop_to_box
from headstart.data.resizing import resize_pixels
from headstart.data.views import MIRRORED, WHOLE, View, parse_views
from headstart.errors import DataError
from headstart.features import FeatureStore, extract_features, extract_views, list_cache
from headstart.features.passes import identity
from headstart.inference import FeatureExtractor, ImageList
from headstart.progress import Progress

VIEWS = parse_views("flip,crops:2", 5)


class Counting(Progress):
    def __init__(self):
        self.totals = []

    def phase(self, title, total, unit="images"):
        self.totals.append(total)
        return super().phase(title, total, unit)


@pytest.fixture
def extractor():
    return FeatureExtractor(tiny_network(), on_cpu(), 16)


def first_pass(table, extractor, views, rows=None, progress=None):
    rows = np.arange(len(table)) if rows is None else np.array(rows)
    wanted = dict.fromkeys(views, rows)
    return extract_features(table, extractor, progress=progress or Progress(), views=wanted)


def again(table, features, extractor, views=VIEWS, progress=None):
    return extract_views(table, features.facts, extractor, views, progress=progress or Progress())


def test_features_of_views_are_those_of_pictures_made_by_hand(colour_folder, extractor):
    table = load_table(str(colour_folder))
    features = first_pass(table, extractor, VIEWS)
    found = again(table, features, extractor)
    assert found.values.shape == (len(table), 3, 12)
    preprocessing = extractor.preprocessing
    for row in range(0, len(table), 5):
        with Image.open(table.files[row]) as opened:
            image = opened.convert("RGB")
        whole = resize_pixels(image, preprocessing)
        by_hand = [whole[:, ::-1]]
        for view in VIEWS[1:]:
            box = view.box(features.facts[row].digest)
            by_hand.append(resize_pixels(crop_to_box(image, box), preprocessing))
        expected = extractor.forward(torch.from_numpy(np.stack(by_hand)))
        assert np.array_equal(found.values[row], expected)
        assert len({tuple(vector) for vector in [features.values[row], *expected]}) == 4


def test_one_decoding_gives_all_views_and_a_second_run_reads_them(colour_folder, extractor):
    table = load_table(str(colour_folder))
    progress = Counting()
    first = first_pass(table, extractor, VIEWS, range(10), progress)
    assert progress.totals == [len(table)] * 2, "one step a picture to read, one for all its views"
    assert (first.computed, first.computed_views) == (len(table), 30)
    seen = extractor.module.seen
    second = first_pass(table, extractor, VIEWS, range(10))
    assert (second.computed, second.computed_views) == (0, 0)
    part = replace(first, facts=first.facts[:10])
    found = again(table.take(range(10)), part, extractor)
    assert found.computed == 0
    assert extractor.module.seen == seen, "nothing went through the network"
    assert np.array_equal(first.values, second.values)


def test_whole_pictures_do_not_depend_on_views(colour_folder, extractor, tmp_path, monkeypatch):
    table = load_table(str(colour_folder))
    alone = extract_features(table, extractor, progress=Progress())
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "other"))
    beside = first_pass(table, extractor, VIEWS)
    assert np.array_equal(alone.values, beside.values)
    assert alone.facts == beside.facts


def test_four_crops_after_two_cost_two(colour_folder, extractor):
    table = load_table(str(colour_folder))
    first_pass(table, extractor, parse_views("crops:2", 5))
    more = first_pass(table, extractor, parse_views("flip,crops:4", 5))
    assert (more.computed, more.computed_views) == (0, 3 * len(table))
    other_seed = first_pass(table, extractor, parse_views("crops:4", 6))
    assert other_seed.computed_views == 4 * len(table)


def test_every_view_has_a_file_of_its_own(colour_folder, extractor):
    table = load_table(str(colour_folder))
    first_pass(table, extractor, VIEWS, range(5))
    counts = {entry.identity: entry.num_images for entry in list_cache()}
    assert counts == {
        identity(extractor, WHOLE): len(table),
        **{identity(extractor, view): 5 for view in VIEWS},
    }
    assert " | whole | " in identity(extractor), "features of older versions stay usable"


def test_what_the_first_pass_left_out_is_computed_behind_it(colour_folder, extractor):
    table = load_table(str(colour_folder))
    features = first_pass(table, extractor, VIEWS, range(8))
    found = again(table, features, extractor)
    assert found.computed == 3 * (len(table) - 8)
    assert np.array_equal(again(table, features, extractor).values, found.values)


def test_identical_pictures_go_through_once(extractor):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    source = ImageList([pixels, pixels.copy(), pixels[::-1].copy()], ["a", "b", "c"])
    features = first_pass(source, extractor, [MIRRORED], [1, 2])
    assert (features.computed, features.computed_views) == (2, 2)
    found = again(source, features, extractor, [View("crop", 1, 0), MIRRORED])
    assert found.computed == 2
    assert np.array_equal(found.values[0], found.values[1])


def test_a_damaged_view_is_computed_again(colour_folder, extractor):
    table = load_table(str(colour_folder))
    features = first_pass(table, extractor, VIEWS)
    before = again(table, features, extractor)
    store = FeatureStore(identity(extractor, MIRRORED), 12)
    with store.connection:
        store.connection.execute("UPDATE features SET vector = zeroblob(24)")
    store.close()
    after = again(table, features, extractor)
    assert after.computed == len(table)
    assert np.array_equal(before.values, after.values)


def test_an_unreadable_picture_has_no_views(colour_folder, extractor):
    (colour_folder / "red" / "00.png").write_text("no image")
    table = load_table(str(colour_folder))
    features = first_pass(table, extractor, VIEWS)
    assert (~features.good).sum() == 1
    assert {entry.num_images for entry in list_cache()} == {len(table) - 1}


def test_a_picture_that_goes_away_meanwhile_is_named(colour_folder, extractor):
    table = load_table(str(colour_folder))
    features = extract_features(table, extractor, progress=Progress())
    (colour_folder / "green" / "03.png").unlink()
    with pytest.raises(DataError, match=r"'green/03.png' could be read a moment ago"):
        again(table, features, extractor)
