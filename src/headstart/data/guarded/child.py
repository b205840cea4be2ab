"""A process that decodes images for another one; it may crash or be killed without harm.

Tasks come in on standard input, answers go out on what was standard output: binary, lengths
first, after one byte that says that the process is ready. A task is read whole before its first
image is decoded, so that neither side waits for the other. Answers are sent together, every
`SEND_EVERY_S` or so, because waking the owner for each costs more than a small picture; asked to
be careful, the process sends each as soon as it is done, so that the owner knows which image it
died of. Printing goes nowhere, so that no library can disturb the answers. The process ends when
its owner closes the input, that is, at the latest when the owner ends.

    task      two integers (images, bytes of JSON), JSON (what is wanted), the images
    image     two integers (bytes of path and image), a box of four numbers (NaN: none), path, image
    answer    four integers (bytes of what follows), JSON, pixels, fingerprint, second pixels
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import struct
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from headstart.data.boxes import Box
from headstart.data.colour import DecodingError
from headstart.data.decoding import decode_here
from headstart.data.preparing import Decode, Order, prepare_picture
from headstart.data.views import View
from headstart.records import Preprocessing

READY = b"!"
TASK = struct.Struct(">QQ")
IMAGE = struct.Struct(">QQdddd")
ANSWER = struct.Struct(">QQQQ")
SEND_EVERY_S = 0.05
BUFFER_BYTES = 1 << 20
MEMORY_LIMIT_BYTES = 4 << 30
"""Address space of one process, where the system can limit it."""

Answer = tuple[dict[str, Any], bytes, bytes, bytes]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image of a task."""

    data: bytes
    path: str
    box: Box | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is wanted of a task: pictures prepared, or whole where there is no order."""

    order: Order | None = None
    min_side: int | None = None
    careful: bool = False

    def encoded(self) -> bytes:
        """As JSON."""
        prepared = None if self.order is None else asdict(self.order)
        asked = {"prepared": prepared, "min_side": self.min_side, "careful": self.careful}
        return json.dumps(asked).encode()

    @staticmethod
    def decoded(text: bytes) -> Asked:
        """From JSON."""
        found = json.loads(text)
        order = None
        if found["prepared"] is not None:
            settings = found["prepared"]
            for name in ("preprocessing", "second"):
                settings[name] = settings[name] and Preprocessing(**settings[name])
            settings["views"] = tuple(View(**view) for view in settings["views"])
            order = Order(**settings)
        return Asked(order=order, min_side=found["min_side"], careful=found["careful"])


def packed(item: Item) -> list[bytes]:
    """The pieces of an image in a task."""
    path = item.path.encode("utf-8", "surrogatepass")
    box = (math.nan,) * 4 if item.box is None else item.box
    return [IMAGE.pack(len(path), len(item.data), *box), path, item.data]


def serve(decode: Decode = decode_here, *, memory_bytes: int = MEMORY_LIMIT_BYTES) -> None:
    """Decode what is asked for until the input ends."""
    limit_resources(memory_bytes)
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the owner who is interrupted
    tasks = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=BUFFER_BYTES)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    answers.write(READY)
    answers.flush()
    while header := tasks.read(TASK.size):
        count, asked_bytes = TASK.unpack(header)
        asked = Asked.decoded(tasks.read(asked_bytes))
        items = [_read_item(tasks) for _ in range(count)]
        sent = time.monotonic()
        for item in items:
            _answer(answers, *_decoded(decode, item, asked, memory_bytes))
            if asked.careful or time.monotonic() - sent > SEND_EVERY_S:
                answers.flush()
                sent = time.monotonic()
        answers.flush()


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


def _read_item(tasks: BinaryIO) -> Item:
    path_bytes, image_bytes, *box = IMAGE.unpack(tasks.read(IMAGE.size))
    path = tasks.read(path_bytes).decode("utf-8", "surrogatepass")
    left, top, right, bottom = box
    whole = math.isnan(left)
    return Item(
        data=tasks.read(image_bytes), path=path, box=None if whole else (left, top, right, bottom)
    )


def _decoded(decode: Decode, item: Item, asked: Asked, memory_bytes: int) -> Answer:
    """What is answered: facts, pixels and fingerprint, or the problem."""
    try:
        if asked.order is not None:
            found = prepare_picture(item.data, item.path, item.box, asked.order, decode)
            about = {"facts": vars(found.facts), "size": found.pixels.shape[2:0:-1]}
            second = b"" if found.second is None else found.second.tobytes()
            return about, found.pixels.tobytes(), found.record, second
        image, facts = decode(item.data, item.path, min_side=asked.min_side)
        return {"facts": vars(facts), "size": image.size}, image.tobytes(), b"", b""
    except DecodingError as error:
        return {"problem": str(error), "code": error.code}, b"", b"", b""
    except MemoryError:
        clause = f"too large for the {memory_bytes / 2**30:g} GiB of a decoder"
        return {"problem": clause, "code": "too_large_for_memory"}, b"", b"", b""
    except Exception as error:  # a parser that breaks in a new way costs this image alone
        clause = f"its decoder failed ({type(error).__name__})"
        return {"problem": clause, "code": "undecodable_image"}, b"", b"", b""


def _answer(answers: BinaryIO, about: dict[str, Any], *parts: bytes) -> None:
    text = json.dumps(about).encode()
    answers.write(ANSWER.pack(len(text), *map(len, parts)))
    for part in (text, *parts):
        answers.write(part)


if __name__ == "__main__":
    serve()
