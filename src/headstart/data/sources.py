"""From what the user typed to an `ImageTable`.

A plain word that names a built-in data set means the data set, even where a folder of that name
stands beside it: write './digits' (or pass a `Path`) for the folder. A file is a manifest
(`headstart.data.listed`) or a pack (`headstart.data.packed`). A folder is, in this order: Stanford
Cars as published, a Hugging Face image folder, a folder of packs, class folders.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from headstart.data.boxes import check_margin
from headstart.data.builtin import DATASETS
from headstart.data.converted.names import COMPLETE, STATE_FILE, folder_classes
from headstart.data.folders import (
    class_name,
    close_names,
    count_loose,
    find_images,
    find_labelled,
    find_test,
    printable,
    subfolders,
)
from headstart.data.found import Collection, FoundImage
from headstart.data.labels import class_notes
from headstart.data.listed.cars import holds_cars, read_cars
from headstart.data.listed.columns import parse_columns
from headstart.data.listed.manifests import read_manifest
from headstart.data.listed.metadata import (
    FURTHER_WORDS,
    metadata_file,
    read_image_folder,
    with_metadata,
)
from headstart.data.listed.sheets import SHEET_SUFFIXES
from headstart.data.packed.packs import is_pack, packs_of, read_packs
from headstart.data.tables import assemble_table, grouped_table, learnable_table, with_groups
from headstart.errors import DataError
from headstart.files import read_json
from headstart.records import ImageTable

_KINDS = frozenset({"metadata", "manifest", "labels", "annotations", "images", "data"})


def load_table(
    data: str | Path,
    *,
    test_data: str | Path | None = None,
    group_by: str | None = None,
    columns: str | Mapping[str, str] | None = None,
    crop_margin: float = 0.0,
) -> ImageTable:
    """The labelled images of a folder, a manifest, a pack or a built-in data set.

    Args:
        data: a folder, a manifest or pack (.csv, .tsv, .jsonl, .parquet), or the name of a
            built-in data set. A `Path` always means a file or folder.
        test_data: another folder or manifest, which becomes the split 'test'.
        group_by: a column, or a regular expression on the path, that tells which images must stay
            together; see `headstart.data.listed.grouping`.
        columns: which column means what, as in 'label=finding,path=file'; see
            `headstart.data.listed.columns`.
        crop_margin: added around each box, a share of the box's width and height.

    Returns:
        The table in the order train, val, test, sorted by path within. Splits are '' where
        nothing says them; with `test_data` all other images without a split are 'train'. Rows of
        a manifest without a label are there, `UNLABELLED`. What is odd stands in `notes`.

    Raises:
        DataError: the data are not there, or cannot be learnt from.
        UsageError: `group_by`, `columns` or `crop_margin` cannot be.
    """
    check_margin(crop_margin)
    _check_named(data, "`--data`")
    _check_named(test_data, "`--test-data`")
    wanted = parse_columns(columns)
    builtin = _is_builtin(data)
    if builtin and test_data is not None:
        raise DataError(
            f"`--test-data` must go with a folder, got '{test_data}' beside the built-in data set "
            f"'{data}'. Leave it out, or write './{data}' if you mean a folder."
        )
    if builtin and wanted:
        raise DataError(f"`columns` must go with a manifest; '{data}' has none. Leave it out.")
    if builtin:
        return grouped_table(DATASETS.get(str(data)).load(), group_by)
    subject = f"`--data {printable(str(data))}`"
    place = _existing(data, subject, offer=DATASETS.names())
    collection = _collect(
        place, subject, wanted, skip=None if test_data is None else Path(test_data)
    )
    if test_data is not None:
        collection = _with_test(place, collection, subject, test_data, wanted)
    return learnable_table(
        _name_of(place), collection, subject, group_by=group_by, crop_margin=crop_margin
    )


def load_images(paths: Sequence[str | Path]) -> ImageTable:
    """Images without labels: files as given, folders walked to the bottom.

    A file is taken whatever its extension; one that is named twice is taken once. Paths are as
    the user wrote them, in the order given, sorted within a folder.

    Raises:
        DataError: a file or folder is not there, or there is no image at all.
    """
    images: dict[str, FoundImage] = {}
    for path in paths:
        _check_named(path, "An image to predict")
    for path in map(Path, paths):
        subject = f"'{printable(str(path))}'"
        if path.is_dir():
            pairs = [(_joined(path, name), file) for name, file in find_images(path)]
        elif path.is_file():
            pairs = [(printable(path.as_posix()), path)]
        elif path.exists():
            raise DataError(
                f"{subject} is a pipe, socket or device. Name image files, or a folder."
            )
        else:
            raise DataError(_missing(path, subject, []))
        images.update({str(file): FoundImage(path=name, file=file) for name, file in pairs})
    if not images:
        shown = ", ".join(f"'{printable(str(path))}'" for path in paths) or "nothing"
        raise DataError(f"No images to predict: got {shown}. Name image files, or a folder.")
    single = Path(paths[0])
    name = _name_of(single) if len(paths) == 1 and single.is_dir() else "images"
    return assemble_table(name, list(images.values()), (), in_order=True)


def load_unlabelled_or_labelled(
    data: str | Path,
    class_names: Sequence[str],
    *,
    group_by: str | None = None,
    columns: str | Mapping[str, str] | None = None,
    crop_margin: float = 0.0,
) -> ImageTable:
    """Images to predict or to measure a finished model on, with labels where they are known.

    Args:
        data: a folder of images, at any depth; or a manifest or pack, of which the rows of the
            test split are taken where it has one, else those of val, else all.
        class_names: the classes of a bundle, in its order, which becomes the table's.
        group_by: as in `load_table`.
        columns: as in `load_table`, for a manifest or pack, or a folder's metadata file.
        crop_margin: as in `load_table`, for boxes of a manifest or metadata file.

    Returns:
        Where every subfolder is named (after NFC) like a class, the labels by that name, and
        `UNLABELLED` for loose images; otherwise the images unlabelled and without class names. A
        manifest's labels are taken where the model knows every one of them.

    Raises:
        DataError: the folder is not there, or holds no image.
    """
    _check_named(data, "A folder of images")
    subject = f"'{printable(str(data))}'"
    root = _existing(data, subject, offer=[])
    if root.is_file():
        check_margin(crop_margin)
        collection = _collect_listed(root, subject, parse_columns(columns))
        found, notes = with_groups(collection, subject, group_by, split=False)
        table = _measured_table(_name_of(root), found, class_names, crop_margin)
        return replace(table, notes=(*collection.notes, *notes))
    if columns and metadata_file(root) is None:
        raise DataError(
            f"`columns` must go with a manifest, {subject} is a folder. Name a manifest, or leave "
            "--columns out."
        )
    images = [FoundImage(path=name, file=file) for name, file in find_images(root)]
    if not images:
        raise DataError(f"{subject} holds no images. Name a folder with image files.")
    collection = with_metadata(root, images, subject, parse_columns(columns))
    check_margin(crop_margin)
    converted = folder_classes(root)
    folders = [folder.name for folder in subfolders(root)]
    label_of = {folder: class_name(converted.get(class_name(folder), folder)) for folder in folders}
    images, notes = collection.images, ()
    known: tuple[str, ...] = ()
    if folders and set(label_of.values()) <= set(class_names):
        known = tuple(class_names)
        images = [replace(image, label=_top_folder(image, root, label_of)) for image in images]
        images, notes = with_groups(
            replace(collection, images=images), subject, group_by, split=False
        )
    table = assemble_table(_name_of(root), images, known, in_order=True, crop_margin=crop_margin)
    return replace(table, notes=(*collection.notes, *notes))


def _collect_listed(file: Path, subject: str, wanted: dict[str, str]) -> Collection:
    """A manifest or pack; its labels may be missing."""
    if is_parquet_pack(file):
        return read_packs([file], subject, wanted)
    return read_manifest(file, subject, wanted, needed=("path",))


def _measured_table(
    name: str, images: list[FoundImage], class_names: Sequence[str], crop_margin: float
) -> ImageTable:
    """The test part, else the val part, else everything, with labels where all are known."""
    for split in ("test", "val"):
        part = [image for image in images if image.split == split]
        if part:
            images = part
            break
    known = {image.label for image in images if image.label} <= set(class_names)
    return assemble_table(
        name, images, tuple(class_names) if known else (), crop_margin=crop_margin
    )


def is_parquet_pack(file: Path) -> bool:
    """Whether a file is a pack: Parquet with images inside."""
    return file.suffix.lower() == ".parquet" and is_pack(file)


def _collect(
    place: Path, subject: str, wanted: dict[str, str], *, skip: Path | None = None
) -> Collection:
    """Everything that a file or folder holds, by what it is."""
    if place.is_file():
        if is_parquet_pack(place):
            return read_packs([place], subject, wanted)
        return read_manifest(place, subject, wanted)
    if holds_cars(place) and wanted:
        raise DataError(
            f"`columns` must go with a manifest; the files of {subject} are those of Stanford Cars "
            "as published, which have no header. Leave it out."
        )
    if holds_cars(place):
        return read_cars(place, subject)
    inside = skip if skip is not None and skip.exists() else None
    listed = read_image_folder(place, subject, wanted, skip=inside)
    if listed is not None:
        return listed
    packs = packs_of(place)
    if packs and not find_images(place):
        return read_packs(packs, subject, wanted)
    return _labelled(place, find_labelled(place, subject, skip=skip), subject, wanted)


def _refuse_half_converted(place: Path, subject: str) -> None:
    """Refuse a conversion that was interrupted: its sheet and its pictures may be of two calls.

    Args:
        place: its folder, a part of it, or its manifest.
        subject: names it.

    Raises:
        DataError: it is one.
    """
    for folder in (place, place.parent):
        try:
            about = read_json(folder / STATE_FILE)
        except (OSError, ValueError):
            continue
        ours = isinstance(about, dict) and {"version", "settings", "classes"} <= about.keys()
        if ours and about.get(COMPLETE) is not True:
            raise DataError(
                f"{subject} is of a conversion that was not finished. Repeat the `headstart data "
                "convert` that wrote it; what is there and fits is kept."
            )


def _labelled(
    directory: Path, images: list[FoundImage], subject: str, wanted: dict[str, str]
) -> Collection:
    """Class folders with their metadata file and what is odd about their names."""
    collection = with_metadata(directory, images, subject, wanted)
    notes = [*class_notes(image.label for image in images), *collection.notes]
    loose = count_loose(directory)
    if loose:
        lie = "image lies" if loose == 1 else "images lie"
        notes.append(
            f"{loose:,} {lie} beside the class folders and take no part. Put each into the folder "
            "of its class."
        )
    return replace(collection, notes=tuple(notes))


def _is_builtin(data: str | Path) -> bool:
    separators = {"/", os.sep}
    return isinstance(data, str) and not separators & set(data) and data in DATASETS


def _check_named(data: str | Path | None, subject: str) -> None:
    """An empty text would be the present folder, which nobody named."""
    if data == "":
        raise DataError(f"{subject} must have a name, got ''. Write '.' for the present folder.")


def _existing(data: str | Path, subject: str, offer: list[str]) -> Path:
    """The folder, manifest or pack that was named."""
    try:
        place = Path(data).expanduser()
        if place.is_dir() or (place.is_file() and place.suffix.lower() in SHEET_SUFFIXES):
            _refuse_half_converted(place, subject)
            return place
        exists = place.exists()
    except RuntimeError as error:  # '~somebody'
        raise DataError(f"{subject} names the home of nobody known here. Write it out.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{subject} cannot be looked at ({reason}). Check the path.") from error
    if exists:
        endings = ", ".join(sorted(SHEET_SUFFIXES))
        raise DataError(
            f"{subject} is a file. Name the folder that holds the images, or a manifest "
            f"({endings})."
        )
    raise DataError(_missing(place, subject, offer))


def _missing(path: Path, subject: str, offer: list[str]) -> str:
    """The sentence for a path that is not there, with the close names beside it."""
    try:
        siblings = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        siblings = []
    builtins = f" Built-in data sets: {', '.join(offer)}." if offer else ""
    hint = close_names(printable(path.name), [*map(printable, siblings), *offer])
    return f"{subject} does not exist. {hint}Check the spelling.{builtins}"


def _with_test(
    place: Path,
    collection: Collection,
    subject: str,
    test_data: str | Path,
    wanted: dict[str, str],
) -> Collection:
    """The collection with the images of `--test-data` as its split 'test'."""
    test_subject = f"`--test-data {printable(str(test_data))}`"
    test_place = _existing(test_data, test_subject, offer=[])
    if test_place.resolve() == place.resolve():
        raise DataError(f"{test_subject} is the folder of `--data` itself. Name another one.")
    if any(image.split == "test" for image in collection.images):
        raise DataError(
            f"{subject} holds a test split already, so {test_subject} would be a second test "
            "set. Leave `--test-data` out, or name the folder 'train' as `--data`."
        )
    prefix = "test"
    if test_place.is_dir() and test_place.resolve().is_relative_to(place.resolve()):
        prefix = printable(test_place.resolve().relative_to(place.resolve()).as_posix())
    held = _collect_test(test_place, test_subject, wanted)
    _check_apart(place, collection, subject, test_place, held, test_subject)
    train = [replace(image, split=image.split or "train") for image in collection.images]
    test = [replace(image, path=f"{prefix}/{image.path}", split="test") for image in held.images]
    return replace(
        collection,
        images=train + test,
        columns=tuple(dict.fromkeys((*collection.columns, *held.columns))),
        notes=tuple(dict.fromkeys((*collection.notes, *held.notes))),
        grouped_by=collection.grouped_by or held.grouped_by,
    )


def _check_apart(
    place: Path,
    collection: Collection,
    subject: str,
    test_place: Path,
    held: Collection,
    test_subject: str,
) -> None:
    """No file or pack may be learnt from and tested on, whatever name or link leads there."""
    packs = {pack.resolve() for pack in _packs_at(place)}
    shared = [pack.name for pack in _packs_at(test_place) if pack.resolve() in packs]
    if shared:
        raise DataError(
            f"{test_subject} and {subject} are both of the pack '{printable(shared[0])}'. Name "
            "another pack for one of them."
        )
    learnt = {_identity(image) for image in collection.images if image.label} - {None}
    twice = [image for image in held.images if image.label and _identity(image) in learnt]
    if twice:
        raise DataError(
            f"{test_subject} holds {len(twice):,} of its {len(held.images):,} images in {subject} "
            f"as well: '{twice[0].path}' is the first. What is learnt from cannot be tested on; "
            "remove them from one of the two, or name one manifest with a column 'split'."
        )


def _packs_at(place: Path) -> list[Path]:
    """The packs that a place stands for, none where it is something else."""
    if place.is_file():
        return [place] if is_parquet_pack(place) else []
    return packs_of(place)


def _identity(image: FoundImage) -> tuple[int, int] | None:
    """Device and inode of an image's file; None in a pack, and where it is lost."""
    try:
        status = os.stat(image.file) if image.file else None
    except OSError:
        return None
    return status and (status.st_dev, status.st_ino)


def _collect_test(place: Path, subject: str, wanted: dict[str, str]) -> Collection:
    """A test set of its own; of class folders one alone is enough."""
    if place.is_file() or read_image_folder(place, subject, wanted) or packs_of(place):
        return _collect(place, subject, wanted)
    # What --columns says of a manifest to learn from is nothing to folders without such a file.
    told = wanted if metadata_file(place) is not None else {}
    further = {word: name for word, name in told.items() if word in FURTHER_WORDS}
    return with_metadata(place, find_test(place, subject), subject, further)


def _top_folder(image: FoundImage, root: Path, label_of: dict[str, str]) -> str:
    assert image.file is not None
    parts = image.file.relative_to(root).parts
    return label_of[parts[0]] if len(parts) > 1 else ""


def _joined(folder: Path, name: str) -> str:
    prefix = printable(folder.as_posix())
    return name if prefix == "." else f"{prefix}/{name}"


def _name_of(directory: Path) -> str:
    """The folder's name, or the manifest's; one with a name of its kind is called as its folder."""
    place = directory.resolve()
    if place.is_file() and place.stem.casefold() not in _KINDS:
        return printable(place.stem)
    return printable((place.parent if place.is_file() else place).name) or "images"
