"""From a bundle to ONNX: pixels in, probabilities, features and strangeness out.

    pixels         (B, H, W, 3) uint8, upright RGB, resized to the bundle's size
      -> (pixels / 255 - mean) / std -> network -> features, rounded to 16 bits and back
      -> head -> / temperature -> softmax
    probabilities  (B, C) float32, the bundle's class order
    features       (B, D) float32, of the whole picture
    outlier_score  (B,) float32, where the bundle can tell strange pictures

Of a bundle that averages over mirror images the graph mirrors the pixels itself: 2 B squares go
through the one network, logits and features are averaged behind it, and `mirrored_features` stands
beside `features`.

B is free: the graph is traced with two pictures, because a batch of one would be taken for a
constant. Features are rounded as everywhere in Headstart; without that every probability would
differ by the rounding that the head was fitted behind. The head computes in float32 here (float64
in Headstart), for runtimes that have nothing longer.

The second graph also resizes: one upright RGB picture of any size, antialiased as Pillow does it,
through ONNX's Resize. What is left of the difference is measured and written down.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart import __version__
from headstart.bundle import Classifier
from headstart.bundle.onnx_engine import (
    FEATURES,
    INPUT,
    METADATA_VERSION,
    MIRRORED_FEATURES,
    ONNX_FILE,
    OUTLIER_SCORE,
    PROBABILITIES,
)
from headstart.errors import ExportError, MissingExtraError
from headstart.inference.preprocessing import normalise
from headstart.outliers import MahalanobisModel

TRACED_WITH = 2
LARGEST_FILE_BYTES = 3 * 2**29  # protobuf holds 2 GiB; larger tensors lie beside the graph
IMAGE = "image"
OPSET = 20
SHORTEST = 1e-30  # a length of features that is not divided by


class Answering(nn.Module):
    """The network of a bundle and everything that follows it, in float32."""

    def __init__(self, classifier: Classifier) -> None:
        """Copy what the graph needs from a classifier whose engine is PyTorch's."""
        super().__init__()
        network, confidence = classifier.network, classifier.confidence
        self.network = network.module
        self.preprocessing = network.preprocessing
        self.temperature = confidence.temperature
        self.averages = confidence.tta is not None
        self.head = nn.ModuleList(dense(weight, bias) for weight, bias in classifier.head.layers)
        self.strangeness = None
        if confidence.outliers is not None:
            self.strangeness = Strangeness(confidence.outliers)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, H, W, 3) uint8 -> (B, C), (B, D), as `output_names` lists them."""
        if self.averages:
            pixels = torch.cat([pixels, pixels.flip(2)])
        x = normalise(pixels, self.preprocessing).contiguous()
        features = self.network(x).half().float()
        logits = features
        for position, layer in enumerate(self.head):
            logits = layer(torch.relu(logits) if position else logits)
        given, mean = [features], features
        if self.averages:
            logits = logits.unflatten(0, (2, -1)).mean(dim=0)
            both = features.unflatten(0, (2, -1))
            given, mean = [both[0], both[1]], both.mean(dim=0)
        probabilities = torch.softmax(logits / self.temperature, dim=1)
        strange = [] if self.strangeness is None else [self.strangeness(mean)]
        return probabilities, *given, *strange

    @property
    def output_names(self) -> list[str]:
        """Of the graph, in the order of `forward`."""
        mirrored = [MIRRORED_FEATURES] if self.averages else []
        strange = [OUTLIER_SCORE] if self.strangeness is not None else []
        return [PROBABILITIES, FEATURES, *mirrored, *strange]


class Strangeness(nn.Module):
    """`MahalanobisModel.score` as a module; differences are squared whole, which float32 bears."""

    offset: torch.Tensor
    projection: torch.Tensor
    whitening: torch.Tensor
    means: torch.Tensor
    background: torch.Tensor | None

    def __init__(self, model: MahalanobisModel) -> None:
        """Take over the arrays."""
        super().__init__()
        self.background = None
        for name, values in model.tensors().items():
            self.register_buffer(name, torch.from_numpy(values).float())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D) -> (B,) squared distance to the nearest class."""
        lengths = features.norm(dim=1, keepdim=True).clamp_min(SHORTEST)
        projected = (features / lengths - self.offset) @ self.projection
        apart = (projected @ self.whitening)[:, None, :] - self.means
        nearest: torch.Tensor = apart.square().sum(dim=2).amin(dim=1)
        if self.background is not None:
            nearest = nearest - (projected @ self.background).square().sum(dim=1)
        return nearest


def dense(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    """A frozen layer of (out, in) weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return layer.requires_grad_(False)


def import_onnx() -> Any:
    """The package; onnxscript, which torch's exporter needs, is looked for too.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"Exporting to ONNX needs {error.name or 'onnx and onnxscript'}. "
            "Install it: pip install 'headstart[export]'"
        ) from error
    return onnx


