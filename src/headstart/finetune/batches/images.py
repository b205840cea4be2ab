"""Pictures for training: decoded and resized once, then augmented and normalised a batch.

The loader has no workers: pixels lie ready in memory or in a mapped file, and the order of an
epoch hangs on (seed, fold, epoch) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch

from headstart.errors import DataError
from headstart.features import new_array
from headstart.finetune.batches.augmentation import Augmenter, draw_seed
from headstart.finetune.records.profiling import AUGMENT, PICTURES, Stopwatch
from headstart.inference import FeatureExtractor, ImageSource
from headstart.inference.extractor import TASK_IMAGES
from headstart.inference.preprocessing import normalise
from headstart.limits import usable_cores
from headstart.progress import Progress
from headstart.records import ImageFacts, Integers, Preprocessing
from headstart.runtime import Execution

CHUNK = 256
PLAIN = -1  # the view without augmentation


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedImages:
    """Every picture of a table at the network's size.

    Attributes:
        pixels: (N, S, S, 3) uint8; zeros where an image could not be read.
        facts: N records of what decoding found.
        good: (N,) bool, False where an image could not be read.
    """

    pixels: torch.Tensor
    facts: tuple[ImageFacts, ...]
    good: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """The pictures of one fit and who is learnt from.

    Attributes:
        images: (N, S, S, 3) uint8, in memory or mapped.
        labels: (N,) int64.
        train_rows: rows that are learnt from.
        inner_rows: rows that choose the epoch; empty for a fit of a given length.
        num_classes: C.
    """

    images: torch.Tensor
    labels: Integers
    train_rows: Integers
    inner_rows: Integers
    num_classes: int

    def __post_init__(self) -> None:
        """Check what can be checked cheaply.

        Raises:
            DataError: too few rows to learn from.
        """
        assert self.images.dtype == torch.uint8
        assert self.images.ndim == 4
        assert len(self.images) == len(self.labels)
        assert not set(self.train_rows.tolist()) & set(self.inner_rows.tolist())
        if len(self.train_rows) < 2:
            raise DataError(
                f"Training must have at least 2 images, got {len(self.train_rows)}. Add images."
            )


def prepare_images(
    source: ImageSource,
    extractor: FeatureExtractor,
    *,
    progress: Progress,
) -> PreparedImages:
    """Decode and resize every picture once, exactly as prediction does.

    Args:
        source: the images.
        extractor: knows how its network wants them.
        progress: gets one step an image.

    Raises:
        StorageError: more pictures than memory holds, and no room for them on the disk.
    """
    size = extractor.network.preprocessing.size
    pixels = new_array((len(source), size, size, 3), np.uint8)
    facts: list[ImageFacts] = []
    good = np.zeros(len(source), dtype=bool)
    with (
        progress.phase("Pictures for training", len(source)) as advance,
        ThreadPoolExecutor(max(1, usable_cores()), thread_name_prefix="decode") as pool,
    ):
        for start in range(0, len(source), CHUNK):
            rows = range(start, min(start + CHUNK, len(source)))
            tasks = [rows[i : i + TASK_IMAGES] for i in range(0, len(rows), TASK_IMAGES)]
            found = pool.map(lambda task: extractor.prepare_many(source, task), tasks)
            for row, (record, picture) in zip(rows, chain.from_iterable(found), strict=True):
                facts.append(record)
                if picture is not None:
                    pixels[row], good[row] = picture, True
            advance(len(rows))
    return PreparedImages(pixels=torch.from_numpy(pixels), facts=tuple(facts), good=good)


def epoch_batches(
    rows: Integers,
    batch_size: int,
    *,
    seed: int,
    fold: int,
    epoch: int,
    balanced: Integers | None = None,
) -> list[Integers]:
    """The batches of one epoch, in an order of its own.

    A last batch of a single image joins the one before it: batch normalisation needs two.

    Args:
        rows: (M,) that are learnt from; an epoch has M images however they are drawn.
        batch_size: images a batch.
        seed: of everything random.
        fold: 0 or more.
        epoch: counted over all phases.
        balanced: (M,) labels of `rows`; given, images are drawn with replacement, every class
            that is there with the same probability. None takes each row once.
    """
    generator = np.random.default_rng(draw_seed(seed, fold, epoch))
    if balanced is None:
        order = generator.permutation(rows)
    else:
        order = generator.choice(rows, size=len(rows), p=even_probabilities(balanced))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def even_probabilities(labels: Integers) -> npt.NDArray[np.float64]:
    """(M,) probability of each image: 1 / (present classes x images of its class)."""
    support = np.bincount(labels)
    return np.asarray(1 / (np.count_nonzero(support) * support[labels]))


def channels_innermost(execution: Execution) -> bool:
    """Whether training lays activations out channels-last.

    A training step of ResNet50 at 128 px takes 20 % less on a CPU so, also in float32, where
    prediction keeps channels first; only MPS does not like it.
    """
    return execution.device != "mps"


class Frames:
    """Gives batches of normalised pictures on the device."""

    def __init__(
        self,
        images: torch.Tensor,
        preprocessing: Preprocessing,
        augmenter: Augmenter,
        execution: Execution,
        fold: int,
        stopwatch: Stopwatch,
    ) -> None:
        """Keep what a batch is made of.

        Args:
            images: (N, S, S, 3) uint8.
            preprocessing: mean and deviation.
            augmenter: may change nothing.
            execution: device and layout.
            fold: part of every draw's key.
            stopwatch: gets the seconds.
        """
        self.images = images
        self.preprocessing = preprocessing
        self.augmenter = augmenter
        self.execution = execution
        self.fold = fold
        self.span = stopwatch.span

    def __call__(self, rows: Sequence[int] | Integers, view: int | Integers) -> torch.Tensor:
        """(B, 3, H, W) float32 of these rows.

        Args:
            rows: B rows.
            view: PLAIN for all, or the number of the draw, one for all or one a row.
        """
        with self.span(PICTURES):
            index = torch.as_tensor(np.asarray(rows), dtype=torch.int64)
            pixels = self.images[index]
            if not np.all(np.asarray(view) == PLAIN):
                with self.span(AUGMENT):
                    pixels = self.augmenter(pixels, index.tolist(), fold=self.fold, view=view)
            x = normalise(pixels.to(self.execution.device), self.preprocessing)
            return x if channels_innermost(self.execution) else x.contiguous()
