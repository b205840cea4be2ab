"""Images of many requests into one forward pass, off the event loop.

One thread answers one batch at a time; what arrives meanwhile is the next batch, so that batches
grow by themselves under load. A batch waits (at most the window) only while other images are being
decoded: a lone image is answered at once. The answer of an image does not depend on its company:
the bundle's forward pass sees to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Generic, TypeVar

import numpy as np

from headstart.data.guarded.squares import NICENESS
from headstart.records import Bytes8
from headstart.serve.metrics import ServiceMetrics

A = TypeVar("A")
Job = tuple[Bytes8, "asyncio.Future[A]"]


def forward_thread() -> ThreadPoolExecutor:
    """One thread that yields to the event loop, as do the threads that an engine starts in it.

    Without that a loop that has a refusal to send waits for its turn among threads that compute.
    Linux alone knows priorities of threads.
    """

    def yield_to_others() -> None:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                thread = threading.get_native_id()
                now = os.getpriority(os.PRIO_PROCESS, thread)
                os.setpriority(os.PRIO_PROCESS, thread, now + NICENESS)

    return ThreadPoolExecutor(1, thread_name_prefix="forward", initializer=yield_to_others)


class Batcher(Generic[A]):
    """Collects prepared images and has them answered together."""

    def __init__(
        self,
        answer: Callable[[Bytes8], Sequence[A]],
        *,
        max_batch: int,
        window_s: float,
        metrics: ServiceMetrics,
        thread: ThreadPoolExecutor,
    ) -> None:
        """Take what answers (B, H, W, 3) uint8 pixels with B answers, and the thread for it."""
        self.answer = answer
        self.max_batch = max_batch
        self.window_s = window_s
        self.metrics = metrics
        self._coming = 0
        self._waiting: deque[Job[A]] = deque()
        self._changed = asyncio.Event()
        self._thread = thread

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """While the block runs an image is on its way, and a batch may wait for it."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._changed.set()

    async def ask(self, pixels: Bytes8) -> A:
        """The answer for (H, W, 3) pixels, given with others'."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, future))
        self._changed.set()
        return await future

    async def run(self) -> None:
        """Answer batches until cancelled."""
        while True:
            while not self._waiting:
                await self._change()
            await self._wait_for_company()
            count = min(len(self._waiting), self.max_batch)
            jobs = [self._waiting.popleft() for _ in range(count)]
            await self._answer([job for job in jobs if not job[1].done()])

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _wait_for_company(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.window_s):
                while self._coming and len(self._waiting) < self.max_batch:
                    await self._change()

    async def _answer(self, jobs: list[Job[A]]) -> None:
        if not jobs:
            return
        begun = perf_counter()
        try:
            answers = await self._forward([pixels for pixels, _ in jobs])
        except Exception as error:  # one odd image must not cost the others theirs
            if len(jobs) > 1:
                for job in jobs:
                    await self._answer([job])
            elif not jobs[0][1].done():
                jobs[0][1].set_exception(error)
            return
        self.metrics.forward_seconds.observe(perf_counter() - begun)
        self.metrics.batch_images.observe(len(jobs))
        for (_, future), answer in zip(jobs, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _forward(self, pixels: list[Bytes8]) -> Sequence[A]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: self.answer(np.stack(pixels)))
