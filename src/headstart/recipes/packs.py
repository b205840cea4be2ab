"""The pack that `mini` is pretrained on: two Parquet files of pictures of 64 px and their labels.

`train.parquet` and `val.parquet` have a column `image` of encoded pictures (bytes, or Hugging
Face's {'bytes': ...}) and a column `label` of whole numbers from 0.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.data import DecodingError, decode
from headstart.data.listed.sheets import open_parquet, read_columns
from headstart.errors import DataError
from headstart.progress import Advance

SIDE = 64  # px of the pack's pictures
TRAIN, VAL = "train.parquet", "val.parquet"
COLUMNS = ("image", "label")

Labelled = tuple[torch.Tensor, torch.Tensor]


def check_pack(data_dir: Path) -> None:
    """Refuse a folder without the two files of the pack, before anything is written.

    Raises:
        DataError: one is not there.
    """
    for path in (data_dir / TRAIN, data_dir / VAL):
        if not path.is_file():
            raise DataError(
                f"The recipe needs '{path}', which is not there. Name the folder of the "
                f"Tiny-ImageNet pack ({TRAIN} and {VAL}) by --data."
            )


def load_pack(path: Path, advance: Advance) -> Labelled:
    """Decode one parquet pack into (N, 3, 64, 64) uint8 pixels and (N,) int64 labels.

    Raises:
        DataError: it has no columns `image` and `label`, other sizes, a picture that cannot be
            decoded, or labels that are no whole numbers from 0.
        MissingExtraError: pyarrow is not installed.
    """
    file = open_parquet(path, f"'{path}'")
    missing = set(COLUMNS) - set(file.schema_arrow.names)
    if missing:
        raise DataError(f"'{path}' has no column {', '.join(sorted(missing))}: it is another pack.")
    table = read_columns(file, COLUMNS, f"'{path}'")
    labels = _as_labels(table.column("label").to_pylist(), path)
    raw = [_encoded(cell) for cell in table.column("image").to_pylist()]
    pixels = torch.empty((len(raw), 3, SIDE, SIDE), dtype=torch.uint8)

    def fill(index: int) -> None:
        pixels[index] = _pixels(raw[index], path, index)
        advance()

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(raw)), chunksize=256))
    return pixels, labels


def _encoded(cell: Any) -> Any:
    return cell.get("bytes") if isinstance(cell, dict) else cell


def _pixels(data: Any, path: Path, row: int) -> torch.Tensor:
    """(3, 64, 64) uint8 of one picture."""
    try:
        picture, _ = decode(data if isinstance(data, bytes) else b"", f"{path.name} row {row}")
    except DecodingError as error:
        raise DataError(
            f"Row {row} of '{path}' cannot be decoded: {error}. Replace the picture or remove the "
            "row."
        ) from error
    if picture.size != (SIDE, SIDE):
        raise DataError(
            f"The pictures of '{path}' must have {SIDE} x {SIDE} px, row {row} has "
            f"{picture.width} x {picture.height}. Resize them, or take the Tiny-ImageNet pack."
        )
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _as_labels(cells: list[Any], path: Path) -> torch.Tensor:
    for row, cell in enumerate(cells):
        if not isinstance(cell, int) or isinstance(cell, bool) or cell < 0:
            raise DataError(
                f"The labels of '{path}' must be whole numbers from 0, got {cell!r} in row {row}. "
                "Number the classes."
            )
    return torch.tensor(cells, dtype=torch.int64)


def check_labels(data_dir: Path, train: torch.Tensor, val: torch.Tensor, batch_size: int) -> None:
    """Refuse a pack too small to learn from, or validated on classes that it does not teach.

    Raises:
        DataError: fewer pictures than a batch, none to validate on, or such a class.
    """
    if len(train) < batch_size or not len(val):
        raise DataError(
            f"The pack '{data_dir}' must have at least {batch_size} pictures to learn from and 1 "
            f"to validate on, got {len(train)} and {len(val)}. Add pictures."
        )
    unknown = set(val.tolist()) - set(train.tolist())
    if unknown:
        raise DataError(
            f"'{data_dir / VAL}' has the label {min(unknown)}, which '{data_dir / TRAIN}' does not "
            "have. Number the classes of both alike."
        )
