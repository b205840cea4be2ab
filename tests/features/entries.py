"""Entries whose content hangs on their number, so that a wrong one is told at once."""

from __future__ import annotations

from functools import cache

import numpy as np

from headstart.records import ImageFacts

WIDTH = 16


@cache
def entry(number: int):
    vector = np.random.default_rng(number).normal(size=WIDTH).astype(np.float16)
    facts = ImageFacts(path="", digest=f"{number:032x}", width=number, format="PNG")
    return f"{number:032x}", vector, facts


def check_entries(found, numbers):
    for number in numbers:
        digest, vector, facts = entry(number)
        assert np.array_equal(found[digest][0], vector)
        assert found[digest][1] == facts


def read_entries(store, until) -> list[int]:
    """The numbers of those found, each one right."""
    found = store.get([entry(n)[0] for n in range(until)])
    numbers = [int(digest, 16) for digest in found]
    check_entries(found, numbers)
    return numbers
