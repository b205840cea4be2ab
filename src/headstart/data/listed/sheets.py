"""Manifest files as rows of text: CSV, TSV, Parquet, JSON lines.

Everything becomes text, because a label is a name: 3, 3.0 and '3' are one label. Missing values
become ''. A CSV is UTF-8, with or without a byte-order mark, or UTF-16 with one; of comma,
semicolon, tab and bar that one separates which its header has most of, unless the file begins with
a line such as 'sep=;', as spreadsheets write it.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import DataError, MissingExtraError

_SAID_SEPARATOR = re.compile(r'\s*"?sep=(.)"?[ \t]*(?=\r?\n|$)', re.IGNORECASE)

SHEET_SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".jsonl"})


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A manifest as it was read.

    Attributes:
        file: where it lies.
        columns: its header, spaces around names taken away.
        rows: one dictionary a row, every column in it.
        places: 'line 7' or 'row 6' for each row.
    """

    file: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    places: list[str]


def read_sheet(file: Path, subject: str) -> Sheet:
    """Read a manifest.

    Args:
        file: its ending tells what it is.
        subject: how messages name it.

    Raises:
        DataError: it is empty, damaged, or of another encoding.
        MissingExtraError: Parquet without pyarrow.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(file, subject)
    text = _read_text(file, subject)
    if not text.strip():
        raise DataError(f"{subject} is empty. It needs a header and a row for each image.")
    if suffix == ".jsonl":
        return _read_json_lines(file, text, subject)
    said = _SAID_SEPARATOR.match(text)
    separator = said.group(1) if said else "\t" if suffix == ".tsv" else _separator(text)
    # What says the separator gives way to an empty line, so that lines keep their numbers.
    return _read_csv(file, text[said.end() :] if said else text, subject, separator)


def cell_text(value: Any) -> str:
    """A value of any column as text; '' where it is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas makes floats of whole numbers where one is missing
    if isinstance(value, list | tuple):
        return " ".join(map(cell_text, value))
    return str(value)


def read_text_lines(file: Path, subject: str) -> list[str]:
    """The lines of a UTF-8 file that are not blank, spaces around them taken away.

    Raises:
        DataError: it is not UTF-8.
    """
    return [line.strip() for line in _read_text(file, subject).splitlines() if line.strip()]


