"""What can be looked at before a training: augmented pictures, and which learning rate to take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from headstart.data import decode
from headstart.errors import UsageError
from headstart.finetune.pictures import augmentation_figure, rate_figure
from headstart.finetune.rates import RateSearch
from headstart.inference import resize_pixels
from headstart.records import ImageTable, Preprocessing

MOST_VIEWS = 12


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


def seen_pixels(table: ImageTable, row: int, preprocessing: Preprocessing) -> np.ndarray:
    """(S, S, 3) uint8 of one image, cropped to its box and resized as a training does."""
    from headstart.data.preview import cropped

    picture = decode(table.read(row), table.paths[row])[0]
    return resize_pixels(cropped(picture, table.box_of(row)), preprocessing)


def rate_preview(search: RateSearch, model: str, strategy: str) -> Figure:
    """The losses of a search for a learning rate, the suggestion marked.

    Args:
        search: from `find_rate`.
        model: of the network, for the title.
        strategy: for the title.
    """
    title = f"Search for a learning rate: {model}, {strategy}"
    return rate_figure(search.rates, search.losses, search.suggested, title)
