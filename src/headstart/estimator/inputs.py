"""What callers hand over as X, y and groups, brought into the one form that is fitted.

scikit-learn cuts X by rows and hands the pieces back as it found them: a list stays a list, an
array of paths an array. So every form has to be understood anew on every call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.utils.validation import column_or_1d

from headstart.bundle.classifier import in_memory
from headstart.data import printable
from headstart.errors import DataError, UsageError
from headstart.inference import ImageList
from headstart.records import Bytes8, ImageFacts, Integers

ACCEPTED = (
    "Give a list of paths, PIL images or uint8 arrays, or one (N, H, W, 3) or (N, H, W) uint8 array"
)
NAMED_IMAGES = 3
SINGLE = (str, bytes, bytearray, os.PathLike, Image.Image)

Label = Any
Entry = Path | bytes | Bytes8 | OSError


def as_images(pictures: object) -> ImageList:
    """The images of X in their order; files are not opened yet.

    Args:
        pictures: N paths, PIL images, encoded files as bytes or uint8 arrays in a list, tuple,
            one-dimensional array or column of a data frame; or one (N, H, W, 3) or (N, H, W)
            uint8 array.

    Raises:
        UsageError: something else.
        DataError: no image at all.
    """
    listed = _listed(pictures)
    if not listed:
        raise DataError("`X` must hold at least 1 image, got none. Add images.")
    named = [_entry(picture, row) for row, picture in enumerate(listed)]
    return ImageList([image for image, _ in named], [name for _, name in named])


def _listed(pictures: object) -> list[object]:
    """The entries of X."""
    if isinstance(pictures, SINGLE):
        kind = type(pictures).__name__
        raise UsageError(f"`X` must be many pictures, got one {kind}. Put it into a list: [image].")
    if hasattr(pictures, "to_numpy"):  # a column of pandas or polars
        pictures = pictures.to_numpy()
    if not isinstance(pictures, np.ndarray) and hasattr(pictures, "__array__"):
        pictures = np.asarray(pictures)
    if isinstance(pictures, np.ndarray):
        return _rows(pictures)
    if isinstance(pictures, Sequence):
        return list(pictures)
    kind = f"{type(pictures).__module__}.{type(pictures).__qualname__}"
    raise UsageError(f"`X` must be pictures, got {kind}. {ACCEPTED}.")


def _rows(array: npt.NDArray[Any]) -> list[object]:
    """The entries of an array: pixels of N pictures, or N objects."""
    in_colour = array.ndim == 4 and array.shape[3] == 3
    # (H, W, 3) is one picture that somebody forgot to put into a list.
    in_grey = array.ndim == 3 and array.shape[2] != 3
    if array.dtype == np.uint8 and (in_colour or in_grey):
        return list(array)
    if array.ndim == 1 and array.dtype.kind in "OUT":
        return list(array)
    raise UsageError(
        f"`X` must be pictures, got an array of shape {array.shape} and type {array.dtype}. "
        f"{ACCEPTED}."
    )


def _entry(picture: object, row: int) -> tuple[Entry, str]:
    """One image and its name."""
    if isinstance(picture, str | os.PathLike):
        path = os.fsdecode(picture)
        if not path or "\0" in path:
            got = "one with a null byte" if path else "an empty one"
            raise UsageError(f"`X` must hold paths, got {got} at row {row}. Correct it.")
        return Path(path), printable(path)
    if isinstance(picture, bytes | bytearray | Image.Image | np.ndarray):
        return in_memory(picture), f"image {row}"
    kind = type(picture).__name__
    raise UsageError(f"`X` must hold pictures, got {kind} at row {row}. {ACCEPTED}.")


def as_labels(labels: object, count: int) -> tuple[npt.NDArray[Any], Integers]:
    """The classes and each image's index into them.

    Args:
        labels: N labels of one kind: text, whole numbers or truth values.
        count: N.

    Returns:
        (C,) classes, sorted, of the labels' own type, and (N,) int64.

    Raises:
        UsageError: no labels, another number of them, missing ones, fractions, mixed kinds, or
            one class only.
    """
    if labels is None:
        raise UsageError(
            "ImageClassifier requires y to be passed, but the target y is None. "
            "Give one label an image."
        )
    _refuse_unequal(labels, "y", "labels")
    values = _classes_of(_column(labels))
    if len(values) != count:
        raise UsageError(
            f"`y` must have a label for each of the {count} images of X, got {len(values)}. "
            "Give both the same length."
        )
    classes, indices = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise UsageError(
            f"`y` must hold at least 2 classes, got one class, {classes[0]!r}. "
            "Add images of another."
        )
    return classes, indices.astype(np.int64)


def _column(labels: object) -> npt.NDArray[Any]:
    """(N,) labels; scikit-learn warns of a column vector, as everywhere."""
    try:
        column: npt.NDArray[Any] = column_or_1d(labels, warn=True)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UsageError(
            f"`y` must be one label an image, in one dimension ({reason}). Correct it."
        ) from error
    return column


def _refuse_unequal(values: object, name: str, noun: str) -> None:
    """Refuse missing entries and entries of several kinds, while they are still what they were.

    NumPy makes text of everything in ['a', nan] and in ['a', 1], so lists are looked at as given.
    """
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        entries: Sequence[Any] = values
    else:
        array = np.asarray(values)
        entries = array.ravel().tolist() if array.dtype.kind in "OfT" else []
    missing = [row for row, value in enumerate(entries) if _is_missing(value)]
    if missing:
        raise UsageError(
            f"`{name}` must be complete, got {len(missing)} missing {noun} (NaN or None), the "
            f"first at row {missing[0]}. Leave those images out."
        )
    if len({_kind(value) for value in entries}) > 1:
        kinds = sorted({type(value).__name__ for value in entries})
        raise UsageError(
            f"`{name}` must hold {noun} of one kind, got {' and '.join(kinds)}. Convert them."
        )


def _kind(value: object) -> type:
    """Text, truth values, numbers, or the type itself."""
    for kind in (str, bool, Real):
        if isinstance(value, kind):
            return kind
    return bool if isinstance(value, np.bool_) else type(value)


def _is_missing(value: object) -> bool:
    """None, NaN, NaT or pandas' NA, which alone refuses to be compared."""
    try:
        return value is None or bool(value != value)  # NaN differs from itself
    except TypeError:
        return True
    except ValueError:  # an array: `y` has too many dimensions, which is told elsewhere
        return False


