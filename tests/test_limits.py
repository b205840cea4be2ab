"""What a container may use, read from the files of its control groups."""

from __future__ import annotations

import os

import pytest
import torch

from headstart import runtime
from headstart.limits import memory_limits, usable_cores


def groups(folder, membership, files):
    """A process's list of groups, and their files below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    lines = folder / "cgroup"
    if membership is not None:
        lines.write_text(membership)
    return lines, folder


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "500", "a/memory.max": "400"}, [500, 400]),
        ("0::/a\n", {"a/memory.max": "max", "memory.max": "300"}, [300]),
        ("4:cpu,memory:/out/of/sight\n", {"memory/memory.limit_in_bytes": "200"}, [200]),
        ("4:cpu:/a\n1:name=systemd:/a:b\n", {"a/memory.max": "1"}, []),
        (None, {}, []),
    ],
    ids=["nested", "no limit of its own", "version 1, container", "others", "no groups"],
)
def test_limits_of_the_memory(tmp_path, membership, files, expected):
    assert memory_limits(*groups(tmp_path, membership, files)) == expected


V1 = {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("3:cpu,cpuacct:/out/of/sight\n", V1, 2),
        ("3:cpu:/\n", {**V1, "cpu/cpu.cfs_quota_us": "-1"}, 64),
        ("0::/a\n", {"a/cpu.max": "100000 0", "cpu.max": "nonsense"}, 64),
        ("0::/a\n", {"a/cpu.max": "9900000 100000"}, 64),
        (None, {}, 64),
    ],
    ids=["group around", "half a core", "version 1", "no quota", "odd", "more", "no groups"],
)
def test_usable_cores(tmp_path, monkeypatch, membership, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(64)), raising=False)
    assert usable_cores(*groups(tmp_path, membership, files)) == expected


def test_torch_takes_no_more_threads_than_there_are_cores(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(runtime, "usable_cores", lambda: 3)
    try:
        torch.set_num_threads(5)
        assert runtime.choose_execution("cpu").threads == 3
        torch.set_num_threads(2)
        assert runtime.choose_execution("cpu").threads == 2
    finally:
        torch.set_num_threads(before)
