"""Images of many requests in one pass: together under load, at once when alone."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time

import numpy as np
import pytest

from headstart.data.guarded.squares import NICENESS
from headstart.serve.batching import Batcher, forward_thread
from headstart.serve.metrics import ServiceMetrics


def pixels(value):
    return np.full((2, 2, 3), value, dtype=np.uint8)


def run(script, answer, **options):
    """Run an async function that gets a batcher."""

    async def main():
        options.setdefault("window_s", 0.2)
        thread = forward_thread()
        batcher = Batcher(answer, max_batch=4, metrics=ServiceMetrics(), thread=thread, **options)
        task = asyncio.create_task(batcher.run())
        try:
            return await script(batcher)
        finally:
            task.cancel()
            thread.shutdown()

    return asyncio.run(main())


def test_each_gets_its_own_answer_and_batches_are_bounded():
    sizes = []

    def answer(batch):
        sizes.append(len(batch))
        time.sleep(0.01)
        return batch[:, 0, 0, 0].tolist()

    async def script(batcher):
        return await asyncio.gather(*(batcher.ask(pixels(i)) for i in range(11)))

    assert run(script, answer) == list(range(11))
    assert max(sizes) == 4
    assert sum(sizes) == 11


def test_a_lone_image_does_not_wait_for_company():
    async def script(batcher):
        begun = time.perf_counter()
        await batcher.ask(pixels(1))
        return time.perf_counter() - begun

    assert run(script, lambda batch: [0] * len(batch), window_s=30) < 10


def test_an_image_waits_for_one_that_is_coming_but_not_longer_than_the_window():
    sizes = []

    def answer(batch):
        sizes.append(len(batch))
        return [0] * len(batch)

    async def script(batcher):
        async def late():
            with batcher.expecting():
                await asyncio.sleep(0.05)
            await batcher.ask(pixels(2))

        await asyncio.gather(late(), batcher.ask(pixels(1)))
        with batcher.expecting():  # never comes
            await batcher.ask(pixels(3))

    run(script, answer, window_s=1.0)
    assert sizes == [2, 1]


def test_an_odd_image_costs_itself_alone():
    def answer(batch):
        if (batch == 13).any():
            raise ValueError("odd")
        return batch[:, 0, 0, 0].tolist()

    async def script(batcher):
        asked = (batcher.ask(pixels(i)) for i in (12, 13, 14))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, odd, last = run(script, answer)
    assert (first, last) == (12, 14)
    assert isinstance(odd, ValueError)


def test_a_client_that_left_is_passed_over():
    seen = []

    def answer(batch):
        seen.extend(batch[:, 0, 0, 0].tolist())
        time.sleep(0.05)
        return [0] * len(batch)

    async def script(batcher):
        asked = [asyncio.create_task(batcher.ask(pixels(i))) for i in range(6)]
        await asyncio.sleep(0.01)
        asked[5].cancel()
        done = await asyncio.gather(*asked, return_exceptions=True)
        return done[:5]

    assert run(script, answer) == [0] * 5
    assert 5 not in seen


def test_every_class_shows_from_the_beginning():
    metrics = ServiceMetrics(["a", "b"])
    metrics.classes.labels("a").inc(3)
    text = metrics.text().decode()
    assert 'headstart_predictions_total{class="a"} 3.0' in text
    assert 'headstart_predictions_total{class="b"} 0.0' in text


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has priorities of threads")
def test_computing_yields_to_the_loop_and_so_do_the_threads_it_starts():
    def priorities(batch):
        found = []

        def look():
            found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

        look()
        begun = threading.Thread(target=look)  # as an engine starts its own
        begun.start()
        begun.join()
        return [found] * len(batch)

    async def script(batcher):
        return await batcher.ask(pixels(1))

    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert run(script, priorities) == [min(own + NICENESS, 19)] * 2
