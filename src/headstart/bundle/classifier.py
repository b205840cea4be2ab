"""A loaded bundle: images in, probabilities out, the same for every caller."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.backbones import rebuild_network
from headstart.bundle.format import FittedHead, read_bundle, read_preprocessing, read_spec
from headstart.data import load_images
from headstart.errors import BundleError, DataError, UsageError, WeightsError
from headstart.heads import linear_probabilities
from headstart.inference import FeatureExtractor, FileImages, ImageSource, MemoryImages
from headstart.progress import Progress
from headstart.records import UNLABELLED, Integers, Predictions
from headstart.runtime import Execution, choose_execution

MODEL_FOLDER = "model"

Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]"


class Classifier:
    """A bundle on a device.

    Attributes:
        class_names: C names, the order of every probability column.
        about: the contents of `bundle.json`.
        root_digest: SHA-256 of the manifest; identifies the bundle.
    """

    def __init__(self, folder: Path, execution: Execution, expect_digest: str | None) -> None:
        """Read and check a bundle; `load_classifier` is the way to call it."""
        contents = read_bundle(folder, expect_digest=expect_digest)
        try:
            spec, record = read_spec(contents.about, folder)
            preprocessing = read_preprocessing(contents.about)
            backbone = {
                k.removeprefix("backbone."): v
                for k, v in contents.state.items()
                if k.startswith("backbone.")
            }
            network = rebuild_network(spec, backbone, preprocessing, record)
            self.head = FittedHead(
                kind=contents.about["head"]["kind"],
                penalty=contents.about["head"]["penalty"],
                coef=contents.state["head.coef"],
                intercept=contents.state["head.intercept"],
            )
            self.class_names: tuple[str, ...] = tuple(contents.about["class_names"])
        except (KeyError, TypeError, WeightsError) as error:
            raise BundleError(
                f"The bundle '{folder}' is incomplete ({error}). Write it again from its run."
            ) from error
        self.about = contents.about
        self.root_digest = contents.root_digest
        self.extractor = FeatureExtractor(network, execution)

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

    def predict_source(
        self, source: ImageSource, *, progress: Progress, labels: Integers | None = None
    ) -> Predictions:
        """Probabilities for everything in a source, in its order."""
        count = len(source)
        probabilities = np.full((count, len(self.class_names)), np.nan, dtype=np.float32)
        problems = [""] * count
        with progress.phase("Predicting", count) as advance:
            for rows, facts, values in self.extractor.extract(source, range(count)):
                found = linear_probabilities(values, self.head.coef, self.head.intercept)
                for row, record, row_probabilities in zip(rows, facts, found, strict=True):
                    problems[row] = record.problem
                    if not record.problem:
                        probabilities[row] = row_probabilities
                advance(len(rows))
        return Predictions(
            paths=source.paths,
            class_names=self.class_names,
            probabilities=probabilities,
            labels=np.full(count, UNLABELLED, dtype=np.int64) if labels is None else labels,
            problems=tuple(problems),
        )


def find_bundle(path: Path) -> Path:
    """The bundle's folder, given a run or the bundle itself.

    Raises:
        BundleError: there is none.
    """
    if (path / "run.json").is_file():
        if not (path / MODEL_FOLDER).is_dir():
            raise BundleError(
                f"The run '{path}' is not finished and has no model yet. "
                f"Go on with: headstart run --resume --out {path}"
            )
        return path / MODEL_FOLDER
    if not path.is_dir():
        raise BundleError(f"'{path}' is neither a run nor a bundle: there is no such folder.")
    return path


def load_classifier(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: str = "auto",
    expect_digest: str | None = None,
) -> Classifier:
    """Load the model of a run or a bundle.

    Args:
        path: folder of a run or of a bundle.
        device: 'auto', 'cpu', 'cuda' or 'mps'.
        precision: 'auto', 'bfloat16' or 'float32'.
        expect_digest: refuse any bundle but the one with this root digest.

    Raises:
        BundleError: it is missing, damaged, newer than this version, or another one.
    """
    return Classifier(find_bundle(Path(path)), choose_execution(device, precision), expect_digest)


def as_source(images: Picture | Iterable[Picture]) -> ImageSource:
    """Bring whatever a caller has into one source.

    Raises:
        DataError: nothing was given, or a path does not exist.
    """
    if isinstance(images, np.ndarray):
        listed: Sequence[Picture] = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, str | bytes | os.PathLike | Image.Image):
        listed = [images]
    else:
        listed = list(images)
    if not listed:
        raise DataError("There is nothing to predict: no image was given. Name files or a folder.")
    if all(isinstance(image, str | os.PathLike) for image in listed):
        return from_paths([Path(image) for image in listed])  # type: ignore[arg-type]
    encoded = [in_memory(image) for image in listed]
    return MemoryImages(encoded, [f"image {index}" for index in range(len(listed))])


def from_paths(paths: Sequence[Path]) -> ImageSource:
    """Files as they are named, folders walked to the bottom, in the order given.

    Raises:
        DataError: one does not exist, or a folder holds no image.
    """
    if any(path.is_dir() for path in paths):
        return load_images(paths)
    for path in paths:
        if not path.exists():
            load_images([path])  # raises, with close names
    return FileImages(paths)


def in_memory(image: Picture) -> bytes | npt.NDArray[np.uint8]:
    """The bytes or pixels of one picture; a PIL image is encoded without loss.

    Encoding sends every colour mode and EXIF rotation through the same decoder as a file.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise UsageError(
                "An image array must be (H, W) or (H, W, 3) uint8, got "
                f"{image.shape} {image.dtype}. Convert it first."
            )
        return image
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        kind = "PNG" if image.mode in ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA") else "TIFF"
        image.save(buffer, format=kind, exif=image.getexif())
        return buffer.getvalue()
    return Path(image).read_bytes()
