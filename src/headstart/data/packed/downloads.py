"""Checked downloads of the published files, where a network is.

Addresses and MD5 sums are torchvision's; the transfer is done here, because it must have a time
limit, appear whole or not at all, and stay with the address it was given (torchvision goes on
without encryption where encryption fails). MD5 tells a damaged file, it is no proof of origin:
nothing that is fetched is run, and pickles are read by a reader that knows arrays only.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headstart.errors import DataError
from headstart.files import make_folder, write_whole

TIMEOUT_S = 10.0
OFFLINE_VARIABLES = ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE")
DATA_VARIABLE = "HEADSTART_DATA"
_CHUNK_BYTES = 1 << 20
_FETCHING: ContextVar[bool] = ContextVar("fetching", default=True)
_YES = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: what it is called.
        urls: addresses, tried in order.
        md5: of its content, hexadecimal.
    """

    name: str
    urls: tuple[str, ...]
    md5: str


def is_offline() -> str:
    """The variable that forbids downloads, '' where none does."""
    asked = (name for name in OFFLINE_VARIABLES if os.environ.get(name, "").casefold() in _YES)
    return next(asked, "")


@contextmanager
def at_hand_only() -> Iterator[None]:
    """Whoever only looks at pictures takes what is there, and downloads nothing meanwhile."""
    before = _FETCHING.set(False)
    try:
        yield
    finally:
        _FETCHING.reset(before)


def find_file(name: str, *files: str) -> Path | None:
    """The first of these files that is at hand for a data set, None where none is."""
    candidates = (place / file for file in files for place in places(name))
    return next((path for path in candidates if path.is_file()), None)


def places(name: str) -> list[Path]:
    """Where the files of a data set may lie: `$HEADSTART_DATA/NAME`, then the user's cache."""
    root = os.environ.get(DATA_VARIABLE)
    chosen = os.environ.get("HEADSTART_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    own = (Path(base) if base else Path.home() / ".cache") / "headstart"
    cache = (Path(chosen) if chosen else own) / "data" / name
    return [Path(root).expanduser() / name, cache] if root else [cache]


def fetch_files(name: str, missing: Sequence[str]) -> None:
    """Download published files that are not at hand, checked, each one whole.

    Args:
        name: of the data set.
        missing: names of the files, as published.

    Raises:
        DataError: no network, a wrong sum, or downloads are forbidden.
        StorageError: the disk is full.
    """
    if not missing:
        return
    forbidden = is_offline()
    if forbidden:
        raise DataError(advice(name, missing, f"{forbidden} forbids to download them"))
    if not _FETCHING.get():
        raise DataError(advice(name, missing, "what only looks at them downloads nothing"))
    remote = {file.name: file for file in published_files(name)}
    for file in missing:
        if file not in remote:
            raise DataError(advice(name, missing, "they are not published for download"))
        content, problem = _first_good(remote[file])
        if content is None:
            raise DataError(advice(name, missing, problem))
        folder = _writable_place(name)
        make_folder(folder)
        write_whole(folder / file, partial(_write_bytes, content))


def published_files(name: str) -> list[RemoteFile]:
    """What torchvision knows of a data set's files: addresses and MD5 sums."""
    from torchvision import datasets

    if name == "cifar10":
        source = datasets.CIFAR10
        return [RemoteFile(name=source.filename, urls=(source.url,), md5=source.tgz_md5)]
    sources = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}
    if name not in sources:
        return []
    mirrors = sources[name].mirrors
    return [
        RemoteFile(name=file, urls=tuple(mirror + file for mirror in mirrors), md5=md5)
        for file, md5 in sources[name].resources
    ]


def advice(name: str, missing: Sequence[str], problem: str) -> str:
    """The sentence for a data set that is not at hand: what to put where."""
    root = os.environ.get(DATA_VARIABLE)
    where = f"'{places(name)[0]}'" if root else f"the folder '{name}' of {DATA_VARIABLE}"
    state = f"{DATA_VARIABLE} is '{root}'" if root else f"{DATA_VARIABLE} is not set"
    return (
        f"The data set '{name}' is not at hand: {', '.join(missing)} must be in {where}; {state}, "
        f"and {problem}. Put the files there, or point {DATA_VARIABLE} to the folder above "
        f"'{name}'."
    )


def _writable_place(name: str) -> Path:
    """The first place that can be written to, else the last."""
    candidates = places(name)
    for place in candidates:
        existing = next(parent for parent in (place, *place.parents) if parent.exists())
        if os.access(existing, os.W_OK):
            return place
    return candidates[-1]


def _write_bytes(content: bytes, aside: Path) -> None:
    aside.write_bytes(content)


def _first_good(file: RemoteFile) -> tuple[bytes | None, str]:
    """The content from the first address that gives the right one, else why none does."""
    problem = "no address is known"
    for url in file.urls:
        try:
            content = _download(url)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            problem = f"{url} cannot be reached ({reason})"
            continue
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == file.md5:
            return content, ""
        problem = f"what {url} gave is damaged: its MD5 is not {file.md5}"
    return None, problem


def _download(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "headstart"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        chunks = []
        while chunk := response.read(_CHUNK_BYTES):
            chunks.append(chunk)
        return b"".join(chunks)
