"""Which engine computes the features of a pass: PyTorch itself, or OpenVINO where that pays.

The rule is written down here and never timed in a run, so that the same settings on the same kind
of machine take the same engine. OpenVINO is taken where all of this holds:

- the device is the processor, and the package is installed (`pip install 'headstart[openvino]'`);
- the backbone stays frozen: fine-tuning goes on in PyTorch, and what it starts from should too;
- the network is of a family that was measured to be at least 1.25 times as fast as PyTorch with
  folded normalisations at the same precision on such a processor (`FAMILIES`, and where it has AVX2
  and no AVX-512 `NARROW_FAMILIES` too; docs/benchmarks.md, "Engines");
- there are enough images: `WORTH` of them at 128 px, fewer where they are larger. Conversion costs
  as much as some thousand images do, and the saving should be several times that.

All images of the run count, not those the store lacks: another hundred images must not change the
engine, because features of two engines are never mixed.

The graph is converted for one batch size, and every batch is filled up to it: an image has the
same features alone and among thousands. Reshaping for every batch was slower, torch.compile nearly
as fast but 25 to 80 s of processor time to compile.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import nn

from headstart.errors import MissingExtraError, UsageError
from headstart.runtime import Execution, cpu_stops_at_avx2

EAGER, OPENVINO = "eager", "openvino"
PASS_ENGINES = ("auto", EAGER, OPENVINO)
# Beginnings of architecture names. Depthwise convolutions and swish are what PyTorch is slowest at.
FAMILIES = ("efficientnet", "tf_efficientnet", "mobilenet", "densenet", "resnet", "vit_")
# On vectors of 256 bits PyTorch's convolutions lag further behind (in float32; bf16 is slow there).
NARROW_FAMILIES = ("vgg",)
WORTH, WORTH_SIZE = 20_000, 128
HINTS = {"bfloat16": "bf16", "float32": "f32"}


@dataclass(frozen=True, kw_only=True)
class PassEngine:
    """The engine of a pass, and why.

    Attributes:
        name: 'eager' or 'openvino'.
        reason: in a few words for the user.
    """

    name: str = EAGER
    reason: str = "the usual way"


@dataclass(frozen=True, kw_only=True)
class PassWork:
    """What a pass has to do.

    Attributes:
        architecture: of the network, as timm calls it.
        image_size: its input in px.
        num_images: of the whole data, whatever is stored already.
        frozen: whether the backbone stays as it is.
    """

    architecture: str
    image_size: int
    num_images: int
    frozen: bool


def choose_engine(asked: str, work: PassWork, execution: Execution) -> PassEngine:
    """The engine by the rule, or the one asked for.

    Raises:
        UsageError: an unknown engine, or one that the device does not have.
        MissingExtraError: the one asked for is not installed.
    """
    if asked not in PASS_ENGINES:
        raise UsageError(
            f"`pass_engine` must be one of {', '.join(PASS_ENGINES)}, got '{asked}'. "
            "Correct --pass-engine."
        )
    if asked == OPENVINO:
        if execution.device != "cpu":
            raise UsageError(
                f"`pass_engine` must be 'auto' or 'eager' on {execution.device}, got 'openvino', "
                "which computes on the processor. Leave --pass-engine out, or take --device cpu."
            )
        if not is_installed():
            raise MissingExtraError(
                "The engine 'openvino' is not installed. Install it: "
                "pip install 'headstart[openvino]'"
            )
    if asked != "auto":
        return PassEngine(name=asked, reason="asked for")
    reason = reason_against(work, execution)
    if reason:
        return PassEngine(reason=reason)
    return PassEngine(name=OPENVINO, reason=f"{work.num_images:,} images by {work.architecture}")


def reason_against(work: PassWork, execution: Execution) -> str:
    """Why the rule keeps PyTorch; empty where it takes OpenVINO."""
    worth = WORTH * (WORTH_SIZE / work.image_size) ** 2
    if execution.device != "cpu":
        return f"the device is {execution.device}"
    if not work.frozen:
        return "the backbone is trained"
    if not work.architecture.startswith(quick_families()):
        return "no other engine is known to be clearly faster for this network"
    if work.num_images < worth:
        return f"fewer than {worth:,.0f} images"
    return "" if is_installed() else "OpenVINO is not installed"


def quick_families() -> tuple[str, ...]:
    """The families for which OpenVINO pays on this processor."""
    return FAMILIES + NARROW_FAMILIES if cpu_stops_at_avx2() else FAMILIES


def is_installed() -> bool:
    """Whether OpenVINO can be imported; it is not imported yet."""
    return importlib.util.find_spec("openvino") is not None


def openvino_version() -> str:
    """The release, as in '2026.4.1'."""
    return metadata.version("openvino")


def import_openvino() -> Any:
    """The package; its conversion reports to nobody."""
    # None makes the import fail, and OpenVINO then takes its own stub that sends nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OpenVinoNetwork:
    """A network converted for one batch size; called like the module it was made from.

    It is converted at the first call: a run that finds all its features stored needs none.
    """

    def __init__(self, module: nn.Module, execution: Execution, batch_size: int, size: int) -> None:
        """Keep what the conversion needs.

        Args:
            module: stays as it is; float32, eval mode.
            execution: precision and threads.
            batch_size: of every call.
            size: of pictures, in px.
        """
        self.module = module
        self.shape = [batch_size, 3, size, size]
        self.settings = {
            "INFERENCE_PRECISION_HINT": HINTS[execution.precision],
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all threads
            "INFERENCE_NUM_THREADS": str(execution.threads),
        }
        self.request: Any = None

    def convert(self) -> Any:
        """Convert and compile.

        Raises:
            UsageError: OpenVINO cannot convert this network.
        """
        openvino = import_openvino()
        example = torch.zeros(1, *self.shape[1:])
        try:
            with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # OpenVINO traces in a way that torch deprecates
                graph = openvino.convert_model(self.module, example_input=example)
            graph.reshape(self.shape)
            compiled = openvino.Core().compile_model(graph, "CPU", self.settings)
        except Exception as error:  # its own kinds, and those of torch's tracing
            reason = str(error).strip().splitlines()
            raise UsageError(
                f"OpenVINO cannot convert this network ({reason[-1] if reason else error!r}). "
                "Take --pass-engine eager."
            ) from error
        return compiled.create_infer_request()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 -> (B, D) float32, B as it was converted for.

        Raises:
            UsageError: OpenVINO cannot convert this network.
        """
        self.request = self.request or self.convert()
        outputs = self.request.infer([x.float().contiguous().numpy()])
        return torch.from_numpy(next(iter(outputs.values())).copy())
