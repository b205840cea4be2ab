from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from staged import EXECUTION, colourful, quick, staged_network
from test_tuning import equal_weights, state

from headstart.backbones import build_network, find_backbone
from headstart.errors import StorageError
from headstart.finetune import TrainingData, fit_network
from headstart.finetune.batches.images import epoch_batches, prepare_images
from headstart.finetune.steps import training
from headstart.inference import FeatureExtractor, ImageList
from headstart.progress import Progress

DATA = colourful()
PARTIAL = quick(strategy="partial", epochs=(3,))
CASES = {
    "plain": PARTIAL,
    "views": replace(PARTIAL, augmentation="e1", views=2),
    "two-stage": replace(PARTIAL, strategy="two-stage", trainable="layers:1"),
    "gradual": replace(PARTIAL, strategy="gradual", epochs=(1,)),
}


class Notes(Progress):
    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


def fit(settings, progress=None, network=None, data=DATA):
    return fit_network(
        network or staged_network(), data, settings, execution=EXECUTION, progress=progress
    )


@pytest.mark.parametrize("case", CASES)
def test_cached_is_recomputed(case):
    # Both round to 16 bits; what is left is the summing order of another batch, far below it.
    cached, recomputed = fit(CASES[case]), fit(replace(CASES[case], cache="off"))
    for a, b in zip(state(cached).values(), state(recomputed).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    losses = [[r.inner["log_loss"] for r in tuned.history] for tuned in (cached, recomputed)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_frozen_stages_run_once_for_an_image_and_view(monkeypatch):
    seen = []
    original = training.PhaseModule.frozen_part

    def count(self, x):
        seen.append(len(x))
        return original(self, x)

    monkeypatch.setattr(training.PhaseModule, "frozen_part", count)
    fit(replace(PARTIAL, epochs=(5,)))
    assert sum(seen) == len(DATA.labels) + 1  # one to learn the shape
    seen.clear()
    fit(replace(PARTIAL, epochs=(5,), augmentation="light", views=2))
    assert sum(seen) == 2 * len(DATA.train_rows) + len(DATA.inner_rows) + 1
    seen.clear()
    fit(replace(PARTIAL, epochs=(5,), augmentation="light"))  # a new view every epoch
    assert sum(seen) == 5 * len(DATA.train_rows) + 6 * len(DATA.inner_rows)


def test_the_size_is_said_before_anything_is_written(monkeypatch):
    notes = Notes()

    def refuse(shape, dtype):
        assert "30 x 6 x 4 x 4 in 16 bits" in notes.notes[0]
        raise StorageError("No room.")

    monkeypatch.setattr("headstart.finetune.batches.activations.scratch_array", refuse)
    tuned = fit(PARTIAL, notes)
    assert "again every epoch" in notes.notes[-1]
    assert equal_weights(tuned, fit(replace(PARTIAL, cache="off")))


def test_above_the_limit_is_computed_again():
    notes = Notes()
    tuned = fit(replace(PARTIAL, cache_bytes=1000), notes)
    assert "above the limit" in notes.notes[0]
    assert equal_weights(tuned, fit(replace(PARTIAL, cache="off")))


def test_what_does_not_fit_16_bits_is_computed_again():
    network = staged_network()
    network.module.stage1[1].weight.data *= 1e6
    network.module.stage2[1].running_var *= 1e12
    notes = Notes()
    settings = replace(PARTIAL, trainable="stages:2", epochs=(1,))
    tuned = fit(settings, notes, network)
    assert "do not fit 16 bits" in notes.notes[-1]
    assert equal_weights(tuned, fit(replace(settings, cache="off"), network=network))


def test_the_last_stage_of_a_real_network():
    network = build_network(find_backbone("mini"), image_size=32)
    generator = np.random.default_rng(0)
    data = TrainingData(
        images=torch.from_numpy(generator.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)),
        labels=np.arange(12, dtype=np.int64) % 2,
        train_rows=np.arange(8),
        inner_rows=np.arange(8, 12),
        num_classes=2,
    )
    settings = replace(PARTIAL, epochs=(1,), lr=1e-4)
    cached = fit(settings, network=network, data=data)
    recomputed = fit(replace(settings, cache="off"), network=network, data=data)
    for a, b in zip(state(cached).values(), state(recomputed).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_batches_hold_every_row_once():
    rows = np.arange(10, 27)
    for epoch in range(3):
        batches = epoch_batches(rows, 8, seed=0, fold=0, epoch=epoch)
        assert sorted(np.concatenate(batches)) == rows.tolist()
        assert [len(batch) for batch in batches] == [8, 9]  # none of a single image
    first, other = (epoch_batches(rows, 8, seed=0, fold=0, epoch=e)[0] for e in (0, 1))
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize("memory", ["0", "unlimited"], ids=["mapped", "in memory"])
def test_pictures_are_prepared_as_for_prediction(memory, monkeypatch):
    monkeypatch.setenv("HEADSTART_MEMORY", memory)
    extractor = FeatureExtractor(staged_network(), EXECUTION)
    generator = np.random.default_rng(0)
    pixels = [generator.integers(0, 256, (20, 30, 3)).astype(np.uint8) for _ in range(3)]
    source = ImageList([*pixels, OSError("gone")], ["a", "b", "c", "d"])
    prepared = prepare_images(source, extractor, progress=Progress())
    assert prepared.good.tolist() == [True, True, True, False]
    assert prepared.facts[3].problem
    for row in range(3):
        expected = extractor.prepare(source, row)[1]
        assert np.array_equal(prepared.pixels[row].numpy(), expected)