def write_graph(
    folder: Path, classifier: Classifier, *, largest_bytes: int = LARGEST_FILE_BYTES
) -> list[str]:
    """Trace a bundle's answer and write `model.onnx`.

    Args:
        folder: where to.
        classifier: on the processor in float32, PyTorch's engine.
        largest_bytes: of tensors inside the file; larger ones lie in `model.onnx.data`.

    Returns:
        The names of the files.

    Raises:
        ExportError: torch cannot turn this network into ONNX.
    """
    module = Answering(classifier).eval()
    size = classifier.extractor.preprocessing.size
    example = torch.zeros(TRACED_WITH, size, size, 3, dtype=torch.uint8)
    try:
        program = trace(module, example, module.output_names)
    except MemoryError:
        raise
    except Exception as error:  # the exporter's errors have no common root
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"{classifier.network.spec.name} cannot be exported to ONNX: {said}. "
            "Answer with --engine torch, or choose another network."
        ) from error
    program.model.metadata_props.update(describe_answering(classifier))
    stored = sum(t.nbytes for t in module.state_dict().values())
    apart = stored > largest_bytes
    program.save(str(folder / ONNX_FILE), external_data=apart)
    return sorted(path.name for path in folder.glob(f"{ONNX_FILE}*"))


def trace(module: nn.Module, example: torch.Tensor, names: list[str]) -> Any:
    """The exporter's program, its chatter left out."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=names,
                dynamic_shapes={INPUT: {0: torch.export.Dim.DYNAMIC}},
            )
    finally:
        logger.setLevel(level)


def describe_answering(classifier: Classifier) -> dict[str, str]:
    """Everything a caller needs that has only the ONNX file; each value is JSON."""
    about, confidence = classifier.about, classifier.confidence
    preprocessing = about["preprocessing"]
    size, resampling = preprocessing["size"], preprocessing["interpolation"]
    described: Mapping[str, object] = {
        "metadata_version": METADATA_VERSION,
        "headstart_version": __version__,
        "exported_from": classifier.root_digest,
        "class_names": list(classifier.class_names),
        "preprocessing": preprocessing,
        "resize_policy": f"turn upright by EXIF, to RGB, squash the whole picture to {size} x "
        f"{size} px ({resampling}, antialiased as Pillow does); a JPEG whose short side is at "
        f"least {4 * size} px is decoded at 1/2, 1/4 or 1/8 first, as Pillow's draft does, never "
        f"below {2 * size} px",
        "decoder_version": about["decoder_version"],
        "temperature": confidence.temperature,
        "tta": confidence.tta,
        "sets": None if confidence.sets is None else asdict(confidence.sets),
        "outlier_threshold": confidence.outlier_threshold,
        "decision": None if confidence.decision is None else asdict(confidence.decision),
        "learnt_on_boxes": classifier.learnt_on_boxes,
        "backbone": about["backbone"]["name"],
        "code_licence": about["backbone"]["code_licence"],
        "weights_licence": about["backbone"]["weights"]["licence"],
    }
    return {f"headstart.{key}": json.dumps(value) for key, value in described.items()}


def write_resizing(folder: Path, name: str, classifier: Classifier) -> None:
    """Put a resize before `model.onnx` and write it as another file, for one picture at a time.

    Pillow's bicubic kernel has a = -0.5, and both its kernels are cut off and scaled anew at the
    border; its result has 8 bits, as ONNX's for 8-bit input.
    """
    onnx = import_onnx()
    helper = onnx.helper
    preprocessing = classifier.extractor.preprocessing
    size = preprocessing.size
    model = onnx.load(str(folder / ONNX_FILE), load_external_data=False)
    wanted = helper.make_tensor("wanted_size", onnx.TensorProto.INT64, [4], [1, 3, size, size])
    cubic = preprocessing.interpolation == "bicubic"
    options = {"cubic_coeff_a": -0.5} if cubic else {}
    resize = helper.make_node(
        "Resize",
        ["channels_first", "", "", "wanted_size"],
        ["resized"],
        mode="cubic" if cubic else "linear",
        antialias=1,
        exclude_outside=1,
        coordinate_transformation_mode="half_pixel",
        **options,
    )
    before = [
        helper.make_node("Transpose", [IMAGE], ["channels_first"], perm=[0, 3, 1, 2]),
        resize,
        helper.make_node("Transpose", ["resized"], [INPUT], perm=[0, 2, 3, 1]),
    ]
    graph = model.graph
    nodes = [*before, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.append(wanted)
    kind = onnx.TensorProto.UINT8
    graph.input.append(helper.make_tensor_value_info(IMAGE, kind, [1, "height", "width", 3]))
    kept = helper.make_tensor_value_info(INPUT, kind, [1, size, size, 3])
    graph.output.append(kept)  # what was resized, so that anyone can compare it
    onnx.save(model, str(folder / name))
