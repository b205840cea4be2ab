"""From what the user typed to an `ImageTable`.

A plain word that names a built-in data set means the data set, even where a folder of that name
stands beside it: write './digits' (or pass a `Path`) for the folder. Everything else is a folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from headstart.data.builtin import DATASETS
from headstart.data.folders import (
    FoundImage,
    class_name,
    close_names,
    find_images,
    find_labelled,
    find_test,
    printable,
    subfolders,
)
from headstart.errors import DataError
from headstart.records import UNLABELLED, ImageTable


def load_table(data: str | Path, *, test_data: str | Path | None = None) -> ImageTable:
    """The labelled images of a folder or of a built-in data set.

    Args:
        data: a folder of class folders, or of `train/` beside `test/` or `val/`, each with class
            folders; or the name of a built-in data set. A `Path` always means a folder.
        test_data: a folder of class folders that becomes the split 'test'.

    Returns:
        The table in the order train, val, test, sorted by path within. Splits are '' where
        nothing says them; with `test_data` all other images without a split are 'train'.

    Raises:
        DataError: the data are not there, or cannot be learnt from.
    """
    builtin = _is_builtin(data)
    if builtin and test_data is not None:
        raise DataError(
            f"`--test-data` must go with a folder, got '{test_data}' beside the built-in data set "
            f"'{data}'. Leave it out, or write './{data}' if you mean a folder."
        )
    if builtin:
        return DATASETS.get(str(data)).load()
    subject = f"`--data {printable(str(data))}`"
    directory = _existing_folder(data, subject, offer=DATASETS.names())
    if test_data is None:
        return _table(directory, find_labelled(directory, subject), subject)
    return _table(directory, _with_test(directory, subject, test_data), subject)


def load_images(paths: Sequence[str | Path]) -> ImageTable:
    """Images without labels: files as given, folders walked to the bottom.

    A file is taken whatever its extension; one that is named twice is taken once. Paths are as
    the user wrote them, in the order given, sorted within a folder.

    Raises:
        DataError: a file or folder is not there, or there is no image at all.
    """
    images: dict[str, FoundImage] = {}
    for path in map(Path, paths):
        subject = f"'{printable(str(path))}'"
        if path.is_dir():
            pairs = [(_joined(path, name), file) for name, file in find_images(path)]
        elif path.exists():
            pairs = [(printable(path.as_posix()), path)]
        else:
            raise DataError(_missing(path, subject, []))
        images.update({str(file): FoundImage(path=name, file=file) for name, file in pairs})
    if not images:
        shown = ", ".join(f"'{printable(str(path))}'" for path in paths) or "nothing"
        raise DataError(f"No images to predict: got {shown}. Name image files, or a folder.")
    single = Path(paths[0])
    name = _name_of(single) if len(paths) == 1 and single.is_dir() else "images"
    return _assemble(name, list(images.values()), ())


def load_unlabelled_or_labelled(directory: str | Path, class_names: Sequence[str]) -> ImageTable:
    """The images of a folder, with labels where its subfolders are known classes.

    Args:
        directory: a folder of images, at any depth.
        class_names: the classes of a bundle, in its order, which becomes the table's.

    Returns:
        Where every subfolder is named (after NFC) like a class, the labels by that name, and
        `UNLABELLED` for loose images; otherwise the images unlabelled and without class names.

    Raises:
        DataError: the folder is not there, or holds no image.
    """
    subject = f"'{printable(str(directory))}'"
    root = _existing_folder(directory, subject, offer=[])
    images = [FoundImage(path=name, file=file) for name, file in find_images(root)]
    if not images:
        raise DataError(f"{subject} holds no images. Name a folder with image files.")
    folders = [folder.name for folder in subfolders(root)]
    if not folders or not {class_name(folder) for folder in folders} <= set(class_names):
        return _assemble(_name_of(root), images, ())
    labelled = [replace(image, label=_top_folder(image, root)) for image in images]
    return _assemble(_name_of(root), labelled, tuple(class_names))


def _is_builtin(data: str | Path) -> bool:
    separators = {"/", os.sep}
    return isinstance(data, str) and not separators & set(data) and data in DATASETS


def _existing_folder(data: str | Path, subject: str, offer: list[str]) -> Path:
    directory = Path(data).expanduser()
    if directory.is_dir():
        return directory
    if directory.exists():
        raise DataError(f"{subject} is a file. Name the folder that holds the images.")
    raise DataError(_missing(directory, subject, offer))


def _missing(path: Path, subject: str, offer: list[str]) -> str:
    """The sentence for a path that is not there, with the close names beside it."""
    try:
        siblings = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        siblings = []
    builtins = f" Built-in data sets: {', '.join(offer)}." if offer else ""
    hint = close_names(printable(path.name), [*map(printable, siblings), *offer])
    return f"{subject} does not exist. {hint}Check the spelling.{builtins}"


def _with_test(directory: Path, subject: str, test_data: str | Path) -> list[FoundImage]:
    test_subject = f"`--test-data {printable(str(test_data))}`"
    test_directory = _existing_folder(test_data, test_subject, offer=[])
    if test_directory.resolve() == directory.resolve():
        raise DataError(f"{test_subject} is the folder of `--data` itself. Name another one.")
    images = find_labelled(directory, subject, skip=test_directory)
    if any(image.split == "test" for image in images):
        raise DataError(
            f"{subject} holds a folder 'test' already, so {test_subject} would be a second test "
            "set. Leave `--test-data` out, or name the folder 'train' as `--data`."
        )
    prefix = "test"
    if test_directory.resolve().is_relative_to(directory.resolve()):
        prefix = test_directory.resolve().relative_to(directory.resolve()).as_posix()
    train = [replace(image, split=image.split or "train") for image in images]
    test = [
        replace(image, path=f"{printable(prefix)}/{image.path}", split="test")
        for image in find_test(test_directory, test_subject)
    ]
    return train + test


def _table(directory: Path, images: list[FoundImage], subject: str) -> ImageTable:
    """Labelled images as a table, after the check that training lacks no class."""
    class_names = tuple(sorted({image.label for image in images}))
    learnt = {image.label for image in images if image.split not in ("val", "test")}
    strangers = [image for image in images if image.label not in learnt]
    if strangers:
        label, split = strangers[0].label, strangers[0].split
        raise DataError(
            f"The {split} split of {subject} holds the class '{label}', which the training images "
            f"lack. {close_names(label, sorted(learnt))}Add training images of it, or remove it "
            f"from the {split} split."
        )
    return _assemble(_name_of(directory), images, class_names)


def _assemble(name: str, images: list[FoundImage], class_names: tuple[str, ...]) -> ImageTable:
    index = {class_label: position for position, class_label in enumerate(class_names)}
    labels = [index.get(image.label, UNLABELLED) for image in images]
    return ImageTable(
        name=name,
        paths=_unique([image.path for image in images]),
        labels=np.array(labels, dtype=np.int64),
        class_names=class_names,
        splits=tuple(image.split for image in images),
        files=tuple(image.file for image in images),
    )


def _unique(paths: list[str]) -> tuple[str, ...]:
    """Names as they are; one that came out like an earlier one gets '~2', '~3', ... behind."""
    taken = set(paths)
    seen: set[str] = set()
    unique = []
    for path in paths:
        name, count = path, 1
        while name in seen or (count > 1 and name in taken):
            count += 1
            name = f"{path}~{count}"
        seen.add(name)
        unique.append(name)
    return tuple(unique)


def _top_folder(image: FoundImage, root: Path) -> str:
    parts = image.file.relative_to(root).parts
    return class_name(parts[0]) if len(parts) > 1 else ""


def _joined(folder: Path, name: str) -> str:
    prefix = printable(folder.as_posix())
    return name if prefix == "." else f"{prefix}/{name}"


def _name_of(directory: Path) -> str:
    return printable(directory.resolve().name) or "images"
