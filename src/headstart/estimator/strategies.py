"""How an estimator learns: one function a strategy, from labelled images to a fitted model.

What a fitted model keeps is small: the head, and the request by which the network is built again.
So copies in other processes and pickles carry kilobytes. The networks themselves are kept once a
process; a digest proves that a rebuilt one is the one the head was fitted on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from headstart.backbones import WEIGHT_CHOICES, build_network, find_backbone
from headstart.backbones.weights import WEIGHTS_VARIABLE
from headstart.bundle import FittedHead
from headstart.errors import UsageError, WeightsError
from headstart.estimator.choices import Choices, NetworkRequest
from headstart.estimator.head_fits import HEAD_FITS, Examples, Half, refuse_not_finite
from headstart.estimator.inputs import refuse_unreadable
from headstart.features import extract_features
from headstart.inference import FeatureExtractor, ImageList
from headstart.progress import Progress
from headstart.records import ImageFacts
from headstart.runtime import choose_execution

NETWORKS_KEPT = 4


class Fitted(Protocol):
    """What a strategy leaves; it must survive pickling."""

    @property
    def head(self) -> FittedHead:
        """The head, in memory."""

    def extractor(self) -> FeatureExtractor:
        """The network that the head stands on, placed in this process."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedProbe:
    """A head on a frozen network that can be built again.

    Attributes:
        head: on the network's features.
        request: how to build the network.
        digest: of the network that the head was fitted on.
    """

    head: FittedHead
    request: NetworkRequest
    digest: str

    def extractor(self) -> FeatureExtractor:
        """The network, built again in a new process.

        Raises:
            WeightsError: the weights are others than those the head was fitted on.
        """
        extractor = find_extractor(self.request)
        if extractor.network.digest != self.digest:
            raise WeightsError(
                f"The weights of {self.request.backbone} (`weights={self.request.weights!r}`) are "
                "not those this estimator was fitted on. Bring those back, or fit it again."
            )
        return extractor


def find_extractor(request: NetworkRequest) -> FeatureExtractor:
    """The network of a request on its device: built once a process, and anew if its file changes.

    Raises:
        UsageError: a network, size, device or precision that cannot be.
        WeightsError: the weights are not at hand or do not fit.
    """
    path = Path(request.weights)
    stamp: tuple[object, ...] = (os.environ.get(WEIGHTS_VARIABLE),)
    if request.weights not in WEIGHT_CHOICES and path.is_file():
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
    return _build(request, stamp)


@lru_cache(maxsize=NETWORKS_KEPT)
def _build(request: NetworkRequest, _stamp: tuple[object, ...]) -> FeatureExtractor:
    execution = choose_execution(request.device, request.precision)
    network = build_network(
        find_backbone(request.backbone),
        weights=request.weights,
        image_size=request.image_size,
        seed=request.seed,
        layers=request.layers,
    )
    return FeatureExtractor(network, execution)


def features_of(
    images: ImageList, extractor: FeatureExtractor, *, cache: bool, progress: Progress
) -> Half:
    """(N, D) float16 features, read from the feature store where it has them.

    Raises:
        DataError: an image cannot be read; the first ones are named.
        StorageError: the disk is full.
    """
    if cache:
        features = extract_features(images, extractor, progress=progress)
        refuse_unreadable(features.facts)
        return features.values
    facts: list[ImageFacts] = []
    values: list[Half] = []
    title = f"Features by {extractor.network.spec.name}"
    with progress.phase(title, len(images)) as advance:
        for rows, batch_facts, batch_values in extractor.extract(images, range(len(images))):
            facts.extend(batch_facts)
            values.append(batch_values)
            advance(len(rows))
    refuse_unreadable(facts)
    return np.concatenate(values)


def fit_probe(choices: Choices, examples: Examples) -> Fitted:
    """Train a head on the features of the frozen network."""
    request = choices.request
    extractor = find_extractor(request)
    values = features_of(examples.images, extractor, cache=choices.cache, progress=choices.progress)
    head = HEAD_FITS[choices.head](choices, examples, values)
    refuse_not_finite(head)
    return FittedProbe(head=head, request=request, digest=extractor.network.digest)


STRATEGIES: dict[str, Callable[[Choices, Examples], Fitted]] = {"probe": fit_probe}


def fit_with_strategy(choices: Choices, examples: Examples) -> Fitted:
    """Learn by the strategy that was chosen.

    Raises:
        UsageError: there is no such strategy.
    """
    fit = STRATEGIES.get(choices.strategy)
    if fit is None:
        raise UsageError(
            f"`strategy` must be one of {', '.join(STRATEGIES)}, got '{choices.strategy}'. "
            "Correct it."
        )
    return fit(choices, examples)
