"""A process that decodes images for another one; it may crash or be killed without harm.

Requests come in on standard input, answers go out on what was standard output: binary, lengths
first. Printing goes nowhere, so that no library can disturb the answers. The process ends when its
owner closes the input, that is, at the latest when the owner ends.

    request   three integers (bytes of path and image, smallest side or -1), path, image
    answer    two integers (bytes of JSON and pixels), JSON, RGB pixels

An empty answer comes first of all: the process has started, which on a busy machine takes seconds
that no image should be charged with.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, BinaryIO

from PIL import Image

from headstart.data.colour import DecodingError
from headstart.data.decoding import decode_here
from headstart.records import ImageFacts

REQUEST = struct.Struct(">QQq")
ANSWER = struct.Struct(">QQ")
MEMORY_LIMIT_BYTES = 4 << 30
"""Address space of one process, where the system can limit it."""

Decode = Callable[..., tuple[Image.Image, ImageFacts]]


def serve(decode: Decode = decode_here, *, memory_bytes: int = MEMORY_LIMIT_BYTES) -> None:
    """Decode what is asked for until the input ends."""
    limit_resources(memory_bytes)
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    _answer(answers, {}, b"")
    while header := requests.read(REQUEST.size):
        path_bytes, image_bytes, min_side = REQUEST.unpack(header)
        path = requests.read(path_bytes).decode("utf-8", "surrogatepass")
        data = requests.read(image_bytes)
        side = None if min_side < 0 else min_side
        _answer(answers, *_decoded(decode, data, path, side, memory_bytes))


def limit_resources(memory_bytes: int = MEMORY_LIMIT_BYTES) -> None:
    """Bound the memory, and leave no core file behind when a decoder crashes."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError):  # a stricter limit is there already
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _decoded(
    decode: Decode, data: bytes, path: str, min_side: int | None, memory_bytes: int
) -> tuple[dict[str, Any], bytes]:
    """What is answered: facts, size and pixels, or the problem."""
    try:
        image, facts = decode(data, path, min_side=min_side)
        return {"facts": asdict(facts), "size": image.size}, image.tobytes()
    except DecodingError as error:
        return {"problem": str(error), "code": error.code}, b""
    except MemoryError:
        clause = f"too large for the {memory_bytes / 2**30:g} GiB of a decoder"
        return {"problem": clause, "code": "too_large_for_memory"}, b""
    except Exception as error:  # a parser that breaks in a new way costs this image alone
        clause = f"its decoder failed ({type(error).__name__})"
        return {"problem": clause, "code": "undecodable_image"}, b""


def _answer(answers: BinaryIO, about: dict[str, Any], pixels: bytes) -> None:
    text = json.dumps(about).encode()
    answers.write(ANSWER.pack(len(text), len(pixels)))
    answers.write(text)
    answers.write(pixels)
    answers.flush()


if __name__ == "__main__":
    serve()
