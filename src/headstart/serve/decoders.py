"""Strangers' pictures, decoded in processes of bounded time and memory, off the loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter

import numpy as np
from PIL import Image

from headstart.data import DecodingError
from headstart.data.guarded.pool import MOST_PROCESSES, DecoderPool
from headstart.data.guarded.squares import command_for
from headstart.limits import memory_limits, usable_cores
from headstart.records import Bytes8, ImageFacts, Preprocessing
from headstart.serve.failures import FAILURES, RefusedError
from headstart.serve.metrics import ServiceMetrics
from headstart.serve.settings import ServeSettings

MODEL_BYTES = 1 << 30  # of a worker beside its decoders: torch, the network and a batch
RETRY_S = 1  # seconds until a client may try again where no process could be started


class Decoders:
    """As many decoder processes as the settings say, one thread waiting for each."""

    def __init__(
        self, settings: ServeSettings, preprocessing: Preprocessing, metrics: ServiceMetrics
    ) -> None:
        """Start nothing yet."""
        self.metrics = metrics
        self.pool = DecoderPool(
            command_for(settings.decoding, preprocessing),
            time_limit_s=settings.decoding_timeout_s,
            processes=settings.decoders or decoders_for(settings),
        )
        self._threads = ThreadPoolExecutor(self.pool.processes, thread_name_prefix="decode")
        self._turns = asyncio.Semaphore(self.pool.processes)

    async def warm(self) -> None:
        """Start the processes."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self.pool.warm)

    async def prepare(self, data: bytes, name: str) -> Bytes8:
        """(H, W, 3) uint8 pixels of the network's size.

        Raises:
            RefusedError: the picture is beyond a limit or cannot be decoded.
        """
        begun = perf_counter()
        try:
            image, _ = await self._decoded(data, name)
        except DecodingError as error:
            code = error.code if error.code in FAILURES else "undecodable_image"
            clause = str(error)
            again = RETRY_S if FAILURES[code].status == 503 else None
            raise RefusedError(
                code, f"The image is refused: {clause}.", retry_after_s=again
            ) from error
        finally:
            self.metrics.decode_seconds.observe(perf_counter() - begun)
        return np.asarray(image)

    async def _decoded(self, data: bytes, name: str) -> tuple[Image.Image, ImageFacts]:
        """What a decoder process makes of an image.

        A turn is given back when the thread is free, not when whoever asked has left: so no bytes
        of clients that left pile up before the threads.
        """
        loop = asyncio.get_running_loop()
        await self._turns.acquire()
        work = self._threads.submit(self.pool.decode, data, name)

        def give_back(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._turns.release)

        work.add_done_callback(give_back)
        return await asyncio.wrap_future(work)

    def end(self) -> None:
        """Kill the processes; nothing may be decoded any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.pool.end()


def decoders_for(settings: ServeSettings) -> int:
    """As many as cores, and no more than fit what a container may use, beside the models."""
    most = min(usable_cores(), MOST_PROCESSES)
    for limit in memory_limits():
        free = limit // settings.workers - MODEL_BYTES
        most = min(most, free // settings.decoding.memory_bytes)
    return max(1, most)
