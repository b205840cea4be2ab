"""What decoding says about the files: left out, misnamed, animated, turned, changed, blank."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from headstart.audit.findings import Finding, counted, examples, listed
from headstart.audit.fingerprints import Record
from headstart.records import ImageFacts, ImageTable

SMALL_PX = 32
MOST_KINDS, MOST_PROBLEMS = 20, 10
_MISNAMED = re.compile(r"^\S+ named \.\S+$")
_TURNED = "rotated by EXIF"
_FRAMES = re.compile(r"first of [0-9,]+ frames")
_SIXTEEN = re.compile(r"16-bit|^I(;16\w*)? to RGB")
_NO_WINDOW = "no window"
_TRANSPARENT = "transparency on white"
_CROPPED = "cropped to "


def problem_kind(problem: str) -> str:
    """A problem without its details: 'too large', 'truncated JPEG file', 'unreadable file'."""
    kind = re.split(r" \(|: ", problem, maxsplit=1)[0]
    return re.sub(r"\d[\d,.x]*", "N", kind)


def clauses(facts: ImageFacts) -> list[str]:
    """What was done to an image, one clause each."""
    return [clause for clause in facts.treatment.split("; ") if clause]


def check_files(
    table: ImageTable, facts: Sequence[ImageFacts], records: Record
) -> Iterable[Finding]:
    """Findings about files that could not be used, or that are not what they seem."""
    yield from _check_problems(facts)
    misnamed = _with(facts, lambda clause: bool(_MISNAMED.match(clause)))
    if misnamed:
        yield Finding(
            code="wrong-extension",
            severity="warning",
            message=f"{counted(len(misnamed), 'file has', 'files have')} the ending of another "
            f"format, first {listed(misnamed[:1])}. They were read by their contents; rename "
            "them, for other programs may refuse them.",
            count=len(misnamed),
            paths=examples(misnamed),
        )
    yield from _check_treatments(facts)
    flat = [table.paths[row] for row in np.flatnonzero(records["flat"])]
    if flat:
        yield Finding(
            code="blank",
            severity="warning",
            message=f"{counted(len(flat), 'picture is', 'pictures are')} of one colour, first "
            f"{listed(flat[:1])}. Nothing can be learnt from them; look and remove them.",
            count=len(flat),
            paths=examples(flat),
        )
    small = [f.path for f in facts if not f.problem and min(f.width, f.height) < SMALL_PX]
    if small:
        yield Finding(
            code="small",
            severity="note",
            message=f"{counted(len(small), 'picture has', 'pictures have')} a side below "
            f"{SMALL_PX} px, first {listed(small[:1])}. They are enlarged, which adds no detail.",
            count=len(small),
            paths=examples(small),
        )


def _check_problems(facts: Sequence[ImageFacts]) -> Iterable[Finding]:
    bad = [record for record in facts if record.problem]
    if not bad:
        return
    kinds = Counter(problem_kind(record.problem) for record in bad)
    told = ", ".join(f"{kind}: {count:,}" for kind, count in kinds.most_common(MOST_PROBLEMS))
    yield Finding(
        code="unreadable",
        severity="warning",
        message=f"{counted(len(bad), 'file')} could not be read as images and "
        f"{'was' if len(bad) == 1 else 'were'} left out ({told}), first "
        f"{listed([bad[0].path])}: {bad[0].problem}. Replace or remove them; images.csv names "
        "every one.",
        count=len(bad),
        paths=examples([record.path for record in bad]),
    )


def _check_treatments(facts: Sequence[ImageFacts]) -> Iterable[Finding]:
    told = (
        (
            *(
                "animated",
                lambda c: bool(_FRAMES.fullmatch(c)),
                "file has several frames",
                "files have",
            ),
            *("several frames", "Only the first frame is used; save the others as files."),
        ),
        (
            *("turned", lambda c: c.startswith(_TURNED), "picture was", "pictures were"),
            *("turned upright by EXIF", "Other programs may show them lying; nothing to do here."),
        ),
        (
            *("sixteen-bit", lambda c: bool(_SIXTEEN.search(c)), "picture was", "pictures were"),
            *("reduced from 16 bits to 8", "If the range matters, set a window before."),
        ),
        (
            *("transparent", lambda c: _TRANSPARENT in c, "picture was", "pictures were"),
            *("transparent and laid on white", "Check that white is what you want behind them."),
        ),
        (
            *("dicom-window", lambda c: c.startswith(_NO_WINDOW), "scan has", "scans have"),
            *(
                "no window of grey values in the header",
                "The whole range was scaled to 8 bits and "
                "may look flat; set a window if you know one.",
            ),
        ),
    )
    for code, matches, one, several, what, advice in told:
        paths = _with(facts, matches)
        if paths:
            verb = one if code == "animated" else f"{one} {what}"
            yield Finding(
                code=code,
                severity="note",
                message=f"{counted(len(paths), verb, f'{several} {what}')}, first "
                f"{listed(paths[:1])}. {advice}",
                count=len(paths),
                paths=examples(paths),
            )


def _with(facts: Sequence[ImageFacts], matches: Any) -> list[str]:
    return [record.path for record in facts if any(matches(clause) for clause in clauses(record))]


def summarise_files(facts: Sequence[ImageFacts]) -> dict[str, Any]:
    """Counts by format, colour mode, treatment, problem and size."""
    good = [record for record in facts if not record.problem]
    summary: dict[str, Any] = {
        "formats": _most(record.format for record in good),
        "modes": _most(record.mode for record in good),
        "treatments": _most(_kind(clause) for record in good for clause in clauses(record)),
        "problems": _most(problem_kind(record.problem) for record in facts if record.problem),
        "sizes": _most(f"{record.width}x{record.height}" for record in good),
        "num_sizes": len({(record.width, record.height) for record in good}),
    }
    if good:
        for name in ("width", "height"):
            sides = np.array([getattr(record, name) for record in good])
            quantiles = np.quantile(sides, [0, 0.5, 1]).tolist()
            summary[name] = dict(zip(("smallest", "median", "largest"), quantiles, strict=True))
    return summary


def _kind(clause: str) -> str:
    """A clause without the corners of a box."""
    return f"{_CROPPED}its box" if clause.startswith(_CROPPED) else clause


def _most(names: Iterable[str]) -> dict[str, int]:
    """The most frequent with their counts; ties by name."""
    ordered = sorted(Counter(names).items(), key=lambda entry: (-entry[1], entry[0]))
    return dict(ordered[:MOST_KINDS])
