"""The proof: the same pictures through PyTorch in float32 and through the exported files.

Features are rounded to 16 bits in both, so that most are equal to the bit; where a float32 sum
ends on the other side of a rounding border, one feature differs by 1/2048 of itself. That, and the
head in float32, is what is left. `TOLERANCE` is the largest difference of a probability that is
let pass; an export above it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.bundle import Classifier
from headstart.bundle.onnx_engine import (
    FEATURES,
    INPUT,
    ONNX_FILE,
    OUTLIER_SCORE,
    PROBABILITIES,
    RESIZING_FILE,
    open_session,
)
from headstart.data import decode
from headstart.data.decoding import decoded_scale
from headstart.data.preparing import least_side
from headstart.data.preview import cropped
from headstart.errors import DataError, ExportError
from headstart.export.graph import IMAGE
from headstart.progress import Progress
from headstart.records import Bytes8, ImageTable, Predictions

TOLERANCE = 1e-3
BATCH = 16
MOST_COMPARED = 256
MOST_RESIZED = 64

Named = dict[str, npt.NDArray[np.floating]]


def prove(
    reference: Classifier, onnx: Classifier, table: ImageTable, *, progress: Progress
) -> dict[str, Any]:
    """Compare three answers: PyTorch's, the graph's own, and Headstart's through the graph.

    Args:
        reference: on the processor in float32.
        onnx: of the exported bundle, engine 'onnx'.
        table: pictures; those that cannot be decoded are passed over.
        progress: silent where None.

    Returns:
        What `parity.json` says of `model.onnx`.

    Raises:
        ExportError: a probability differs by more than `TOLERANCE`.
        DataError: no picture can be read.
    """
    session = open_session(onnx.folder / ONNX_FILE)
    rows = range(len(table))
    by_torch, by_engine, by_graph, features, alone = [], [], [], [], 0.0
    with progress.phase("Proving the export", len(rows)) as advance:
        for pixels in prepared(reference, table, rows):
            by_torch.append(reference.answer_pixels(pixels))
            features.append(reference.extractor.forward(torch.from_numpy(pixels)))
            by_engine.append(onnx.answer_pixels(pixels))
            by_graph.append(run_graph(session, INPUT, pixels))
            first = run_graph(session, INPUT, pixels[:1])
            alone = max(alone, apart(first[PROBABILITIES], by_graph[-1][PROBABILITIES][:1]))
            advance(len(pixels))
    if not by_torch:
        raise DataError("The export cannot be proved: no picture can be read. Check --data.")
    expected = joined(by_torch)
    graph = np.concatenate([g[PROBABILITIES] for g in by_graph])
    own = np.concatenate(features)
    found: dict[str, Any] = {
        "num_images": len(expected),
        "largest_probability_difference": apart(graph, expected.probabilities),
        "mean_probability_difference": float(np.abs(graph - expected.probabilities).mean()),
        "same_class": int((graph.argmax(axis=1) == expected.indices).sum()),
        "largest_feature_difference": apart(np.concatenate([g[FEATURES] for g in by_graph]), own),
        "largest_feature": float(np.abs(own).max()),
        "alone_or_in_a_batch": alone,
        "headstart_onnx": compare_answers(expected, joined(by_engine)),
    }
    if OUTLIER_SCORE in by_graph[0]:
        found["outlier_score"] = compare_scores(
            np.concatenate([g[OUTLIER_SCORE] for g in by_graph]), expected
        )
    check_tolerance(ONNX_FILE, found["largest_probability_difference"])
    check_tolerance(
        "Headstart's ONNX engine", found["headstart_onnx"]["largest_probability_difference"]
    )
    return found


def check_tolerance(what: str, difference: float) -> None:
    """Refuse an export that answers otherwise.

    Raises:
        ExportError: the difference is above the tolerance, or not a number.
    """
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{what} does not answer as its bundle: a probability differs by {difference:.2g}, "
            f"{TOLERANCE:g} is let pass. Nothing was kept; answer with --engine torch, and please "
            "report the network."
        )


def prepared(classifier: Classifier, table: ImageTable, rows: range) -> Iterator[Bytes8]:
    """(B, H, W, 3) batches of the pictures that can be decoded."""
    for start in range(0, len(rows), BATCH):
        found = [classifier.extractor.prepare(table, row) for row in rows[start : start + BATCH]]
        good = [pixels for _, pixels in found if pixels is not None]
        if good:
            yield np.stack(good)


def run_graph(session: Any, name: str, pixels: Bytes8) -> Named:
    """Every output of a graph by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: pixels}), strict=True))


