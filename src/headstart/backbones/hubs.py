"""Downloads: timm's weights from the Hugging Face hub, torchvision's from its own address.

Both keep the places and names of those libraries' own caches, so that what one program has
fetched the other finds. Every download is compared with the SHA-256 that its source states, and
a source that does not answer is given up within seconds.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.backbones.weights import WEIGHTS_VARIABLE
from headstart.errors import WeightsError
from headstart.files import digest_file, make_folder, write_whole
from headstart.progress import for_terminal

TIMEOUT_S = 5
HUB_FILE = "model.safetensors"
CHUNK_BYTES = 1 << 20
# Read by the hub's client when it is imported, which timm does too.
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(TIMEOUT_S))
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(TIMEOUT_S))
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def cached_file(source: str) -> Path | None:
    """The weights of a hub's name or an address where an earlier download left them."""
    if "://" in source:
        path = torch_cache() / source.rpartition("/")[2]
        return path if path.is_file() else None
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(source, HUB_FILE, cache_dir=constants.HF_HUB_CACHE)
    return Path(found) if isinstance(found, str) else None


def fetch_weights(source: str, architecture: str) -> Path:
    """The weights file of a hub's name ('timm/NAME') or an address, downloaded where needed.

    Raises:
        WeightsError: the source cannot be reached, does not have it, or sent another file.
        StorageError: the disk is full.
    """
    if not source:
        raise WeightsError(
            f"No pretrained weights of {architecture} are published. Pass --weights FILE, or "
            "--weights none for random ones, or choose another network."
        )
    path = cached_file(source)
    if path is None:
        fetch = fetch_address if "://" in source else fetch_hub
        path = fetch(source, architecture)
    check_stated_digest(path)
    return path


def fetch_hub(hub_id: str, architecture: str) -> Path:
    """Download from the hub (or from the mirror that HF_ENDPOINT names) into its own cache."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError

    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not answers(address):
        raise WeightsError(not_at_hand(architecture, hub_id, "the hub cannot be reached"))
    try:
        found = hf_hub_download(
            hub_id,
            HUB_FILE,
            endpoint=address,
            cache_dir=constants.HF_HUB_CACHE,
            etag_timeout=TIMEOUT_S,
        )
    except (RemoteEntryNotFoundError, RepositoryNotFoundError) as error:
        raise WeightsError(not_at_hand(architecture, hub_id, "the hub has no such file")) from error
    except Exception as error:  # the client raises those of the HTTP library it has at the time
        reason = f"the download failed ({first_line(error)})"
        raise WeightsError(not_at_hand(architecture, hub_id, reason)) from error
    return Path(found)


def fetch_address(address: str, architecture: str) -> Path:
    """Download from an address into torch's own cache, whole or not at all."""
    if not answers(address):
        host = address.split("/")[2]
        raise WeightsError(not_at_hand(architecture, address, f"{host} cannot be reached"))
    path = torch_cache() / address.rpartition("/")[2]
    make_folder(path.parent)

    def fill(aside: Path) -> None:
        title = f"downloading {path.name}"
        with aside.open("wb") as file, contextlib.ExitStack() as stack:
            advance = None
            for total, chunk in receive(address, architecture):
                if advance is None:
                    steps = -(-total // CHUNK_BYTES)
                    advance = stack.enter_context(for_terminal().phase(title, steps, "MiB"))
                file.write(chunk)
                advance()
        check_stated_digest(aside, name=path.name)

    write_whole(path, fill)
    return path


def receive(address: str, architecture: str) -> Iterator[tuple[int, bytes]]:
    """What an address sends: the stated length of all and one chunk after the other.

    Raises:
        WeightsError: it fails, or ends before its stated length.
    """
    import http.client
    import urllib.request

    done = total = 0
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            while chunk := answer.read(CHUNK_BYTES):
                done += len(chunk)
                yield total, chunk
    except (OSError, http.client.HTTPException) as error:
        reason = f"the download failed ({first_line(error)})"
        raise WeightsError(not_at_hand(architecture, address, reason)) from error
    if done < total:
        reason = f"the download ended after {done} of {total} bytes"
        raise WeightsError(not_at_hand(architecture, address, reason))


def check_stated_digest(path: Path, *, name: str = "") -> None:
    """Compare a file with the SHA-256 that its name in the cache states.

    torchvision writes the first characters into the file's name; the hub's cache names what a
    link points to by the whole digest.

    Raises:
        WeightsError: they differ; the message names both.
    """
    named = re.search(r"-([0-9a-f]{8,64})\.", name or path.name)
    blob = re.fullmatch(r"[0-9a-f]{64}", path.resolve().name)
    stated = named.group(1) if named else blob.group(0) if blob else ""
    digest = digest_file(path) if stated else ""
    if not digest.startswith(stated):
        kept = "" if name else f" Delete '{path}'."
        raise WeightsError(
            f"The weights file '{name or path.name}' is damaged: its SHA-256 is {digest[:16]}..., "
            f"its source states {stated[:16]}.{kept} Download it again."
        )


def torch_cache() -> Path:
    """The folder where torch.hub keeps weights files; TORCH_HOME moves it."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def answers(address: str) -> bool:
    """Whether a server answers a request of its front page, with whatever, within seconds.

    The question is asked in a thread of its own, because looking up a name without a network
    can take far longer than any timeout that can be set.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY")):
        return True  # only the client knows how to ask through a proxy
    found: queue.Queue[bool] = queue.Queue()
    threading.Thread(target=lambda: found.put(ask(address)), daemon=True).start()
    try:
        return found.get(timeout=TIMEOUT_S)
    except queue.Empty:
        return False


def ask(address: str) -> bool:
    """Ask a server for its front page; False where nothing comes back."""
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    plain = parts.scheme == "http"
    connect = http.client.HTTPConnection if plain else http.client.HTTPSConnection
    connection = connect(parts.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("HEAD", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True
    finally:
        connection.close()


def not_at_hand(architecture: str, source: str, reason: str) -> str:
    """The sentence for weights that are neither here nor to be had."""
    folder = os.environ.get(WEIGHTS_VARIABLE)
    place = f"{WEIGHTS_VARIABLE} is '{folder}'" if folder else f"{WEIGHTS_VARIABLE} is not set"
    is_address = "://" in source
    what = f"'{source}'" if is_address else f"'{source}' ({HUB_FILE})"
    ending = Path(source).suffix if is_address else Path(HUB_FILE).suffix
    return (
        f"The weights of {architecture} are not at hand and {reason}. Download {what} where there "
        f"is a network and pass --weights FILE, or put it as '{architecture}{ending}' into the "
        f"folder that {WEIGHTS_VARIABLE} names ({place}). --model mini needs no download; "
        "--weights none takes random weights."
    )


def first_line(error: Any) -> str:
    """The first line of an error's message, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
