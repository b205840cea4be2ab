"""Write the pictures of a table, go on after a stop, and do nothing where all is done.

Every finished picture gets a line in `.conversion.log`: its path, the digest of what it was made
from, the digest of what was written. A later call makes only those again whose line or whose file
does not fit. So nothing depends on how the process ended, and no file has to reach the disk before
the next one is begun. `conversion.json` says what the folder is; a folder without it that holds
anything else is refused.
"""

from __future__ import annotations

import contextlib
import csv
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from headstart.data.converted.names import COMPLETE, SHEET, STATE_FILE
from headstart.data.converted.plan import ConversionPlan, ConversionSettings, plan_conversion
from headstart.data.decoding import DecodingError, decode_apart, digest_of
from headstart.errors import DataError, OutputError
from headstart.files import locked, make_folder, read_json, storage_errors, write_json, write_whole
from headstart.progress import Progress
from headstart.records import ImageTable

LOG_FILE = ".conversion.log"
CONVERSION_VERSION = 1
MOST_THREADS = 16
AHEAD = 256
_Log = dict[str, tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion did.

    Attributes:
        out: the folder.
        load: what to give as `--data`: the folder or its manifest.
        written: pictures made now.
        kept: pictures that were there and fit.
        left_aside: images without a label, which class folders cannot hold.
        problems: a clause by path for images that cannot be read.
        classes: class by folder, where a folder cannot be named like its class.
    """

    out: Path
    load: Path
    written: int
    kept: int
    left_aside: int
    problems: dict[str, str]
    classes: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Made:
    row: int
    source: str
    written: str
    problem: str = ""
    kept: bool = False


class _Once:
    """Something that is done at most once, whichever thread comes first."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act, self.done = act, False
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            if not self.done:
                self.act()
                self.done = True


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    table: ImageTable
    out: Path
    settings: dict[str, Any]
    plan: ConversionPlan
    log: _Log
    changing: _Once  # called before the first file changes


def convert_table(
    table: ImageTable,
    out: Path,
    settings: ConversionSettings,
    *,
    strict: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write a table as pictures.

    Args:
        table: what to write.
        out: a new or empty folder, or one that an earlier call with these settings wrote.
        settings: layout, size, channels.
        strict: stop at the first image that cannot be read.
        progress: gets a step an image.

    Raises:
        OutputError: the folder holds something else, or a conversion with other settings.
        DataError: with `strict`, an image cannot be read.
        StorageError: the disk is full.
    """
    plan = plan_conversion(table, settings)
    _check_foreign(out)
    make_folder(out)
    with locked(out):
        about = _claim(out, table, settings, plan)
        log = _read_log(out)
        # Nobody loads what is half new; a call that changes nothing leaves the file alone.
        changing = _Once(lambda: write_json(out / STATE_FILE, {**about, COMPLETE: False}))
        strays = log.keys() - set(plan.files)
        if strays:
            changing()
            _remove_strays(out, strays)
        sheet, before = plan.sheet if plan.header else "", about.get(SHEET)
        if before and not sheet:  # ours, of an earlier call; a user's own file stays
            changing()
            (out / str(before)).unlink(missing_ok=True)
        task = _Task(table=table, out=out, settings=about["settings"], plan=plan, log=log,
                     changing=changing)  # fmt: skip
        done = list(_write_pictures(task, strict, progress or Progress()))
        good = sorted((made for made in done if not made.problem), key=lambda made: made.row)
        if plan.header:
            rows = [plan.row(table, made.row) for made in good]
            write_whole(out / plan.sheet, lambda aside: _fill_sheet(aside, plan.header, rows))
        problems = {table.paths[made.row]: made.problem for made in done if made.problem}
        told = {**about, COMPLETE: True, SHEET: sheet, "problems": problems}
        if changing.done or told != about:
            write_json(out / STATE_FILE, told)
    return Conversion(
        out=out,
        load=out / plan.sheet if settings.to == "manifest" else out,
        written=sum(not made.kept for made in good),
        kept=sum(made.kept for made in good),
        left_aside=plan.files.count(""),
        problems=problems,
        classes=plan.classes,
    )


def _check_foreign(out: Path) -> None:
    """Refuse a file, and a folder that something else lies in."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"`out` must be a folder, got the file '{out}'. Name another one.")
    if out.is_dir() and not (out / STATE_FILE).is_file():
        others = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith("."))
        if others:
            raise OutputError(
                f"The folder '{out}' holds other files, '{others[0]}' is one. "
                "Name a new or an empty folder."
            )


def _claim(
    out: Path, table: ImageTable, settings: ConversionSettings, plan: ConversionPlan
) -> dict[str, Any]:
    """What `conversion.json` says, written before the first picture.

    Raises:
        OutputError: it is damaged, or speaks of another conversion.
    """
    about: dict[str, Any] = {
        "version": CONVERSION_VERSION,
        "data": table.name,
        "settings": settings.resolved(table),
        "classes": plan.classes,
        "problems": {},
    }
    state = out / STATE_FILE
    if state.is_file():
        try:
            before = read_json(state)
            differing = [n for n in ("version", "data", "settings") if before[n] != about[n]]
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"'{state}' is damaged. Name another folder.") from error
        if differing:
            name = differing[0]
            raise OutputError(
                f"The folder '{out}' holds another conversion: its {name} is {before[name]}, now "
                f"{about[name]}. Name another folder."
            )
        if before.get("classes") == plan.classes:
            return dict(before)
    write_json(state, about)
    return about