def apart(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    """The largest difference; NaN where one is not a number."""
    return float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max())


def joined(parts: list[Predictions]) -> Predictions:
    """The answers of batches as one."""
    first = parts[0]

    def put(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else np.concatenate(columns)

    return Predictions(
        paths=tuple(path for part in parts for path in part.paths),
        class_names=first.class_names,
        probabilities=put("probabilities"),
        labels=put("labels"),
        problems=tuple(problem for part in parts for problem in part.problems),
        outlier_scores=put("outlier_scores"),
        unknown=put("unknown"),
        sets=put("sets"),
    )


def compare_answers(expected: Predictions, found: Predictions) -> dict[str, Any]:
    """Probabilities, classes, sets and 'unknown' of the same pictures by two engines."""
    compared: dict[str, Any] = {
        "largest_probability_difference": apart(found.probabilities, expected.probabilities),
        "same_class": int((found.indices == expected.indices).sum()),
    }
    if expected.sets is not None and found.sets is not None:
        compared["same_set"] = int((found.sets == expected.sets).all(axis=1).sum())
    if expected.unknown is not None and found.unknown is not None:
        compared["same_unknown"] = int((found.unknown == expected.unknown).sum())
    return compared


def compare_scores(scores: npt.NDArray[np.floating], expected: Predictions) -> dict[str, float]:
    """The graph's strangeness beside the bundle's."""
    assert expected.outlier_scores is not None
    shares = np.abs(scores - expected.outlier_scores) / np.maximum(expected.outlier_scores, 1.0)
    return {"largest_difference_as_a_share": float(shares.max())}


def prove_resizing(reference: Classifier, folder: Path, table: ImageTable) -> dict[str, Any]:
    """Compare the graph that resizes with Pillow's resize and the bundle's answer to it.

    Args:
        reference: on the processor in float32.
        folder: of the exported files.
        table: pictures of any size.

    Returns:
        What `parity.json` says of `model-resize.onnx`.

    Raises:
        ExportError: a probability differs by more than `TOLERANCE` from the answer to the very
            pixels that the graph has resized.
    """
    session = open_session(folder / RESIZING_FILE)
    pixel, same, chance, inside, agreeing, count = 0, 0.0, 0.0, 0.0, 0, 0
    scaled, full = 0, 0.0
    for row in range(len(table)):
        facts, ours = reference.extractor.prepare(table, row)
        if ours is None:
            continue
        least = least_side(reference.extractor.preprocessing, table.box_of(row))
        outputs = run_graph(session, IMAGE, opened(table, row, least))
        if decoded_scale(facts, least) > 1:
            whole = run_graph(session, IMAGE, opened(table, row, None))
            scaled += 1
            full = max(full, apart(whole[PROBABILITIES], outputs[PROBABILITIES]))
        resized = outputs.pop(INPUT).astype(np.uint8)
        difference = np.abs(resized[0].astype(int) - ours)
        expected, answered = reference.answer_pixels(ours[None].copy()), outputs[PROBABILITIES]
        pixel, same = max(pixel, int(difference.max())), same + float((difference == 0).mean())
        chance = max(chance, apart(answered, expected.probabilities))
        inside = max(inside, apart(answered, reference.answer_pixels(resized).probabilities))
        agreeing += int(answered.argmax() == expected.indices[0])
        count += 1
    check_tolerance(RESIZING_FILE, inside)
    return {
        "num_images": count,
        "largest_pixel_difference": pixel,
        "equal_pixels_fraction": same / max(count, 1),
        "largest_probability_difference": chance,
        "largest_probability_difference_on_equal_pixels": inside,
        "same_class": agreeing,
        "num_scaled_in_decoding": scaled,
        "largest_probability_difference_of_full_decoding": full,
    }


def opened(table: ImageTable, row: int, least: int | None) -> Bytes8:
    """(1, H, W, 3) uint8 of one picture, decoded as the network would have it or, None, whole."""
    picture, _ = decode(table.read(row), table.paths[row], min_side=least)
    return np.asarray(cropped(picture, table.box_of(row)))[None]
