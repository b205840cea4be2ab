"""The files of an audit: `audit.json`, `audit.txt`, `images.csv`, `duplicates.png`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from headstart.audit.findings import counted
from headstart.audit.inspection import Audit
from headstart.errors import OutputError
from headstart.files import make_folder, write_csv, write_json, write_text, write_whole
from headstart.records import ImageFacts, ImageTable

AUDIT_JSON, AUDIT_TEXT, PAIRS_PICTURE = "audit.json", "audit.txt", "duplicates.png"
IMAGES = "images.csv"
MARKS = {"error": "ERROR  ", "warning": "WARNING", "note": "note   "}
MOST_CLASSES = 40
WORDS = {
    "unit": "images that show the same thing (copies, one patient, one video) and therefore stay "
    "together, all learnt from or all tested on",
    "embedding": "numbers by which a network describes a picture; alike pictures have near ones",
    "perceptual hash": "64 yes-or-no answers about light and dark; copies differ in few of them",
    "suspect": "a pair that one of these two tests calls alike and the other does not",
    "balanced accuracy": "share of right answers, averaged over the classes; chance is what "
    "guessing reaches, and the interval in brackets holds the true value 95 times in 100",
    "Cramér's V": "how much of the label the source tells: 0 nothing, 1 all of it",
}
DPI = 110


def check_audit_folder(folder: Path, sources: Sequence[Path]) -> None:
    """Refuse to write an audit where it would replace something else.

    Args:
        folder: need not be there.
        sources: files and folders that are looked at.

    Raises:
        OutputError: it is a file, holds a run or other files, or is where the data come from.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"`--out` must be a folder, '{folder}' is a file. Choose another --out.")
    if not folder.is_dir():
        return
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    written = {AUDIT_JSON, AUDIT_TEXT, IMAGES, PAIRS_PICTURE}
    own = any(path.is_file() and path.resolve().parent == folder.resolve() for path in sources)
    if names - written or (names and AUDIT_JSON not in names) or own:
        raise OutputError(
            f"The folder '{folder}' holds other files than an audit's, which would be replaced. "
            "Choose a new or empty --out."
        )


def write_audit(folder: Path, audit: Audit) -> None:
    """Write everything that was found; a grid of pairs where there are any.

    Raises:
        StorageError: the disk is full or failed.
        OutputError: the folder cannot be written to.
    """
    make_folder(folder)
    write_json(folder / AUDIT_JSON, audit.summary)
    write_text(folder / AUDIT_TEXT, audit_text(audit))
    write_images(folder, audit.table, audit.facts, audit.columns)
    picture, content = folder / PAIRS_PICTURE, pairs_picture(audit)
    if content is None:
        picture.unlink(missing_ok=True)  # of an earlier audit
    else:
        write_whole(picture, lambda aside: aside.write_bytes(content))


@lru_cache(maxsize=1)
def pairs_picture(audit: Audit) -> bytes | None:
    """The grid of pairs as PNG, drawn once for an audit; None without pairs."""
    from headstart.audit.pictures import choose_pairs, pair_figure
    from headstart.plots import save_png

    pairs = choose_pairs(audit.table, audit.pairs)
    if not pairs:
        return None
    stream = BytesIO()
    save_png(pair_figure(audit.table, pairs), stream, dpi=DPI)
    return stream.getvalue()


def write_images(
    folder: Path,
    table: ImageTable,
    facts: Sequence[ImageFacts],
    columns: Mapping[str, Sequence[object]],
) -> None:
    """`images.csv`: what decoding and audit found, a line an image, the unreadable ones first."""
    header = [field.name for field in fields(ImageFacts)]
    others = list(zip(*columns.values(), strict=True)) or [()] * len(table)
    rows = [
        [
            table.label_of(i),
            table.splits[i],
            "" if table.groups is None else table.groups[i],
            "" if table.sources is None else table.sources[i],
            *others[i],
            *asdict(record).values(),
        ]
        for i, record in enumerate(facts)
    ]
    rows.sort(key=lambda row: not row[-1])  # a stable sort keeps the table's order
    write_csv(folder / IMAGES, ["label", "split", "group", "source", *columns, *header], rows)


