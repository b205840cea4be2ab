"""Smaller sets of images: whole units to look at first, single images to estimate a share from."""

from __future__ import annotations

import numpy as np

from headstart.records import Integers
from headstart.splitting.units import Bools, Groups, number_units


def sample_units(
    labels: Integers, count: int, *, groups: Groups | None = None, least: int, seed: int
) -> Bools:
    """About `count` images, every class in its share, units whole.

    Units come in random order, and one is taken while a class of it is short: of images, against
    its share of `count`, or of units, against `least`.  So a little more than `count` may be
    taken, and much more where classes are many and small, or units large.

    Args:
        labels: (N,) int64.
        count: images wanted, at least 1.
        groups: (N,) unit of each image, or None.
        least: units that every class gets, as far as it has them.
        seed: of the order.

    Returns:
        (N,) bool, True where taken; all of them where `count` is N or more.
    """
    if count >= len(labels):
        return np.ones(len(labels), dtype=bool)
    codes = np.arange(len(labels)) if groups is None else number_units(groups)
    totals = np.bincount(labels)
    wanted = np.maximum(1, np.round(count * totals / len(labels))).astype(np.int64).tolist()
    lacking = [least] * len(totals)
    order = np.random.default_rng(seed).permutation(int(codes.max()) + 1)
    cells, sizes = np.unique(codes * len(totals) + labels, return_counts=True)
    of_unit, of_class = np.divmod(cells, len(totals))
    begins = np.searchsorted(of_unit, np.arange(len(order) + 1)).tolist()
    classes, images = of_class.tolist(), sizes.tolist()
    taken = np.zeros(len(order), dtype=bool)
    for unit in order.tolist():
        inside = range(begins[unit], begins[unit + 1])
        if any(wanted[classes[i]] > 0 or lacking[classes[i]] > 0 for i in inside):
            taken[unit] = True
            for i in inside:
                wanted[classes[i]] -= images[i]
                lacking[classes[i]] -= 1
    return np.asarray(taken[codes])


def sample_evenly(strata: Integers, count: int, *, seed: int) -> Bools:
    """`count` images with equal chances, of every stratum its share to within one image.

    Systematic sampling (Madow and Madow 1944): the images lie in the order of their strata, within
    one at random, and every N / `count`-th is taken from a random start. So a mean over the sample
    estimates that over all without bias, however small a stratum is.

    Args:
        strata: (N,) int64, for instance of fold and class.
        count: images wanted, at least 1.
        seed: of the order and the start.

    Returns:
        (N,) bool, True where taken; all of them where `count` is N or more.
    """
    if count >= len(strata):
        return np.ones(len(strata), dtype=bool)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    places = (np.arange(count) * len(strata) + generator.integers(len(strata))) // count
    taken = np.zeros(len(strata), dtype=bool)
    taken[order[places]] = True
    return taken
