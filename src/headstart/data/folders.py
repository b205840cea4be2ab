"""Folders of images: which files count, in which order, under which class and split.

A class folder is `DIR/CLASS`; folders nested below it belong to it. A file counts when its
extension is one of `IMAGE_SUFFIXES`, whatever is inside: a text named `.jpg` is kept, so that
decoding can name it. Hidden entries and what other systems leave behind are passed over. Order
never comes from the file system: everything is sorted by Unicode code point.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstart.data.converted.names import folder_classes
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.found import FoundImage
from headstart.errors import DataError

SPLIT_OF_FOLDER = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_LEFTOVERS = frozenset({"__macosx", "thumbs.db", "desktop.ini"})

_JOINERS = "\u200c\u200d"

# Device and inode of a folder and of those above it: a link back to one of them is a loop.
_Ancestors = frozenset[tuple[int, int]]


def printable(name: str) -> str:
    r"""The name with bytes that are no UTF-8 and control characters written out: 'a\nb.jpg'.

    A control character in a name could end a line of a report or steer a terminal. Names of files
    are taken for UTF-8 in every locale, so that a class is called the same everywhere.
    """
    with contextlib.suppress(UnicodeEncodeError):  # half a pair, which no file name holds
        name = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if _is_shown(c) else ascii(c)[1:-1] for c in text)


def _is_shown(c: str) -> bool:
    """Letters, signs and spaces of any script; the joiners shape Persian, Hindi and emoji."""
    return c.isprintable() or c in _JOINERS or unicodedata.category(c) == "Zs"


def class_name(text: str) -> str:
    """The class that a folder's name or a label stands for: printable, after NFC."""
    return unicodedata.normalize("NFC", printable(text))


def find_images(directory: Path) -> list[tuple[str, Path]]:
    """All image files below a folder: printable relative name and file, sorted by name.

    Links are followed; a link back to a folder above itself is passed over.

    Raises:
        DataError: a folder cannot be read.
    """
    found = sorted(_image_names(directory))
    return [(printable(relative), directory / relative) for relative in found]


def subfolders(directory: Path) -> list[Path]:
    """The folders directly inside, sorted by name, hidden ones left out."""
    return [directory / entry.name for entry in _entries(directory) if _is_dir(entry)]


def find_labelled(directory: Path, subject: str, *, skip: Path | None = None) -> list[FoundImage]:
    """The images of class folders, or of class folders inside `train/`, `val/` and `test/`.

    Args:
        directory: DIR of `DIR/CLASS/**/IMAGE` or `DIR/SPLIT/CLASS/**/IMAGE`.
        subject: how messages name it, as in '`--data flowers`'.
        skip: a folder inside that is not looked at.

    Raises:
        DataError: this is no folder of class folders.
    """
    folders = subfolders(directory)
    if _has_splits(folders):
        return _find_split(folders, subject, skip)
    folders = [folder for folder in folders if not _same(folder, skip)]
    _check_layout(directory, folders, subject)
    images = _find_classes(folders, subject, may_be_empty=False)
    if len({image.label for image in images}) == 1:
        raise DataError(
            f"{subject} holds one class only, '{images[0].label}'; a classifier needs at least "
            "two. Add a folder of another class."
        )
    return images


def find_test(directory: Path, subject: str) -> list[FoundImage]:
    """The images of class folders that hold a test set; one class alone is accepted.

    Raises:
        DataError: this is no folder of class folders.
    """
    folders = subfolders(directory)
    _check_layout(directory, folders, subject)
    return _find_classes(folders, subject, may_be_empty=True)


def close_names(wanted: str, known: Iterable[str]) -> str:
    """'Did you mean ...? ' with the names close to `wanted`, '' where none is."""
    by_key = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(wanted.casefold(), by_key, n=3, cutoff=0.6)
    quoted = " or ".join(f"'{by_key[key]}'" for key in close)
    return f"Did you mean {quoted}? " if close else ""


