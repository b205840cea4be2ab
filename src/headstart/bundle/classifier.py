"""A loaded bundle: images in, probabilities out, the same for every caller."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from headstart.backbones import Network, rebuild_network
from headstart.bundle.confidence import Confidence, read_confidence
from headstart.bundle.format import (
    MANIFEST_FILE,
    BundleContents,
    read_blocks,
    read_bundle,
    read_head,
    read_layers,
    read_preprocessing,
    read_spec,
)
from headstart.bundle.onnx_engine import PARITY_FILE, TORCH, OnnxExtractor, check_engine
from headstart.data import load_images, printable, to_rgb
from headstart.data.views import mirrored
from headstart.errors import BundleError, DataError, UsageError, quoted
from headstart.files import digest_file, read_json
from headstart.heads import mean_features, mean_logits
from headstart.inference import Extractor, FeatureExtractor, ImageList, ImageSource
from headstart.progress import Progress
from headstart.records import UNLABELLED, Integers, Predictions
from headstart.runtime import Execution, choose_execution

MODEL_FOLDER = "model"
EXPORT_FOLDER = "export"  # where a run's export goes unless told otherwise

Picture: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | Image.Image | npt.NDArray[np.uint8]"
)
ACCEPTED = "Give paths, encoded bytes, PIL images or uint8 arrays."
WHOLE_PICTURES = (
    "the model has learnt from pictures cut out by boxes and gets whole ones here: its answers "
    "mean little. Cut them out first, or take `headstart evaluate`, which reads boxes of a manifest"
)


class Classifier:
    """A bundle on a device.

    Attributes:
        engine: 'torch', or 'onnx' or 'onnx-int8' where an exported file computes the features.
        extractor: prepares pictures (`extractor.prepare`) and computes their features.
        class_names: C names, the order of every probability column.
        folder: where the bundle lies.
        about: the contents of `bundle.json`.
        root_digest: SHA-256 of the manifest; identifies the bundle.
    """

    def __init__(
        self, folder: Path, execution: Execution, expect_digest: str | None, engine: str = TORCH
    ) -> None:
        """Read and check a bundle; `load_classifier` is the way to call it."""
        contents = read_bundle(folder, expect_digest=expect_digest)
        self.folder = folder
        self.about = contents.about
        self.root_digest = contents.root_digest
        self.engine = engine
        try:
            self.head = read_head(contents.about, contents.state)
            self.confidence = read_confidence(contents.about.get("confidence"), contents.state)
            self.extractor = make_extractor(folder, contents, execution, engine)
            if self.head.num_inputs != self.extractor.num_features:
                raise BundleError(
                    f"The head of the bundle '{folder}' takes {self.head.num_inputs} features, "
                    f"its backbone gives {self.extractor.num_features}. Write it again from its "
                    "run."
                )
            self.class_names: tuple[str, ...] = tuple(contents.about["class_names"])
            check_decision(self.confidence, self.class_names)
        except (KeyError, TypeError, AttributeError, ValueError, UsageError) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(
                f"The bundle '{folder}' is incomplete ({error}). Write it again from its run."
            ) from error

    @property
    def network(self) -> Network:
        """The backbone, where PyTorch computes."""
        assert isinstance(self.extractor, FeatureExtractor), "an ONNX file holds no network"
        return self.extractor.network

    @property
    def learnt_on_boxes(self) -> bool:
        """Whether it has seen pictures cut out by boxes only."""
        return bool(self.about["about"].get("data", {}).get("boxes"))

    def predict(
        self, images: Picture | Iterable[Picture], *, progress: Progress | None = None
    ) -> Predictions:
        """Probabilities for some pictures.

        Args:
            images: paths of files or folders, encoded bytes, PIL images, (H, W), (H, W, 3) or
                (N, H, W, 3) uint8 arrays; one of them or several.
            progress: silent where None.

        Raises:
            DataError: a path does not exist, or there is nothing to predict.
        """
        source = as_source(images)
        return self.predict_source(source, progress=progress or Progress())

    def answer_pixels(
        self, pixels: npt.NDArray[np.uint8], paths: Sequence[str] | None = None
    ) -> Predictions:
        """Probabilities, sets and strangeness for pictures that are prepared already.

        Args:
            pixels: (B, H, W, 3) uint8 of the network's size, as `extractor.prepare` makes them.
            paths: B names; numbers where None.
        """
        views = [pixels, mirrored(pixels)][: len(self.confidence.views)]
        features = self.extractor.forward_views(np.stack(views, axis=1))
        logits = mean_logits(features, self.head.layers)
        names = [str(i) for i in range(len(pixels))] if paths is None else paths
        return answer(
            self.confidence,
            Predictions(
                paths=tuple(names),
                class_names=self.class_names,
                probabilities=self.confidence.probabilities(logits),
                labels=np.full(len(pixels), UNLABELLED, dtype=np.int64),
                problems=("",) * len(pixels),
            ),
            self.confidence.outlier_scores(mean_features(features)),
        )

    def predict_source(
        self, source: ImageSource, *, progress: Progress, labels: Integers | None = None
    ) -> Predictions:
        """Probabilities, sets and strangeness for everything in a source, in its order."""
        count, confidence = len(source), self.confidence
        probabilities = np.full((count, len(self.class_names)), np.nan, dtype=np.float32)
        problems, scores = [""] * count, np.full(count, np.nan)
        with progress.phase("Predicting", count) as advance:
            made = self.extractor.extract_views(source, range(count), confidence.views)
            for rows, facts, values in made:
                good = [i for i, record in enumerate(facts) if not record.problem]
                for row, record in zip(rows, facts, strict=True):
                    problems[row] = record.problem
                kept = [rows[i] for i in good]
                logits = mean_logits(values[good], self.head.layers)
                probabilities[kept] = confidence.probabilities(logits)
                strange = confidence.outlier_scores(mean_features(values[good]))
                if strange is not None:
                    scores[kept] = strange
                advance(len(rows))
        return answer(
            confidence,
            Predictions(
                paths=source.paths,
                class_names=self.class_names,
                probabilities=probabilities,
                labels=np.full(count, UNLABELLED, dtype=np.int64) if labels is None else labels,
                problems=tuple(problems),
            ),
            scores,
        )


def make_extractor(
    folder: Path, contents: BundleContents, execution: Execution, engine: str
) -> Extractor:
    """What computes the features: the network around the bundle's tensors, or an ONNX file."""
    preprocessing = read_preprocessing(contents.about)
    if engine != TORCH:
        return OnnxExtractor(folder, contents.files, contents.about, preprocessing, engine)
    spec, record = read_spec(contents.about, folder)
    backbone = {
        k.removeprefix("backbone."): v
        for k, v in contents.state.items()
        if k.startswith("backbone.")
    }
    network = rebuild_network(
        spec,
        backbone,
        preprocessing,
        record,
        read_blocks(contents.about, folder),
        read_layers(contents.about, folder),
    )
    return FeatureExtractor(network, execution)


