"""The forward path: pictures are decoded by processes while the network computes.

Encoded images are decoded and resized in processes that can be killed (`headstart.data.guarded`), a
handful at a time, so that a picture that crashes its decoder, hangs or eats memory costs itself
alone; a thread a process hands them over. A few pictures (`FEW`), as a prediction has them, are
decoded as `headstart.data.decode` says, mostly in a thread: starting a process would cost more. A
bounded window of batches keeps the memory flat. A batch smaller than `SMALLEST_BATCH` is filled
up: below that some kernels take another order of summation, and a picture alone would get
features that differ in the last bit from the same picture among others. In float32 that goes on
up to 12 images with one thread (EfficientNetB0, MobileNetV3Small; not with two).

A CUDA device is kept `LAG` batches ahead of what is handed out (`headstart.inference.launching`),
so that it computes while the caller stores features and the next batch is stacked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from headstart.backbones import Network
from headstart.data.boxes import Box
from headstart.data.decoding import DecodingError, check_whole_files, decode
from headstart.data.guarded.child import Item
from headstart.data.guarded.pool import NO_DECODER, shared_pool
from headstart.data.preparing import (
    Order,
    PreparedPicture,
    goes_together,
    prepare_picture,
    prepare_together,
)
from headstart.data.views import WHOLE, View
from headstart.errors import ProcessError, WeightsError
from headstart.inference.engines import (
    EAGER,
    OPENVINO,
    OpenVinoNetwork,
    PassEngine,
    openvino_version,
)
from headstart.inference.launching import Fetch, Launched, launched, stack_pinned
from headstart.inference.placing import folds, place_module
from headstart.inference.preprocessing import Normalisation
from headstart.inference.sources import ImageSource
from headstart.limits import usable_cores
from headstart.records import Bytes8, ImageFacts, Preprocessing
from headstart.runtime import Execution

SMALLEST_BATCH = {"bfloat16": 8, "float32": 16}
BATCHES_AHEAD = 3
LAG = 2  # batches of a CUDA device in flight while an earlier one is handed out
TASK_IMAGES, TASK_BYTES = 32, 16 << 20  # handed to a process at once
FEW = 8
HALF_MAX = float(np.finfo(np.float16).max)


Prepared = tuple[ImageFacts, Bytes8 | None]
Views = tuple[View, ...]
Waiting = deque[tuple[list[int], list[Future[list[Prepared]]]]]


class Extractor:
    """Threads that decode and resize, and somebody's forward pass behind them.

    Attributes:
        preprocessing: how pictures are prepared.
        num_features: D.
        batch_size: images a forward pass.
        lag: batches in flight while an earlier one is handed out.
        audit_s: wall seconds that the caller's thread has spent on an audit on the way.
    """

    lag = 0
    audit_s = 0.0

    def __init__(self, preprocessing: Preprocessing, num_features: int, batch_size: int) -> None:
        """Keep what the preparation of pictures needs."""
        self.preprocessing = preprocessing
        self.num_features = num_features
        self.batch_size = batch_size
        self.order = Order(preprocessing=preprocessing)

    def forward(self, pixels: torch.Tensor) -> npt.NDArray[np.float16]:
        """(B, H, W, 3) uint8 pixels of the network's size -> (B, D) float16 features."""
        raise NotImplementedError

    def forward_views(self, pixels: Bytes8) -> npt.NDArray[np.float16]:
        """(B, V, H, W, 3) uint8 pixels of V views of each picture -> (B, V, D) float16 features."""
        squares = pixels.reshape(-1, *pixels.shape[2:])
        parts = [
            self.forward(torch.from_numpy(squares[start : start + self.batch_size]))
            for start in range(0, max(len(squares), 1), self.batch_size)
        ]
        return np.concatenate(parts).reshape(*pixels.shape[:2], self.num_features)

    def launch(self, pictures: Sequence[Bytes8]) -> Fetch:
        """Begin with B pictures of (V, H, W, 3) uint8; what it returns gives (B, V, D) float16."""
        values = self.forward_views(np.stack(pictures))
        return lambda: values

    def keep(self, picture: PreparedPicture, box: Box | None) -> None:
        """Told of every picture that was prepared; for those who want more than its pixels."""

    def prepare(self, source: ImageSource, row: int) -> Prepared:
        """Decode, crop to its box and resize one image; None for the pixels where it cannot be."""
        return self.prepare_many(source, [row], isolated=False)[0]

    def prepare_many(
        self, source: ImageSource, rows: Sequence[int], *, isolated: bool = True
    ) -> list[Prepared]:
        """As `prepare`, of several images.

        Args:
            source: the images.
            rows: which of them.
            isolated: decode encoded images in a process that can be killed.
        """
        found = self.prepare_views(source, rows, (WHOLE,), isolated=isolated)
        return [(facts, None if pixels is None else pixels[0]) for facts, pixels in found]

    def prepare_views(
        self, source: ImageSource, rows: Sequence[int], views: Views, *, isolated: bool = True
    ) -> list[Prepared]:
        """As `prepare_many`, a (V, size, size, 3) block of V views for each image."""
        order = replace(self.order, views=views)
        found: dict[int, Prepared] = {}
        waiting: list[tuple[int, Item]] = []
        plain: list[tuple[int, Bytes8]] = []
        held = 0
        for row in rows:
            path, box = source.paths[row], source.box_of(row)
            try:
                data = source.read(row)
                if isolated and isinstance(data, bytes):
                    waiting.append((row, Item(data=data, path=path, box=box)))
                    held += len(data)
                elif not isinstance(data, bytes) and goes_together(data, box, order):
                    plain.append((row, data))
                else:
                    picture = prepare_picture(data, path, box, order, decode)
                    found[row] = self._prepared(path, box, picture)
            except (DecodingError, OSError, MemoryError) as error:
                found[row] = _unusable(path, error)
            if held > TASK_BYTES:
                found.update(self._handed_over(waiting, order))
                waiting, held = [], 0
        found.update(self._handed_over(waiting, order))
        pictures = [(pixels, source.paths[row]) for row, pixels in plain]
        made = prepare_together(pictures, self.preprocessing)
        for (row, _), picture in zip(plain, made, strict=True):
            found[row] = self._prepared(source.paths[row], None, picture)
        return [found[row] for row in rows]

    def _handed_over(
        self, waiting: list[tuple[int, Item]], order: Order
    ) -> Iterator[tuple[int, Prepared]]:
        """What a process makes of some images."""
        if not waiting:
            return
        check_whole_files()
        answers = shared_pool().prepare([item for _, item in waiting], order)
        for (row, item), answer in zip(waiting, answers, strict=True):
            yield row, self._prepared(item.path, item.box, answer)

    def _prepared(
        self, path: str, box: Box | None, answer: PreparedPicture | DecodingError
    ) -> Prepared:
        if isinstance(answer, DecodingError):
            if answer.code == NO_DECODER:  # no fault of the picture: it must not be left out
                raise ProcessError(
                    f"'{path}' could not be decoded: {answer}. End other programs or raise the "
                    "limits of processes and memory, and go on with --resume."
                )
            return _unusable(path, answer)
        self.keep(answer, box)
        return answer.facts, answer.pixels

    def extract(
        self, source: ImageSource, rows: Sequence[int], *, isolated: bool | None = None
    ) -> Iterator[tuple[list[int], list[ImageFacts], npt.NDArray[np.float16]]]:
        """Features of some rows, batch by batch, in order.

        Args:
            source: the images.
            rows: which of them.
            isolated: decode them in processes that can be killed; None does so for more than a few.

        Yields:
            The batch's rows, their facts, and (B, D) float16 features; a row that could not be
            decoded has a problem in its facts and zeros for features.
        """
        whole = self.extract_views(source, rows, (WHOLE,), isolated=isolated)
        for batch, facts, values in whole:
            yield batch, facts, values[:, 0]

    def extract_views(
        self,
        source: ImageSource,
        rows: Sequence[int],
        views: Views,
        *,
        isolated: bool | None = None,
    ) -> Iterator[tuple[list[int], list[ImageFacts], npt.NDArray[np.float16]]]:
        """As `extract`, each picture decoded once for V views: features are (B, V, D) float16."""
        size = max(1, self.batch_size // len(views))  # pictures: what is in memory is their views
        isolated = len(rows) > FEW if isolated is None else isolated
        batches = [list(rows[i : i + size]) for i in range(0, len(rows), size)]
        workers = max(1, usable_cores())
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        waiting: Waiting = deque()
        in_flight: deque[tuple[list[int], list[ImageFacts], Fetch]] = deque()
        upcoming = iter(batches)
        prepare = partial(self.prepare_views, source, views=views, isolated=isolated)
        each = TASK_IMAGES if isolated else 1
        try:
            for _ in range(BATCHES_AHEAD):
                _submit(pool, prepare, upcoming, waiting, each)
            while waiting or in_flight:
                if waiting:
                    batch, futures = waiting.popleft()
                    prepared = [one for future in futures for one in future.result()]
                    _submit(pool, prepare, upcoming, waiting, each)
                    facts = [found for found, _ in prepared]
                    in_flight.append((batch, facts, self._launch_good(prepared, views)))
                if not waiting or len(in_flight) > self.lag:
                    batch, facts, fetch = in_flight.popleft()
                    yield batch, facts, fetch()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _launch_good(self, prepared: Sequence[Prepared], views: Views) -> Fetch:
        """As `launch`, with zeros for the pictures that could not be decoded."""
        values = np.zeros((len(prepared), len(views), self.num_features), dtype=np.float16)
        good = [i for i, (_, pixels) in enumerate(prepared) if pixels is not None]
        if not good:
            return lambda: values
        fetch = self.launch([pixels for _, pixels in prepared if pixels is not None])

        def filled() -> npt.NDArray[np.float16]:
            values[good] = fetch()
            return values

        return filled


class FeatureExtractor(Extractor):
    """A network placed on a device, and the threads that feed it."""

    def __init__(
        self,
        network: Network,
        execution: Execution,
        batch_size: int = 0,
        *,
        engine: PassEngine | None = None,
    ) -> None:
        """Copy the network to its device and precision.

        Args:
            network: stays as it is.
            execution: device, precision, layout.
            batch_size: images a forward pass; 0 takes 64 on a CPU and 256 on a GPU.
            engine: from `choose_engine`; None takes PyTorch.
        """
        batch_size = batch_size or (256 if execution.device == "cuda" else 64)
        super().__init__(network.preprocessing, network.num_features, batch_size)
        self.network = network
        self.execution = execution
        self.engine = engine or PassEngine()
        size = network.preprocessing.size
        self.normalisation = Normalisation(network.preprocessing, execution.device)
        self.lag = LAG if execution.device == "cuda" else 0
        self.smallest_batch = SMALLEST_BATCH[execution.precision]
        self.module: Callable[[torch.Tensor], torch.Tensor]
        if self.engine.name == OPENVINO:
            self.smallest_batch = batch_size  # the graph takes no other
            self.module = OpenVinoNetwork(network.module, execution, batch_size, size)
        else:
            self.module = place_module(network.module, execution, size)

    @property
    def key(self) -> str:
        """What of engine, device and precision can change the figures; part of every cache key."""
        if self.engine.name == OPENVINO:
            return f"{self.execution.key}-openvino{openvino_version()}-batch{self.batch_size}"
        return f"{self.execution.key}{'-folded' * folds(self.execution)}"

    def describe(self) -> str:
        """Engine and device in one line for people."""
        name = {EAGER: "PyTorch", OPENVINO: "OpenVINO"}[self.engine.name]
        return f"{name}, {self.execution.describe()}"

    def forward(self, pixels: torch.Tensor) -> npt.NDArray[np.float16]:
        """(B, H, W, 3) uint8 pixels of the network's size -> (B, D) float16 features.

        Raises:
            WeightsError: a feature is not finite or does not fit 16 bits.
        """
        return self._checked(self._launched(pixels))

    def launch(self, pictures: Sequence[Bytes8]) -> Fetch:
        """As of any extractor; on a CUDA device nothing is waited for.

        Raises:
            WeightsError: as of `forward`; on a CUDA device what is returned raises it.
        """
        if self.execution.device != "cuda":
            return super().launch(pictures)
        squares = stack_pinned(pictures)
        size = self.batch_size
        parts = [self._launched(squares[i : i + size]) for i in range(0, len(squares), size)]
        shape = (len(pictures), -1, self.num_features)
        return lambda: np.concatenate([self._checked(part) for part in parts]).reshape(shape)

    @torch.inference_mode()
    def _launched(self, pixels: torch.Tensor) -> Launched:
        """Run the network on (B, H, W, 3) uint8 pixels; copies from pinned memory do not wait."""
        count = len(pixels)
        pixels = pixels.to(self.execution.device, non_blocking=pixels.is_pinned())
        if count < self.smallest_batch:
            filling = pixels.new_zeros((self.smallest_batch - count, *pixels.shape[1:]))
            pixels = torch.cat([pixels, filling])
        x = self.normalisation(pixels)
        if not self.execution.channels_last:
            x = x.contiguous()
        if self.engine.name == EAGER:
            x = x.to(self.execution.dtype)
        return launched(self.module(x).float()[:count])

    def _checked(self, batch: Launched) -> npt.NDArray[np.float16]:
        """The features of a batch, when they are there.

        Raises:
            WeightsError: a feature is not finite or does not fit 16 bits.
        """
        batch.wait()
        largest = float(batch.largest)
        if not largest < HALF_MAX:  # neither is NaN
            exact = self.execution.dtype == torch.float32
            advice = "Check the weights" + ("." if exact else ", or use --precision float32.")
            raise WeightsError(
                f"The features of {self.network.spec.name} do not fit 16 bits (the largest is "
                f"{largest:.3g}). {advice}"
            )
        half: npt.NDArray[np.float16] = batch.half.numpy()
        return half


def _submit(
    pool: ThreadPoolExecutor,
    prepare: Callable[[Sequence[int]], list[Prepared]],
    upcoming: Iterator[list[int]],
    waiting: Waiting,
    each: int,
) -> None:
    """Have the next batch prepared, some images a task; nothing where there is none."""
    batch = next(upcoming, None)
    if batch is not None:
        tasks = [batch[i : i + each] for i in range(0, len(batch), each)]
        waiting.append((batch, [pool.submit(prepare, rows) for rows in tasks]))


def warm_decoders(source: ImageSource, row: int) -> None:
    """Start the processes that decode encoded pictures, so that no clock counts it later.

    What does not start, or cannot be read, is told when it is wanted.
    """
    with suppress(OSError, DecodingError):
        if isinstance(source.read(row), bytes):
            shared_pool().warm()


def _unusable(path: str, error: Exception) -> Prepared:
    """Facts of an image that cannot be used, and why."""
    if isinstance(error, DecodingError):
        problem = str(error)
    elif isinstance(error, OSError):
        problem = f"unreadable file ({error.strerror or error})"
    else:
        problem = "too large for the memory"
    return ImageFacts(path=path, problem=problem), None
