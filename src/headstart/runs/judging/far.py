"""Pictures of other things: are they told to be unlike everything the model knows?

A harder judgement, a class of the data that is left out, is in every run; this one asks about
whatever the user has at hand, as `--ood-data`: another pack, another kind of scan.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.bundle.confidence import Confidence
from headstart.data import DATASETS, load_table, load_unlabelled_or_labelled
from headstart.errors import DataError
from headstart.heads import mean_features
from headstart.inference import Extractor
from headstart.outliers import judge_separation
from headstart.progress import Progress
from headstart.records import ImageTable, Integers
from headstart.runs.judging.evaluation import figure
from headstart.statistics import share_estimate

MOST_FAR = 2_000  # images; more would not narrow the intervals much

Scores = npt.NDArray[np.float64]


def load_far(name: str, *, seed: int) -> ImageTable:
    """At most `MOST_FAR` images of a folder, manifest or built-in name; labels do not matter.

    Raises:
        DataError: there is no such thing, or no image in it.
    """
    table = load_table(name) if name in DATASETS else load_unlabelled_or_labelled(name, ())
    if len(table) <= MOST_FAR:
        return table
    rows = np.random.default_rng(seed).permutation(len(table))[:MOST_FAR]
    return table.take(np.sort(rows))


def far_scores(
    confidence: Confidence, extractor: Extractor, table: ImageTable, progress: Progress
) -> Scores:
    """(m,) strangeness of the readable images of a far pack.

    Raises:
        DataError: none can be read.
    """
    found = []
    with progress.phase("Far pictures", len(table)) as advance:
        found_views = extractor.extract_views(table, range(len(table)), confidence.views)
        for rows, facts, values in found_views:
            good = [i for i, record in enumerate(facts) if not record.problem]
            scores = confidence.outlier_scores(mean_features(values[good]))
            assert scores is not None
            found.append(scores)
            advance(len(rows))
    scores = np.concatenate(found) if found else np.zeros(0)
    if not len(scores):
        raise DataError(f"No image of `ood_data` '{table.name}' can be read. Check the folder.")
    return scores


def judge_far(
    confidence: Confidence,
    name: str,
    strange: Scores,
    known: Scores,
    *,
    groups: Integers | None,
) -> dict[str, Any]:
    """AUROC, FPR@95 and the share that is called unknown, with intervals.

    Args:
        confidence: of the model.
        name: of the far pack.
        strange: (m,) its scores.
        known: (n,) scores of images of the known kind that had no part in the model.
        groups: (n,) of those, or None.
    """
    alone = None
    if groups is not None:  # every far image is one of its own
        alone = int(groups.max()) + 1 + np.arange(len(strange))
    made = judge_separation(known, strange, known_groups=groups, strange_groups=alone)
    found: dict[str, Any] = {
        "name": name,
        "num_images": len(strange),
        "num_known": len(known),
        "auroc": figure(made.auroc.value, made.auroc.interval),
        "fpr95": figure(made.accepted_at_95.value, made.accepted_at_95.interval),
    }
    if confidence.outlier_threshold is not None:
        share = share_estimate(strange > confidence.outlier_threshold)
        found["unknown"] = figure(share.value, share.interval)
    return found
