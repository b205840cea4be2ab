"""`headstart predict`: classes and probabilities for pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

if TYPE_CHECKING:
    from headstart.records import Predictions

NAME = "predict"
EXAMPLE = "Example: headstart predict runs/flowers holiday/*.jpg --csv answers.csv"

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time


def command(
    model: str = typer.Argument(metavar="RUN_OR_BUNDLE", help="Folder of a run or a bundle."),
    images: list[str] = typer.Argument(metavar="IMAGES...", help="Files or folders, unlabelled."),
    csv: Text = typer.Option(None, help="Write every probability to this file."),
    top: int = typer.Option(3, min=1, help="Classes shown for each picture."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    precision: str = typer.Option("auto", help="auto, bfloat16 or float32."),
    engine: str = typer.Option(
        "torch", help="torch; or onnx, onnx-int8: the files of `headstart export`."
    ),
    expect_digest: Text = typer.Option(None, help="Refuse any model but the one with this digest."),
    json: bool = typer.Option(False, "--json", help="Print the answers as JSON."),
) -> None:
    """Classify pictures with the model of a run."""
    from headstart.api import load
    from headstart.bundle.classifier import WHOLE_PICTURES
    from headstart.cli.printing import print_json
    from headstart.files import make_folder
    from headstart.progress import for_terminal
    from headstart.runs.files.predictions import write_predictions

    if csv is not None:
        make_folder(Path(csv).parent)
    classifier = load(
        model, device=device, precision=precision, expect_digest=expect_digest, engine=engine
    )
    if classifier.learnt_on_boxes:
        print(f"headstart: Warning: {WHOLE_PICTURES}.", file=sys.stderr)
    predictions = classifier.predict([Path(image) for image in images], progress=for_terminal())
    if csv is not None:
        write_predictions(Path(csv), predictions)
    if json:
        print_json(answers(predictions))
    else:
        print_answers(predictions, top)
        if csv is not None:
            print(f"\nWritten to {csv}")
    failed = [p for p in predictions.problems if p]
    if failed:
        print(f"headstart: {len(failed)} of {len(predictions)} images cannot be read.",
              file=sys.stderr)  # fmt: skip
        if len(failed) == len(predictions):
            sys.exit(2)


STRANGE = "   (unknown: unlike everything the model has seen)"


def answers(predictions: Predictions) -> list[dict[str, object]]:
    """What `--json` prints: one object an image."""
    listed: list[dict[str, object]] = []
    for i, (path, best) in enumerate(zip(predictions.paths, predictions.names, strict=True)):
        if predictions.problems[i]:
            listed.append({"path": path, "problem": predictions.problems[i]})
            continue
        row = predictions.probabilities[i]
        chances = {n: float(p) for n, p in zip(predictions.class_names, row, strict=True)}
        answer: dict[str, object] = {
            "path": path,
            "class": best,
            "confidence": chances[best],
            "probabilities": chances,
        }
        if predictions.called is not None:
            answer["positive"] = predictions.positive
            answer["called_positive"] = bool(predictions.called[i])
        if predictions.sets is not None:
            answer["set"] = set_of(predictions, i)
        if predictions.unknown is not None and predictions.outlier_scores is not None:
            answer["unknown"] = bool(predictions.unknown[i])
            answer["outlier_score"] = float(predictions.outlier_scores[i])
        listed.append(answer)
    return listed


def set_of(predictions: Predictions, row: int) -> list[str]:
    """The classes that the model cannot exclude for one image."""
    assert predictions.sets is not None
    return [
        n for n, held in zip(predictions.class_names, predictions.sets[row], strict=True) if held
    ]


def print_answers(predictions: Predictions, top: int) -> None:
    """One line an image: its path and the most probable classes."""
    width = min(60, max(len(path) for path in predictions.paths))
    for i, path in enumerate(predictions.paths):
        if predictions.problems[i]:
            print(f"{path:<{width}}  no answer: {predictions.problems[i]}")
            continue
        row = predictions.probabilities[i]
        best = row.argsort()[::-1][:top]
        listed = "   ".join(f"{predictions.class_names[c]} {row[c]:.3f}" for c in best)
        strange = predictions.unknown is not None and predictions.unknown[i]
        called = ""
        if predictions.called is not None:
            called = f"   -> {'' if predictions.called[i] else 'not '}{predictions.positive}"
        print(f"{path:<{width}}  {listed}{called}{STRANGE if strange else ''}")
