"""Decoders in processes of their own: started when first needed, killed when they take too long.

A task is a handful of images. Where a process dies or is late, what it had not answered yet goes to
a new one that answers image by image, so that the one it dies of is known. That one is tried once
more, at the head of the rest, because the killer may have meant the process and not the image; when
it dies again it is named and the others go on. An image that is not answered within `TIME_LIMIT_S`
then is named at once. Idle processes wait for the next task and end with this one. Safe to call
from threads; after a fork the child starts processes of its own.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO

import numpy as np
from PIL import Image

from headstart.data.colour import DecodingError
from headstart.data.guarded.child import ANSWER, READY, TASK, Answer, Asked, Item, packed
from headstart.data.preparing import Order, PreparedPicture
from headstart.limits import usable_cores
from headstart.records import Bytes8, ImageFacts, Preprocessing

TIME_LIMIT_S = 30.0
"""For one image; the largest that is accepted takes about three seconds."""

START_LIMIT_S = 120.0
"""For a process until it is ready; on a busy machine it takes seconds."""

MOST_STARTS = 5  # of processes that end before they are ready, for one task
MOST_PROCESSES = 8
NO_DECODER = "no_decoder"  # code of an answer that says nothing of the picture
PIPE_BYTES = 1 << 20  # what Linux grants to everybody until their pipes take 64 MiB in all
WATCH_EVERY_S = 0.2
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    # glibc would give the memory of every picture back and fetch it again page by page
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}


class DecoderDiedError(Exception):
    """The process ended instead of answering; the message is a clause."""


class DecoderLateError(DecoderDiedError):
    """It was killed because an answer was overdue."""


class DecoderUnreadyError(DecoderDiedError):
    """It ended before it was ready, so no image is to blame."""


class DecoderProcess:
    """One process that decodes the images of one task after the other."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it.

        Raises:
            OSError: the system starts no further process.
        """
        try:
            self.process = _started(command, PIPE_BYTES)
        except PermissionError:  # this user's pipes are many; those of ordinary size are slower
            self.process = _started(command, -1)
        self.ready = False
        self.due = math.inf  # when the answer that is waited for must be there
        self.late = False

    def ask(self, items: Sequence[Item], asked: Asked, time_limit_s: float) -> Iterator[Answer]:
        """Have images decoded; answers come in order, each as soon as it is there.

        Raises:
            DecoderLateError: nothing came for longer than `time_limit_s`; the process is killed.
            DecoderUnreadyError: the process ended, or was not there, before it was ready.
            DecoderDiedError: the process crashed or was killed.
        """
        self.late = False
        try:
            self._wait_until_ready()
            self.due = time.monotonic() + time_limit_s
            self._send(items, asked)
            for _ in items:
                self.due = time.monotonic() + time_limit_s
                answer = self._receive()
                self.due = math.inf
                yield answer
        except (OSError, EOFError) as error:
            raise self._death(time_limit_s) from error
        finally:
            self.due = math.inf

    def wait_ready(self) -> None:
        """Wait until it has started.

        Raises:
            DecoderDiedError: it ended instead, or took far too long.
        """
        try:
            self._wait_until_ready()
        except (OSError, EOFError) as error:
            raise self._death(START_LIMIT_S) from error
        finally:
            self.due = math.inf

    def _death(self, time_limit_s: float) -> DecoderDiedError:
        """End the process that answers no more, and say why it does not."""
        self.end()
        if self.late and not self.ready:
            return DecoderUnreadyError(f"its decoder did not start within {START_LIMIT_S:g} s")
        if self.late:
            return DecoderLateError(f"decoding took longer than {time_limit_s:g} s")
        code = self.process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not self.ready:
            return DecoderUnreadyError(f"its decoder ended at its start ({how})")
        return DecoderDiedError(f"its decoder crashed ({how})")

    def kill_late(self) -> None:
        """Kill the process where its answer is overdue."""
        if time.monotonic() > self.due:
            self.late = True
            self.process.kill()

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was still to be written has no reader
                    continue

    def _wait_until_ready(self) -> None:
        if not self.ready:
            assert self.process.stdout is not None
            self.due = time.monotonic() + START_LIMIT_S
            _read(self.process.stdout, len(READY))
            self.ready = True

    def _send(self, items: Sequence[Item], asked: Asked) -> None:
        tasks = self.process.stdin
        assert tasks is not None
        text = asked.encoded()
        tasks.write(TASK.pack(len(items), len(text)) + text)
        for item in items:
            tasks.writelines(packed(item))
        tasks.flush()

    def _receive(self) -> Answer:
        answers = self.process.stdout
        assert answers is not None
        text, *lengths = ANSWER.unpack(_read(answers, ANSWER.size))
        about = json.loads(_read(answers, text))
        pixels, record, second = (_read(answers, length) for length in lengths)
        return about, pixels, record, second


def _started(command: Sequence[str], pipe_bytes: int) -> subprocess.Popen[bytes]:
    """The process; pipes of -1 bytes have the system's size."""
    places = [place for place in sys.path if place]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), **SETTINGS},
        pipesize=pipe_bytes,
        bufsize=PIPE_BYTES,
    )


