"""What the model says of some uploaded pictures, as the page shows it.

The answers come from `Classifier.predict_source`, which is what `headstart.load(...).predict` and
`headstart predict` call as well: class order, preprocessing, temperature and thresholds are the
bundle's, and nothing of them is repeated here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.bundle import Classifier
from headstart.data import DecodingError, decode, digest_of, printable
from headstart.inference import ImageList
from headstart.progress import Progress
from headstart.records import Predictions
from headstart.report.drawing.pictures import data_uri
from headstart.report.wording import listed
from headstart.runs.files.predictions import write_predictions

SHOWN = 320  # px, the picture
SEEN = 128  # px, what the network sees
MOST_BARS = 5
MOST_NAMED = 6


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One file that was dropped on the page; it stays in memory only.

    Attributes:
        name: as it was called.
        content: its bytes.
        digest: of the bytes.
    """

    name: str
    content: bytes
    digest: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """One picture with the model's answer.

    Attributes:
        row: predictions of this one picture.
        picture: data URI of it, '' where it cannot be read.
        seen: data URI of what the network gets.
        stored: its format and size in words.
        treatment: what was done to it before resizing, '' where nothing.
    """

    row: Predictions
    picture: str
    seen: str
    stored: str
    treatment: str


def upload_of(name: str, content: bytes) -> Upload:
    """A file with a name that is fit to show."""
    return Upload(name=printable(name), content=content, digest=digest_of(content))


def answer_uploads(
    classifier: Classifier, uploads: Sequence[Upload], *, progress: Progress
) -> list[Answer]:
    """The model's answers, in the order of the files."""
    source = ImageList([upload.content for upload in uploads], [u.name for u in uploads])
    predictions = classifier.predict_source(source, progress=progress)
    found = []
    for i, upload in enumerate(uploads):
        facts, pixels = classifier.extractor.prepare(source, i)
        size = f"{facts.format}, {facts.width} × {facts.height} px"  # noqa: RUF001
        found.append(
            Answer(
                row=taken(predictions, i),
                picture=picture_of(upload),
                seen="" if pixels is None else data_uri(Image.fromarray(pixels), SEEN),
                stored="" if pixels is None else size,
                treatment=facts.treatment,
            )
        )
    return found


def picture_of(upload: Upload) -> str:
    """The picture, smaller; '' where it cannot be read."""
    try:
        picture, _ = decode(upload.content, upload.name, min_side=SHOWN)
    except DecodingError:
        return ""
    return data_uri(picture, SHOWN)


def taken(predictions: Predictions, row: int) -> Predictions:
    """One row of some predictions."""
    at = slice(row, row + 1)
    scores, unknown, sets = predictions.outlier_scores, predictions.unknown, predictions.sets
    return replace(
        predictions,
        paths=predictions.paths[at],
        probabilities=predictions.probabilities[at],
        labels=predictions.labels[at],
        problems=predictions.problems[at],
        outlier_scores=None if scores is None else scores[at],
        unknown=None if unknown is None else unknown[at],
        sets=None if sets is None else sets[at],
        called=None if predictions.called is None else predictions.called[at],
    )


def joined(rows: Sequence[Predictions]) -> Predictions:
    """Predictions of one model, row after row."""
    first = rows[0]
    columns: dict[str, Any] = {
        name: None
        if getattr(first, name) is None
        else np.concatenate([getattr(row, name) for row in rows])
        for name in ("probabilities", "labels", "outlier_scores", "unknown", "sets", "called")
    }
    return replace(
        first,
        paths=tuple(path for row in rows for path in row.paths),
        problems=tuple(problem for row in rows for problem in row.problems),
        **columns,
    )


def answers_csv(answers: Sequence[Answer]) -> bytes:
    """The same table that `headstart predict --csv` writes."""
    with tempfile.TemporaryDirectory(prefix="headstart-studio-") as folder:
        place = Path(folder) / "answers.csv"
        write_predictions(place, joined([answer.row for answer in answers]))
        return place.read_bytes()


def card_of(answer: Answer, *, all_classes: bool) -> dict[str, Any]:
    """What the card of one picture shows."""
    row = answer.row
    card: dict[str, Any] = {
        "name": row.paths[0],
        "problem": row.problems[0],
        "picture": answer.picture,
        "seen": answer.seen,
        "stored": answer.stored,
        "treatment": answer.treatment,
    }
    if row.problems[0]:
        return card
    chances = row.probabilities[0]
    order = np.argsort(-chances, kind="stable")
    most = len(order) if all_classes else MOST_BARS
    held = None if row.sets is None else row.sets[0]
    unknown = bool(row.unknown is not None and row.unknown[0])
    return card | {
        "best": row.names[0],
        "confidence": float(chances[order[0]]),
        "unknown": unknown,
        "bars": [
            {
                "name": row.class_names[c],
                "chance": float(chances[c]),
                "look": "strange" if unknown else "" if held is None or held[c] else "out",
            }
            for c in order[:most].tolist()
        ],
        "rest": len(order) - most if most < len(order) else 0,
        "sentence": set_sentence(row, order),
        "call": call_of(row),
    }


def call_of(row: Predictions) -> dict[str, Any] | None:
    """The yes or no about the positive class; None where the model decides nothing."""
    if row.called is None:
        return None
    chance = row.probabilities[0][row.class_names.index(row.positive)]
    return {"positive": row.positive, "called": bool(row.called[0]), "chance": float(chance)}


def set_sentence(row: Predictions, order: Any) -> str:
    """What the model cannot exclude, in words for everybody; '' where it has no such rule.

    Of an unknown picture nothing is said: the rule is for pictures of the known kinds.
    """
    if row.sets is None or (row.unknown is not None and row.unknown[0]):
        return ""
    names = [row.class_names[c] for c in order.tolist() if row.sets[0][c]]
    excluded = len(order) - len(names)
    if not names:
        return "No class fits well: take the answer as a guess."
    if not excluded:
        return "It cannot rule out any class: look at the picture yourself."
    quoted = [f"\u2018{name}\u2019" for name in names]
    if len(names) == 1:
        return f"It rules out every class but {quoted[0]}."
    others = "the other one" if excluded == 1 else f"the other {excluded:,}"
    return f"It cannot decide between {listed(quoted, MOST_NAMED)}, and rules out {others}."


def promise(classifier: Classifier) -> str:
    """How far a model's ruling out can be trusted, for everybody; '' where it does not rule out."""
    rule = classifier.confidence.sets
    if rule is None:
        return ""
    return (
        "Pale bars are classes that it rules out. Over many pictures like those it learnt from, "
        f"the classes it leaves hold the right one about {round(100 * (1 - rule.alpha))} times "
        "in 100."
    )
