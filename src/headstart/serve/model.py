"""The model that is served: which engine, its golden prediction, what is told of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.bundle.classifier import Classifier, find_bundle, load_classifier
from headstart.bundle.format import read_bundle, read_preprocessing
from headstart.bundle.golden import (
    NAME,
    TOLERANCES,
    Golden,
    golden_difference,
    golden_picture,
    read_golden,
)
from headstart.bundle.onnx_engine import ENGINE_FILES, TORCH
from headstart.errors import BundleError, quoted
from headstart.inference import FeatureExtractor, ImageList
from headstart.limits import usable_cores
from headstart.records import Bytes8, Predictions, Preprocessing
from headstart.serve.settings import ServeSettings

ONNX = "onnx"


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedModel:
    """A loaded classifier and what is said about it.

    Attributes:
        classifier: answers.
        engine: 'torch', 'onnx' or 'onnx-int8'.
        precision: 'float32', 'bfloat16' or 'int8'.
        golden: the picture to check it by.
    """

    classifier: Classifier
    engine: str
    precision: str
    golden: Golden

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures are prepared."""
        return read_preprocessing(self.classifier.about)

    @property
    def weights_licence(self) -> str:
        """Of the backbone's weights, in words."""
        return str(self.classifier.about["backbone"]["weights"]["licence"])

    def answer(self, pixels: Bytes8) -> list[Predictions]:
        """One record of a single row for each of (B, H, W, 3) uint8 pixels."""
        together = self.classifier.answer_pixels(pixels)
        return [row_of(together, i) for i in range(len(pixels))]

    def golden_pixels(self) -> Bytes8:
        """The golden picture prepared here, for a service whose limits would refuse its file."""
        source = ImageList([self.golden.picture], [NAME])
        _, pixels = self.classifier.extractor.prepare(source, 0)
        if pixels is None:
            raise BundleError(
                f"The golden picture of the bundle '{self.classifier.folder}' is damaged. Write "
                "the bundle again from its run."
            )
        return pixels

    def golden_problem(self, probabilities: npt.NDArray[np.floating]) -> str:
        """Why an answer to the golden picture is not the right one, '' where it is."""
        difference = golden_difference(self.golden, probabilities)
        allowed = TOLERANCES[self.precision]
        if difference <= allowed:
            return ""
        return (
            f"The golden prediction is off by {difference:.3g} (allowed in {self.precision}: "
            f"{allowed:g}): this installation does not answer as the bundle does."
        )

    def describe(self) -> dict[str, Any]:
        """For `/model`."""
        about = self.classifier.about
        confidence = self.classifier.confidence
        return {
            "digest": self.classifier.root_digest,
            "class_names": list(self.classifier.class_names),
            "backbone": str(about["backbone"]["name"]),
            "image_size": self.preprocessing.size,
            "preprocessing": confidence.describe_pictures(self.preprocessing),
            "engine": self.engine,
            "precision": self.precision,
            "weights_licence": self.weights_licence,
            "code_licence": str(about["backbone"]["code_licence"]),
            "headstart_version": str(about.get("headstart_version", "")),
            "positive": None if confidence.decision is None else confidence.decision.positive,
            "threshold": None if confidence.decision is None else confidence.decision.threshold,
            "gives_sets": confidence.sets is not None,
            "set_miss_rate": None if confidence.sets is None else confidence.sets.alpha,
            "gives_unknown": confidence.outlier_threshold is not None,
            "learnt_on_boxes": self.classifier.learnt_on_boxes,
            "golden": self.golden.origin,
        }


def row_of(predictions: Predictions, row: int) -> Predictions:
    """The record of one row."""
    here = slice(row, row + 1)

    def part(values: Any) -> Any:
        return None if values is None else values[here]

    return replace(
        predictions,
        paths=predictions.paths[here],
        probabilities=predictions.probabilities[here],
        labels=predictions.labels[here],
        problems=predictions.problems[here],
        outlier_scores=part(predictions.outlier_scores),
        unknown=part(predictions.unknown),
        sets=part(predictions.sets),
        called=part(predictions.called),
    )


def choose_engine(settings: ServeSettings) -> tuple[str, str]:
    """The engine, and why.

    Raises:
        BundleError: there is no such bundle.
    """
    if settings.engine != "auto":
        return settings.engine, "asked for"
    if (find_bundle(Path(settings.bundle), ONNX) / ENGINE_FILES[ONNX]).is_file():
        if settings.device not in ("auto", "cpu") or settings.precision not in ("auto", "float32"):
            return TORCH, "for the device or precision asked for"
        return ONNX, "the bundle has it"
    return TORCH, "the bundle has no ONNX file: headstart export RUN --onnx"


def check_bundle(settings: ServeSettings) -> str:
    """Check every digest of the bundle before anything starts; what is served, in words.

    Raises:
        HeadstartError: it is missing, damaged or another one.
    """
    engine, reason = choose_engine(settings)
    folder = find_bundle(Path(settings.bundle), engine)
    contents = read_bundle(folder, expect_digest=settings.expect_digest)
    needed = ENGINE_FILES.get(engine)
    if needed is not None and needed not in contents.files:
        flag = " --int8" if engine == "onnx-int8" else ""
        raise BundleError(
            f"The bundle '{folder}' has no {needed}. Write one: headstart export "
            f"{quoted(settings.bundle)} --onnx{flag}, or answer with --engine torch."
        )
    name, count = contents.about["backbone"].get("name"), len(contents.about["class_names"])
    return (
        f"'{folder}' ({name}, {count} classes, digest {contents.root_digest[:16]}) "
        f"by {engine} ({reason})"
    )


def load_model(settings: ServeSettings) -> ServedModel:
    """Load what the settings name.

    Raises:
        HeadstartError: it is missing, damaged, another one, or cannot be loaded here.
    """
    torch.set_num_threads(max(1, min(torch.get_num_threads(), usable_cores() // settings.workers)))
    engine, _ = choose_engine(settings)
    classifier = load_classifier(
        settings.bundle,
        device=settings.device,
        precision=settings.precision,
        expect_digest=settings.expect_digest,
        engine=engine,
    )
    return ServedModel(
        classifier=classifier,
        engine=engine,
        precision=precision_of(classifier),
        golden=golden_of(classifier),
    )


def precision_of(classifier: Classifier) -> str:
    """What the engine computes in: a key of `TOLERANCES`."""
    if isinstance(classifier.extractor, FeatureExtractor):
        return classifier.extractor.execution.precision
    return "int8" if classifier.engine == "onnx-int8" else "float32"


def golden_of(classifier: Classifier) -> Golden:
    """The bundle's golden picture; one computed here for a bundle from before there was one.

    Raises:
        BundleError: the stored one is damaged.
    """
    try:
        stored = read_golden(classifier.about)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"The golden picture of the bundle '{classifier.folder}' is damaged ({error}). "
            "Write the bundle again from its run."
        ) from error
    if stored is not None:
        return stored
    reference = load_classifier(classifier.folder, device="cpu", precision="float32")
    picture = golden_picture()
    return Golden(
        picture=picture,
        probabilities=reference.predict([picture]).probabilities[0],
        origin="computed at the start by PyTorch in float32: the bundle is older than goldens",
    )
