"""How fast frozen networks run here: eager, folded, compiled, ONNX Runtime, OpenVINO.

    scripts/bench engines [--networks ResNet50,ViTSmall] [--sizes 128] [--engines eager,folded]
                          [--repeats 5] [--seconds 2] [--batch 64] [--threads N] [--clock cpu]

Question. Which engine computes the features of a frozen network fastest on this machine, at which
precision, and what share of the machine's own limit is that? The rule in
`headstart.inference.engines` follows from the answer.

Limits. One matrix product of two 2,048 x 2,048 matrices in float32 and bfloat16, one thread and
all; a copy of 512 MiB (bytes read and written). They are measured in every round, beside the rest.

Engines, in turn within every round of one process, each for `--seconds` on one batch that lies
ready in its type and layout; images/s over the rounds as median [least, most]:
    eager f32 nchw    float32 channels-first in inference mode: timm's own `validate`; the reference
    eager f32 nhwc    the same, channels-last
    eager bf16 nhwc   bfloat16 channels-last, normalisations apart
    folded f32, bf16  batch normalisations folded into convolutions, channels-last: what
                      `headstart.inference.placing.place_module` makes
    compiled f32, bf16  the folded network by torch.compile with freezing (needs a C++ compiler)
    ort f32           ONNX Runtime on the graph that torch exports
    openvino f32, bf16  what `headstart.inference.engines.OpenVinoNetwork` makes: OpenVINO with
                      INFERENCE_PRECISION_HINT, one stream

`ratio` is to the reference within a round. `peak` is the share of the matrix product's rate in that
precision and round, with the operations that torch counts (twice the multiplications of
convolutions and matrix products). `ready s` is what conversion, compilation and the first batch
took, once (compiler caches are new ones). `difference` is the largest one of a feature from the
reference, as a share of the reference's largest feature.

Weights are random, with the statistics of the batch normalisations taken from a random batch, so
that folding has something to fold. `--clock cpu` counts processor seconds, for one thread on a busy
machine, where wall times measure the others.

Figures of the last recorded run: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from headstart.backbones import build_network, find_backbone
from headstart.inference.engines import OpenVinoNetwork
from headstart.inference.placing import place_module
from headstart.runtime import Execution, cpu_multiplies_bfloat16, machine

NETWORKS = "ResNet50,EfficientNetB0,DenseNet121,VGG16,MobileNetV3Small,ViTSmall"
PACKAGES = ("torch", "timm", "onnxruntime", "openvino")
EDGE, COPY_BYTES = 2048, 512 << 20
REFERENCE = "eager f32 nchw"
Step = Callable[[], Any]  # one batch


@dataclasses.dataclass
class Entry:
    """One engine made ready for one network."""

    step: Step
    ready_s: float
    difference: float
    rates: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Case:
    """One network at one size, its batch, and where files may go."""

    module: nn.Module
    pictures: torch.Tensor  # (B, 3, S, S) float32, normalised
    threads: int
    place: Path

    def execution(self, precision: str, *, channels_last: bool = True) -> Execution:
        """How the engines compute."""
        return Execution(
            device="cpu", precision=precision, channels_last=channels_last,
            threads=self.threads, reason="benchmark",
        )  # fmt: skip

    def placed(self, precision: str, *, channels_last: bool, folded: bool) -> nn.Module:
        """The network as Headstart places it."""
        execution = self.execution(precision, channels_last=channels_last)
        return place_module(self.module, execution, self.pictures.shape[-1] if folded else 0)

    def ready(self, precision: str, *, channels_last: bool) -> torch.Tensor:
        """The batch in a type and layout."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        return self.pictures.to(dtype).contiguous(memory_format=layout)


def eager(case: Case, precision: str, *, channels_last: bool = True, folded: bool = False) -> Step:
    module = case.placed(precision, channels_last=channels_last, folded=folded)
    x = case.ready(precision, channels_last=channels_last)
    return lambda: module(x)


def compiled(case: Case, precision: str) -> Step:
    from torch._inductor import config

    config.freezing = True
    torch._dynamo.reset()
    module = torch.compile(case.placed(precision, channels_last=True, folded=True))
    x = case.ready(precision, channels_last=True)
    return lambda: module(x)


