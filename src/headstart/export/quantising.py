"""int8: a quarter of the size, often faster, and what it costs in accuracy.

Static quantisation: weights become 8-bit numbers with a scale a channel, activations 8-bit numbers
with a range that training pictures have shown (QDQ form, ONNX Runtime). Only the network is
quantised: head, temperature and strangeness stay as they are, they cost no time. Some networks
lose much by it, transformers and those with few channels a group (MobileNet, EfficientNet) most:
the cost is measured on labelled pictures, image by image against the float32 file, and said.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headstart.bundle import Classifier
from headstart.bundle.onnx_engine import (
    FEATURES,
    INPUT,
    INT8_FILE,
    ONNX_FILE,
    PROBABILITIES,
    import_onnxruntime,
    open_session,
)
from headstart.comparison import paired_bootstrap, sign_flip_test
from headstart.errors import ExportError
from headstart.export.graph import import_onnx
from headstart.export.parity import compare_answers, prepared
from headstart.progress import Advance, Progress
from headstart.records import UNLABELLED, Bytes8, ImageTable, Integers, Predictions
from headstart.statistics import share_estimate

QUANTISED = ["Conv", "Gemm", "MatMul"]
TIMED_BATCH = 16
TIMED_ROUNDS = 7
MUCH = 0.02  # accuracy that nobody gives away unasked
MUCH_DISAGREEMENT = 0.05  # the same, where labels are not known


class Calibration:
    """Hands one batch after the other to ONNX Runtime's calibration."""

    def __init__(self, batches: Iterator[Bytes8], advance: Advance) -> None:
        """Keep the batches; they are prepared when they are asked for, and then reported."""
        self.batches = batches
        self.advance = advance
        self.num_images = 0

    def get_next(self) -> dict[str, Bytes8] | None:
        """The next batch by the input's name, None after the last."""
        pixels = next(self.batches, None)
        if pixels is None:
            return None
        self.num_images += len(pixels)
        self.advance(len(pixels))
        return {INPUT: pixels}


def quantise(
    folder: Path, reference: Classifier, table: ImageTable, *, progress: Progress
) -> dict[str, Any]:
    """Write `model-int8.onnx` beside `model.onnx`.

    Args:
        folder: of the exported files.
        reference: prepares the pictures.
        table: pictures whose activations give the ranges.
        progress: silent where None.

    Returns:
        Method and sizes, for `parity.json`.

    Raises:
        ExportError: ONNX Runtime cannot quantise the network.
    """
    import_onnxruntime()
    onnx = import_onnx()
    source, simple = folder / ONNX_FILE, folder / "simplified.onnx"
    try:
        with progress.phase("Calibrating int8", len(table)) as advance:
            data = Calibration(prepared(reference, table, range(len(table))), advance)
            run_quietly(source, simple, folder / INT8_FILE, data)
        model = onnx.load(str(folder / INT8_FILE))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the tool's errors have no common root
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"{reference.network.spec.name} cannot be quantised: {said}. Leave --int8 out."
        ) from error
    finally:
        simple.unlink(missing_ok=True)
    stored = onnx.load(str(source), load_external_data=False).metadata_props
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in stored})
    onnx.save(model, str(folder / INT8_FILE))
    return {
        "method": "static, QDQ, 7-bit weights a channel, 8-bit activations by minimum and maximum",
        "quantised": QUANTISED,
        "num_calibrating": data.num_images,
    }


def run_quietly(source: Path, simple: Path, target: Path, data: Calibration) -> None:
    """Fold normalisations into convolutions, then quantise; the tools' advice is not repeated."""
    from onnxruntime import quantization as tools
    from onnxruntime.quantization.shape_inference import quant_pre_process

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quant_pre_process(str(source), str(simple), skip_symbolic_shape=True)
        tools.quantize_static(
            str(simple),
            str(target),
            data,
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            nodes_to_exclude=nodes_after_features(simple),
            per_channel=True,
            weight_type=tools.QuantType.QInt8,
            # Seven bits: without VNNI pairs of products are added in 16 bits, which saturate.
            reduce_range=True,
            activation_type=tools.QuantType.QUInt8,
            calibrate_method=tools.CalibrationMethod.MinMax,
        )
    finally:
        root.setLevel(level)


