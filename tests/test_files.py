import csv
import errno
import json
import multiprocessing
import os
import sys

import pytest

from headstart import files
from headstart.errors import OutputError, StorageError


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def fill(aside):
        aside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"disk is full.*a\.txt"):
        files.write_whole(path, fill)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_written_files_have_ordinary_permissions(tmp_path):
    files.write_text(tmp_path / "a.txt", "x")
    expected = 0o666 & ~files.current_umask()
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == expected


def test_json_has_no_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": float("nan"), "b": [float("inf"), 1.5], 3: (1,)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [None, 1.5], "3": [1]}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_formula_cells_are_neutralised(tmp_path, text):
    files.write_csv(tmp_path / "a.csv", ["name", text], [[text, -1.5], ["plain", 2]])
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    safe = "'" + text.replace("\r", "\\r")
    assert rows == [["name", safe], [safe, "-1.5"], ["plain", "2"]]


def test_digest_keeps_parts_apart():
    assert files.digest_bytes(b"ab", b"c") != files.digest_bytes(b"a", b"bc")
    assert files.digest_bytes(b"ab", b"c") == files.digest_bytes(b"ab", b"c")


def hold(folder, ready, leave):
    with files.locked(folder):
        ready.set()
        leave.wait(30)


def test_a_folder_has_one_owner(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready, leave))
    process.start()
    assert ready.wait(60)
    with pytest.raises(OutputError, match="in use by another"), files.locked(tmp_path):
        pass
    leave.set()
    process.join(30)
    with files.locked(tmp_path):
        pass


def test_private_folders_are_private(tmp_path):
    files.make_folder(tmp_path / "a", private=True)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_a_folder_under_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written to"):
        files.make_folder(tmp_path / "file" / "below")


def test_a_private_folder_that_was_open_is_closed(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    files.make_folder(tmp_path / "open", private=True)
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform == "win32", reason="another way to lock")
def test_a_disk_without_locks_is_told_from_one_in_use(tmp_path, monkeypatch):
    import fcntl

    def unknown(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with pytest.raises(OutputError, match="knows no locks"), files.locked(tmp_path):
        pass
