"""What is judged of a bundle's files before they are read: a stranger may have written them.

Nothing here trusts a size that a file tells of itself. A link is refused, because it may lead out
of the folder; JSON is bounded in size and depth; the header of a safetensors file is bounded and
its tensors must fill exactly the bytes behind it, so that absurd shapes cost no memory.
"""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any, TypeGuard

from headstart.errors import BundleError

MOST_JSON_BYTES = 16 << 20
MOST_HEADER_BYTES = 8 << 20
MOST_WEIGHTS_BYTES = 8 << 30
MOST_FILES = 64
MOST_TENSORS = 20_000
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F16": 16, "BF16": 16, "I16": 16, "F32": 32, "I32": 32,
         "F64": 64, "I64": 64}  # fmt: skip


def check_plain(path: Path) -> int:
    """The size of a regular file that is no link.

    Raises:
        BundleError: it is a link, a pipe or a folder.
        OSError: it cannot be looked at.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise BundleError(
            f"'{path}' is a link, which may lead out of the bundle. Copy the file itself."
        )
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"'{path}' is no regular file. Copy the bundle again.")
    return found.st_size


def read_json(path: Path) -> bytes:
    """The content of a JSON file of a bundle, if its size is one.

    Raises:
        BundleError: it is larger than any bundle's.
    """
    size = check_plain(path)
    if size > MOST_JSON_BYTES:
        raise BundleError(
            f"'{path}' has {size:,} bytes; the limit is {MOST_JSON_BYTES:,}. It is no bundle of "
            "Headstart's."
        )
    return path.read_bytes()


def check_tensors_file(path: Path) -> None:
    """Judge a safetensors file by its header, in memory bounded by `MOST_HEADER_BYTES`.

    Raises:
        BundleError: header, names, types, shapes or offsets are not those of a whole file.
    """
    size = check_plain(path)
    if size > MOST_WEIGHTS_BYTES:
        raise BundleError(f"'{path}' has {size:,} bytes; the limit is {MOST_WEIGHTS_BYTES:,}.")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_HEADER_BYTES, size - 8):
            raise BundleError(
                f"'{path}' is damaged: its header claims {length:,} bytes. Copy the bundle again."
            )
        raw = file.read(length)
    problem = header_problem(raw, size - 8 - length)
    if problem:
        raise BundleError(f"'{path}' is damaged: {problem}. Copy the bundle again.")


def header_problem(raw: bytes, data_bytes: int) -> str:
    """What is wrong with a safetensors header, '' where nothing is."""
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        return "its header is not JSON"
    if not isinstance(header, dict) or len(header) > MOST_TENSORS:
        return f"its header is no list of up to {MOST_TENSORS:,} tensors"
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        span = tensor_span(entry)
        if span is None:
            return f"its tensor {name[:80]!r} has a type, shape or place that cannot be"
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            return "its tensors overlap or leave gaps"
        end = stop
    return "" if end == data_bytes else f"its tensors take {end:,} bytes, it holds {data_bytes:,}"


def tensor_span(entry: Any) -> tuple[int, int] | None:
    """Where a tensor lies, None where its description contradicts itself."""
    if not isinstance(entry, dict):
        return None
    bits, shape, offsets = (entry.get(k) for k in ("dtype", "shape", "data_offsets"))
    if not (isinstance(bits, str) and bits in _BITS):
        return None
    if not (_whole(shape) and _whole(offsets)):
        return None
    if len(offsets) != 2 or len(shape) > 8:
        return None
    start, stop = offsets
    right = stop - start == math.prod(shape) * _BITS[bits] // 8
    return (start, stop) if right else None


def _whole(values: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of integers that a 64-bit size can hold."""
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)
