"""The limit of the store: what was not used for longest goes, and nothing that is in use."""

from __future__ import annotations

import math
import os
import shutil
import time
from types import SimpleNamespace

import pytest
from entries import WIDTH, check_entries, entry

from headstart.errors import UsageError
from headstart.features import (
    FeatureStore,
    clear_cache,
    folder,
    limit_bytes,
    list_cache,
    trim_cache,
)
from headstart.features.cache import DEFAULT_BYTES, SIZE_VARIABLE, count_stored, parse_size
from headstart.features.folder import last_use, lock_path, remove_store, store_path

COUNT = 500


def fill(name, folder, *, hours_ago=0.0, count=COUNT, note=lambda _: None):
    store = FeatureStore(name, WIDTH, folder=folder, note=note)
    store.put(entry(n) for n in range(count))
    store.close()
    if hours_ago:
        moment = time.time() - 3600 * hours_ago
        os.utime(lock_path(store.path), (moment, moment))
    return store.path.stat().st_size


def names(folder):
    return [found.identity for found in list_cache(folder)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20GB", 20e9), ("20 gb", 20e9), ("1.5GiB", 1.5 * 2**30), ("500M", 500e6),
        ("2TB", 2e12), ("64 KiB", 65536), ("123", 123), ("0", 0), ("unlimited", math.inf),
    ],
)  # fmt: skip
def test_sizes(text, expected):
    assert parse_size(text, "--limit") == expected


@pytest.mark.parametrize("text", ["", "much", "-5GB", "5XB", "5iB", "1e9", "GB", "nan", "5 G B"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match=r"--limit must be a size such as 20GB.*, got"):
        parse_size(text, "--limit")


def test_a_wrong_limit_stops_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv(SIZE_VARIABLE, "plenty")
    with pytest.raises(UsageError, match="HEADSTART_CACHE_SIZE must be a size"):
        FeatureStore("a", WIDTH, folder=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_the_default_limit_is_at_most_a_tenth_of_the_disk(tmp_path, monkeypatch):
    monkeypatch.delenv(SIZE_VARIABLE, raising=False)
    for total, expected in ((10**12, DEFAULT_BYTES), (10**10, 10**9)):
        usage = SimpleNamespace(total=total)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        assert limit_bytes(tmp_path / "not" / "there") == expected


def test_writing_removes_what_was_not_used_for_longest(tmp_path, monkeypatch):
    size = fill("old", tmp_path, hours_ago=3)
    fill("older", tmp_path, hours_ago=5)
    fill("recent", tmp_path, hours_ago=1)
    assert names(tmp_path) == ["recent", "old", "older"]
    monkeypatch.setenv(SIZE_VARIABLE, str(3 * size))
    notes = []
    fill("new", tmp_path, note=notes.append)
    assert names(tmp_path) == ["new", "recent", "old"]
    assert len(notes) == 1
    assert "the 1 least recently used of its files went" in notes[0]
    held = sum(path.stat().st_size for path in (tmp_path / "features").iterdir())
    assert held == 3 * size


def test_reading_counts_as_use_and_removes_nothing(tmp_path, monkeypatch):
    size = fill("old", tmp_path, hours_ago=5)
    fill("other", tmp_path, hours_ago=3)
    monkeypatch.setenv(SIZE_VARIABLE, str(size))
    store = FeatureStore("old", WIDTH, folder=tmp_path)
    check_entries(store.get([entry(1)[0]]), [1])
    store.put([])
    store.close()
    assert names(tmp_path) == ["old", "other"]
    monkeypatch.delenv(SIZE_VARIABLE)
    assert trim_cache(size, folder=tmp_path).num_files == 1
    assert names(tmp_path) == ["old"]


def test_looking_is_no_use(tmp_path):
    fill("old", tmp_path, hours_ago=5)
    before = list_cache(tmp_path)
    assert list_cache(tmp_path) == before
    assert time.time() - before[0].last_used > 4 * 3600


def test_the_file_in_use_stays_above_the_limit_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv(SIZE_VARIABLE, "10KB")
    notes = []
    fill("a", tmp_path, note=notes.append)
    assert names(tmp_path) == ["a"]
    assert len(notes) == 1
    assert "above its limit of 0.0 MB, because of this network and view" in notes[0]


def test_files_that_are_open_stay(tmp_path):
    fill("a", tmp_path, hours_ago=2)
    fill("b", tmp_path, hours_ago=1)
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    for remove in (lambda: trim_cache(0, folder=tmp_path), lambda: clear_cache(tmp_path)):
        removal = remove()
        assert removal.in_use == (store.path,)
        assert removal.left_bytes > 0
        assert names(tmp_path) == ["a"]
    check_entries(store.get([entry(7)[0]]), [7])
    store.close()
    assert clear_cache(tmp_path).in_use == ()
    assert not list((tmp_path / "features").iterdir())


def test_clearing_takes_logs_without_a_file_and_old_scratch_files(tmp_path):
    fill("a", tmp_path)
    stray = store_path("gone", tmp_path)
    for suffix in ("-wal", "-shm"):
        stray.with_name(stray.name + suffix).write_bytes(b"log")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "activations-left").write_bytes(bytes(1000))
    (scratch / "activations-now").write_bytes(bytes(1000))
    os.utime(scratch / "activations-left", (1, 1))
    clear_cache(tmp_path)
    assert not list((tmp_path / "features").iterdir())
    assert [path.name for path in scratch.iterdir()] == ["activations-now"]


def test_a_file_of_an_older_version_is_shown_and_goes_first(tmp_path):
    import sqlite3

    fill("new", tmp_path)
    old = tmp_path / "features" / f"{'0' * 32}.sqlite"
    with sqlite3.connect(old) as connection:
        connection.execute("CREATE TABLE features (digest TEXT PRIMARY KEY) WITHOUT ROWID")
        connection.execute("CREATE TABLE about (identity TEXT)")
        connection.execute("INSERT INTO about VALUES ('before')")
    connection.close()
    os.utime(old, (10, 10))
    assert names(tmp_path) == ["new", "before"]
    assert not lock_path(old).exists()
    trim_cache(store_path("new", tmp_path).stat().st_size, folder=tmp_path)
    assert names(tmp_path) == ["new"]


def test_who_comes_late_to_a_removal_leaves_the_new_file_alone(tmp_path, monkeypatch):
    """It has opened the lock of a file that another removes and a third begins anew."""
    fill("a", tmp_path)
    path, taken = store_path("a", tmp_path), folder.take_lock

    def late(lock):
        monkeypatch.setattr(folder, "take_lock", taken)
        assert remove_store(path)  # the faster one
        fill("a", tmp_path)
        return taken(lock)

    monkeypatch.setattr(folder, "take_lock", late)
    assert remove_store(path) is None
    assert list_cache(tmp_path)[0].num_images == COUNT


def test_counting_changes_nothing(tmp_path):
    fill("a", tmp_path, hours_ago=2)
    path = store_path("a", tmp_path)
    used = last_use(path)
    assert count_stored(path, [entry(n)[0] for n in range(COUNT - 10, COUNT + 700)]) == 10
    assert last_use(path) == used
    path.write_bytes(b"rubbish" * 1000)
    assert count_stored(path, [entry(0)[0]]) == 0
    assert path.read_bytes() == b"rubbish" * 1000
    assert count_stored(store_path("b", tmp_path), ["x"]) == 0
    assert not store_path("b", tmp_path).exists()
