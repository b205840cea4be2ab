"""Decoders in processes of their own: started when first needed, killed when they take too long.

A crash costs the one image; one that dies by a signal is tried once more in a new process, because
the killer may have meant the process and not the image. A decoder answers within `TIME_LIMIT_S` or
is killed. Idle processes wait for the next image and end with this one. Safe to call from threads;
after a fork the child starts processes of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any

from PIL import Image

from headstart.data.colour import DecodingError
from headstart.data.guarded.child import ANSWER, REQUEST
from headstart.records import ImageFacts

TIME_LIMIT_S = 30.0
"""For one image; the largest that is accepted takes about three seconds."""

STARTUP_LIMIT_S = 120.0
"""For a process to start, which is imports and takes below a second on a free machine."""

MOST_PROCESSES = 8
PIPE_BYTES = 1 << 20  # what Linux grants to everybody; others keep their own size

Answer = tuple[dict[str, Any], bytes]


class DecoderDiedError(Exception):
    """The process ended instead of answering; the message is a clause."""


class DecoderProcess:
    """One process that decodes one image at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it.

        Raises:
            OSError: the system starts no further process.
        """
        places = [place for place in sys.path if place]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
            pipesize=PIPE_BYTES,
        )
        self._awake = False

    def ask(self, data: bytes, path: str, min_side: int | None, time_limit_s: float) -> Answer:
        """Have one image decoded.

        Raises:
            DecodingError: it took longer than `time_limit_s`; the process is killed.
            DecoderDiedError: the process crashed or was killed.
        """
        self.wait_awake()
        return self._within(time_limit_s, lambda: self._exchange(data, path, min_side))

    def wait_awake(self) -> None:
        """Wait until it has started.

        Raises:
            DecodingError: it takes far too long.
            DecoderDiedError: it ended instead.
        """
        if not self._awake:
            self._within(STARTUP_LIMIT_S, self._read_answer)
            self._awake = True

    def _within(self, time_limit_s: float, work: Callable[[], Answer]) -> Answer:
        """Talk with the process, which is killed when that takes too long."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(time_limit_s, stop)
        timer.daemon = True
        timer.start()
        try:
            return work()
        except (OSError, EOFError) as error:
            self.end()
            if late.is_set():
                clause = f"decoding took longer than {time_limit_s:g} s"
                raise DecodingError(clause, "decoding_timeout") from error
            code = self.process.returncode
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise DecoderDiedError(f"its decoder crashed ({how})") from error
        finally:
            timer.cancel()

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

    def _exchange(self, data: bytes, path: str, min_side: int | None) -> Answer:
        requests = self.process.stdin
        assert requests is not None
        name = path.encode("utf-8", "surrogatepass")
        requests.write(REQUEST.pack(len(name), len(data), -1 if min_side is None else min_side))
        requests.write(name)
        requests.write(data)
        requests.flush()
        return self._read_answer()

    def _read_answer(self) -> Answer:
        answers = self.process.stdout
        assert answers is not None
        text_bytes, pixel_bytes = ANSWER.unpack(_read(answers, ANSWER.size))
        return json.loads(_read(answers, text_bytes)), _read(answers, pixel_bytes)


class DecoderPool:
    """As many decoder processes as cores, started one by one as they are needed."""

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
            processes: at once; 0 takes as many as cores.
        """
        self.command = command or (sys.executable, "-P", "-m", "headstart.data.guarded.child")
        self.time_limit_s = time_limit_s
        self.processes = processes or _process_count()
        self._free = threading.BoundedSemaphore(self.processes)
        self._idle: list[DecoderProcess] = []

    def decode(
        self, data: bytes, path: str, min_side: int | None = None
    ) -> tuple[Image.Image, ImageFacts]:
        """As `headstart.data.decode`, in another process.

        Raises:
            DecodingError: the image cannot be decoded, takes too long, or crashes its decoder.
        """
        with self._free:
            try:
                about, pixels = self._ask(data, path, min_side)
            except DecoderDiedError:
                try:
                    about, pixels = self._ask(data, path, min_side, fresh=True)
                except DecoderDiedError as error:
                    raise DecodingError(str(error), "decoder_crashed") from error
        if "problem" in about:
            raise DecodingError(about["problem"], about["code"])
        width, height = about["size"]
        image = Image.frombytes("RGB", (width, height), pixels)
        return image, ImageFacts(**about["facts"])

    def warm(self) -> None:
        """Start as many processes as there may be, so that no image has to wait for one.

        Raises:
            DecodingError: one does not start.
        """
        while len(self._idle) < self.processes:
            self._idle.append(self._start())
        for process in self._idle:
            try:
                process.wait_awake()
            except DecoderDiedError as error:
                raise DecodingError(str(error), "no_decoder") from error

    def end(self) -> None:
        """End the idle processes; new ones are started when they are needed."""
        while self._idle:
            self._idle.pop().end()

    def _ask(self, data: bytes, path: str, min_side: int | None, *, fresh: bool = False) -> Answer:
        """Ask an idle process, or a new one; it is idle again afterwards."""
        try:
            process = self._start() if fresh else self._idle.pop()
        except IndexError:
            process = self._start()
        answer = process.ask(data, path, min_side, self.time_limit_s)
        self._idle.append(process)
        return answer

    def _start(self) -> DecoderProcess:
        try:
            return DecoderProcess(self.command)
        except OSError as error:
            clause = f"no process could be started to decode it ({error.strerror or error})"
            raise DecodingError(clause, "no_decoder") from error


def _process_count() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, MOST_PROCESSES))


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
