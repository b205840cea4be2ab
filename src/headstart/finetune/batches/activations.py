"""The freeze-point cache: what frozen stages give is computed once, kept in 16 bits and read.

The first stages of a network that do not learn give the same activations every epoch, as long as
the pictures are the same: without augmentation, or with a fixed number of views that are replayed.
They lie in a mapped file that goes with the process. Where they do not fit, the stages are run
again each time; their result is rounded to the same 16 bits then, so that the figures do not
depend on the room on a disk. What remains is the order in which a kernel sums for another batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from headstart.errors import StorageError
from headstart.features import scratch_array
from headstart.finetune.batches.images import PLAIN, Frames
from headstart.progress import Progress
from headstart.records import Integers

Compute = Callable[[Tensor], Tensor]
BATCH = 64
HALF_MAX = 65504.0


def in_16_bits(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded to 16 bits, in float32 again; a number too large for them stays as it is."""
    rounded = x.to(dtype).float()
    if dtype == torch.float16 and not fits_16_bits(x):
        return torch.where(x.abs() < HALF_MAX, rounded, x.float())
    return rounded


def fits_16_bits(x: Tensor) -> bool:
    """Whether float16 holds every number."""
    return bool((x.abs() < HALF_MAX).all())


class ActivationCache:
    """The activations of some rows, one view after the other, in a mapped file."""

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, keys: Iterable[tuple[int, Integers]]
    ) -> None:
        """Take room for them.

        Args:
            shape: of one image's activations.
            dtype: float16 or bfloat16.
            keys: (view, rows) pairs.

        Raises:
            StorageError: the disk has no room.
        """
        pairs = [(view, int(row)) for view, rows in keys for row in rows]
        self.position = {pair: index for index, pair in enumerate(pairs)}
        stored = scratch_array((len(pairs), *shape), np.int16)
        self.values = torch.from_numpy(stored).view(dtype)

    def read(self, rows: Integers, view: int | Integers) -> Tensor:
        """(B, ...) float32 on the CPU; one view for all rows or one a row."""
        views = np.broadcast_to(view, len(rows)).tolist()
        pairs = zip(views, rows.tolist(), strict=True)
        index = torch.tensor([self.position[pair] for pair in pairs])
        return self.values[index].float()


def cache_bytes(shape: tuple[int, ...], num_images: int) -> int:
    """Bytes of so many activations in 16 bits."""
    return 2 * num_images * int(np.prod(shape))


@torch.no_grad()
def fill_cache(
    frames: Frames,
    compute: Compute,
    keys: list[tuple[int, Integers]],
    *,
    dtype: torch.dtype,
    most_bytes: int,
    progress: Progress,
) -> ActivationCache | None:
    """Compute and keep the activations of all keys, or say why they are not kept.

    Args:
        frames: the pictures.
        compute: the frozen stages, (B, 3, H, W) -> (B, ...).
        keys: (view, rows) pairs.
        dtype: float16 or bfloat16.
        most_bytes: a larger cache is not written.
        progress: hears the size before anything is written.

    Returns:
        The cache; None where it is too large, does not fit on the disk or into 16 bits.
    """
    count = sum(len(rows) for _, rows in keys)
    first_view, first_rows = keys[0]
    shape = tuple(compute(frames(first_rows[:1], first_view)).shape[1:])
    size = cache_bytes(shape, count)
    words = f"{count:,} x {' x '.join(str(n) for n in shape)} in 16 bits, {size / 2**20:,.0f} MiB"
    if size > most_bytes:
        progress.note(
            f"The activations of the frozen stages ({words}) are above the limit of "
            f"{most_bytes / 2**20:,.0f} MiB; they are computed again every epoch."
        )
        return None
    progress.note(f"Freeze point: activations of the frozen stages are kept, {words}")
    try:
        cache = ActivationCache(shape, dtype, keys)
    except StorageError as error:
        progress.note(f"{error} They are computed again every epoch.")
        return None
    with progress.phase("Activations of the frozen stages", count) as advance:
        for view, rows in keys:
            for start in range(0, len(rows), BATCH):
                part = rows[start : start + BATCH]
                found = compute(frames(part, view))
                if dtype == torch.float16 and not fits_16_bits(found):
                    progress.note(
                        "The activations of the frozen stages do not fit 16 bits; they are "
                        "computed again every epoch."
                    )
                    return None
                where = cache.position[view, int(part[0])]
                cache.values[where : where + len(part)] = found.to(dtype).cpu()
                advance(len(part))
    return cache


def cache_keys(
    train_rows: Integers, inner_rows: Integers, views: int
) -> list[tuple[int, Integers]]:
    """Which views of which rows a fit will ask for; `views` 0 means the plain pictures."""
    if not views:
        rows = [(PLAIN, np.concatenate([train_rows, inner_rows]))]
        return [(view, np.sort(found)) for view, found in rows]
    keys = [(view, train_rows) for view in range(views)]
    return [*keys, (PLAIN, inner_rows)] if len(inner_rows) else keys