def open_parquet(file: Path, subject: str) -> Any:
    """The `pyarrow.parquet.ParquetFile`.

    Raises:
        DataError: it is no Parquet file.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{subject} needs pyarrow to read Parquet files. "
            "Install it: pip install 'headstart[packs]'"
        ) from error
    try:
        return parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(subject, "Parquet file", error) from error


def read_columns(opened: Any, columns: Sequence[str], subject: str) -> Any:
    """Some columns of an open Parquet file, a `pyarrow.Table`.

    Raises:
        DataError: it is damaged.
    """
    import pyarrow

    try:
        return opened.read(columns=list(columns))
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(subject, "Parquet file", error) from error


def feature_names(metadata: dict[bytes, bytes] | None, column: str) -> list[str]:
    """Names of the classes 0, 1, ... of a column, where a Parquet file's header tells them.

    Hugging Face writes them into its own JSON; a plain entry 'classes', joined by commas, is read
    for the column of the labels as well.
    """
    entries = metadata or {}
    try:
        about = json.loads(entries.get(b"huggingface", b"{}"))
        names = about["info"]["features"][column]["names"]
        return [str(name) for name in names]
    except (ValueError, KeyError, TypeError, RecursionError):
        classes = entries.get(b"classes", b"").decode("utf-8", "replace")
        return classes.split(",") if classes else []


def named_label(value: object, names: list[str], place: str) -> str:
    """The class that a label stands for: by its number where names are known; -1 is no label.

    Args:
        value: of a cell; a number counts the names, even where one of them is written alike.
        names: of the classes, none where they are not known.
        place: for the message.

    Raises:
        DataError: there is no such number.
    """
    text = cell_text(value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not names or text == "" or (text in names and not is_number):
        return text
    if text == "-1":
        return ""
    if not text.isdecimal() or int(text) >= len(names):
        raise DataError(
            f"{place}: the label '{text}' is none of the {len(names)} classes, which are numbered "
            f"from 0 to {len(names) - 1}. Correct it."
        )
    return names[int(text)]


def _read_text(file: Path, subject: str) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{subject} cannot be read: {error.strerror}.") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decode_utf16(content, subject)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{subject} is not UTF-8: line {line} holds the byte 0x{content[error.start]:02x}. "
            "Save it as UTF-8."
        ) from error


def _decode_utf16(content: bytes, subject: str) -> str:
    try:
        return content.decode("utf-16")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{subject} begins like UTF-16, but is none from byte {error.start} on. "
            "Save it as UTF-8."
        ) from error


def _separator(text: str) -> str:
    header = text.lstrip().split("\n", 1)[0]
    return max(",;\t|", key=header.count)


def _read_csv(file: Path, text: str, subject: str, separator: str) -> Sheet:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[dict[str, str]] = []
    places = []
    columns: tuple[str, ...] = ()
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = _header(cells, subject)
                continue
            if len(cells) > len(columns):
                raise DataError(
                    f"Line {reader.line_num} of {subject} has {len(cells)} cells, its header "
                    f"{len(columns)}. Put cells that hold a '{separator}' into double quotes."
                )
            padded = cells + [""] * (len(columns) - len(cells))
            rows.append(dict(zip(columns, padded, strict=True)))
            places.append(f"line {reader.line_num}")
    except csv.Error as error:
        fault = f"line {reader.line_num} of it is damaged: {error}"
        raise DataError(f"{subject} cannot be read: {fault}. Correct it.") from error
    named = tuple(name for name in columns if name)  # pandas leaves its index without a name
    return Sheet(file=file, columns=named, rows=rows, places=places)


def _header(cells: Iterable[str], subject: str) -> tuple[str, ...]:
    columns = tuple(cell.strip() for cell in cells)
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{subject} has two columns named '{twice}'. Rename one of them.")
    return columns


def _read_json_lines(file: Path, text: str, subject: str) -> Sheet:
    rows, places = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        rows.append(_json_row(line, f"Line {number} of {subject}"))
        places.append(f"line {number}")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    full = [{name: row.get(name, "") for name in columns} for row in rows]
    return Sheet(file=file, columns=columns, rows=full, places=places)


def _json_row(line: str, place: str) -> dict[str, str]:
    try:
        row = json.loads(line)
        if isinstance(row, dict):
            return {str(name): cell_text(value) for name, value in row.items()}
    except RecursionError as error:
        raise DataError(f"{place} is JSON nested too deeply to be read. Correct it.") from error
    except ValueError as error:
        raise DataError(f"{place} is not JSON: {error}.") from error
    raise DataError(f"{place} is no JSON object. Correct it.")


def _read_parquet(file: Path, subject: str) -> Sheet:
    """All columns but those that hold bytes; numbered classes get their names."""
    opened = open_parquet(file, subject)
    schema = opened.schema_arrow
    kept = [field.name for field in schema if not _holds_bytes(field.type)]
    table = read_columns(opened, kept, subject)
    texts: dict[str, list[str]] = {}
    for name in kept:
        names = huggingface_names(schema.metadata, name)
        values = table.column(name).to_pylist()
        texts[name] = [named_label(value, names, f"{subject}, '{name}'") for value in values]
    rows = [{name: texts[name][row] for name in kept} for row in range(table.num_rows)]
    places = [f"row {number}" for number in range(1, len(rows) + 1)]
    return Sheet(file=file, columns=tuple(kept), rows=rows, places=places)


def huggingface_names(metadata: dict[bytes, bytes] | None, column: str) -> list[str]:
    """Names of the classes 0, 1, ... of any column, in Hugging Face's own JSON only."""
    if metadata is None or b"huggingface" not in metadata:
        return []
    return feature_names({b"huggingface": metadata[b"huggingface"]}, column)


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    return any([types.is_binary(kind), types.is_large_binary(kind), types.is_struct(kind)])


def _damaged(subject: str, kind: str, error: Exception) -> DataError:
    reason = str(error).split("\n", 1)[0].rstrip(".")
    return DataError(f"{subject} is no readable {kind}: {reason}. Write it again.")
