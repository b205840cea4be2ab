"""A bundle's ONNX file as the forward pass: the same pictures, features and answers.

The graph gives features, rounded to 16 bits as everywhere (of a model that averages over mirror
images those of both, in one run); what follows them (head, temperature,
sets, strangeness) is computed from the bundle as for PyTorch, so that one engine differs from the
other by the network's rounding alone. The graph's own probabilities are for those who run the
file without Headstart; `parity.json` in the bundle says how near all three are.

Before anything is run: the file's digest stands in the manifest, and its metadata name the classes
and the preprocessing of the bundle beside it. Tensors outside the file are read from its own folder
only: ONNX Runtime refuses other places and links, as long as it is given a path and no bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.errors import BundleError, MissingExtraError, UsageError, WeightsError, quoted
from headstart.inference import Extractor
from headstart.inference.extractor import HALF_MAX
from headstart.limits import usable_cores
from headstart.records import Bytes8, Preprocessing

TORCH = "torch"
ONNX_FILE = "model.onnx"
INT8_FILE = "model-int8.onnx"
RESIZING_FILE = "model-resize.onnx"
PARITY_FILE = "parity.json"
ENGINE_FILES = {"onnx": ONNX_FILE, "onnx-int8": INT8_FILE}
ENGINES = (TORCH, *ENGINE_FILES)
INPUT, FEATURES, MIRRORED_FEATURES, PROBABILITIES, OUTLIER_SCORE = (
    "pixels", "features", "mirrored_features", "probabilities", "outlier_score",
)  # fmt: skip
METADATA_VERSION = 1
BATCH_SIZE = 64


class OnnxExtractor(Extractor):
    """An ONNX file of a bundle, run by ONNX Runtime on the processor, in float32 or int8."""

    def __init__(
        self,
        folder: Path,
        files: Mapping[str, str],
        about: Mapping[str, Any],
        preprocessing: Preprocessing,
        engine: str,
    ) -> None:
        """Open and check the file; `load_classifier` is the way to call it.

        Args:
            folder: of the bundle.
            files: the manifest's names and digests, which were compared.
            about: the contents of `bundle.json`.
            preprocessing: of the bundle.
            engine: 'onnx' or 'onnx-int8'.

        Raises:
            BundleError: the bundle has no such file, or it does not fit the bundle.
            MissingExtraError: onnxruntime is not installed.
        """
        num_features = int(about["backbone"]["num_features"])
        super().__init__(preprocessing, num_features, BATCH_SIZE)
        self.path = folder / ENGINE_FILES[engine]
        if self.path.name not in files:
            flag = " --int8" if engine == "onnx-int8" else ""
            raise BundleError(
                f"The bundle '{folder}' has no {self.path.name}. Write one: "
                f"headstart export {quoted(folder)} --onnx{flag}, and load the folder that it "
                "names."
            )
        self.session = open_session(self.path)
        check_graph(self.path, self.session, about, preprocessing)

    def forward(self, pixels: torch.Tensor) -> npt.NDArray[np.float16]:
        """(B, H, W, 3) uint8 pixels of the network's size -> (B, D) float16 features.

        Raises:
            WeightsError: a feature is not finite or does not fit 16 bits.
        """
        return self._run(pixels.cpu().numpy(), [FEATURES])[:, 0]

    def forward_views(self, pixels: Bytes8) -> npt.NDArray[np.float16]:
        """(B, A, H, W, 3) uint8 pixels of the A views of the bundle -> (B, A, D) float16 features.

        The graph mirrors pictures by itself, so only whole ones are given to it.

        Raises:
            WeightsError: a feature is not finite or does not fit 16 bits.
        """
        names = [FEATURES, MIRRORED_FEATURES][: pixels.shape[1]]
        whole = np.ascontiguousarray(pixels[:, 0])
        size = self.batch_size
        parts = [self._run(whole[i : i + size], names) for i in range(0, max(len(whole), 1), size)]
        return np.concatenate(parts)

    def _run(self, pixels: Bytes8, names: list[str]) -> npt.NDArray[np.float16]:
        """(B, A, D) some outputs of the graph."""
        values = np.stack(self.session.run(names, {INPUT: pixels}), axis=1)
        if not (np.abs(values) < HALF_MAX).all():
            raise WeightsError(
                f"The features of '{self.path}' do not fit 16 bits. Check the weights, or answer "
                "with --engine torch."
            )
        half: npt.NDArray[np.float16] = values.astype(np.float16)
        return half


def import_onnxruntime() -> Any:
    """The package, its telemetry off.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when it is first imported
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "Answering from ONNX needs onnxruntime. Install it: pip install 'headstart[export]'"
        ) from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def open_session(path: Path, *, threads: int | None = None) -> Any:
    """A session on the processor.

    Args:
        path: the ONNX file.
        threads: inside an operator; None takes the cores that this process may use.

    Raises:
        BundleError: ONNX Runtime cannot read it.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or threads_here()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong comes as an exception too
    # A spinning pool takes the cores that decode the next pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common root
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BundleError(
            f"'{path}' cannot be run ({said}). Export the bundle again from its run."
        ) from error


def threads_here() -> int:
    """Torch's threads, which the user may have set, at most the usable cores."""
    return max(1, min(torch.get_num_threads(), usable_cores()))


