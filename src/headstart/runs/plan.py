"""`--dry-run`: what a run would do, how long it would take, what it would write."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from headstart.backbones import AUTO
from headstart.data.views import WHOLE, View
from headstart.features import store_path
from headstart.features.cache import count_stored
from headstart.features.passes import identity, store_keys
from headstart.files import check_vacant
from headstart.inference import FeatureExtractor
from headstart.progress import Progress
from headstart.runs.backbone import build_backbone, check_strategy, make_extractor
from headstart.runs.files.record import RUN_FILE
from headstart.runs.job import split_with
from headstart.runs.judging.far import load_far
from headstart.runs.judging.subgroups import read_subgroups
from headstart.runs.parts.dividing import read_table
from headstart.runs.settings.run import RunSettings
from headstart.runs.views import wanted_views
from headstart.runtime import choose_execution

BYTES_A_ROW = 400  # facts, key and the store's own overhead, beside the vector
TIMED_BATCHES = 3


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run before it happens.

    Attributes:
        data: name of the data.
        num_images: images found.
        class_counts: images of each class, in class order.
        num_train: images to learn from.
        num_test: images to test on.
        test_origin: where the test part comes from.
        num_folds: cross-validation folds.
        fits: what is fitted in the folds and in the end, in words.
        num_known: images whose features are in the store already, each view for itself.
        num_passes: images that will go through the network, each once, further views too.
        images_per_s: speed of the network, from a few timed batches.
        seconds: estimate for the pass, decoding not counted apart.
        disk_bytes: estimate for store and bundle.
        backbone: name and weights.
        preprocessing: how pictures are prepared.
        engine: device and precision, with the reason.
        out: folder of the run.
    """

    data: str
    num_images: int
    class_counts: dict[str, int]
    num_train: int
    num_test: int
    test_origin: str
    num_folds: int
    fits: str
    num_known: int
    num_passes: int
    images_per_s: float
    seconds: float
    disk_bytes: int
    backbone: str
    preprocessing: str
    engine: str
    out: str


def plan_job(
    settings: RunSettings, *, resume: bool = False, progress: Progress | None = None
) -> RunPlan:
    """Plan a run: the images are counted and hashed, a few made-up ones timed, nothing written.

    Raises:
        UsageError: whatever would stop the run before its first image.
    """
    check_vacant(Path(settings.out), RUN_FILE, "run", resume=resume)
    table = read_table(settings, progress or Progress())
    split = split_with(settings, table)
    network = build_backbone(settings)
    execution = choose_execution(settings.device, settings.precision)
    check_strategy(settings, network, len(table.class_names))
    read_subgroups(settings)
    if settings.ood_data is not None:
        load_far(settings.ood_data, seed=settings.seed)
    extractor = make_extractor(settings, network, execution, len(table))
    keys = store_keys(table, range(len(table)), progress)
    views = {WHOLE: np.arange(len(table)), **wanted_views(settings, split, len(table))}
    wanted = {view: {keys[row] for row in rows if row in keys} for view, rows in views.items()}
    num_known = sum(count_known(extractor, view, of_view) for view, of_view in wanted.items())
    speed = measured_speed(extractor)
    num_passes = sum(map(len, wanted.values())) - num_known
    weights_bytes = sum(p.numel() * p.element_size() for p in network.module.state_dict().values())
    counts = np.bincount(table.labels, minlength=len(table.class_names))
    return RunPlan(
        data=table.name,
        num_images=len(table),
        class_counts=dict(zip(table.class_names, counts.tolist(), strict=True)),
        num_train=len(split.train),
        num_test=len(split.test),
        test_origin=split.origin,
        num_folds=split.num_folds,
        fits=describe_fits(settings, split.num_folds),
        num_known=num_known,
        num_passes=num_passes,
        images_per_s=round(speed, 1),
        seconds=round(num_passes / speed, 1),
        disk_bytes=num_passes * (2 * network.num_features + BYTES_A_ROW) + weights_bytes,
        backbone=f"{network.spec.name}, weights {network.weights.describe()}",
        preprocessing=network.preprocessing.describe(),
        engine=extractor.describe(),
        out=settings.out,
    )


def describe_fits(settings: RunSettings, num_folds: int) -> str:
    """What the folds and the final fit consist of."""
    if settings.head == "logistic" and settings.strategy == "probe":
        within = f" x {settings.inner_folds} inner folds" if settings.inner_folds > 1 else ""
        layers = " x layers" if settings.layers == AUTO else ""
        return (
            f"{num_folds} folds{within} x {settings.num_penalties} penalties{layers} at once, each "
            "fold's best, the final head"
        )
    if settings.strategy != "probe":
        return f"{num_folds} folds of {settings.strategy} fine-tuning, then once on everything"
    tried = f", its settings the best of {settings.tune}" if settings.tune else ""
    return f"{num_folds} folds of the {settings.head} head{tried}, then the final head"


def count_known(extractor: FeatureExtractor, view: View, wanted: set[str]) -> int:
    """How many of the images are in a view's store, which stays as it is."""
    return count_stored(store_path(identity(extractor, view)), sorted(wanted))


def measured_speed(extractor: FeatureExtractor) -> float:
    """Images a second through the network alone, the first batch not counted."""
    size = extractor.network.preprocessing.size
    pixels = torch.zeros((extractor.batch_size, size, size, 3), dtype=torch.uint8)
    extractor.forward(pixels)
    begun = time.perf_counter()
    for _ in range(TIMED_BATCHES):
        extractor.forward(pixels)
    return TIMED_BATCHES * extractor.batch_size / (time.perf_counter() - begun)
