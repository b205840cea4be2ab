"""Arrays that may be larger than the memory: ordinary ones, or files that go with the process.

Rule. One array of more than an eighth of the memory that this process may use lies in a mapped
file; a run has a few such arrays at a time, so that about half of the memory is left. The memory is
`HEADSTART_MEMORY`, else the smallest of what the machine has, what its control groups allow and
what `ulimit` allows. The rule never changes a figure: both are the same bytes, computed by the same
steps in the same order.

The system keeps as much of a mapped file in memory as there is room for, and writes back the rest.
So whoever reads or fills such an array goes through its rows in order.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import StorageError
from headstart.features.cache import describe_bytes, parse_size
from headstart.features.folder import CACHE_VARIABLE, cache_folder, make_cache_folder
from headstart.files import storage_errors
from headstart.limits import memory_limits
from headstart.records import Integers

MEMORY_VARIABLE = "HEADSTART_MEMORY"
LARGEST_MEMORY_FRACTION = 1 / 8
ASSUMED_BYTES = 8 * 2**30  # where the system does not tell
ALIGNMENT = 64
COPIED_BYTES = 2**24  # rows of so many bytes are copied at a time

Array = npt.NDArray[Any]


def new_array(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An array of zeros, in a mapped file where the rule says so.

    Raises:
        StorageError: the disk has no room for that file.
        UsageError: `HEADSTART_MEMORY` is no size.
    """
    num_bytes = array_bytes(shape, dtype)
    if num_bytes > largest_in_memory():
        return scratch_array(shape, dtype)
    # Aligned as mapped files are: elsewhere a product of matrices may sum in another order.
    raw = np.zeros(num_bytes + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + num_bytes].view(dtype).reshape(shape)


def take_rows(values: Array, rows: Integers) -> Array:
    """Some rows of an array; a view where they follow one another, else a copy by `new_array`.

    Args:
        values: (N, ...).
        rows: (n,) indices, 0 or more.
    """
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return values[rows[0] : rows[0] + len(rows)]
    taken = new_array((len(rows), *values.shape[1:]), values.dtype)
    for part in row_slices(taken):
        taken[part] = values[rows[part]]
    return taken


def row_slices(values: Array) -> Iterator[slice]:
    """Consecutive slices that cover the rows of an array, each of about `COPIED_BYTES`."""
    size = max(1, COPIED_BYTES // max(1, array_bytes(values.shape[1:], values.dtype)))
    return (slice(start, start + size) for start in range(0, len(values), size))


def array_bytes(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Bytes of such an array."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def largest_in_memory() -> float:
    """Bytes of the largest array that is not mapped.

    Raises:
        UsageError: `HEADSTART_MEMORY` is no size.
    """
    return LARGEST_MEMORY_FRACTION * memory_bytes()


def announced_files(num_bytes: int) -> str | None:
    """What to tell before the work begins, where the largest array of a run has so many bytes.

    Raises:
        UsageError: `HEADSTART_MEMORY` is no size.
    """
    if num_bytes <= largest_in_memory():
        return None
    return (
        f"arrays of more than {describe_bytes(largest_in_memory())}, an eighth of "
        f"{describe_bytes(memory_bytes())}, lie in files below '{cache_folder()}' "
        f"({MEMORY_VARIABLE} names another amount)"
    )


def memory_bytes() -> float:
    """The memory that this process may use; infinite where the user says 'unlimited'.

    Raises:
        UsageError: `HEADSTART_MEMORY` is no size.
    """
    chosen = os.environ.get(MEMORY_VARIABLE)
    if chosen:
        return parse_size(chosen, MEMORY_VARIABLE)
    return float(min([physical_bytes(), *memory_limits(), *process_limits()]))


def physical_bytes() -> int:
    """What the machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return ASSUMED_BYTES


def process_limits() -> list[int]:
    """What `ulimit -d` and `ulimit -v` allow; nothing where they are unlimited."""
    if sys.platform == "win32":
        return []
    import resource

    soft = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    return [limit for limit in soft if limit != resource.RLIM_INFINITY]


def scratch_array(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An array of zeros in a file of the cache folder that goes with the process, however it ends.

    The file has no name where the system allows it, so a killed process leaves nothing behind. Its
    room on the disk is taken first: a disk that is full later would kill the process.

    Raises:
        StorageError: the disk has no room.
    """
    folder = cache_folder() / "scratch"
    make_cache_folder(folder)
    num_bytes, free = max(array_bytes(shape, dtype), 1), shutil.disk_usage(folder).free
    if num_bytes > free:
        raise StorageError(
            f"{num_bytes / 2**30:.2f} GiB do not fit into '{folder}', which has "
            f"{free / 2**30:.2f} GiB left. Free some space, or set {CACHE_VARIABLE} to another "
            "folder."
        )
    with storage_errors(folder), tempfile.TemporaryFile(dir=folder, prefix="array-") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        else:
            file.truncate(num_bytes)
        return np.asarray(np.memmap(file, dtype=dtype, mode="r+", shape=shape))
