"""What is shown before a training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from staged import CLASSES, EXECUTION, SIZE, colourful, quick, staged_network

from headstart.errors import DataError, UsageError
from headstart.finetune import Augmenter
from headstart.finetune.preview import augment_preview, rate_preview, search_rate
from headstart.inference import FeatureExtractor
from headstart.records import ImageTable, Preprocessing

DATA = colourful()


def table(splits=None, labels=DATA.labels):
    count = len(labels)
    return ImageTable(
        name="noise",
        paths=tuple(f"{row}.png" for row in range(count)),
        labels=labels,
        class_names=tuple("abc"[:CLASSES]),
        splits=splits or ("",) * count,
        pixels=DATA.images.numpy(),
    )


def shown(figure):
    return [axes.images[0].get_array() for axes in figure.axes]


def test_a_row_an_image_as_it_is_and_its_views():
    figure = augment_preview(table(), [4, 9], "e1", Preprocessing(size=SIZE), views=3, seed=7)
    pictures = shown(figure)
    pixels = DATA.images[[4, 9]]
    assert len(pictures) == 2 * 4
    for column in range(4):
        expected = pixels
        if column:
            expected = Augmenter("e1", 7)(pixels, [0, 1], fold=0, view=column - 1)
        for row in range(2):
            assert np.array_equal(pictures[4 * row + column], expected[row].numpy())
    assert figure.axes[0].get_ylabel() == table().label_of(4)


def test_it_is_shown_at_the_size_of_the_network():
    pictures = shown(augment_preview(table(), [0], "none", Preprocessing(size=24), views=1))
    assert [picture.shape for picture in pictures] == [(24, 24, 3)] * 2
    assert np.array_equal(*pictures)


@pytest.mark.parametrize(
    ("rows", "policy", "views", "words"),
    [([0], "e1", 0, "`views`"), ([], "e1", 2, "`rows`"), ([0], "elastic", 2, "elastic")],
    ids=["views", "rows", "policy"],
)
def test_what_cannot_be_shown_is_one_sentence(rows, policy, views, words):
    with pytest.raises(UsageError, match=words):
        augment_preview(table(), rows, policy, Preprocessing(size=SIZE), views=views)


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor(staged_network(), EXECUTION)


@pytest.mark.parametrize("strategy", ["partial", "full"])
def test_a_search_repeats_and_its_figure_marks_the_rate(extractor, strategy):
    torch.manual_seed(0)
    first, again = (
        search_rate(table(), extractor, quick(strategy=strategy), num_steps=12) for _ in range(2)
    )
    assert first == again
    assert first.rates[0] <= first.suggested * 10 * (1 + 1e-9) <= first.rates[-1] * (1 + 1e-9)
    axes = rate_preview(first, "mini", strategy).axes[0]
    assert axes.lines[1].get_xdata()[0] == first.suggested
    assert axes.get_xscale() == "log"


def test_a_search_starts_from_the_probe(extractor):
    # Frozen norms: an untrained network's statistics are not those of a batch.
    settings = quick(strategy="partial", freeze_norms=True, batch_size=30)
    probe = search_rate(table(), extractor, settings, num_steps=10)
    fresh = search_rate(table(), extractor, replace(settings, hidden=(6,)), num_steps=10)
    assert probe.losses[0] < 0.9 * np.log(CLASSES) < fresh.losses[0]


def test_a_search_reads_neither_test_images_nor_unlabelled_ones(extractor, monkeypatch):
    read = []
    original = ImageTable.read
    monkeypatch.setattr(
        ImageTable, "read", lambda self, row: read.append(self.paths[row]) or original(self, row)
    )
    labels = DATA.labels.copy()
    labels[:5] = -1
    splits = tuple("test" if row >= 20 else "train" for row in range(len(labels)))
    search_rate(table(splits, labels), extractor, quick(), num_steps=10)
    assert set(read) == {f"{row}.png" for row in range(5, 20)}


@pytest.mark.parametrize(
    ("settings", "steps", "words"),
    [(quick(), 3, "`num_steps`"), (quick(strategy="probe"), 20, "training loop")],
    ids=["steps", "probe"],
)
def test_a_search_that_cannot_be_is_refused(extractor, settings, steps, words):
    with pytest.raises(UsageError, match=words):
        search_rate(table(), extractor, settings, num_steps=steps)


def test_a_search_wants_images(extractor):
    with pytest.raises(DataError, match="at least 2 images"):
        search_rate(table(("test",) * len(DATA.labels)), extractor, quick(), num_steps=10)