def _read_log(out: Path) -> _Log:
    """Path to digests of source and file, without a torn last line and paths that lead out."""
    try:
        lines = (out / LOG_FILE).read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    cells = (line.split("\t") for line in lines[:-1])
    return {
        parts[2]: (parts[0], parts[1])
        for parts in cells
        if len(parts) == 3 and (out / parts[2]).resolve().is_relative_to(out.resolve())
    }


def _remove_strays(out: Path, strays: set[str]) -> None:
    """Pictures of an earlier call that the data no longer hold."""
    for path in strays:
        with storage_errors(out / path):
            (out / path).unlink(missing_ok=True)
    for folder in sorted({(out / path).parent for path in strays}):
        with contextlib.suppress(OSError):  # it holds others, or is gone
            folder.rmdir()


def _write_pictures(task: _Task, strict: bool, progress: Progress) -> Iterator[_Made]:
    """Make or keep every picture; threads work ahead, lines are written in order."""
    table, out, plan = task.table, task.out, task.plan
    rows = [row for row, file in enumerate(plan.files) if file]
    with storage_errors(out):
        for folder in sorted({(out / plan.files[row]).parent for row in rows}):
            folder.mkdir(parents=True, exist_ok=True)
    waiting: deque[Future[_Made]] = deque()
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS), thread_name_prefix="convert")
    upcoming = iter(rows)
    try:
        with (
            storage_errors(out / LOG_FILE),
            (out / LOG_FILE).open("a", encoding="utf-8") as lines,
            progress.phase(f"Pictures of {table.name}", len(rows)) as advance,
        ):
            _begin_line(lines, out / LOG_FILE)
            while True:
                while len(waiting) < AHEAD and (row := next(upcoming, None)) is not None:
                    waiting.append(pool.submit(_make, task, row))
                if not waiting:
                    return
                made = waiting.popleft().result()
                if made.problem and strict:
                    raise DataError(
                        f"'{table.paths[made.row]}' cannot be read: {made.problem}. Remove it, or "
                        "leave --strict out."
                    )
                if not made.problem and not made.kept:
                    lines.write(f"{made.source}\t{made.written}\t{plan.files[made.row]}\n")
                advance()
                yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_line(lines: Any, path: Path) -> None:
    """End a line that a killed process left torn."""
    size = path.stat().st_size
    if size:
        with path.open("rb") as file:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                lines.write("\n")


def _make(task: _Task, row: int) -> _Made:
    """One picture, kept where it is there and made from the same bytes."""
    made = _made(task, row)
    if made.problem:  # what an earlier call made there is of another picture
        file = task.out / task.plan.files[row]
        if file.exists():
            task.changing()
            file.unlink(missing_ok=True)
    return made


def _made(task: _Task, row: int) -> _Made:
    table, name = task.table, task.plan.files[row]
    file, known = task.out / name, task.log.get(name)
    try:
        source = table.read(row)
        digest = digest_of(source)
        if known is not None and known[0] == digest and _file_digest(file) == known[1]:
            return _Made(row=row, source=digest, written=known[1], kept=True)
        image = decode_apart(source, table.paths[row])
    except DecodingError as error:
        return _Made(row=row, source="", written="", problem=str(error))
    except OSError as error:
        clause = f"unreadable file ({error.strerror or error})"
        return _Made(row=row, source="", written="", problem=clause)
    stream = BytesIO()
    _fitted(image, task.settings).save(stream, str(task.settings["format"]).upper())
    content = stream.getvalue()
    task.changing()
    with storage_errors(file):
        aside = file.with_name(f".new-{file.name}")
        aside.write_bytes(content)
        aside.replace(file)
    return _Made(row=row, source=digest, written=digest_of(content))


def _file_digest(file: Path) -> str:
    try:
        return digest_of(file.read_bytes())
    except OSError:
        return ""


def _fitted(image: Image.Image, settings: dict[str, Any]) -> Image.Image:
    """The RGB picture in the wanted size and number of channels."""
    size = settings["size"]
    if size is not None and min(image.size) != size:
        scale = size / min(image.size)
        shape = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        image = image.resize(shape, Image.Resampling.BILINEAR)
    return image.convert("L") if settings["channels"] == 1 else image


def _fill_sheet(aside: Path, header: tuple[str, ...], rows: list[list[str]]) -> None:
    """Cells exactly as they are: the sheet is read back, and a label must stay what it is."""
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
