"""Many processes at one store: killed while writing, writing at once, removing while others read.

Children are forked where that is possible: each needs SQLite and NumPy only, and importing the
rest sixteen times would take longer than the test.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest
from entries import WIDTH, entry, read_entries

from headstart.features import FeatureStore, list_cache, trim_cache

METHODS = multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("fork" if "fork" in METHODS else "spawn")
BATCH = 10
WAIT_S = 120


def start(target, *arguments):
    process = CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def join_all(processes):
    for process in processes:
        process.join(WAIT_S)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def write_and_tell(folder, start_at, done):
    """Write for ever, closing now and then; `done` is the end of what was acknowledged."""
    store = FeatureStore("a", WIDTH, folder=folder)
    number = start_at
    while True:
        store.put(entry(n) for n in range(number, number + BATCH))
        number += BATCH
        done.value = number
        if number % (7 * BATCH) == 0:
            store.close()
            store = FeatureStore("a", WIDTH, folder=folder)


def kill_after(folder, start_at, delay_s):
    """Kill a writer so long after its first entries; returns the end of what it acknowledged."""
    done = CONTEXT.Value("l", start_at, lock=False)
    writer = start(write_and_tell, folder, start_at, done)
    deadline = time.monotonic() + WAIT_S
    while done.value == start_at and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(delay_s)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(WAIT_S)
    assert writer.exitcode == -signal.SIGKILL
    return done.value


@pytest.mark.parametrize(
    "rounds", [8, pytest.param(60, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_what_a_killed_writer_was_told_is_stored_is_there(tmp_path, rounds):
    reached = 0
    for turn in range(rounds):
        reached = kill_after(tmp_path, reached, delay_s=0.0037 * (turn % 12))
        store = FeatureStore("a", WIDTH, folder=tmp_path)
        found = read_entries(store, reached + BATCH)  # the last batch may be stored and not told
        store.close()
        assert set(range(reached)) <= set(found)
        reached = max(found) + 1
    assert len(list_cache(tmp_path)) == 1


def test_a_writer_killed_while_it_begins_does_no_harm(tmp_path):
    for turn in range(6):
        done = CONTEXT.Value("l", 0, lock=False)
        writer = start(write_and_tell, tmp_path, 0, done)
        time.sleep(0.002 * turn)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(WAIT_S)
        store = FeatureStore("a", WIDTH, folder=tmp_path)
        assert set(range(done.value)) <= set(read_entries(store, done.value + BATCH))
        store.close()


def write_some(folder, gate, start_at, until):
    gate.wait(WAIT_S)
    store = FeatureStore("a", WIDTH, folder=folder)
    for number in range(start_at, until, BATCH):
        store.put(entry(n) for n in range(number, number + BATCH))
    store.close()


@pytest.mark.parametrize("writers", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_writers_at_once_lose_nothing(tmp_path, writers):
    """They begin a missing file, all at one moment; half of what they write overlaps."""
    gate = CONTEXT.Barrier(writers)
    join_all([start(write_some, tmp_path, gate, 50 * k, 50 * k + 100) for k in range(writers)])
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    assert read_entries(store, 50 * writers + 50) == list(range(50 * writers + 50))
    store.close()


def read_until_told(folder, opened, stop):
    store = FeatureStore("a", WIDTH, folder=folder)
    opened.set()
    while not stop.wait(0.001):
        assert read_entries(store, 100) == list(range(100))
    store.close()


def test_nothing_is_removed_while_another_process_reads(tmp_path):
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.put(entry(n) for n in range(100))
    store.close()
    opened, stop = CONTEXT.Event(), CONTEXT.Event()
    reader = start(read_until_told, tmp_path, opened, stop)
    assert opened.wait(WAIT_S)
    for _ in range(20):
        removal = trim_cache(0, folder=tmp_path)
        assert (removal.num_files, removal.in_use) == (0, (store.path,))
    stop.set()
    join_all([reader])
    removal = trim_cache(0, folder=tmp_path)
    assert (removal.num_files, removal.left_bytes) == (1, 0)
    assert not list((tmp_path / "features").iterdir())


def use_again_and_again(folder, turns):
    """Open, read, write, close; what this process wrote is there while it has the file open."""
    for turn in range(turns):
        store = FeatureStore("a", WIDTH, folder=folder)
        read_entries(store, 60)
        numbers = range(turn % 50, turn % 50 + BATCH)
        store.put(entry(n) for n in numbers)
        assert set(numbers) <= set(read_entries(store, 60))
        store.close()


@pytest.mark.parametrize("turns", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_removing_races_with_opening(tmp_path, turns):
    users = [start(use_again_and_again, tmp_path, turns) for _ in range(3)]
    removed = 0
    deadline = time.monotonic() + WAIT_S
    while any(user.is_alive() for user in users) and time.monotonic() < deadline:
        removed += trim_cache(0, folder=tmp_path).num_files
    join_all(users)
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    read_entries(store, 60)
    store.close()
    assert removed