def nodes_after_features(path: Path) -> list[str]:
    """Names of the nodes that compute with the features; unnamed ones are named first."""
    onnx = import_onnx()
    model = onnx.load(str(path))
    reached, names = {FEATURES}, []
    for number, node in enumerate(model.graph.node):  # in the order of computation
        node.name = node.name or f"node_{number}"
        if node.op_type == "Cast" and any(
            a.name == "to" and a.i == onnx.TensorProto.FLOAT16 for a in node.attribute
        ):  # averaged answers take the features where they are rounded, not from that output
            reached |= set(node.output)
        if reached & set(node.input):
            reached |= set(node.output)
            names.append(node.name)
    onnx.save(model, str(path))
    return names


def judge(
    folder: Path,
    float32: Predictions,
    int8: Predictions,
    *,
    groups: Integers | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What int8 costs on the same pictures, and what it saves in size.

    Args:
        folder: of the exported files.
        float32: answers of `model.onnx`, with labels where they are known.
        int8: answers of `model-int8.onnx` to the same images.
        groups: (N,) or None.
        seed: of resampling and signs.
    """
    size, whole = (
        sum(path.stat().st_size for path in folder.glob(f"{name}*"))
        for name in (INT8_FILE, ONNX_FILE)
    )
    found: dict[str, Any] = {
        "num_images": len(float32),
        **compare_answers(float32, int8),
        "bytes": size,
        "size_ratio": size / whole,
    }
    labels = float32.labels
    known = labels != UNLABELLED
    if not known.any():
        return found | {"accuracy": None}
    rights = [(p.indices == labels)[known].astype(float) for p in (float32, int8)]
    codes = None if groups is None else groups[known]
    shares = [share_estimate(r.astype(bool), groups=codes) for r in rights]
    difference = paired_bootstrap(rights[1], rights[0], groups=codes, seed=seed)
    ends = difference.interval
    return found | {
        "num_labelled": int(known.sum()),
        "accuracy_float32": shares[0].value,
        "accuracy": shares[1].value,
        "difference": {
            "value": difference.value,
            "low": None if ends is None else ends.low,
            "high": None if ends is None else ends.high,
            "method": "" if ends is None else ends.method,
        },
        "p_value": sign_flip_test(rights[1], rights[0], groups=codes, seed=seed),
    }


def verdict(found: dict[str, Any]) -> str:
    """One sentence: what int8 costs, and whether to take it."""
    share = 1 - found["same_class"] / found["num_images"]
    said = f"{found['same_class']:,} of {found['num_images']:,} answers as in float32"
    bad = share > MUCH_DISAGREEMENT
    if found["accuracy"] is not None:
        difference = found["difference"]
        said = f"{100 * difference['value']:+.1f} points of accuracy"
        if difference["low"] is not None:
            said += f" [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]"
        said += f" on {found['num_labelled']:,} images"
        bad = difference["value"] < -MUCH
    advice = "this network does not quantise well: take model.onnx" if bad else ""
    return "; ".join(filter(None, [said, advice]))


def time_engines(folder: Path, pixels: Bytes8) -> dict[str, Any]:
    """Images a second of both files on the same batch, in turn, by the best of each round.

    Args:
        folder: of the exported files.
        pixels: (B, H, W, 3), repeated to `TIMED_BATCH`.
    """
    batch = np.resize(pixels, (TIMED_BATCH, *pixels.shape[1:]))
    sessions = [open_session(folder / name) for name in (ONNX_FILE, INT8_FILE)]
    seconds: list[list[float]] = [[], []]
    for number in range(TIMED_ROUNDS + 1):
        for session, own in zip(sessions, seconds, strict=True):
            begun = time.perf_counter()
            session.run([PROBABILITIES], {INPUT: batch})
            if number:  # the first round warms up
                own.append(time.perf_counter() - begun)
    ratios = np.array(seconds[0]) / np.array(seconds[1])
    return {
        "batch": TIMED_BATCH,
        "rounds": TIMED_ROUNDS,
        "speed_ratio": float(np.median(ratios)),
        "speed_ratio_low": float(ratios.min()),
        "speed_ratio_high": float(ratios.max()),
    }
