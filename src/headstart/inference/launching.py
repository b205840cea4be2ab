"""Batches on their way through a CUDA device while the host goes on.

A launch copies pinned pixels to the device, runs the network and copies the features back, all in
one stream and without waiting; whoever fetches waits for that batch alone. Pinned memory comes from
PyTorch's caching allocator: it notes the stream of every copy that does not wait and hands a block
out again only when those copies are done, so dropping a tensor early is safe. Buffers of our own in
a ring were rejected: they would need the same bookkeeping.

On other devices nothing is in flight: a launch computes, and a fetch finds the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from headstart.records import Bytes8

# Waits for a batch that was launched and gives its features.
Fetch = Callable[[], npt.NDArray[np.float16]]


@dataclass(frozen=True, kw_only=True)
class Launched:
    """Features of a batch that may still be on their way.

    Attributes:
        half: (B, D) float16 in the host's memory; not to be read before `wait`.
        largest: () float32 there too, the largest absolute feature before rounding; NaN where one
            is not a number.
        done: recorded behind the copies; None where they are done.
    """

    half: torch.Tensor
    largest: torch.Tensor
    done: torch.cuda.Event | None

    def wait(self) -> None:
        """Return when both tensors can be read."""
        if self.done is not None:
            self.done.synchronize()


def launched(values: torch.Tensor) -> Launched:
    """Round (B, D) float32 features on their device and send them to the host."""
    half = values.half()
    largest = values.abs().amax() if len(values) else values.new_zeros(())
    if not values.is_cuda:
        return Launched(half=half.cpu(), largest=largest.cpu(), done=None)
    sent = [
        torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part, non_blocking=True)
        for part in (half, largest)
    ]
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # sleeps, not spins
    done.record()
    return Launched(half=sent[0], largest=sent[1], done=done)


def stack_pinned(pictures: Sequence[Bytes8]) -> torch.Tensor:
    """(V, H, W, 3) blocks of pictures -> (B * V, H, W, 3) in pinned memory."""
    shape = (len(pictures), *pictures[0].shape)
    stacked = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
    np.stack(pictures, out=stacked.numpy())
    return stacked.flatten(0, 1)
