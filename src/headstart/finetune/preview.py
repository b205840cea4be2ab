"""What can be looked at before a training: augmented pictures, and which learning rate to take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from headstart.data import decode
from headstart.data.preparing import square_pixels
from headstart.errors import UsageError
from headstart.finetune.batches.augmentation import draw_seed
from headstart.finetune.batches.images import TrainingData, prepare_images
from headstart.finetune.batches.objectives import DenseLayers
from headstart.finetune.preparing import check_strategy
from headstart.finetune.rates import RateSearch, find_rate
from headstart.finetune.records.pictures import augmentation_figure, rate_figure
from headstart.finetune.settings import TrainSettings
from headstart.finetune.strategies import STRATEGIES
from headstart.heads import fit_scaled_logistic, penalty_path
from headstart.inference import FeatureExtractor
from headstart.progress import Progress
from headstart.records import Bytes8, ImageTable, Preprocessing

MOST_VIEWS = 12
FEWEST_STEPS = 10
SEARCH_KEY = 4  # first number of the key that images for a search are drawn by


def augment_preview(
    table: ImageTable,
    rows: Sequence[int],
    policy: str,
    preprocessing: Preprocessing,
    *,
    views: int = 5,
    seed: int = 0,
) -> Figure:
    """A row an image: as the network sees it, then some views that a training would learn from.

    Args:
        table: the data.
        rows: readable images of it.
        policy: a name or a list of steps, as `TrainSettings.augmentation`.
        preprocessing: size and resizing of a network; augmentation acts after them.
        views: how many draws an image.
        seed: of the draws.

    Raises:
        UsageError: a policy that cannot be, `views` out of range, or no rows.
    """
    if not 1 <= views <= MOST_VIEWS:
        raise UsageError(
            f"`views` must be between 1 and {MOST_VIEWS}, got {views}. Correct --views."
        )
    if not len(rows):
        raise UsageError("`rows` must name at least one image, got none. Choose some.")
    pixels = np.stack([seen_pixels(table, row, preprocessing) for row in rows])
    names = [table.label_of(row) for row in rows]
    return augmentation_figure(torch.from_numpy(pixels), names, policy, views=views, seed=seed)


def seen_pixels(table: ImageTable, row: int, preprocessing: Preprocessing) -> Bytes8:
    """(S, S, 3) uint8 of one image, cropped to its box and resized as a training does."""
    box = table.box_of(row)
    return square_pixels(table.read(row), table.paths[row], box, preprocessing, decode)


def search_rate(
    table: ImageTable,
    extractor: FeatureExtractor,
    settings: TrainSettings,
    *,
    num_steps: int = 100,
    progress: Progress | None = None,
) -> RateSearch:
    """`find_rate` on labelled images that are not for testing, from the start that a run has.

    Args:
        table: the data; only as many images are read as the steps can look at.
        extractor: the network and where it is computed.
        settings: of the training that the rate is for.
        num_steps: steps of the optimizer while the rate grows.
        progress: silent where None.

    Raises:
        UsageError: a strategy without steps, or one that the network does not have.
        DataError: fewer than two images.
        HeadstartError: the loss is not finite from the first step on.
    """
    if num_steps < FEWEST_STEPS:
        raise UsageError(
            f"`num_steps` must be {FEWEST_STEPS} or more, got {num_steps}. Raise --steps."
        )
    check_strategy(extractor.network, settings)
    splits = np.array(table.splits)
    tested = "test" if "test" in table.splits else "val"  # as a run takes them
    rows = np.flatnonzero((table.labels >= 0) & (splits != tested))
    order = np.random.default_rng(draw_seed(SEARCH_KEY, settings.seed)).permutation(rows)
    chosen = table.take(order[: num_steps * settings.batch_size])
    prepared = prepare_images(chosen, extractor, progress=progress or Progress())
    data = TrainingData(
        images=prepared.pixels,
        labels=chosen.labels,
        train_rows=np.flatnonzero(prepared.good),
        inner_rows=np.empty(0, dtype=np.int64),
        num_classes=len(table.class_names),
    )
    starts_from_probe = STRATEGIES.get(settings.strategy).from_probe and not settings.hidden
    return find_rate(
        extractor.network,
        data,
        settings,
        execution=extractor.execution,
        start_head=probe_head(extractor, data) if starts_from_probe else None,
        num_steps=num_steps,
    )


def probe_head(extractor: FeatureExtractor, data: TrainingData) -> DenseLayers:
    """A logistic head on the frozen features of the training rows, with a middling penalty."""
    rows, size = torch.from_numpy(data.train_rows), extractor.batch_size
    features = [
        extractor.forward(data.images[rows[start : start + size]])
        for start in range(0, len(rows), size)
    ]
    fit = fit_scaled_logistic(
        torch.from_numpy(np.concatenate(features)).float(),
        torch.from_numpy(data.labels[data.train_rows]),
        torch.ones((1, len(rows)), dtype=torch.float64),
        penalty_path(3)[1:2],
        data.num_classes,
    )
    return ((fit.coef[0].float().cpu(), fit.intercept[0].float().cpu()),)


def rate_preview(search: RateSearch, model: str, strategy: str) -> Figure:
    """The losses of a search for a learning rate, the suggestion marked.

    Args:
        search: from `find_rate`.
        model: of the network, for the title.
        strategy: for the title.
    """
    title = f"Search for a learning rate: {model}, {strategy}"
    return rate_figure(search.rates, search.losses, search.suggested, title)
