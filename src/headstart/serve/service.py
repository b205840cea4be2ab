"""What one worker holds: model, decoders, batches, how much is waiting, whether it is ready.

Loading happens behind the open port: `/healthz` answers at once, `/readyz` and `/predict` only when
the golden picture, sent through decoder process, batch and engine, came out as the bundle says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator

from headstart.bundle.classifier import WHOLE_PICTURES
from headstart.bundle.golden import NAME
from headstart.errors import HeadstartError
from headstart.records import Predictions
from headstart.serve.batching import Batcher, forward_thread
from headstart.serve.decoders import Decoders
from headstart.serve.failures import RefusedError
from headstart.serve.keeping import Keeper
from headstart.serve.logs import log_event
from headstart.serve.metrics import ServiceMetrics
from headstart.serve.model import ServedModel, load_model
from headstart.serve.settings import ServeSettings
from headstart.serve.uploads import Upload

Fail = Callable[[Exception], None]
# What the limits of clients' pictures may say of the golden one, which is no client's.
FOR_CLIENTS = ("unsupported_format", "too_many_pixels")


class Service:
    """The state behind the routes.

    Attributes:
        settings: as given.
        metrics: counters.
        model: None until it is loaded.
        buffered: bytes of bodies that are held now.
        waiting: images admitted and not yet answered.
        problem: why it is not ready, '' where it is.
    """

    def __init__(self, settings: ServeSettings, fail: Fail | None = None) -> None:
        """Begin without a model; `fail` is called where there will be none."""
        self.settings = settings
        self.metrics = ServiceMetrics()
        self.model: ServedModel | None = None
        self.buffered = 0
        self.waiting = 0
        self.problem = "The model is being loaded."
        self._fail = fail
        self._keeper = None if settings.keep is None else Keeper(settings.keep)
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = forward_thread()
        self._decoders: Decoders | None = None
        self._batcher: Batcher[Predictions] | None = None

    def start(self) -> None:
        """Load in the background; called in the event loop."""
        self._tasks.append(asyncio.create_task(self._load()))

    async def stop(self) -> None:
        """End tasks, threads and processes; requests in flight were answered before."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._decoders is not None:
            self._decoders.end()
        self.metrics.ready.set(0)

    async def ready(self) -> None:
        """Wait until loading is over, for tests and benchmarks."""
        await self._tasks[0]

    def check_open(self) -> None:
        """Refuse where nothing can be answered now.

        Raises:
            RefusedError: the model is not ready, or as much waits as may.
        """
        if self.problem:
            raise RefusedError("not_ready", self.problem, retry_after_s=2)
        if self.waiting >= self.settings.queue_images:
            raise RefusedError("overloaded", retry_after_s=1)

    async def predict(self, uploads: list[Upload]) -> list[Predictions | RefusedError]:
        """An answer or a refusal for each image.

        Raises:
            RefusedError: as many wait as may.
        """
        with self._admitted(len(uploads)):
            return await asyncio.gather(*(self._predict_one(upload) for upload in uploads))

    async def _predict_one(self, upload: Upload) -> Predictions | RefusedError:
        assert self._decoders is not None
        assert self._batcher is not None
        try:
            with self._batcher.expecting():
                pixels = await self._decoders.prepare(upload.data, upload.name)
        except RefusedError as refusal:
            self.metrics.refusals.labels(refusal.code).inc()
            return refusal
        answer = await self._batcher.ask(pixels)
        self.metrics.count_answers(answer)
        await self._keep(upload.data)
        return answer

    @contextlib.contextmanager
    def _admitted(self, count: int) -> Iterator[None]:
        self.check_open()
        self.waiting += count
        self.metrics.waiting.inc(count)
        try:
            yield
        finally:
            self.waiting -= count
            self.metrics.waiting.dec(count)

    async def _keep(self, data: bytes) -> None:
        if self._keeper is None:
            return
        try:
            await asyncio.to_thread(self._keeper.keep, data)
        except OSError as error:
            log_event("not_kept", logging.ERROR, reason=error.strerror or str(error))

    async def _load(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            model = await loop.run_in_executor(self._thread, load_model, self.settings)
            await self._prepare(model)
        except Exception as error:  # a worker without a model is of no use
            expected = isinstance(error, HeadstartError)
            log_event("not_loaded", logging.ERROR, reason=str(error), traceback=not expected)
            self.problem = "The model could not be loaded; the log says why."
            if self._fail is not None:
                self._fail(error)

    async def _prepare(self, model: ServedModel) -> None:
        """Start decoders and batches, and send the golden picture through them."""
        settings = self.settings
        self.model = model
        self.metrics.name_classes(model.classifier.class_names)
        self.metrics.model.labels(model.classifier.root_digest, model.engine).set(1)
        self._decoders = Decoders(settings, model.preprocessing, self.metrics)
        await self._decoders.warm()
        self._batcher = Batcher(
            model.answer,
            max_batch=settings.max_batch,
            window_s=settings.window_ms / 1000,
            metrics=self.metrics,
            thread=self._thread,
        )
        self._tasks.append(asyncio.create_task(self._batcher.run()))
        try:
            pixels = await self._decoders.prepare(model.golden.picture, NAME)
        except RefusedError as error:
            if error.code not in FOR_CLIENTS:
                raise HeadstartError(
                    f"The golden picture cannot be decoded here: {error}"
                ) from error
            pixels = model.golden_pixels()
        answer = await self._batcher.ask(pixels)
        self.problem = model.golden_problem(answer.probabilities[0])
        if self.problem:
            log_event("golden_mismatch", logging.ERROR, reason=self.problem)
            return
        self.metrics.ready.set(1)
        if model.classifier.learnt_on_boxes:
            log_event("learnt_on_boxes", logging.WARNING, reason=WHOLE_PICTURES)
        log_event(
            "ready",
            digest=model.classifier.root_digest,
            engine=model.engine,
            golden=model.golden.origin,
        )