def answer(
    confidence: Confidence, predictions: Predictions, scores: npt.NDArray[np.float64] | None
) -> Predictions:
    """Predictions with what the bundle knows of how sure they are.

    Args:
        confidence: of the model.
        predictions: with calibrated probabilities.
        scores: (N,) outlier scores, NaN where there is no answer; None where there are none.
    """
    sets = unknown = None
    if confidence.sets is not None:
        known = np.nan_to_num(predictions.probabilities)
        sets = confidence.sets.sets(known) & predictions.good[:, None]
    if confidence.outliers is None:
        scores = None
    if scores is not None and confidence.outlier_threshold is not None:
        unknown = np.nan_to_num(scores, nan=-np.inf) > confidence.outlier_threshold
    found = replace(predictions, outlier_scores=scores, unknown=unknown, sets=sets)
    decision = confidence.decision
    if decision is None:
        return found
    return replace(
        found, positive=decision.positive, called=decision.called(predictions.probabilities)
    )


def check_decision(confidence: Confidence, class_names: Sequence[str]) -> None:
    """Refuse a decision about a class that is not at its place.

    Raises:
        ValueError: it is not.
    """
    decision = confidence.decision
    if decision is not None and (
        not 0 <= decision.index < len(class_names)
        or class_names[decision.index] != decision.positive
    ):
        raise ValueError(f"the positive class '{decision.positive}' is not in the class order")


def find_bundle(path: Path, engine: str = TORCH) -> Path:
    """The bundle's folder, given a run or the bundle itself.

    Args:
        path: of either.
        engine: for one of ONNX, a run's own export is taken where there is one.

    Raises:
        BundleError: there is none.
    """
    if (path / "run.json").is_file():
        if not (path / MODEL_FOLDER).is_dir():
            raise BundleError(
                f"The run '{path}' is not finished and has no model yet. "
                f"Go on with: headstart run --resume --out {quoted(path)}"
            )
        if engine != TORCH and (path / EXPORT_FOLDER).is_dir():
            check_export(path)
            return path / EXPORT_FOLDER
        return path / MODEL_FOLDER
    if not path.is_dir():
        raise BundleError(f"'{path}' is neither a run nor a bundle: there is no such folder.")
    return path