def _entries(directory: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            visible = [entry for entry in entries if not _is_leftover(entry.name)]
    except OSError as error:
        raise DataError(
            f"The folder '{printable(str(directory))}' cannot be read: {error.strerror}. "
            "Check its permissions."
        ) from error
    return sorted(visible, key=lambda entry: entry.name)


def _is_leftover(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LEFTOVERS


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _image_names(directory: Path) -> Iterator[str]:
    """Relative names of the image files, with forward slashes, in any order."""
    parents = {*directory.absolute().parents, *directory.resolve().parents}
    return _walk(directory, "", frozenset(_identity(parent) for parent in parents))


def _identity(directory: Path) -> tuple[int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino


def _walk(directory: Path, prefix: str, above: _Ancestors) -> Iterator[str]:
    here = _identity(directory)
    if here in above:
        return
    for entry in _entries(directory):
        name = prefix + entry.name
        if _is_dir(entry):
            yield from _walk(directory / entry.name, f"{name}/", above | {here})
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and _is_file_or_lost(entry.path):
            yield name


def count_loose(directory: Path) -> int:
    """How many images lie in a folder itself, not in folders of it."""
    return sum(
        Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and not _is_dir(entry)
        for entry in _entries(directory)
    )


def _is_file_or_lost(path: str) -> bool:
    """A regular file, or a link to nothing: the latter fails when read, and is named then."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def _same(folder: Path, other: Path | None) -> bool:
    return other is not None and folder.resolve() == other.resolve()


def _has_splits(folders: list[Path]) -> bool:
    """Whether `train/` stands beside `test/` or `val/`; alone it may be a class of vehicles."""
    splits = {SPLIT_OF_FOLDER.get(folder.name.casefold(), "") for folder in folders}
    return "train" in splits and len(splits & {"val", "test"}) > 0


def _find_split(folders: list[Path], subject: str, skip: Path | None) -> list[FoundImage]:
    by_split: dict[str, Path] = {}
    for folder in (folder for folder in folders if not _same(folder, skip)):
        split = SPLIT_OF_FOLDER.get(folder.name.casefold())
        if split is None:
            if any(_image_names(folder)):
                raise DataError(
                    f"{subject} holds 'train', and beside it images in '{printable(folder.name)}', "
                    "which is neither 'val' nor 'test'. Move that folder elsewhere."
                )
            continue
        if split in by_split:
            raise DataError(
                f"{subject} holds both '{by_split[split].name}' and '{folder.name}' for the "
                f"{split} split. Join them, or move one elsewhere."
            )
        by_split[split] = folder
    images = []
    for split in ("train", "val", "test"):
        if split in by_split:
            images += _find_one_split(by_split[split], split, subject)
    return images


def _find_one_split(folder: Path, split: str, subject: str) -> list[FoundImage]:
    inside = f"'{folder.name}' of {subject}"
    classes = subfolders(folder)
    _check_layout(folder, classes, inside)
    found = _find_classes(classes, inside, may_be_empty=split != "train")
    if split == "train" and len({image.label for image in found}) == 1:
        raise DataError(
            f"{inside} holds one class only, '{found[0].label}'; a classifier needs at least two. "
            "Add a folder of another class."
        )
    prefix = printable(folder.name)
    return [
        FoundImage(path=f"{prefix}/{image.path}", file=image.file, label=image.label, split=split)
        for image in found
    ]


def _check_layout(directory: Path, folders: list[Path], subject: str) -> None:
    """Name the usual mistakes: nothing there, images without classes, one level too high."""
    if not folders:
        loose = find_images(directory)
        if loose:
            raise DataError(
                f"{subject} holds {_count(loose)} but no class folders. Put the images of "
                f"each class into a folder of its own, as in CLASS/{Path(loose[0][0]).name}."
            )
        raise DataError(
            f"{subject} holds no images. Put the images of each class into a folder of its own."
        )
    splits = {SPLIT_OF_FOLDER.get(folder.name.casefold(), "") for folder in folders}
    if len(folders) > 1 and "" not in splits:
        names = " and ".join(f"'{folder.name}'" for folder in folders)
        advice = "Name one of them" if "train" in splits else "Add a folder 'train'"
        raise DataError(f"{subject} holds {names}, which are splits, not classes. {advice}.")
    inner = _unwrapped(folders[0]) if len(folders) == 1 else None
    if inner is not None:
        raise DataError(
            f"{subject} holds one folder only, '{printable(folders[0].name)}', which holds "
            f"folders itself. Did you mean '{printable(inner.as_posix())}'?"
        )


def _unwrapped(folder: Path) -> Path | None:
    """Where the class folders begin if an archive put lone folders around them, else None."""
    names = list(_image_names(folder))
    if not names or any("/" not in name for name in names):
        return None
    inside = subfolders(folder)
    return folder if len(inside) > 1 else _unwrapped(inside[0])


def _find_classes(folders: list[Path], subject: str, *, may_be_empty: bool) -> list[FoundImage]:
    """The images of each class folder, paths relative to the folder above them."""
    folder_of: dict[str, Path] = {}
    images, empty = [], []
    converted = folder_classes(folders[0].parent)
    for folder in folders:
        label = class_name(converted.get(class_name(folder.name), folder.name))
        if label in folder_of:
            raise DataError(
                f"{subject} holds two folders for the class '{label}': {folder.name!a} and "
                f"{folder_of[label].name!a} differ only in how an accent is stored. "
                "Join them, or rename one."
            )
        folder_of[label] = folder
        prefix = printable(folder.name)
        found = [
            FoundImage(path=f"{prefix}/{name}", file=file, label=label)
            for name, file in find_images(folder)
        ]
        images += found
        if not found:
            empty.append(label)
    _check_empty(images, empty, subject, may_be_empty)
    return sorted(images, key=lambda image: image.path)


def _check_empty(
    images: list[FoundImage], empty: list[str], subject: str, may_be_empty: bool
) -> None:
    if not images:
        raise DataError(
            f"{subject} holds no images in its {len(empty)} class folders, "
            f"{_listed(empty)}. Files with an extension such as .jpg or .png count."
        )
    if empty and not may_be_empty:
        raise DataError(
            f"{subject} holds no images in {_listed(empty)}. Add images there, or move the "
            "folder elsewhere: every folder is a class."
        )


def _count(images: list[tuple[str, Path]]) -> str:
    return "1 image" if len(images) == 1 else f"{len(images)} images"


def _listed(names: list[str]) -> str:
    """'a', 'b', 'c' and 4 more."""
    shown = ", ".join(f"'{name}'" for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