def _classes_of(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The labels, where they can be classes."""
    if values.dtype == object and len(values) and not isinstance(values[0], str):
        values = np.asarray(values.tolist())
    if values.dtype.kind == "f" and not bool((values == np.floor(values)).all()):
        raise UsageError(
            "`y` must hold classes, got continuous numbers. Turn them into classes first."
        )
    if values.dtype.kind not in "biufUOT" or (values.dtype.kind == "f" and np.isinf(values).any()):
        raise UsageError(
            f"`y` must hold text, whole numbers or truth values, got {values.dtype}"
            f"{' with infinity' if values.dtype.kind == 'f' else ''}. Convert them."
        )
    return values


def as_groups(groups: object, count: int) -> npt.NDArray[Any] | None:
    """(N,) group of each image, or None.

    Raises:
        UsageError: another number of them, missing ones or mixed kinds.
    """
    if groups is None:
        return None
    _refuse_unequal(groups, "groups", "groups")
    column = np.asarray(groups)
    if column.shape != (count,):
        raise UsageError(
            f"`groups` must name a group for each of the {count} images of X, got shape "
            f"{column.shape}. Give both the same length."
        )
    return column


def refuse_unreadable(facts: Sequence[ImageFacts]) -> None:
    """Name the first images that cannot be decoded.

    Raises:
        DataError: there are such.
    """
    bad = [f"{record.path} ({record.problem})" for record in facts if record.problem]
    if bad:
        more = f"; and {len(bad) - NAMED_IMAGES} more" if len(bad) > NAMED_IMAGES else ""
        raise DataError(
            f"{len(bad)} of {len(facts)} images of X cannot be read: "
            f"{'; '.join(bad[:NAMED_IMAGES])}{more}. Repair them or leave them out."
        )