def check_export(run: Path) -> None:
    """Refuse a run's export that was not made from the model that the run holds.

    Raises:
        BundleError: it is another one, or does not say.
    """
    try:
        origin = read_json(run / EXPORT_FOLDER / PARITY_FILE).get("exported_from")
        own = digest_file(run / MODEL_FOLDER / MANIFEST_FILE)
    except (OSError, ValueError, AttributeError):
        origin, own = None, ""
    if origin != own:
        raise BundleError(
            f"'{run / EXPORT_FOLDER}' was not exported from the model that the run holds now. "
            f"Remove it and write it anew: headstart export {quoted(run)}"
        )


def load_classifier(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: str = "auto",
    expect_digest: str | None = None,
    engine: str = TORCH,
) -> Classifier:
    """Load the model of a run or a bundle.

    Args:
        path: folder of a run or of a bundle.
        device: 'auto', 'cpu', 'cuda' or 'mps'.
        precision: 'auto', 'bfloat16' or 'float32'.
        expect_digest: refuse any bundle but the one with this root digest.
        engine: 'torch', 'onnx' or 'onnx-int8'; the latter two answer from the files that
            `headstart export` wrote, on the processor.

    Raises:
        BundleError: it is missing, damaged, newer than this version, or another one.
        MissingExtraError: the engine's package is not installed.
        UsageError: no such engine, or a device or precision that it does not have.
    """
    check_engine(engine, device, precision)
    folder = find_bundle(Path(path), engine)
    execution = choose_execution("cpu" if engine != TORCH else device, precision)
    return Classifier(folder, execution, expect_digest, engine)


def as_source(images: Picture | Iterable[Picture]) -> ImageSource:
    """Bring whatever a caller has into one source, one row an image, in the order given.

    A folder stands for all images in it; every other entry for one image.

    Raises:
        DataError: nothing was given, or a path does not exist.
        UsageError: an entry of another type.
    """
    if isinstance(images, np.ndarray):
        listed: list[Picture] = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, str | bytes | bytearray | os.PathLike | Image.Image):
        listed = [images]
    elif isinstance(images, Iterable) and not hasattr(images, "__array__"):
        listed = list(images)
    else:
        raise UsageError(f"`images` must be pictures, got {type(images).__name__}. {ACCEPTED}")
    entries: list[tuple[Path | bytes | npt.NDArray[np.uint8] | OSError, str]] = []
    for image in listed:
        if isinstance(image, str | os.PathLike):
            entries.extend(from_path(image))
        else:
            entries.append((in_memory(image), f"image {len(entries)}"))
    if not entries:
        raise DataError("There is nothing to predict: no image was given. Name files or a folder.")
    return ImageList([image for image, _ in entries], [name for _, name in entries])


def from_path(path: str | os.PathLike[str]) -> list[tuple[Path, str]]:
    """A file and its name, or every image in a folder.

    Raises:
        DataError: it does not exist, or the folder holds no image.
    """
    if not os.fspath(path):
        raise DataError("An image's path must not be empty. Name a file or a folder.")
    place = Path(path)
    if place.is_file():
        return [(place, printable(place.as_posix()))]
    table = load_images([place])  # raises, with close names, where there is nothing
    assert table.files is not None
    return list(zip(table.files, table.paths, strict=True))


def in_memory(image: Picture) -> bytes | npt.NDArray[np.uint8] | OSError:
    """The bytes or pixels of one picture; why not, for a PIL image that cannot be decoded.

    Raises:
        UsageError: an array of another shape or type, or no picture at all.
    """
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, Image.Image):
        return upright_pixels(image)
    if isinstance(image, np.ndarray):
        good = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        if image.dtype == np.uint8 and good and image.size:
            return image
        raise UsageError(
            "An image array must be (H, W) or (H, W, 3) uint8, not empty, got "
            f"{image.shape} {image.dtype}. Convert it first."
        )
    raise UsageError(f"`images` holds a {type(image).__name__}. {ACCEPTED}")


def upright_pixels(image: Image.Image) -> npt.NDArray[np.uint8] | OSError:
    """(H, W, 3) pixels of a PIL image, by the functions that decode files."""
    if 0 in image.size:
        return OSError("the PIL image is empty")
    try:
        rgb, _ = to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow asserts, too, that a file is still open
        return OSError(f"the PIL image cannot be decoded: {error or 'is its file closed?'}")
    pixels: npt.NDArray[np.uint8] = np.asarray(rgb)
    return pixels
