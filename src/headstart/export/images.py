"""Which pictures an export is proved on, and which ones calibrate int8.

Proved on: those that `--data` names; else the run's own test part, where its data are still to be
read; else 64 drawn ones, always the same, which show that two engines agree and nothing of how
right they are. int8 learns the ranges of activations from the run's training part; from one half
of `--data` where there is no run, and is then judged on the other. Drawn pictures calibrate
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.bundle import Classifier
from headstart.bundle.classifier import EXPORT_FOLDER, MODEL_FOLDER
from headstart.data import DATASETS, load_unlabelled_or_labelled
from headstart.data.packed.downloads import at_hand_only
from headstart.errors import DataError, HeadstartError, UsageError
from headstart.progress import Progress
from headstart.records import UNLABELLED, ImageTable
from headstart.runs import settings_from
from headstart.runs.external import crop_margin_of, labelled_table
from headstart.runs.files.record import RUN_FILE, read_run
from headstart.runs.parts.dividing import read_table
from headstart.runs.parts.given import apply_splits, read_splits

MOST_JUDGED = 2_000
MOST_CALIBRATING = 256
NUM_DRAWN = 64
DRAWN_SIZE = 160


@dataclass(frozen=True, kw_only=True, eq=False)
class ProofImages:
    """The pictures of an export.

    Attributes:
        judged: on which the engines are compared; labels in the model's order, or none.
        origin: where these come from, in words.
        calibrating: whose activations int8 is fitted to; None where none were asked for.
        calibrating_origin: in words, '' where there are none.
    """

    judged: ImageTable
    origin: str
    calibrating: ImageTable | None = None
    calibrating_origin: str = ""


def choose_images(
    classifier: Classifier, data: str | None, *, calibrate: bool, progress: Progress
) -> ProofImages:
    """The pictures for a bundle, as the head of this module says.

    Args:
        classifier: of the bundle.
        data: what `--data` names, None where it was not given.
        calibrate: whether int8 is asked for.
        progress: told why a run's own pictures cannot be taken.

    Raises:
        DataError: `data` is not there, or has labels that the model does not know.
        UsageError: int8 is asked for and there are no real pictures.
    """
    own, reason = run_images(classifier)
    if reason and data is None:
        progress.note(f"Note       the run's own images cannot be read: {reason}")
    tests = None if own is None else part_of(own, "test")
    training = None if own is None else part_of(own, "train")
    if data is not None:
        judged, origin = given_images(classifier, data, progress), f"--data {Path(data).name}"
    elif tests is not None and len(tests):
        judged, origin = tests, "the run's test part"
    else:
        judged, origin = drawn_images(classifier.class_names), f"{NUM_DRAWN} drawn pictures"
    if not calibrate:
        return ProofImages(judged=some(judged, MOST_JUDGED), origin=origin)
    if training is not None and len(training):
        calibrating, whence = training, "the run's training part"
    elif data is not None and len(judged) > 1:
        order = np.random.default_rng(0).permutation(len(judged))
        half = min(len(order) // 2, MOST_CALIBRATING)
        calibrating, whence = judged.take(np.sort(order[:half])), f"a part of {origin}"
        judged, origin = judged.take(np.sort(order[half:])), f"the rest of {origin}"
    else:
        raise UsageError(
            "int8 learns the ranges of activations from real pictures, and there are none at "
            "hand. Name labelled ones with --data."
        )
    return ProofImages(
        judged=some(judged, MOST_JUDGED),
        origin=origin,
        calibrating=some(calibrating, MOST_CALIBRATING),
        calibrating_origin=whence,
    )


def run_of(folder: Path) -> Path | None:
    """The run that a bundle lies in, None where it stands alone."""
    run = folder.resolve().parent
    inside = folder.resolve().name in (MODEL_FOLDER, EXPORT_FOLDER)
    return run if inside and (run / RUN_FILE).is_file() else None


def run_images(classifier: Classifier) -> tuple[ImageTable | None, str]:
    """The images of the run that a bundle lies in, with their parts; or why there are none."""
    run = run_of(classifier.folder)
    if run is None:
        return None, ""
    try:
        settings = settings_from(read_run(run)["settings"])
        with at_hand_only():
            table = read_table(settings, Progress())
        table = apply_splits(table, read_splits(run), table)
    except (HeadstartError, OSError) as error:
        return None, str(error)
    if table.class_names != classifier.class_names:
        return None, "its classes have changed"
    return table, ""


def part_of(table: ImageTable, part: str) -> ImageTable:
    """The rows of one part."""
    return table.take(np.flatnonzero(np.array(table.splits) == part))


def given_images(classifier: Classifier, data: str, progress: Progress) -> ImageTable:
    """What `--data` names: labelled where labels are known, else plain pictures, which is told.

    Raises:
        DataError: they are not there, or a built-in data set has other classes.
    """
    reading: dict[str, Any] = {"crop_margin": crop_margin_of(classifier)}
    if data in DATASETS:
        return labelled_table(data, classifier.class_names, reading)
    table = load_unlabelled_or_labelled(data, classifier.class_names, **reading)
    known = table.labelled()
    if len(known):
        return known
    try:
        return labelled_table(data, classifier.class_names, reading)
    except DataError as error:
        progress.note(f"Note       accuracy is not told: {error}")
        return replace(table, class_names=classifier.class_names)


def some(table: ImageTable, most: int) -> ImageTable:
    """At most so many rows, evenly drawn and always the same ones."""
    if len(table) <= most:
        return table
    return table.take(np.sort(np.random.default_rng(0).permutation(len(table))[:most]))


def drawn_images(class_names: tuple[str, ...]) -> ImageTable:
    """Coloured noise of every coarseness, always the same."""
    generator = np.random.default_rng(0)
    pictures = []
    for number in range(NUM_DRAWN):
        side = (2, 5, 12, 40)[number % 4]
        coarse = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((DRAWN_SIZE, DRAWN_SIZE), Image.Resampling.BICUBIC)
        pictures.append(np.asarray(image))
    return ImageTable(
        name="drawn",
        paths=tuple(f"drawn {number}" for number in range(NUM_DRAWN)),
        labels=np.full(NUM_DRAWN, UNLABELLED, dtype=np.int64),
        class_names=class_names,
        splits=("",) * NUM_DRAWN,
        pixels=np.stack(pictures),
    )
