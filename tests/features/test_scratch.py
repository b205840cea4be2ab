"""Arrays larger than memory: the rule when they are mapped, full disks, what is left behind."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import StorageError, UsageError
from headstart.features import cache_folder, new_array, scratch, scratch_array, take_rows
from headstart.features.scratch import MEMORY_VARIABLE, memory_bytes


def is_mapped(array) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


def test_an_array_above_an_eighth_of_the_memory_is_mapped(monkeypatch):
    monkeypatch.setenv(MEMORY_VARIABLE, "8KB")
    for count, mapped in ((500, False), (501, True)):
        array = new_array((count,), np.float16)
        assert is_mapped(array) is mapped
        assert array.shape == (count,)
        assert not array.any()
        assert array.ctypes.data % 64 == 0  # products sum in the same order in both
    monkeypatch.setenv(MEMORY_VARIABLE, "unlimited")
    assert not is_mapped(new_array((501,), np.float16))


def test_the_memory_is_the_smallest_of_what_anything_allows(monkeypatch):
    monkeypatch.delenv(MEMORY_VARIABLE, raising=False)
    monkeypatch.setattr(scratch, "physical_bytes", lambda: 100)
    for groups, process, expected in (([], [], 100), ([90, 120], [], 90), ([90], [80, 95], 80)):
        monkeypatch.setattr(scratch, "memory_limits", lambda groups=groups: groups)
        monkeypatch.setattr(scratch, "process_limits", lambda process=process: process)
        assert memory_bytes() == expected
    monkeypatch.setenv(MEMORY_VARIABLE, "1.5GiB")
    assert memory_bytes() == 1.5 * 2**30
    monkeypatch.setenv(MEMORY_VARIABLE, "much")
    with pytest.raises(UsageError, match=r"HEADSTART_MEMORY must be a size .* 'much'"):
        memory_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
@pytest.mark.parametrize("kind", ["RLIMIT_DATA", "RLIMIT_AS"])
def test_limits_of_the_shell_count(monkeypatch, kind):
    import resource

    own = getattr(resource, kind)
    monkeypatch.setattr(
        resource, "getrlimit", lambda asked: (7 if asked == own else resource.RLIM_INFINITY, 9)
    )
    assert scratch.process_limits() == [7]


def test_scratch_files_have_no_name_and_lie_in_a_private_folder(own_cache):
    array = scratch_array((4, 5), np.int16)
    array[:] = 7
    assert (array == 7).all()
    folder = cache_folder() / "scratch"
    assert folder.parent == own_cache
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(folder.iterdir())


def test_a_disk_too_small_is_said(monkeypatch):
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: type("Use", (), {"free": 10}))
    with pytest.raises(StorageError, match="do not fit"):
        scratch_array((4, 5), np.int16)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_a_disk_that_refuses_is_one_sentence_and_no_crash():
    """Room that is not taken beforehand would be missed at the first write, by a signal."""
    code = (
        "import resource, numpy as np\n"
        "from headstart.errors import StorageError\n"
        "from headstart.features.scratch import scratch_array\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n"
        "    scratch_array((20_000,), np.uint8)[:] = 1\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "The disk is full" in done.stdout


@given(st.lists(st.integers(0, 19), max_size=30))
def test_rows_are_taken_as_numpy_takes_them(rows):
    values = np.arange(60, dtype=np.float16).reshape(20, 3)
    index = np.array(rows, dtype=np.int64)
    assert np.array_equal(take_rows(values, index), values[index])


def test_rows_in_a_row_are_not_copied(monkeypatch):
    values = np.arange(60, dtype=np.float16).reshape(20, 3)
    assert np.shares_memory(take_rows(values, np.arange(20)), values)
    assert np.shares_memory(take_rows(values, np.arange(3, 9)), values)
    assert not np.shares_memory(take_rows(values, np.array([3, 5])), values)
    monkeypatch.setattr(scratch, "COPIED_BYTES", 13)  # two rows at a time
    rows = np.random.default_rng(0).permutation(20)
    assert np.array_equal(take_rows(values, rows), values[rows])
