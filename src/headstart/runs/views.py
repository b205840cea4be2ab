"""Views of the pictures of a run: what a head is fitted on, and what an answer is averaged over.

`--views` gives the images that are learnt from further rows: the head is fitted on the whole
picture and on its views, each of which weighs its share, so that an image counts once. The whole
pictures alone choose penalties and epochs. `--tta` averages the logits of the whole picture and its
mirror image in every answer: out of fold, on the test part, and wherever the model goes. Crops are
not averaged over: a service and an ONNX graph have the network's square and no more.

All views of the images that were planned to be learnt from are computed in the first pass, so that
a picture is decoded once. The audit may move an image to the other side; what is missing then is
computed behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.sided import sided_note
from headstart.data.views import MIRRORED, SMALLEST_AREA, WHOLE, View, in_words, parse_views
from headstart.features import extract_views
from headstart.inference import FeatureExtractor
from headstart.progress import Progress
from headstart.records import Features, ImageTable, Integers, Split
from headstart.runs.settings.run import RunSettings

TOLD_BYTES = 2**30
BYTES_WHILE_FITTED = 6  # a feature: 2 as stored, 4 in its coordinates, which may lie in a file

Halves = npt.NDArray[np.float16]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunViews:
    """Features of views beside those of the whole pictures.

    Attributes:
        learnt: (M, V, D) further views of the images learnt from, in the order of `split.train`.
        mirrored: (N, D) mirror images of all images where answers average over them, else None.
        count: how many there are, one a picture and view.
        computed: how many of them went through the network in this run.
    """

    learnt: Halves
    mirrored: Halves | None = None
    count: int = 0
    computed: int = 0


def learnt_views(settings: RunSettings) -> tuple[View, ...]:
    """The further views of images that are learnt from."""
    return parse_views(settings.views, settings.seed)


def wanted_views(settings: RunSettings, split: Split, count: int) -> dict[View, Integers]:
    """What the first pass computes beside the whole pictures, and of which rows.

    Args:
        settings: of the run.
        split: as planned before any picture was looked at.
        count: N images.
    """
    wanted = dict.fromkeys(learnt_views(settings), split.train)
    if settings.tta:
        wanted[MIRRORED] = np.arange(count)
    return wanted


def read_views(
    settings: RunSettings,
    table: ImageTable,
    features: Features,
    split: Split,
    extractor: FeatureExtractor,
    progress: Progress,
) -> RunViews:
    """The views of N readable images, which the first pass has stored.

    Args:
        settings: of the run.
        table: N images.
        features: of them.
        split: final.
        extractor: network and device.
        progress: tells of what has to be computed.

    Raises:
        DataError: an image cannot be decoded any more.
        StorageError: the disk is full.
    """
    views, learnt = learnt_views(settings), table.take(split.train)
    facts = [features.facts[row] for row in split.train]
    found = extract_views(learnt, facts, extractor, views, progress=progress)
    count, mirrored = len(learnt) * len(views), None
    computed = features.computed_views + found.computed
    if settings.tta:
        turned = extract_views(table, features.facts, extractor, [MIRRORED], progress=progress)
        mirrored, computed = turned.values[:, 0], computed + turned.computed
        count += len(table) - (MIRRORED in views) * len(learnt)
    return RunViews(learnt=found.values, mirrored=mirrored, count=count, computed=computed)


def announced(settings: RunSettings, names: list[str], num_learnt: int, width: int) -> list[str]:
    """What to tell before the work begins, a line each.

    Args:
        settings: of the run.
        names: of the data and its classes.
        num_learnt: M.
        width: D.
    """
    views, lines = learnt_views(settings), []
    if views:
        size = num_learnt * (1 + len(views)) * width * 2
        grown = size * (BYTES_WHILE_FITTED // 2 if settings.head == "logistic" else 1)
        large = f" ({grown / 2**30:.1f} GiB while a head is fitted)" * (grown > TOLD_BYTES)
        rows = f"{1 + len(views)} rows an image"
        lines.append(f"learnt from {in_words((WHOLE, *views))}: {rows}{large}")
    if settings.tta:
        lines.append(f"answers are averaged over {in_words((WHOLE, MIRRORED))}")
    for flag, mirrors in (("--views flip", MIRRORED in views), ("--tta flip", bool(settings.tta))):
        warned = sided_note(f"`{flag}`", names, "Leave it out") if mirrors else None
        lines += [warned] if warned else []
    return lines


def describe_views(settings: RunSettings) -> dict[str, Any] | None:
    """What the record says; None where nobody asked for views."""
    views = learnt_views(settings)
    if not views and not settings.tta:
        return None
    return {
        "learnt": in_words((WHOLE, *views)),
        "answers": in_words((WHOLE, MIRRORED) if settings.tta else (WHOLE,)),
        "smallest_crop_area": SMALLEST_AREA if any(v.kind == "crop" for v in views) else None,
    }
