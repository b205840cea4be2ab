"""The frozen records that travel between rooms.

Shape letters: N images, D features, C classes, K configurations or folds fitted at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]
Bytes8 = npt.NDArray[np.uint8]

UNLABELLED = -1
LARGEST_FILE_BYTES = 2**29  # a picture is smaller; more would fill the memory


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTable:
    """One row an image: where its bytes are, its label, its split, its group, its box.

    Exactly one of `files`, `pixels` and `blobs` holds the images.

    Attributes:
        name: what the data are called in titles and folder names.
        paths: N unique names, relative to `root` with forward slashes; what users see.
        labels: (N,) int64 index into `class_names`, `UNLABELLED` (-1) where unknown.
        class_names: C labels sorted by Unicode code point after NFC: the class order.
        splits: N of 'train', 'val', 'test', or '' where the source does not say.
        groups: N group names (a patient, a video), or None where none are known.
        files: N files that hold the encoded bytes.
        pixels: (N, H, W) or (N, H, W, 3) uint8 for sources that hold plain pixels.
        blobs: N encoded images in memory, for packs that hold many in one file.
        sources: N names of where an image comes from (a hospital), or None.
        boxes: (N, 4) float64, left, top, right and bottom as shares of the upright picture, any
            margin included; a row of NaN takes the whole picture. None where there are no boxes.
        notes: sentences about the data that a run prints.
    """

    name: str
    paths: tuple[str, ...]
    labels: Integers
    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    files: tuple[Path, ...] | None = None
    pixels: Bytes8 | None = None
    blobs: tuple[bytes, ...] | None = None
    sources: tuple[str, ...] | None = None
    boxes: npt.NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that every column has N rows, and that one column holds the images."""
        count = len(self.paths)
        holders: list[Sized | None] = [self.files, self.pixels, self.blobs]
        columns = [*holders, self.labels, self.splits, self.groups, self.sources, self.boxes]
        assert all(len(column) == count for column in columns if column is not None)
        assert sum(holder is not None for holder in holders) == 1

    def __len__(self) -> int:
        """How many images."""
        return len(self.paths)

    def read(self, row: int) -> bytes | Bytes8:
        """The encoded bytes of one image, or its plain (H, W[, 3]) uint8 pixels.

        Raises:
            OSError: the file cannot be read.
        """
        if self.files is not None:
            with open(self.files[row], "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size > LARGEST_FILE_BYTES:
                    raise OSError(
                        f"{size / 2**30:.1f} GiB large; files of more than "
                        f"{LARGEST_FILE_BYTES // 2**20} MiB are not read"
                    )
                return file.read()
        if self.blobs is not None:
            return self.blobs[row]
        assert self.pixels is not None
        pixels: Bytes8 = self.pixels[row]
        return pixels

    def box_of(self, row: int) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom as shares of the upright picture; None takes all of it."""
        if self.boxes is None or np.isnan(self.boxes[row]).any():
            return None
        left, top, right, bottom = self.boxes[row].tolist()
        return left, top, right, bottom

    def take(self, rows: Sequence[int] | Integers) -> ImageTable:
        """The table of these rows only, in this order; class order and notes stay."""
        index = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            paths=tuple(self.paths[i] for i in index),
            labels=self.labels[index],
            splits=tuple(self.splits[i] for i in index),
            groups=None if self.groups is None else tuple(self.groups[i] for i in index),
            files=None if self.files is None else tuple(self.files[i] for i in index),
            pixels=None if self.pixels is None else self.pixels[index],
            blobs=None if self.blobs is None else tuple(self.blobs[i] for i in index),
            sources=None if self.sources is None else tuple(self.sources[i] for i in index),
            boxes=None if self.boxes is None else self.boxes[index],
        )

    def labelled(self) -> ImageTable:
        """The rows that have a label."""
        has_label = self.labels != UNLABELLED
        return self if has_label.all() else self.take(np.flatnonzero(has_label))

    def label_of(self, row: int) -> str:
        """The class name of one image, '' where it has none."""
        label = int(self.labels[row])
        return "" if label == UNLABELLED else self.class_names[label]


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What decoding one image found out; one line of `images.csv`.

    Attributes:
        path: the image's name in its table.
        digest: hexadecimal digest of its bytes ('' where they could not be read).
        width: pixels as stored, before any rotation; 0 where unreadable.
        height: pixels as stored, before any rotation; 0 where unreadable.
        format: 'JPEG', 'PNG', ..., 'pixels' for plain arrays, '' where unreadable.
        mode: colour mode as stored, in Pillow's words ('RGB', 'L', 'P', 'CMYK', 'I;16').
        treatment: what was done to it before resizing, '' where nothing ('rotated by EXIF 6').
        problem: one clause why it was left out, '' for a good image.
    """

    path: str
    digest: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    treatment: str = ""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a decoded 8-bit RGB picture becomes a network's input; stored in every bundle.

    Attributes:
        size: height and width of the input in px.
        resize: 'squash' maps the whole picture onto the square, its shape not kept.
        interpolation: 'bilinear' or 'bicubic', always with antialiasing.
        mean: a channel, of pixels scaled to [0, 1].
        std: a channel, of pixels scaled to [0, 1].
    """

    size: int
    resize: str = "squash"
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def key(self) -> str:
        """Everything that changes the pixels, as one string for cache keys."""
        return f"{self.size}-{self.resize}-{self.interpolation}-{self.mean}-{self.std}"

    def describe(self) -> str:
        """One line for people."""
        shape = "the whole picture, shape not kept" if self.resize == "squash" else self.resize
        return f"{self.size} x {self.size} px, {self.resize} ({shape}), {self.interpolation}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Who is trained on and who is tested on, fixed before anything is fitted.

    Attributes:
        train: (N_train,) rows of the table that may be learnt from.
        test: (N_test,) rows that are opened once, at the end.
        fold: (N_train,) fold of each training row, 0 to num_folds - 1: the fold in which
            it is scored.
        inner: (num_folds, N_train) bool, True where a row of the fold's training part is
            held out to choose settings; never True on the part that is scored.
        inner_fold: (num_folds, N_train) the inner fold that holds each row of the training part
            out, -1 on the part that is scored; None where penalties too are chosen on `inner`.
        origin: where the test part comes from, in words.
        scheme: 'stratified', 'leave-one-group-out', 'leave-one-source-out', or 'given'.
        fold_names: num_folds names of what each fold leaves out; () where it is a mere number.
        calibration: (N_calibration,) rows that are neither learnt from nor tested on: thresholds
            are set on them; empty where out-of-fold answers do that.
        leaks: test images that share a unit with images to learn from; 0 unless allowed.
        calibration_leaks: calibration images that do.
        fold_leaks: images to learn from that share a unit with another fold; 0 unless allowed.
        notes: sentences about the split that a run prints.
    """

    train: Integers
    test: Integers
    fold: Integers
    inner: npt.NDArray[np.bool_]
    origin: str
    inner_fold: Integers | None = None
    scheme: str = "stratified"
    fold_names: tuple[str, ...] = ()
    calibration: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    leaks: int = 0
    calibration_leaks: int = 0
    fold_leaks: int = 0
    notes: tuple[str, ...] = ()

    @property
    def num_folds(self) -> int:
        """How many folds."""
        return len(self.inner)

    @property
    def chooses_penalty(self) -> npt.NDArray[np.bool_]:
        """(num_folds, J, N_train) the parts on which penalties are chosen; J = 1 is `inner`."""
        if self.inner_fold is None:
            return self.inner[:, None]
        numbers = np.arange(int(self.inner_fold.max()) + 1)
        held: npt.NDArray[np.bool_] = self.inner_fold[:, None] == numbers[:, None]
        return held

    @property
    def folds_in_words(self) -> str:
        """'5 folds', '7 folds by leave-one-group-out', '3 given folds'."""
        if self.scheme == "given":
            return f"{self.num_folds} given folds"
        return f"{self.num_folds} folds" + (
            "" if self.scheme == "stratified" else f" by {self.scheme}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Pooled features of some images by one frozen network.

    Attributes:
        values: (N, D) float16, one row an image; of many images in a mapped file.
        facts: N records of what decoding found, in the same order.
        good: (N,) bool, False where the image was left out (its row is zero).
        computed: how many rows went through the network now.
        read_back: how many came from the store; what is neither is a copy of another row.
        computed_views: how many further views of pictures did; they stand in the store.
        seconds: wall seconds by phase; 'audit' is a part of 'compute'.
    """

    values: npt.NDArray[np.float16]
    facts: tuple[ImageFacts, ...]
    good: npt.NDArray[np.bool_]
    computed: int
    read_back: int = 0
    computed_views: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Probabilities of some images, the class order beside them.

    Attributes:
        paths: N image names.
        class_names: C names, the order of the columns.
        probabilities: (N, C) float32, rows sum to one; NaN where an image is unreadable.
        labels: (N,) int64 true labels, `UNLABELLED` where unknown.
        problems: N clauses why an image has no answer, '' for a good one.
        outlier_scores: (N,) float64, higher is stranger, NaN where unreadable; None where the
            model cannot tell.
        unknown: (N,) bool, whether an image is unlike everything the model knows; or None.
        sets: (N, C) bool, classes that cannot be excluded at the model's rate of misses; or None.
        positive: the class that the model decides about at its operating threshold, '' for none.
        called: (N,) bool, whether an image is called positive there; or None. The most probable
            class stays what it is.
    """

    paths: tuple[str, ...]
    class_names: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    labels: Integers
    problems: tuple[str, ...]
    outlier_scores: npt.NDArray[np.float64] | None = None
    unknown: npt.NDArray[np.bool_] | None = None
    sets: npt.NDArray[np.bool_] | None = None
    positive: str = ""
    called: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """How many images."""
        return len(self.paths)

    def take(self, rows: Sequence[int] | Integers) -> Predictions:
        """The answers to these images only, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            paths=tuple(self.paths[i] for i in index),
            probabilities=self.probabilities[index],
            labels=self.labels[index],
            problems=tuple(self.problems[i] for i in index),
            outlier_scores=None if self.outlier_scores is None else self.outlier_scores[index],
            unknown=None if self.unknown is None else self.unknown[index],
            sets=None if self.sets is None else self.sets[index],
            called=None if self.called is None else self.called[index],
        )

    @property
    def good(self) -> npt.NDArray[np.bool_]:
        """(N,) True where there is an answer."""
        return np.array([not problem for problem in self.problems], dtype=bool)

    @property
    def indices(self) -> Integers:
        """(N,) index of the most probable class; -1 where an image is unreadable."""
        filled = np.nan_to_num(self.probabilities, nan=-1.0)
        best = filled.argmax(axis=1).astype(np.int64)
        return np.where(self.good, best, UNLABELLED)

    @property
    def names(self) -> list[str]:
        """The most probable class of each image, '' where an image is unreadable."""
        return ["" if i == UNLABELLED else self.class_names[i] for i in self.indices]