def check_graph(
    path: Path, session: Any, about: Mapping[str, Any], preprocessing: Preprocessing
) -> None:
    """Refuse a graph that was not made from the bundle beside it.

    Raises:
        BundleError: its metadata, inputs or outputs are others.
    """
    stored = read_metadata(path, session)
    size, width = preprocessing.size, int(about["backbone"]["num_features"])
    inputs = {i.name: (list(i.shape), i.type) for i in session.get_inputs()}
    outputs = {o.name: list(o.shape) for o in session.get_outputs()}
    shape, kind = inputs.get(INPUT, ([], ""))
    views = [FEATURES, *([MIRRORED_FEATURES] if averages(about) else [])]
    good = {
        "class names": stored.get("class_names") == list(about["class_names"]),
        "preprocessing": stored.get("preprocessing") == about["preprocessing"],
        "decoder version": stored.get("decoder_version") == about["decoder_version"],
        "input": len(inputs) == 1 and shape[1:] == [size, size, 3] and kind == "tensor(uint8)",
        "averaging over views": bool(stored.get("tta")) == averages(about),
        "features": all(outputs.get(name, [])[1:] == [width] for name in views),
    }
    for name, fits in good.items():
        if not fits:
            raise BundleError(
                f"'{path}' does not fit the bundle beside it: its {name} differs. "
                "Export the bundle again from its run."
            )


def averages(about: Mapping[str, Any]) -> bool:
    """Whether the answers of a bundle are averaged over mirror images."""
    return bool((about.get("confidence") or {}).get("tta"))


def read_metadata(path: Path, session: Any) -> dict[str, Any]:
    """What the export wrote into the file, each value JSON.

    Raises:
        BundleError: it is no export of Headstart, or of a newer one.
    """
    try:
        raw = session.get_modelmeta().custom_metadata_map
        stored = {k.removeprefix("headstart."): json.loads(v) for k, v in raw.items()
                  if k.startswith("headstart.")}  # fmt: skip
    except ValueError as error:
        raise BundleError(f"The metadata of '{path}' are damaged. Export it again.") from error
    version = stored.get("metadata_version")
    if type(version) is not int:
        raise BundleError(f"'{path}' was not exported by Headstart: it has no metadata of it.")
    if version > METADATA_VERSION:
        raise BundleError(
            f"'{path}' has metadata version {version}; this Headstart knows up to "
            f"{METADATA_VERSION}. Update Headstart."
        )
    return stored


def check_engine(engine: str, device: str, precision: str) -> None:
    """Refuse an engine that is not there, or settings that it does not have.

    Raises:
        UsageError: one such.
    """
    if engine not in ENGINES:
        raise UsageError(f"`engine` must be one of {', '.join(ENGINES)}, got '{engine}'.")
    if engine == TORCH:
        return
    if device not in ("auto", "cpu"):
        raise UsageError(
            f"The engine '{engine}' computes on the processor, got --device {device}. "
            "Leave --device out, or take --engine torch."
        )
    if precision not in ("auto", "float32"):
        raise UsageError(
            f"The engine '{engine}' has the precision of its file, got --precision {precision}. "
            "Leave --precision out, or take --engine torch."
        )
