"""The store: nothing wrong is ever read, whoever writes and however they end."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from entries import WIDTH, check_entries, entry

from headstart.errors import OutputError, StorageError
from headstart.features import FeatureStore, cache_folder, clear_cache, list_cache
from headstart.features.folder import is_damage


def test_what_was_put_is_found(tmp_path):
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.put(entry(n) for n in range(1200))
    store.close()
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    found = store.get([entry(n)[0] for n in range(1300)])
    assert len(found) == 1200
    check_entries(found, range(1200))


def test_another_identity_is_another_file(tmp_path):
    FeatureStore("a", WIDTH, folder=tmp_path).put([entry(1)])
    assert FeatureStore("b", WIDTH, folder=tmp_path).get([entry(1)[0]]) == {}
    assert [e.identity for e in list_cache(tmp_path)] in (["a", "b"], ["b", "a"])


def test_the_folder_is_private(tmp_path):
    FeatureStore("a", WIDTH, folder=tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "cache" / "features").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("column", ["vector", "facts", "checksum"])
def test_a_damaged_row_counts_as_missing(tmp_path, column):
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.put([entry(1), entry(2)])
    value = {"vector": b"\1" * 2 * WIDTH, "facts": b"[]", "checksum": 5}[column]
    with store.connection:
        store.connection.execute(
            f"UPDATE features SET {column} = ? WHERE digest = ?", (value, entry(1)[0])
        )
    found = store.get([entry(1)[0], entry(2)[0]])
    assert list(found) == [entry(2)[0]]
    store.put([entry(1)])
    check_entries(store.get([entry(1)[0]]), [1])


def test_a_file_of_rubbish_is_begun_anew(tmp_path):
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.close()
    for suffix in ("", "-wal", "-shm"):
        path = store.path.with_name(store.path.name + suffix)
        path.unlink(missing_ok=True)
    store.path.write_bytes(b"rubbish" * 1000)
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.put([entry(3)])
    check_entries(store.get([entry(3)[0]]), [3])


def test_a_full_disk_is_one_sentence(tmp_path):
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.put([entry(1)])
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="full"):
        store.put(entry(n) for n in range(2, 5000))
    check_entries(store.get([entry(1)[0]]), [1])


def test_using_a_closed_store_is_a_defect_and_costs_nothing(tmp_path):
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.put([entry(1)])
    store.close()
    for use in (lambda: store.get([entry(1)[0]]), lambda: store.put([entry(2)])):
        with pytest.raises(RuntimeError, match="used wrongly"):
            use()
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    check_entries(store.get([entry(1)[0]]), [1])


def test_names_of_pictures_are_not_kept(tmp_path):
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    digest, vector, facts = entry(1)
    store.put([(digest, vector, replace(facts, path="Doe_John/1970-01-01.png"))])
    assert store.get([digest])[digest][1] == facts
    store.close()
    assert b"Doe" not in store.path.read_bytes()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be made or written.* Set HEADSTART_CACHE to"):
        FeatureStore("a", WIDTH, folder=tmp_path / "file" / "cache")


def test_a_lost_race_for_a_lock_is_no_damage():
    error = sqlite3.OperationalError("locking protocol")
    error.sqlite_errorcode = sqlite3.SQLITE_PROTOCOL
    assert not is_damage(error, Path("a"))
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert is_damage(error, Path("a"))


def test_a_home_is_found_however_it_is_written(monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", "~/features")
    assert cache_folder() == Path.home() / "features"


def test_clearing_frees_the_files(tmp_path):
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.put(entry(n) for n in range(100))
    store.close()
    assert list_cache(tmp_path)[0].num_images == 100
    assert clear_cache(tmp_path).num_bytes > 0
    assert list_cache(tmp_path) == []


def test_rows_are_where_the_tests_think(tmp_path):
    store = FeatureStore("a", WIDTH, folder=tmp_path)
    store.put([entry(1)])
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT digest FROM features").fetchall() == [(entry(1)[0],)]
