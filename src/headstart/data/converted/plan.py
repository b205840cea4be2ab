"""What a conversion writes where, decided before anything is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from headstart.data.converted.names import folder_names
from headstart.errors import UsageError
from headstart.records import UNLABELLED, ImageTable

TARGETS = ("folders", "manifest")
FORMATS = ("png",)
LARGEST_SIZE = 8192
BOX_COLUMNS = ("rel_x1", "rel_y1", "rel_x2", "rel_y2")


@dataclass(frozen=True, kw_only=True)
class ConversionSettings:
    """How pictures are written.

    Attributes:
        to: 'folders' for class folders, 'manifest' for flat files and `manifest.csv`.
        size: shorter side in px, the shape kept, bilinear with antialiasing; None as it is.
        channels: 1 for grey, 3 for colour; None for grey where the source holds grey pixels.
        format: of the files; 'png' loses nothing.
    """

    to: str = "folders"
    size: int | None = None
    channels: int | None = None
    format: str = "png"

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            UsageError: one cannot be.
        """
        if self.to not in TARGETS:
            raise UsageError(f"`to` must be one of {', '.join(TARGETS)}, got '{self.to}'.")
        if self.format not in FORMATS:
            raise UsageError(f"`format` must be {' or '.join(FORMATS)}, got '{self.format}'.")
        if self.size is not None and not 1 <= self.size <= LARGEST_SIZE:
            raise UsageError(f"`size` must be between 1 and {LARGEST_SIZE} px, got {self.size}.")
        if self.channels not in (None, 1, 3):
            raise UsageError(f"`channels` must be 1 or 3, got {self.channels}.")

    def resolved(self, table: ImageTable) -> dict[str, object]:
        """The settings as they are written down, the number of channels decided."""
        grey = table.pixels is not None and table.pixels.ndim == 3
        return {**asdict(self), "channels": self.channels or (1 if grey else 3)}


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """Where every image goes.

    Attributes:
        files: N paths relative to the target, '' for an image that is left aside.
        classes: class by folder, where a folder cannot be named like its class.
        header: columns of the sheet beside the pictures, () for none.
        sheet: its name.
    """

    files: tuple[str, ...]
    classes: dict[str, str]
    header: tuple[str, ...]
    sheet: str

    def row(self, table: ImageTable, index: int) -> list[str]:
        """One line of the sheet; numbers of boxes are written so that they come back exactly."""
        box = table.box_of(index)
        cells = {
            "path": self.files[index],
            "label": table.label_of(index),
            "split": table.splits[index],
            "group": "" if table.groups is None else table.groups[index],
            "source": "" if table.sources is None else table.sources[index],
            **dict(zip(BOX_COLUMNS, ("",) * 4 if box is None else map(repr, box), strict=True)),
        }
        return [cells[name] for name in self.header]


def plan_conversion(table: ImageTable, settings: ConversionSettings) -> ConversionPlan:
    """The files and the sheet of a table."""
    further = [
        *(["group"] if table.groups is not None else []),
        *(["source"] if table.sources is not None else []),
        *(BOX_COLUMNS if table.boxes is not None else []),
    ]
    if settings.to == "manifest":
        split = ["split"] if any(table.splits) else []
        return ConversionPlan(
            files=_flat_files(table, settings.format),
            classes={},
            header=("path", "label", *split, *further),
            sheet="manifest.csv",
        )
    folders = folder_names(table.class_names)
    return ConversionPlan(
        files=_class_files(table, folders, settings.format),
        classes={folder: label for label, folder in folders.items() if folder != label},
        header=("path", *further) if further else (),
        sheet="metadata.csv",
    )


def _class_files(table: ImageTable, folders: dict[str, str], ending: str) -> tuple[str, ...]:
    """SPLIT/CLASS/00001.png, counted within split and class; unlabelled images are left aside."""
    written = [row for row, label in enumerate(table.labels.tolist()) if label != UNLABELLED]
    told = {table.splits[row] or "train" for row in written} if any(table.splits) else set()
    split_known = len(told) > 1  # a folder `train` alone would be a class to whoever loads it
    counts: dict[str, int] = {}
    files = []
    for row, label in enumerate(table.labels.tolist()):
        if label == UNLABELLED:
            files.append("")
            continue
        parent = PurePosixPath(folders[table.class_names[label]])
        if split_known:
            parent = PurePosixPath(table.splits[row] or "train") / parent
        number = counts[str(parent)] = counts.get(str(parent), 0) + 1
        files.append(f"{parent}/{number:05d}.{ending}")
    return tuple(files)


def _flat_files(table: ImageTable, ending: str) -> tuple[str, ...]:
    """images/SPLIT-00001.png, counted within the split."""
    counts: dict[str, int] = {}
    files = []
    for split in table.splits:
        number = counts[split] = counts.get(split, 0) + 1
        files.append(f"images/{f'{split}-' if split else ''}{number:05d}.{ending}")
    return tuple(files)
