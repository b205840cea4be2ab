"""Data before anything is learnt: look at them, convert them, audit them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.api.naming import folder_or_name
from headstart.errors import UsageError
from headstart.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from headstart.records import ImageTable, Preprocessing


def preview(
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    model: str = "mini",
    image_size: int | None = None,
    image: str | None = None,
    num: int = 6,
    **options: Any,
) -> dict[str, Any]:
    """Draw some images of the data beside what a network sees of them, or augmented views.

    Args:
        data: as in `run`.
        out: the PNG to write.
        model: backbone whose preprocessing is shown; its weights are not needed.
        image_size: input size in px, None for the network's own.
        image: path of the one image to show, as the data name it or as a file.
        num: how many images otherwise, one of each class in turn.
        **options: `seed` of their choice; `augment`, a policy whose views are drawn instead;
            `test_data`, `group_by`, `columns`, `crop_margin` as in `headstart.data.load_table`.

    Returns:
        The file, the policy in words, the images shown, and notes about the data.

    Raises:
        UsageError: bad data, no such image, or one that cannot be decoded.
    """
    from headstart.backbones import build_network, find_backbone
    from headstart.data import load_table
    from headstart.data.preview import choose_rows, find_row
    from headstart.files import make_folder, write_whole
    from headstart.finetune.preview import augment_preview
    from headstart.plots import save_png

    seed, augment = options.pop("seed", 0), options.pop("augment", None)
    table = load_table(folder_or_name(data), **options)
    rows = choose_rows(table, num, seed) if image is None else [find_row(table, image)]
    network = build_network(find_backbone(model), weights="none", image_size=image_size)
    preprocessing = network.preprocessing
    crop = "" if table.boxes is None else "cropped to its box, then "
    policy = f"{model}: {crop}{preprocessing.describe()}"
    if augment is None:
        figure = pairs_figure(table, rows, preprocessing, policy)
    else:
        figure = augment_preview(table, rows, augment, preprocessing, seed=seed)
    target = Path(out)
    make_folder(target.parent)
    write_whole(target, lambda aside: save_png(figure, aside, dpi=110))
    shown = [table.paths[row] for row in rows]
    return {"out": str(target), "policy": policy, "images": shown, "notes": list(table.notes)}


def pairs_figure(
    table: ImageTable, rows: Sequence[int], preprocessing: Preprocessing, title: str
) -> Figure:
    """Each picture as it is beside what the network sees of it.

    Raises:
        UsageError: a picture that cannot be decoded.
    """
    from headstart.data import decode
    from headstart.data.preparing import square_pixels
    from headstart.plots import preview_figure

    pictures = [decode(table.read(row), table.paths[row])[0] for row in rows]
    boxes = [table.box_of(row) for row in rows]
    squares = [
        square_pixels(table.read(row), table.paths[row], box, preprocessing, decode)
        for row, box in zip(rows, boxes, strict=True)
    ]
    pairs = [(np.asarray(p), square) for p, square in zip(pictures, squares, strict=True)]
    captions = [f"{table.label_of(row)}\n{table.paths[row]}" for row in rows]
    return preview_figure(pairs, boxes, captions, title)


def convert(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: str = "folders",
    size: int | None = None,
    channels: int | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """Write labelled data as pictures; a second call goes on, or does nothing.

    Args:
        data: as in `run`.
        out: a new or empty folder, or one of an earlier call.
        to: 'folders' for class folders, 'manifest' for files beside `manifest.csv`.
        size: shorter side in px, None as it is.
        channels: 1 or 3; None for 1 where the source holds grey pixels, else 3.
        strict: stop at an image that cannot be read.
        progress: silent where None.
        **reading: `test_data`, `group_by`, `columns`, as in `headstart.data.load_table`.

    Returns:
        The folder, what to load, counts of pictures written and kept, the images that cannot be
        read with the reason, classes whose folder is named otherwise, notes about the data.

    Raises:
        UsageError: bad data or settings, or a folder that holds something else.
        StorageError: the disk is full.
    """
    from headstart.data import load_table
    from headstart.data.converted import ConversionSettings, convert_table

    settings = ConversionSettings(to=to, size=size, channels=channels)
    target = Path(out)
    if isinstance(data, os.PathLike) or Path(data).is_dir():
        source = Path(data).resolve()
        if target.resolve().is_relative_to(source if source.is_dir() else source / "never"):
            raise UsageError(
                f"`out` must not lie inside the data, got '{target}': it would be read as images. "
                "Name a folder elsewhere."
            )
    table = load_table(folder_or_name(data), **reading)
    done = convert_table(table, target, settings, strict=strict, progress=progress)
    return {
        **dataclasses.asdict(done),
        "out": str(done.out),
        "load": str(done.load),
        "notes": list(table.notes),
    }


def audit(
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    test_data: str | os.PathLike[str] | None = None,
    group_by: str | None = None,
    columns: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], str]:
    """Look for what makes figures from these images wrong.

    Args:
        data: folder, manifest, pack or built-in name.
        out: folder for `audit.json`, `audit.txt`, `images.csv` and `duplicates.png`.
        test_data: a second folder or manifest, the test part.
        group_by: column, or regular expression on the path.
        columns: names of a manifest's columns where they are unusual.
        seed: of samples and intervals.
        progress: silent where None.

    Returns:
        Everything countable as `audit.json` keeps it, and the same as text.

    Raises:
        DataError: the data are not there.
        OutputError: `out` holds something else than an audit.
    """
    from headstart.audit import audit_table, audit_text, check_audit_folder, write_audit
    from headstart.data import load_table

    if out is not None:
        given = (data, test_data)
        check_audit_folder(Path(out), [Path(place) for place in given if place is not None])
    table = load_table(
        folder_or_name(data),
        test_data=None if test_data is None else os.fspath(test_data),
        group_by=group_by,
        columns=columns,
    )
    found = audit_table(table, seed=seed, progress=progress)
    if out is not None:
        write_audit(Path(out), found)
    return found.summary, audit_text(found)
