"""What the features of one backbone are worth: neighbours, a probe, LogME."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from headstart.features import extract_features
from headstart.heads import (
    fit_with_chosen_penalty,
    head_logits,
    k_nearest_neighbours,
    logme,
    penalty_path,
)
from headstart.inference import FeatureExtractor
from headstart.inference.extractor import warm_decoders
from headstart.progress import Progress
from headstart.records import Features, ImageTable, Integers
from headstart.runs.parts.units import Bools

WARMING = 16  # images that go first: kernels are chosen once
TIMED, LONGEST_S = 192, 5.0  # what stands for a pass whose features came from the store
COMPUTED, STORED = "measured", "from the store, estimated"

Half = npt.NDArray[np.float16]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What M images say of one backbone's features.

    Attributes:
        neighbours: (M,) out-of-fold answers of the nearest images.
        probe: (M,) those of a logistic head.
        logme: of all M images at once.
        seconds: wall seconds of all three.
    """

    neighbours: Integers
    probe: Integers
    logme: float
    seconds: float


def score_features(
    values: Half, labels: Integers, fold: Integers, inner: Bools, num_classes: int
) -> Scores:
    """Neighbours and probe out of fold, LogME beside them.

    Args:
        values: (M, D).
        labels: (M,).
        fold: (M,) the fold that scores each image.
        inner: (F, M) images that choose the probe's penalty in each fold.
        num_classes: C.
    """
    begun = time.perf_counter()
    return Scores(
        neighbours=neighbour_answers(values, labels, fold, num_classes),
        probe=probe_answers(values, labels, fold, inner, num_classes),
        logme=logme(values, labels, num_classes),
        seconds=time.perf_counter() - begun,
    )


def neighbour_answers(values: Half, labels: Integers, fold: Integers, num_classes: int) -> Integers:
    """(M,) the commonest class of the nearest images by angle, none of them of the same fold."""
    features, known = torch.from_numpy(values).float(), torch.from_numpy(labels)
    answers = np.empty_like(labels)
    for number in range(int(fold.max()) + 1):
        scored = fold == number
        votes = k_nearest_neighbours(
            features[~scored], known[~scored], features[scored], num_classes
        )
        answers[scored] = votes.argmax(1).numpy()
    return answers


def probe_answers(
    values: Half, labels: Integers, fold: Integers, inner: Bools, num_classes: int
) -> Integers:
    """(M,) answers of a logistic head, as a run fits it, to what it did not learn from."""
    numbers = np.arange(len(inner))
    fit = fit_with_chosen_penalty(
        torch.from_numpy(values).float(),
        torch.from_numpy(labels),
        torch.from_numpy(fold != numbers[:, None]).float(),
        torch.from_numpy(inner),
        penalty_path(),
        num_classes,
    )
    answers = np.empty_like(labels)
    for number in numbers:
        scored = fold == number
        layers = ((fit.coef[number], fit.intercept[number]),)
        answers[scored] = head_logits(values[scored], layers).argmax(axis=1)
    return answers


def timed_pass(
    extractor: FeatureExtractor, table: ImageTable, progress: Progress
) -> tuple[Features, float, str]:
    """Features of a table, images a second of the pass, and how that is known.

    Args:
        extractor: the network on its device.
        table: the sample.
        progress: gets a step an image.
    """
    warm_decoders(table, 0)
    for _ in extractor.extract(table, range(min(WARMING, len(table))), isolated=True):
        pass
    features = extract_features(table, extractor, progress=progress)
    if features.computed >= min(len(table), TIMED):
        return features, features.computed / max(features.seconds["compute"], 1e-3), COMPUTED
    return features, estimated_rate(extractor, table), STORED


def estimated_rate(extractor: FeatureExtractor, table: ImageTable) -> float:
    """Images a second over the first few batches, so that decoding and computing overlap."""
    done, begun = 0, time.perf_counter()
    for rows, _, _ in extractor.extract(table, range(min(TIMED, len(table))), isolated=True):
        done += len(rows)
        if time.perf_counter() - begun > LONGEST_S:
            break
    return done / max(time.perf_counter() - begun, 1e-3)
