"""Damage anywhere in a store's files: nothing wrong is ever read, and the work goes on."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from entries import WIDTH, entry, read_entries

from headstart.features import FeatureStore, list_cache, passes

COUNT = 300
LOGS = ("", "-wal", "-shm")
SEEDS, MANY_SEEDS = range(60), range(60, 600)


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    """A closed store's file; and what a killed writer leaves: the file, its log, its index."""
    root = tmp_path_factory.mktemp("snapshots")
    closed, killed = root / "closed", root / "killed"
    closed.mkdir()
    killed.mkdir()
    store = FeatureStore("a", WIDTH, folder=root)
    store.put(entry(n) for n in range(200))
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.put(entry(n) for n in range(200, COUNT))
    for suffix in LOGS:
        shutil.copy(f"{store.path}{suffix}", killed)
    store.close()
    shutil.copy(store.path, closed)
    return closed, killed


def damage(path: Path, dice: random.Random) -> None:
    """Flip bits, write rubbish or zeros over a part, or cut the file off."""
    raw = bytearray(path.read_bytes())
    kind = dice.choice(["bits", "header", "rubbish", "zeros", "cut"])
    start = dice.randrange(len(raw))
    if kind in ("bits", "header"):
        reach = min(112, len(raw)) if kind == "header" else len(raw)
        for _ in range(dice.choice([1, 1, 3, 20])):
            raw[dice.randrange(reach)] ^= 1 << dice.randrange(8)
    elif kind == "cut":
        del raw[start:]
    else:
        stop = min(len(raw), start + dice.choice([4, 64, 600, 20_000]))
        raw[start:stop] = dice.randbytes(stop - start) if kind == "rubbish" else bytes(stop - start)
    path.write_bytes(raw)


def damaged_store(folder: Path, snapshots, seed: int) -> Path:
    dice = random.Random(seed)
    snapshot = dice.choice(snapshots)
    target = folder / "features"
    shutil.copytree(snapshot, target)
    damage(dice.choice(sorted(target.iterdir())), dice)
    return folder


@pytest.mark.parametrize("seeds", [SEEDS, pytest.param(MANY_SEEDS, marks=pytest.mark.slow)])
def test_damage_never_gives_wrong_features(tmp_path, snapshots, seeds):
    whole = found_some = 0
    for seed in seeds:
        folder = damaged_store(tmp_path / str(seed), snapshots, seed)
        list_cache(folder)
        store = FeatureStore("a", WIDTH, folder=folder)
        known = read_entries(store, COUNT)
        store.put(entry(n) for n in range(COUNT) if n not in known)
        store.close()
        store = FeatureStore("a", WIDTH, folder=folder)
        whole += len(read_entries(store, COUNT)) == COUNT
        found_some += 0 < len(known) < COUNT
        store.close()
    assert whole >= 0.9 * len(seeds)  # a lost index entry can hide a row, which is computed again
    assert found_some >= 0.1 * len(seeds)


def test_the_undamaged_snapshots_are_whole(tmp_path, snapshots):
    """Otherwise the test above would look at nothing."""
    for snapshot in snapshots:
        shutil.copytree(snapshot, tmp_path / snapshot.name / "features")
        store = FeatureStore("a", WIDTH, folder=tmp_path / snapshot.name)
        assert len(read_entries(store, COUNT)) == COUNT
        store.close()


def test_what_was_whole_in_a_damaged_file_stays(tmp_path):
    notes = []
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.put(entry(n) for n in range(COUNT))
    store.close()
    raw = bytearray(store.path.read_bytes())
    raw[-(2 * 16384) :] = b"\xff" * 2 * 16384
    store.path.write_bytes(raw)
    store = FeatureStore("a", WIDTH, folder=tmp_path, note=notes.append)
    known = read_entries(store, COUNT)
    store.close()
    assert "was damaged; it is begun anew" in "".join(notes)
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    assert read_entries(store, COUNT) == known
    store.close()


def test_what_was_read_in_parts_before_the_damage_stays(tmp_path, monkeypatch):
    """A file is found damaged while its third part is read; the new one gets the first two too."""
    monkeypatch.setattr(passes, "READ_ROWS", 50)
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.put(entry(n) for n in range(COUNT))
    store.close()
    raw = bytearray(store.path.read_bytes())
    raw[-(2 * 16384) :] = b"\xff" * 2 * 16384
    store.path.write_bytes(raw)
    notes = []
    store = FeatureStore("a", WIDTH, folder=tmp_path, note=notes.append)
    values = np.zeros((COUNT, WIDTH), dtype=np.float16)
    found = passes.read_back(store, {n: entry(n)[0] for n in range(COUNT)}, values)
    store.close()
    assert len(notes) == 1
    assert 100 <= len(found) < COUNT
    for row, facts in found.items():
        assert np.array_equal(values[row], entry(row)[1])
        assert facts == entry(row)[2]
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    assert read_entries(store, COUNT) == sorted(found)
    store.close()


def test_a_damaged_file_in_use_is_left_alone(tmp_path):
    """Removing it would leave its other user a log that the next file takes for its own."""
    other = FeatureStore("a", WIDTH, folder=tmp_path)
    other.put(entry(n) for n in range(COUNT))
    other.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with other.path.open("r+b") as file:
        file.write(b"\xff" * 100)
    notes = []
    store = FeatureStore("a", WIDTH, folder=tmp_path, note=notes.append)
    assert read_entries(store, COUNT) == []
    store.put([entry(1)])
    store.close()
    assert len(notes) == 1
    assert "another process has it open: what is computed now is not stored" in notes[0]
    other.close()
    store = FeatureStore("a", WIDTH, folder=tmp_path, note=notes.append)
    store.put([entry(1)])
    assert read_entries(store, COUNT) == [1]
    assert "begun anew" in notes[1]
    store.close()


def test_a_file_under_another_name_gives_nothing(tmp_path):
    """Its rows are whole, but of another network: the checksum knows whose they are."""
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.put(entry(n) for n in range(50))
    store.close()
    other = FeatureStore("b", WIDTH, folder=tmp_path)
    other.close()
    shutil.copy(store.path, other.path)
    other = FeatureStore("b", WIDTH, folder=tmp_path)
    assert read_entries(other, 50) == []
    other.put(entry(n) for n in range(50))
    assert len(read_entries(other, 50)) == 50
    other.close()
