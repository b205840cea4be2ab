"""What this process may use of the machine: cores, and what control groups allow of the memory.

A container's share of a machine stands in the files of its control groups (Linux): the cores that
it may run on are seen by everybody, the time that it may use of them (`docker run --cpus 2`) is
seen only there. Loads no torch: decoder processes ask, too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP, ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def usable_cores(membership: Path = MEMBERSHIP, root: Path = ROOT) -> int:
    """Cores' worth of time that this process may use, 1 or more.

    Args:
        membership: lines `number:controllers:path` of the process's groups.
        root: where their files are.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    shares = [math.ceil(share) for share in cpu_shares(membership, root)]
    return max(1, min([cores, *shares]))


def cpu_shares(membership: Path = MEMBERSHIP, root: Path = ROOT) -> list[float]:
    """How many cores' time the control groups allow; arguments as of `usable_cores`."""
    pairs = []
    for place in group_folders("cpu", membership, root):
        pairs.append(read_words(place / "cpu.max"))
        old = (place / "cpu.cfs_quota_us", place / "cpu.cfs_period_us")
        pairs.append([word for path in old for word in read_words(path)])
    return [
        int(pair[0]) / int(pair[1])  # time of a period, and the period
        for pair in pairs
        if len(pair) == 2 and all(map(str.isdigit, pair)) and int(pair[1])  # not 'max' or '-1'
    ]


def memory_limits(membership: Path = MEMBERSHIP, root: Path = ROOT) -> list[int]:
    """Bytes that the control groups allow; arguments as of `usable_cores`."""
    return [
        int(words[0])
        for place in group_folders("memory", membership, root)
        for name in ("memory.max", "memory.limit_in_bytes")
        if len(words := read_words(place / name)) == 1 and words[0].isdigit()
    ]


def group_folders(controller: str, membership: Path, root: Path) -> Iterator[Path]:
    """Folders of the groups that limit something, from the innermost out (versions 1 and 2).

    Inside a container some are out of sight; they are named all the same.

    Args:
        controller: 'cpu' or 'memory'.
        membership: as of `usable_cores`.
        root: likewise.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top = root
        elif controller in controllers.split(","):
            top = root / controller
        else:
            continue
        group = top / path.lstrip("/")
        yield from (place for place in (group, *group.parents) if place.is_relative_to(top))


def read_words(path: Path) -> list[str]:
    """The words of a small file; none where it is not there."""
    try:
        return path.read_text().split()
    except (OSError, UnicodeDecodeError):
        return []
