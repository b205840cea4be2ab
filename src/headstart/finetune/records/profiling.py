"""Where the seconds of a training go, by name.

Spans nest and are exclusive: while an inner one runs, the outer one's clock stands still, so that
all of them together are the time of the outermost. Wall time says how long it took, processor time
(of all threads) how much work it was; on a shared machine the second is the steadier. A GPU works
behind the program's back, so its queue is waited for at both ends of a span where exact seconds
are asked for; that costs a little, and is done with `--profile` only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

PICTURES, AUGMENT, FROZEN = "pictures, read", "augment", "frozen stages"
CACHE_FILL, CACHE_READ = "freeze-point cache, filled", "freeze-point cache, read"
FORWARD, BACKWARD, OPTIMIZER = "forward", "backward", "optimizer"
INNER, CHECKPOINT, REST = "inner part", "checkpoint", "the rest"


@dataclass
class Span:
    """What was measured under one name.

    Attributes:
        wall: seconds.
        cpu: seconds of all threads.
        calls: how often it was entered.
    """

    wall: float = 0.0
    cpu: float = 0.0
    calls: int = 0


class Stopwatch:
    """Adds up exclusive seconds by name."""

    def __init__(self, *, wait_for_gpu: bool = False) -> None:
        """Begin with nothing measured; `wait_for_gpu` where exact seconds of one are wanted."""
        self.spans: dict[str, Span] = {}
        self.wait_for_gpu = wait_for_gpu and torch.cuda.is_available()
        self._open: list[str] = []
        self._since = (0.0, 0.0)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Measure a block, without what is measured inside it under other names."""
        self._switch()
        self._open.append(name)
        self.spans.setdefault(name, Span()).calls += 1
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        """Credit the seconds since the last switch to the innermost open span."""
        if self.wait_for_gpu:
            torch.cuda.synchronize()
        now = time.perf_counter(), time.process_time()
        if self._open:
            span = self.spans[self._open[-1]]
            span.wall += now[0] - self._since[0]
            span.cpu += now[1] - self._since[1]
        self._since = now


def added(profiles: Sequence[Mapping[str, Span]]) -> dict[str, Span]:
    """The spans of several trainings in one."""
    total: dict[str, Span] = {}
    for profile in profiles:
        for name, span in profile.items():
            own = total.setdefault(name, Span())
            own.wall, own.cpu = own.wall + span.wall, own.cpu + span.cpu
            own.calls += span.calls
    return total
