"""What a source was found to hold, before it becomes a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.boxes import Box


@dataclass(frozen=True, kw_only=True)
class FoundImage:
    """One image that was found.

    Attributes:
        path: its printable name, relative to the folder that was asked for.
        file: where its bytes are, None where `blob` holds them.
        label: its class after NFC, '' where unknown.
        split: 'train', 'val', 'test', or ''.
        blob: its encoded bytes, for packs.
        group: its group, '' where none is known.
        source: where it comes from, '' where unknown.
        box: the part to look at, as shares of the upright picture; None takes all of it.
        cells: its row in a manifest or metadata file, by column.
    """

    path: str
    file: Path | None = None
    label: str = ""
    split: str = ""
    blob: bytes | None = None
    group: str = ""
    source: str = ""
    box: Box | None = None
    cells: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Everything that one source holds.

    Attributes:
        images: in any order.
        columns: of the manifest or metadata file, which `group_by` may name.
        notes: sentences that a run prints.
        grouped_by: the column that gives the groups, '' where none does.
    """

    images: list[FoundImage]
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    grouped_by: str = ""