def audit_text(audit: Audit) -> str:
    """The readable summary: findings by severity, then what was counted."""
    summary = audit.summary
    counts = [
        counted(sum(f.severity == severity for f in audit.findings), severity) for severity in MARKS
    ]
    lines = [
        f"Audit of {summary['data']}: {counted(summary['num_images'], 'image')} in "
        f"{counted(len(summary['classes']), 'class', 'classes')}; {', '.join(counts)}",
        "",
        *(f"{MARKS[f.severity]}  {f.code}: {f.message}" for f in audit.findings),
        *(["Nothing suspicious was found."] if not audit.findings else []),
        "",
        *_class_lines(summary["classes"]),
        *_file_lines(summary["files"]),
        *_duplicate_lines(summary["duplicates"]),
        *_shortcut_lines(summary["associations"], summary["shortcuts"]),
        *_glossary_lines(),
    ]
    return "\n".join(lines) + "\n"


def _class_lines(classes: dict[str, Any]) -> list[str]:
    lines = ["Classes (images; readable; units that stay together; given splits)"]
    for name, entry in list(classes.items())[:MOST_CLASSES]:
        splits = ", ".join(f"{part} {count:,}" for part, count in entry["splits"].items())
        lines.append(
            f"  {name}: {entry['images']:,}; {entry['readable']:,}; {entry['units']:,}"
            + (f"; {splits}" if splits else "")
        )
    rest = len(classes) - MOST_CLASSES
    return [*lines, f"  and {rest:,} more in {AUDIT_JSON}"] if rest > 0 else lines


def _file_lines(files: dict[str, Any]) -> list[str]:
    lines = ["", "Files"]
    for title, name in (
        ("format", "formats"),
        ("colour mode", "modes"),
        ("treatment", "treatments"),
        ("problem", "problems"),
    ):
        if files[name]:
            told = "; ".join(f"{kind} ({count:,})" for kind, count in files[name].items())
            lines.append(f"  {title}: {told}")
    for side in ("width", "height"):
        if side in files:
            low, median, high = files[side].values()
            lines.append(f"  {side}: {low:.0f} to {high:.0f} px, median {median:.0f}")
    return lines


def _duplicate_lines(found: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "Duplicates",
        f"  equal pixels: {_in_sets(found['exact_images'], found['exact_sets'], 'set')}",
        f"  near by both tests: {_in_sets(found['near_images'], found['near_groups'], 'group')}",
    ]
    if "thresholds" not in found:
        return lines
    limits = found["thresholds"]
    recall = ""
    if found["recall"] is not None:
        recall = f"; it finds {found['recall']:.1%} (measured on {found['recall_of']})"
    return [
        *lines,
        f"  suspects: {counted(found['suspects_by_embedding'], 'pair')} by embedding only, "
        f"{found['suspects_by_hash']:,} by hash only",
        f"  near means: cosine distance below {limits['distance']:.3f} (usual neighbours: "
        f"{limits['usual_distance']:.3f}) and at most {limits['bits']} of 64 bits different "
        f"(usual neighbours: {limits['usual_bits']:.0f})",
        f"  search: {found['search']}{recall}",
    ]


def _in_sets(images: int, sets: int, unit: str) -> str:
    return f"{counted(images, 'image')} in {counted(sets, unit)}" if images else "none"


def _shortcut_lines(associations: dict[str, Any], battery: list[dict[str, Any]]) -> list[str]:
    lines = []
    if "source" in associations:
        entry = associations["source"]
        lines += [f"  label and source: Cramér's V {_with_interval(entry, entry['value'])}"]
    for entry in battery:
        alarm = "ALARM  " if entry["alarm"] else ""
        told = _with_interval(entry, entry["balanced_accuracy"])
        lines.append(f"  {alarm}{entry['name']}: {told}" + f". {entry['note']}".rstrip(". "))
    if not lines:
        return []
    title = "What tells the label besides the picture (balanced accuracy, 95 % interval; chance)"
    return ["", title, *lines]


def _glossary_lines() -> list[str]:
    return ["", "Words", *(f"  {word}: {meaning}" for word, meaning in WORDS.items())]


def _with_interval(entry: dict[str, Any], value: float) -> str:
    return f"{value:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]; {entry['chance']:.2f}"