def exported(case: Case) -> Path:
    """The ONNX graph, with external tensors where it is large; once a case."""
    path = case.place / "model.onnx"
    if not path.exists():
        with torch.no_grad():
            program = torch.onnx.export(
                case.module, (case.pictures,), dynamo=True, verbose=False, input_names=["x"]
            )
        program.save(str(path))
    return path


def by_onnxruntime(case: Case, _precision: str) -> Step:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    session = onnxruntime.InferenceSession(
        str(exported(case)), options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: case.pictures.numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def by_openvino(case: Case, precision: str) -> Step:
    batch, size = case.pictures.shape[0], case.pictures.shape[-1]
    network = OpenVinoNetwork(case.module, case.execution(precision), batch, size)
    return lambda: network(case.pictures)


ENGINES: dict[str, tuple[str, Callable[[Case, str], Step]]] = {
    REFERENCE: ("float32", lambda case, p: eager(case, p, channels_last=False)),
    "eager f32 nhwc": ("float32", eager),
    "eager bf16 nhwc": ("bfloat16", eager),
    "folded f32": ("float32", lambda case, p: eager(case, p, folded=True)),
    "folded bf16": ("bfloat16", lambda case, p: eager(case, p, folded=True)),
    "compiled f32": ("float32", compiled),
    "compiled bf16": ("bfloat16", compiled),
    "ort f32": ("float32", by_onnxruntime),
    "openvino f32": ("float32", by_openvino),
    "openvino bf16": ("bfloat16", by_openvino),
}


def missing() -> dict[str, str]:
    """Engines that cannot run here, and why."""
    found = {}
    for package, engine in (("onnxruntime", "ort"), ("openvino", "openvino")):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            found[engine] = f"{package} is not installed"
    try:
        from torch._inductor import cpp_builder

        cpp_builder.get_cpp_compiler()
    except Exception as error:  # torch raises one of its own kinds
        found["compiled"] = f"no C++ compiler ({type(error).__name__})"
    if not cpu_multiplies_bfloat16():
        found["bf16"] = "the processor has no bfloat16 arithmetic"
    return found


def chosen_engines(wanted: str) -> list[str]:
    """The engines asked for that can run here; the reference always."""
    absent = missing()
    for word, reason in absent.items():
        print(f"left out: {word} ({reason})")
    named = [part.strip() for part in wanted.split(",") if part.strip()]
    kept = []
    for name in ENGINES:
        asked = not named or name == REFERENCE or any(part in name for part in named)
        if asked and not any(word in name.split() for word in absent):
            kept.append(name)
    return kept


def repeated(step: Step, seconds: float, clock: Callable[[], float]) -> float:
    """Calls a second, over about so many seconds and at least two calls."""
    begun, calls = clock(), 0
    while calls < 2 or clock() - begun < seconds:
        step()
        calls += 1
    return calls / (clock() - begun)


def product_rate(dtype: torch.dtype, seconds: float, clock: Callable[[], float]) -> float:
    """GFLOP/s of a square matrix product."""
    a, b = torch.randn(EDGE, EDGE).to(dtype), torch.randn(EDGE, EDGE).to(dtype)
    out = torch.empty(EDGE, EDGE, dtype=dtype)
    torch.mm(a, b, out=out)
    return 2 * EDGE**3 * repeated(lambda: torch.mm(a, b, out=out), seconds, clock) / 1e9


def copy_rate(seconds: float, clock: Callable[[], float]) -> float:
    """GB/s, read and written."""
    source = torch.ones(COPY_BYTES // 4)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES * repeated(lambda: target.copy_(source), seconds, clock) / 1e9


def settle(module: nn.Module, pictures: torch.Tensor) -> None:
    """Take the statistics of batch normalisations from a batch."""
    norms = [p for p in module.modules() if isinstance(p, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        module(pictures)
    module.eval()


def operations(module: nn.Module, picture: torch.Tensor) -> float:
    """GFLOP an image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(picture)
    return counter.get_total_flops() / 1e9


def make_ready(case: Case, names: list[str]) -> dict[str, Entry]:
    """Every engine made ready and its first batch compared with the reference's."""
    entries: dict[str, Entry] = {}
    expected = torch.empty(0)
    for name in names:
        precision, make = ENGINES[name]
        begun = time.perf_counter()
        try:
            step = make(case, precision)
            features = step().float().clone()
        except Exception as error:  # one engine that cannot must not end the table
            print(f"    {name}: failed, {type(error).__name__}: {str(error)[:200]}", flush=True)
            continue
        ready_s = time.perf_counter() - begun
        if name == REFERENCE:
            expected = features
        difference = float((features - expected).abs().max() / expected.abs().max())
        entries[name] = Entry(step=step, ready_s=ready_s, difference=difference)
    return entries


def measure(case: Case, options: argparse.Namespace, names: list[str]) -> None:
    """One table: every engine on one network at one size."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    gflop, batch = operations(case.module, case.pictures[:1]), len(case.pictures)
    print(f"  {gflop:.2f} GFLOP an image, batch {batch}", flush=True)
    peaks: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    with torch.inference_mode():
        entries = make_ready(case, names)
        for _ in range(options.repeats):
            for precision, found in peaks.items():
                if any(ENGINES[name][0] == precision for name in entries):
                    dtype = getattr(torch, precision)
                    found.append(product_rate(dtype, options.seconds / 4, clock))
            for entry in entries.values():
                entry.rates.append(batch * repeated(entry.step, options.seconds, clock))
    for name, entry in entries.items():
        reference, peak = entries[REFERENCE].rates, peaks[ENGINES[name][0]]
        ratios = [a / b for a, b in zip(entry.rates, reference, strict=True)]
        shares = [rate * gflop / limit for rate, limit in zip(entry.rates, peak, strict=True)]
        print(
            f"    {name:<16} {spread(entry.rates, 1):<22} ratio {spread(ratios, 2):<20} "
            f"peak {statistics.median(shares):.2f}  ready s {entry.ready_s:5.1f}  "
            f"difference {entry.difference:.1e}",
            flush=True,
        )


def spread(values: list[float], digits: int) -> str:
    """Median [least, most]."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def show_limits(options: argparse.Namespace) -> None:
    """The machine's limits, `repeats` times each, in turn."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    found: dict[str, list[float]] = {}
    precisions = ["float32"] + ["bfloat16"] * cpu_multiplies_bfloat16()
    for _ in range(options.repeats):
        for threads in sorted({1, options.threads}):
            torch.set_num_threads(threads)
            for precision in precisions:
                rate = product_rate(getattr(torch, precision), options.seconds / 4, clock)
                label = f"product {precision}, {threads} thread(s), GFLOP/s"
                found.setdefault(label, []).append(rate)
            label = f"copy, {threads} thread(s), GB/s read + written"
            found.setdefault(label, []).append(copy_rate(options.seconds / 4, clock))
    for name, rates in found.items():
        print(f"{name:<44} {spread(rates, 1)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Engines for the forward pass.")
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--sizes", default="128,224")
    parser.add_argument("--engines", default="", help="parts of names; default all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads != 1:
        parser.error("--clock cpu needs --threads 1: waiting threads burn processor seconds too")
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{machine()}; {', '.join(versions)}; {options.threads} thread(s); {load}")
    print(f"n = {options.repeats} rounds of {options.seconds:g} s {options.clock} an engine")
    show_limits(options)
    torch.set_num_threads(options.threads)
    names = chosen_engines(options.engines)
    for size in map(int, options.sizes.split(",")):
        for name in options.networks.split(","):
            print(f"{name} at {size} px", flush=True)
            network = build_network(find_backbone(name), weights="none", image_size=size)
            pictures = torch.randn(options.batch, 3, size, size)
            settle(network.module, pictures[:16])
            place = Path(tempfile.mkdtemp(prefix="headstart-engines-"))
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(place / "compiled")
            case = Case(network.module, pictures, options.threads, place)
            measure(case, options, names)
            shutil.rmtree(place, ignore_errors=True)
            gc.collect()
    print(f"load at the end {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "")


if __name__ == "__main__":
    main()
