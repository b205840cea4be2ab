"""The recipe of `mini` on a pack of toys: it learns, it resumes, its weights load."""

from __future__ import annotations

import csv
import errno
import io
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from headstart import api
from headstart.backbones import build_network, find_backbone
from headstart.errors import DataError, ResumeError, StorageError, UnknownNameError, UsageError
from headstart.progress import Progress
from headstart.recipes import pretrain_mini as recipe
from headstart.recipes.augmenting import Variation, mix

TOY = recipe.PretrainSettings(sizes=((32, 2), (40, 1)), batch_size=16, peak_lr=0.05)


def toy_picture(label: int, generator: np.random.Generator) -> bytes:
    pixels = generator.integers(0, 90, (64, 64, 3), dtype=np.uint8)
    pixels[..., label] += 150
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    generator = np.random.default_rng(0)
    for name, count in (("train", 96), ("val", 24)):
        labels = [i % 3 for i in range(count)]
        images = [toy_picture(label, generator) for label in labels]
        pq.write_table(pa.table({"image": images, "label": labels}), folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def weights(toys, tmp_path_factory):
    return recipe.pretrain(toys, tmp_path_factory.mktemp("whole"), TOY)


def test_it_learns_and_logs(weights):
    with (weights.parent / "pretrain.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["size"] for row in rows] == ["32", "32", "40"]
    assert float(rows[2]["loss"]) < float(rows[0]["loss"])
    assert (weights.parent / "pretrain.png").stat().st_size > 1000


def test_its_weights_load_as_mini(weights):
    state = load_file(weights)
    assert {t.dtype for t in state.values()} <= {torch.float16, torch.int64}
    assert weights.stat().st_size < 13e6
    network = build_network(find_backbone("mini"), weights=str(weights))
    assert network.weights.source == "file"


def test_a_killed_training_ends_with_the_same_weights(toys, tmp_path, weights, monkeypatch):
    original = recipe.train_epoch

    def killed(model, optimizer, data, epoch, settings, advance):
        if epoch == 2:
            raise KeyboardInterrupt
        return original(model, optimizer, data, epoch, settings, advance)

    monkeypatch.setattr(recipe, "train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        recipe.pretrain(toys, tmp_path, TOY)
    monkeypatch.undo()
    resumed = load_file(recipe.pretrain(toys, tmp_path, TOY))
    for name, tensor in load_file(weights).items():
        assert torch.equal(tensor, resumed[name]), name


def test_other_settings_or_data_do_not_go_on_from_a_checkpoint(toys, weights, tmp_path):
    with pytest.raises(ResumeError, match="settings differ"):
        recipe.pretrain(toys, weights.parent, replace(TOY, peak_lr=0.1))
    table = pq.read_table(toys / "train.parquet")
    pq.write_table(table.slice(1), tmp_path / "train.parquet")
    shutil.copy(toys / "val.parquet", tmp_path)
    with pytest.raises(ResumeError, match=r"train\.parquet differ"):
        recipe.pretrain(tmp_path, weights.parent, TOY)


def test_a_finished_training_that_died_before_its_log_gets_it_back(toys, tmp_path, weights):
    out = tmp_path / "out"
    shutil.copytree(weights.parent, out)
    log = (out / "pretrain.csv").read_text()
    (out / "pretrain.csv").write_text("".join(log.splitlines(keepends=True)[:-1]))
    recipe.pretrain(toys, out, TOY)
    assert (out / "pretrain.csv").read_text() == log


def test_a_damaged_checkpoint_is_told_and_begun_anew(toys, tmp_path, weights):
    shutil.copytree(weights.parent, tmp_path / "out")
    checkpoint = tmp_path / "out" / recipe.CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    notes = []
    progress = Progress()
    progress.note = notes.append
    again = load_file(recipe.pretrain(toys, tmp_path / "out", TOY, progress=progress))
    assert "is damaged; training begins anew" in notes[0]
    for name, tensor in load_file(weights).items():
        assert torch.equal(tensor, again[name]), name


def test_a_full_disk_is_one_sentence(toys, tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("headstart.files.os.fsync", full)
    with pytest.raises(StorageError, match=r"disk is full: '.*last\.pt' could not be written"):
        recipe.pretrain(toys, tmp_path / "out", replace(TOY, sizes=((32, 2),)))
    assert not list((tmp_path / "out").glob(".new-*"))


def test_other_data_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(DataError, match="Name the folder of the Tiny-ImageNet pack"):
        recipe.pretrain(tmp_path, tmp_path / "out", TOY)
    assert not (tmp_path / "out").exists()
    pq.write_table(pa.table({"image": [b"x"], "label": [0]}), tmp_path / "val.parquet")
    pq.write_table(pa.table({"picture": [b"x"], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="no column image"):
        recipe.pretrain(tmp_path, tmp_path / "out", TOY)
    small = io.BytesIO()
    Image.new("RGB", (32, 32)).save(small, "PNG")
    pq.write_table(
        pa.table({"image": [small.getvalue()], "label": [0]}), tmp_path / "train.parquet"
    )
    with pytest.raises(DataError, match="row 0 has 32 x 32"):
        recipe.pretrain(tmp_path, tmp_path / "out", TOY)


@pytest.mark.parametrize(
    ("train", "val", "told"),
    [
        ({"image": [b"x"], "label": [0]}, None, r"Row 0 of '.*train\.parquet' cannot be decoded"),
        ({"label": ["cat"]}, None, "whole numbers from 0, got 'cat' in row 0"),
        ({"label": [None]}, None, "got None in row 0"),
        ({}, None, "at least 16 pictures to learn from and 1 to validate on, got 1 and 1"),
        ({"copies": 20}, {"label": [1]}, "has the label 1, which"),
    ],
)
def test_packs_that_cannot_be_learnt_from_are_refused(tmp_path, train, val, told):
    picture = toy_picture(0, np.random.default_rng(0))
    for name, given in (("train", dict(train)), ("val", dict(val or {}))):
        copies = given.pop("copies", 1)
        columns = {"image": [picture], "label": [0]} | given
        table = pa.table({key: cells * copies for key, cells in columns.items()})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=told):
        recipe.pretrain(tmp_path, tmp_path / "out", TOY)


def test_schedules_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="must be below the 1 epochs"):
        recipe.PretrainSettings(sizes=((32, 1),))
    with pytest.raises(UsageError, match="pairs of px and epochs above 0"):
        recipe.PretrainSettings(sizes=((32, 0), (64, 2)))


def test_a_device_that_is_not_there_is_refused(toys, tmp_path):
    with pytest.raises(UsageError, match="`device` must be one of"):
        recipe.pretrain(toys, tmp_path / "out", TOY, device="tpu")


def test_recipes_are_listed_and_found():
    assert [entry["name"] for entry in api.list_recipes()] == ["pretrain-mini"]
    with pytest.raises(UnknownNameError, match="Did you mean 'pretrain-mini'"):
        api.run_recipe("pretrain-mimi", "data", "out")


def test_the_learning_rate_rises_once_and_ends_at_nearly_zero():
    rates = [recipe.learning_rate(step, 10, TOY) for step in range(30)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(TOY.peak_lr, rel=0.01)
    assert np.all(np.diff(rates[: top + 1]) > 0)
    assert np.all(np.diff(rates[top:]) <= 1e-12)
    assert 0 < rates[-1] < 0.1 * TOY.peak_lr


def test_augmentation_hangs_on_its_generator_and_keeps_the_shape():
    x = torch.rand(5, 3, 64, 64)
    first, again, other = (
        recipe.augment(x, 48, TOY.variation, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert first.shape == (5, 3, 48, 48)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augmentation_without_strength_is_the_picture_or_its_mirror():
    plain = Variation(min_area_fraction=1.0, colour_strength=0.0, grey_fraction=0.0)
    x = torch.rand(8, 3, 64, 64)
    generator = torch.Generator().manual_seed(0)
    y = recipe.augment(x, 64, plain, generator)
    # The ratio of sides still varies: the centre row keeps its order or is mirrored.
    flipped = [
        bool((a - b.flip(2)).abs().mean() < (a - b).abs().mean()) for a, b in zip(x, y, strict=True)
    ]
    assert 0 < sum(flipped) < 8


def test_cutmix_pastes_a_rectangle_and_weighs_the_labels_by_its_area():
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 20, 30)
    labels = torch.arange(6)
    batch = mix(x, labels, Variation(cutmix_fraction=1.0), np.random.default_rng(3))
    own = (batch.x == x).all(1)
    assert 0 < batch.share < 1
    for row in range(6):
        other = batch.x[row][:, ~own[row]]
        if int(batch.second[row]) != row:
            assert set(other.flatten().tolist()) == {float(batch.second[row])}
            assert own[row].float().mean().item() == pytest.approx(batch.share)
    assert torch.equal(x[:, 0, 0, 0], labels.float())


def test_mixup_is_the_weighted_mean_of_two():
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 4, 4)
    batch = mix(x, torch.arange(6), Variation(mixup_fraction=1.0), np.random.default_rng(1))
    expected = batch.share * batch.first + (1 - batch.share) * batch.second
    torch.testing.assert_close(batch.x[:, 0, 0, 0], expected)


def test_the_loss_of_a_mixed_batch_is_the_cross_entropy_to_soft_labels():
    labels, numbers = torch.tensor([0, 1, 2, 1]), np.random.default_rng(0)
    batch = mix(torch.rand(4, 3, 8, 8), labels, Variation(cutmix_fraction=1.0), numbers)
    logits = torch.randn(4, 3)
    eye = torch.eye(3)
    soft = batch.share * eye[batch.first] + (1 - batch.share) * eye[batch.second]
    expected = torch.nn.functional.cross_entropy(logits, soft)
    torch.testing.assert_close(batch.loss(logits), expected)
    smoothed = torch.nn.functional.cross_entropy(logits, soft, label_smoothing=0.1)
    torch.testing.assert_close(batch.loss(logits, 0.1), smoothed)


def test_nothing_is_mixed_unless_asked():
    x, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    batch = mix(x, labels, Variation(), np.random.default_rng(0))
    assert batch.x is x
    assert batch.share == 1
    numbers = np.random.default_rng(0)
    half = Variation(cutmix_fraction=0.3, mixup_fraction=0.2)
    mixed = [mix(x, labels, half, numbers).share < 1 for _ in range(2000)]
    assert 0.46 < np.mean(mixed) < 0.54


def test_sizes_by_epoch():
    assert [TOY.size_of(epoch) for epoch in range(3)] == [32, 32, 40]
    with pytest.raises(ValueError, match="must be below 3"):
        TOY.size_of(3)
