"""Batches in flight: order, how many, what is kept back, and nothing else on a processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import on_cpu, tiny_network

from headstart.errors import WeightsError
from headstart.inference import FeatureExtractor, ImageList
from headstart.inference.extractor import Extractor
from headstart.inference.launching import Launched, launched
from headstart.records import Preprocessing


class Noting(Extractor):
    """Gives the mean of each picture, and notes when batches begin and are asked for."""

    def __init__(self, lag):
        super().__init__(Preprocessing(size=8), num_features=1, batch_size=4)
        self.lag = lag
        self.events = []

    def launch(self, pictures):
        number = sum(kind == "launch" for kind, _ in self.events)
        self.events.append(("launch", number))
        values = np.stack([p.mean(axis=(1, 2, 3), dtype=np.float64) for p in pictures])[..., None]

        def fetch():
            self.events.append(("fetch", number))
            return values.astype(np.float16)

        return fetch


def flat_pictures(count):
    return ImageList(
        [np.full((8, 8, 3), i, dtype=np.uint8) for i in range(count)],
        [f"{i}" for i in range(count)],
    )


@pytest.mark.parametrize(("lag", "order"), [
    (0, "L0 F0 L1 F1 L2 F2 L3 F3"),
    (1, "L0 L1 F0 L2 F1 L3 F2 F3"),
    (2, "L0 L1 L2 F0 L3 F1 F2 F3"),
    (9, "L0 L1 L2 L3 F0 F1 F2 F3"),
])  # fmt: skip
def test_a_batch_is_fetched_after_later_ones_were_launched(lag, order):
    extractor, source = Noting(lag), flat_pictures(14)
    source.images[5] = OSError("gone")
    found = list(extractor.extract(source, range(14)))
    assert " ".join(kind[0].upper() + str(number) for kind, number in extractor.events) == order
    assert [rows for rows, _, _ in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13]]
    values = np.concatenate([values[:, 0] for _, _, values in found])
    assert values.tolist() == [0.0 if row == 5 else row for row in range(14)]
    problems = [facts.path for _, batch, _ in found for facts in batch if facts.problem]
    assert problems == ["5"]


def test_a_batch_without_a_good_picture_keeps_its_place():
    extractor, source = Noting(2), flat_pictures(12)
    source.images[4:8] = [OSError("gone")] * 4
    found = [(rows[0], values[-1, 0]) for rows, _, values in extractor.extract(source, range(12))]
    assert found == [(0, 3.0), (4, 0.0), (8, 11.0)]
    assert [kind for kind, _ in extractor.events] == ["launch", "launch", "fetch", "fetch"]


def test_who_stops_early_leaves_the_rest_unfetched():
    extractor = Noting(1)
    passing = extractor.extract(flat_pictures(40), range(40))
    next(passing)
    passing.close()
    assert extractor.events == [("launch", 0), ("launch", 1), ("fetch", 0)]


def test_the_lag_changes_no_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (37, 32, 32, 3), dtype=np.uint8)
    source = ImageList(list(pixels), [f"{i}" for i in range(37)])
    found = []
    for lag in (0, 2):
        extractor = FeatureExtractor(tiny_network(), on_cpu(), 8)
        assert extractor.lag == 0  # a processor computes at once
        extractor.lag = lag
        found.append(np.concatenate([v for _, _, v in extractor.extract(source, range(37))]))
    np.testing.assert_array_equal(*found)


def test_features_are_rounded_and_the_largest_told_before_rounding():
    values = torch.tensor([[1.0, -70000.0], [2.0, 3.0]])
    batch = launched(values)
    assert batch.half.dtype == torch.float16
    assert float(batch.largest) == 70000.0
    assert np.isnan(float(launched(torch.tensor([[1.0, np.nan]])).largest))
    assert launched(torch.zeros(0, 2)).half.shape == (0, 2)


def test_a_batch_is_checked_when_it_is_fetched_and_not_before():
    class Done:
        waited = False

        def synchronize(self):
            self.waited = True

    extractor, done = FeatureExtractor(tiny_network(), on_cpu()), Done()
    half, largest = torch.zeros(2, 12, dtype=torch.float16), torch.tensor(1.0)
    batch = Launched(half=half, largest=largest, done=done)
    assert not done.waited
    assert extractor._checked(batch).shape == (2, 12)
    assert done.waited
    for bad in (65504.0, float("inf"), float("nan")):
        batch = Launched(half=half, largest=torch.tensor(bad), done=None)
        with pytest.raises(WeightsError, match="do not fit 16 bits"):
            extractor._checked(batch)