class DecoderPool:
    """As many decoder processes as cores, at most 8, started one by one as they are needed."""

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        time_limit_s: float = TIME_LIMIT_S,
        processes: int = 0,
    ) -> None:
        """Start nothing yet.

        Args:
            command: of a process that calls `headstart.data.guarded.child.serve`.
            time_limit_s: for one image.
            processes: at once; 0 takes as many as cores, at most 8.
        """
        self.command = command or (sys.executable, "-P", "-m", "headstart.data.guarded.child")
        self.time_limit_s = time_limit_s
        self.processes = processes or min(usable_cores(), MOST_PROCESSES)
        self._free = threading.BoundedSemaphore(self.processes)
        self._idle: list[DecoderProcess] = []
        self._busy: set[DecoderProcess] = set()
        self._lock = threading.Lock()
        self._watch: threading.Thread | None = None

    def decode(
        self, data: bytes, path: str, min_side: int | None = None
    ) -> tuple[Image.Image, ImageFacts]:
        """As `headstart.data.decode`, in another process.

        Raises:
            DecodingError: the image cannot be decoded, takes too long, or crashes its decoder.
        """
        found = self._answers([Item(data=data, path=path)], Asked(min_side=min_side))[0]
        if isinstance(found, DecodingError):
            raise found
        about, pixels, *_ = found
        width, height = about["size"]
        return Image.frombytes("RGB", (width, height), pixels), ImageFacts(**about["facts"])

    def prepare(self, items: Sequence[Item], order: Order) -> list[PreparedPicture | DecodingError]:
        """As `headstart.data.preparing.prepare_picture` of each, in another process."""
        return [
            found if isinstance(found, DecodingError) else _picture(found, order)
            for found in self._answers(items, Asked(order=order))
        ]

    def warm(self) -> None:
        """Start as many processes as there may be, so that no image has to wait for one.

        Raises:
            DecodingError: one does not start.
        """
        while len(self._idle) < self.processes:
            self._idle.append(self._start())
        for process in self._idle:
            self._busy.add(process)
            try:
                process.wait_ready()
            except DecoderDiedError as error:
                raise DecodingError(str(error), NO_DECODER) from error
            finally:
                self._busy.discard(process)

    def end(self) -> None:
        """End the idle processes; new ones are started when they are needed."""
        while self._idle:
            self._idle.pop().end()

    def _answers(self, items: Sequence[Item], asked: Asked) -> list[Answer | DecodingError]:
        """One answer an image, whatever becomes of the processes."""
        found: list[Answer | DecodingError] = []
        asked = replace(asked, careful=len(items) == 1)
        suspect = -1  # the image that a careful process died of once
        starts_left = MOST_STARTS
        with self._free:
            while len(found) < len(items):
                try:
                    self._ask(items[len(found) :], asked, found, fresh=suspect == len(found))
                except DecodingError as error:
                    found.append(error)
                except DecoderUnreadyError as error:
                    starts_left -= 1
                    if not starts_left:  # no further one would start either
                        rest = len(items) - len(found)
                        found += [DecodingError(str(error), NO_DECODER) for _ in range(rest)]
                except DecoderDiedError as error:
                    late = isinstance(error, DecoderLateError)
                    if asked.careful and (late or suspect == len(found)):
                        code = "decoding_timeout" if late else "decoder_crashed"
                        found.append(DecodingError(str(error), code))
                    elif asked.careful:
                        suspect = len(found)
                    asked = replace(asked, careful=True)
        return [
            DecodingError(answer[0]["problem"], answer[0]["code"])
            if not isinstance(answer, DecodingError) and "problem" in answer[0]
            else answer
            for answer in found
        ]

    def _ask(
        self,
        items: Sequence[Item],
        asked: Asked,
        found: list[Answer | DecodingError],
        *,
        fresh: bool,
    ) -> None:
        """Ask an idle process, or a new one; it is idle again afterwards."""
        try:
            process = self._start() if fresh else self._idle.pop()
        except IndexError:
            process = self._start()
        self._busy.add(process)
        try:
            for answer in process.ask(items, asked, self.time_limit_s):
                found.append(answer)  # noqa: PERF402 - what came before a crash must stay
        finally:
            self._busy.discard(process)
        self._idle.append(process)

    def _start(self) -> DecoderProcess:
        self._watch_over()
        try:
            return DecoderProcess(self.command)
        except OSError as error:
            clause = f"no process could be started to decode it ({error.strerror or error})"
            raise DecodingError(clause, NO_DECODER) from error

    def _watch_over(self) -> None:
        """Start the thread that kills what is late, once."""
        with self._lock:
            if self._watch is None:
                self._watch = threading.Thread(
                    target=self._kill_late, name="decoder-watch", daemon=True
                )
                self._watch.start()

    def _kill_late(self) -> None:
        while True:
            time.sleep(WATCH_EVERY_S)
            for process in list(self._busy):
                process.kill_late()


def _picture(found: Answer, order: Order) -> PreparedPicture:
    about, pixels, record, second = found
    return PreparedPicture(
        facts=ImageFacts(**about["facts"]),
        pixels=_squares(pixels, order.preprocessing),
        record=record,
        second=None if order.second is None else _squares(second, order.second)[0],
    )


def _squares(pixels: bytes, preprocessing: Preprocessing) -> Bytes8:
    size = preprocessing.size
    return np.frombuffer(pixels, dtype=np.uint8).reshape(-1, size, size, 3)


def _read(pipe: IO[bytes], count: int) -> bytes:
    content = pipe.read(count)
    if len(content) < count:
        raise EOFError
    return content


_POOL: list[DecoderPool] = []
_LOCK = threading.Lock()


def shared_pool() -> DecoderPool:
    """The pool of this process."""
    with _LOCK:
        if not _POOL:
            _POOL.append(DecoderPool())
        return _POOL[0]


def _end_shared() -> None:
    for pool in _POOL:
        pool.end()


def _forget() -> None:
    """After a fork the pipes belong to the parent: begin anew, and end nothing of it."""
    global _LOCK
    _LOCK = threading.Lock()
    _POOL.clear()


atexit.register(_end_shared)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
