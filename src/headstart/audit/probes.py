"""Cheap classifiers for what is too wide for a shallow tree: thumbnails, embeddings, sources.

Thumbnails and embeddings go through ridge regression onto the classes, weighted so that every
class counts the same. The sums over each fold are made once; a fold's classifier comes from the
sums of the others, so that five folds cost little more than one. The penalty is fixed at a tenth
of the mean eigenvalue of standardised columns: a sweep would make the measurement better than
the question needs and five times dearer.
"""

from __future__ import annotations

import numpy as np

from headstart.audit.association import NUM_FOLDS
from headstart.audit.fingerprints import Record
from headstart.records import Floats, Integers

PENALTY = 0.1


def thumbnail_values(records: Record, *, masked: bool) -> Floats:
    """(N, F) colours of the 8 x 8 cells and their squares, so that grey can differ from both ends.

    Args:
        records: (N,) fingerprints.
        masked: leave only the outermost ring of 28 cells; the centre is covered.
    """
    cells = records["cells"].astype(np.float64) / 255
    ring = np.ones(cells.shape[1:3], dtype=bool)
    if masked:
        ring[1:-1, 1:-1] = False
    values = cells[:, ring].reshape(len(cells), -1)
    return np.concatenate([values, values**2], axis=1)


def predict_by_ridge(values: Floats, labels: Integers, fold: Integers, seed: int) -> Integers:
    """Answers of ridge regression, each for the fold that it did not see.

    Args:
        values: (N, F), every column varies.
        labels: (N,) 0 to C - 1.
        fold: (N,) 0 to K - 1.
        seed: unused, nothing is drawn.

    Returns:
        (N,) int64.
    """
    num_classes = int(labels.max()) + 1
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    columns = np.concatenate([scaled, np.ones((len(values), 1))], axis=1)
    weights = len(labels) / (num_classes * np.bincount(labels)[labels])
    targets = np.eye(num_classes)[labels] - 1 / num_classes
    tests = [fold == number for number in range(NUM_FOLDS)]
    grams, crosses = [], []
    for test in tests:
        weighted = (columns[test] * weights[test, None]).T  # (F + 1, N of the fold)
        grams.append(weighted @ columns[test])
        crosses.append(weighted @ targets[test])
    gram, cross = np.sum(grams, axis=0), np.sum(crosses, axis=0)
    predicted = np.zeros(len(labels), dtype=np.int64)
    for number, test in enumerate(tests):
        penalty = np.full(columns.shape[1], PENALTY * max(weights[~test].sum(), 1.0))
        penalty[-1] = 1e-9  # the constant is free; not zero, or an empty fold would be singular
        solved = np.linalg.solve(
            gram - grams[number] + np.diag(penalty), cross - crosses[number]
        )  # (F + 1, C)
        predicted[test] = (columns[test] @ solved).argmax(axis=1)
    return predicted


def predict_by_source(values: Floats, labels: Integers, fold: Integers, seed: int) -> Integers:
    """The label that most of the source's other images have, each class counted the same.

    Args:
        values: (N, 1) codes of the sources.
        labels: (N,) 0 to C - 1.
        fold: (N,) 0 to K - 1.
        seed: unused, nothing is drawn.

    Returns:
        (N,) int64; of a source that the other folds do not have, the first label.
    """
    sources = values[:, 0].astype(np.int64)
    shape = (int(sources.max()) + 1, int(labels.max()) + 1)
    predicted = np.zeros(len(labels), dtype=np.int64)
    for number in range(NUM_FOLDS):
        test = fold == number
        counts = np.zeros(shape)
        np.add.at(counts, (sources[~test], labels[~test]), 1)
        counts /= np.maximum(counts.sum(axis=0), 1)
        predicted[test] = counts.argmax(axis=1)[sources[test]]
    return predicted
