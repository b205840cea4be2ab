"""What one GPU makes of the frozen pass: its limits, five networks alone, decoding, E1's whole job.

    PYTHONPATH=src:. python3 benchmarks/gpu.py --data DIR --out FILE.jsonl [--parts limits,forward]
    python3 benchmarks/gpu.py --table FILE.jsonl     # the tables again, nothing measured
    python3 benchmarks/gpu.py --data DIR --out FILE.jsonl --quick --device cpu    # a dry run

Question. How many images a second do VGG16, VGG19, ResNet50, DenseNet121 and EfficientNetB0 make at
128 px, what share of the GPU's own limit is that, what holds the pass back, and how long does the
whole job of E1 take (70,000 images of Fashion-MNIST, 5 folds, final fit, test) beside the seconds
that its authors report for their final training alone? Weights are random: timing only, accuracies
mean nothing. The VGGs give the average of their last map, 512 features, as E1 had it, and are cut
behind it; the others average it of themselves.

Every part is a process of its own with a cap, and all of them share `--seconds`; what was measured
is in FILE.jsonl line by line, whatever dies later. The seconds of the GPU are those of CUDA events.
    limits    matrix products of 8,192 x 8,192, normal numbers; a copy on the device, bytes read and
              written; copies from and to the host, from pinned and from pageable memory
    forward   the network on a batch of 256 that lies on the device, in the forms of `FORMS`, and
              `FeatureExtractor.forward`, which fetches pixels and brings features back; a share is
              of the matrix product of the same precision, by the operations that torch counts
    job       `run_job` with an empty store, defaults but for network, size and weights; the process
              starts once, does a small run that loads everything, then a job a network, as long as
              one more fits the time; 'network' of the VGGs is mostly the drawing of weights
    decode    images/s of decoding and resizing to 128 px as the extractor does it, and of a pass
              with a network that costs nothing; nvJPEG by torchvision and a resize on the GPU, and
              how far its pixels are from ours (0 to 255)
    heads     5 folds x 10 penalties on 60,000 made-up rows of 1,280 features: the same calls with
              tensors on the processor and on the device
    compile   `torch.compile`, a process and at most 25 s a network and mode

Figures of the last recorded run: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decode import Means, decoded_on, made_jpegs, pass_rate, prepared_rate, resized_on
from engines import operations
from gpu_tables import tables
from heads import make_features
from one_pass import write_subset
from torch import nn

from headstart.backbones import Network, build_network, find_backbone
from headstart.data import load_table
from headstart.heads import fit_with_chosen_penalty, penalty_path, rotate_features
from headstart.inference import FeatureExtractor, ImageList
from headstart.inference.extractor import place_module
from headstart.inference.folding import fold_normalisations
from headstart.runs import RunSettings, run_job
from headstart.runtime import choose_execution, machine, usable_cores

CAPS_S = {"limits": 25, "forward": 50, "decode": 35, "job": 150, "heads": 25, "compile": 75}
NETWORKS = "EfficientNetB0,VGG16,ResNet50,DenseNet121,VGG19"
COMPILED = (("EfficientNetB0", "default"), ("ResNet50", "default"),
            ("EfficientNetB0", "reduce-overhead"), ("ResNet50", "reduce-overhead"))  # fmt: skip
COMPILE_CAP_S = 25
PATIENCE = 10  # of a dry run, whose machine may be small and busy: times all seconds
LAST_MAP = {"VGG16": "block5", "VGG19": "block5"}
WARM_UP, WINDOWS, WINDOW_S = 3, 10, 0.03


@dataclasses.dataclass(frozen=True)
class Form:
    """A way to run a network.

    Attributes:
        precision: 'auto' is what the extractor takes.
        folded: batch normalisations folded into convolutions.
        tuned: cuDNN tries its algorithms for every shape and keeps the fastest.
        tf32: products of float32 numbers with 10 bits of mantissa.
        graphed: all kernels of a batch launched at once, as a CUDA graph.
        batches: times the batch of all others.
    """

    precision: str = "auto"
    folded: bool = False
    tuned: bool = False
    tf32: bool = False
    graphed: bool = False
    batches: int = 1


FORMS = {  # the most wanted first
    "as placed": Form(),
    "folded": Form(folded=True),
    "tuned": Form(tuned=True),
    "float32": Form(precision="float32"),
    "folded, tuned": Form(folded=True, tuned=True),
    "folded, tuned, graph": Form(folded=True, tuned=True, graphed=True),
    "batch x 4": Form(batches=4),
    "float32, TF32": Form(precision="float32", tf32=True),
}


@dataclasses.dataclass(frozen=True)
class Bench:
    """What every part needs to know."""

    options: argparse.Namespace
    until: float  # time.time() at which a part should begin nothing more

    @property
    def device(self) -> str:
        """'cuda', or 'cpu' for a dry run."""
        return self.options.device

    @property
    def quick(self) -> bool:
        """Whether nothing but a dry run is wanted."""
        return self.options.quick

    @property
    def size(self) -> int:
        """Pictures' side in px."""
        return 32 if self.quick else 128

    @property
    def batch(self) -> int:
        """Images a forward pass, as the extractor takes them on a GPU."""
        return 4 if self.quick else 256

    @property
    def names(self) -> list[str]:
        """The networks."""
        return [name.strip() for name in self.options.networks.split(",") if name.strip()]

    def tell(self, part: str, name: str, **found: object) -> None:
        """Print a result and keep it."""
        record = {"part": part, "name": name, **found}
        print(f"{time.strftime('%H:%M:%S')} {json.dumps(record)}", flush=True)
        with Path(self.options.out).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    @contextmanager
    def surviving(self, part: str, name: str) -> Iterator[None]:
        """A failure is told and kept, and the next thing begins."""
        try:
            yield
        except Exception as error:
            lines = traceback.format_exc().strip().splitlines()[-6:]
            print("\n".join(lines), flush=True)
            self.tell(part, name, failed=f"{type(error).__name__}: {str(error)[:300]}")

    def in_time(self, part: str, name: str, needed_s: float = 0.0) -> bool:
        """Whether there is time left for something; told where there is not."""
        left = self.until - time.time()
        if left < max(needed_s, 1.0):
            self.tell(part, name, failed=f"not begun: {left:.0f} s left")
            return False
        return True

    def settle(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def windows(self, step: Callable[[], object], least: int = WINDOWS) -> list[float]:
        """Seconds a call in each of some windows, after warm-up."""
        for _ in range(WARM_UP):
            step()
        self.settle()
        begun = time.perf_counter()
        step()
        self.settle()
        once = time.perf_counter() - begun
        calls = 1 if self.quick else min(max(round(WINDOW_S / once), 1), 200)
        return [self.window(step, calls) for _ in range(2 if self.quick else least)]

    def window(self, step: Callable[[], object], calls: int) -> float:
        """Seconds a call: by events on a GPU, by the clock elsewhere."""
        if self.device != "cuda":
            begun = time.perf_counter()
            for _ in range(calls):
                step()
            return (time.perf_counter() - begun) / calls
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(calls):
            step()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / calls

    def network(self, name: str) -> Network:
        """A network with random weights."""
        return build_network(
            find_backbone(name), weights="none", image_size=self.size, layers=LAST_MAP.get(name)
        )


def spread(rates: list[float]) -> dict[str, float]:
    """Median, least and most, four digits of each."""
    found = {"median": statistics.median(rates), "least": min(rates), "most": max(rates)}
    return {name: float(f"{value:.4g}") for name, value in found.items()} | {"n": len(rates)}


def set_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def measure_limits(bench: Bench) -> None:
    """Matrix products and copies."""
    edge, scale = (256, 2**20) if bench.quick else (8192, 2**30)
    kinds = [("bfloat16", torch.bfloat16, False)] * (bench.device == "cuda")
    kinds += [("float32", torch.float32, False), ("float32, TF32", torch.float32, True)]
    for name, dtype, tf32 in kinds:
        with bench.surviving("limits", f"product {name}"):
            set_tf32(tf32)
            a, b = (torch.randn(edge, edge, device=bench.device, dtype=dtype) for _ in range(2))
            taken = bench.windows(lambda a=a, b=b: a @ b)
            rates = [2 * edge**3 / seconds / 1e12 for seconds in taken]
            bench.tell("limits", f"product {name}", unit="TFLOP/s", **spread(rates))
    set_tf32(False)
    with bench.surviving("limits", "copy"):
        source = torch.ones(scale, dtype=torch.uint8, device=bench.device)
        target = torch.empty_like(source)
        taken = bench.windows(lambda: target.copy_(source))
        rates = [2 * scale / seconds / 1e12 for seconds in taken]
        bench.tell("limits", "copy on the device", unit="TB/s", **spread(rates))
        for word, pinned in (("pinned", True), ("pageable", False)):
            host = torch.ones(scale // 4, dtype=torch.uint8)
            host = host.pin_memory() if pinned and bench.device == "cuda" else host
            there = target[: scale // 4]
            for way, step in (
                ("to", lambda h=host, t=there: t.copy_(h, non_blocking=True)),
                ("from", lambda h=host, t=there: h.copy_(t, non_blocking=True)),
            ):
                rates = [scale / 4 / seconds / 1e9 for seconds in bench.windows(step)]
                bench.tell("limits", f"{way} the device, {word}", unit="GB/s", **spread(rates))


def graphed(step: Callable[[], object], device: str) -> Callable[[], object]:
    """The same work as one CUDA graph."""
    if device != "cuda":
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def placed(bench: Bench, module: nn.Module, form: Form) -> tuple[nn.Module, torch.Tensor]:
    """The network as the extractor places it, and a batch that lies ready."""
    execution = choose_execution(bench.device, form.precision)
    if form.folded:
        module = copy.deepcopy(module).eval()
        fold_normalisations(module, torch.zeros(1, 3, bench.size, bench.size))
    x = torch.randn(bench.batch * form.batches, 3, bench.size, bench.size, device=bench.device)
    x = x.to(execution.dtype).contiguous(memory_format=torch.channels_last)
    return place_module(module, execution), x


def forward_in(bench: Bench, module: nn.Module, form: Form) -> dict[str, object]:
    """Images/s of a network in one form."""
    set_tf32(form.tf32)
    torch.backends.cudnn.benchmark = form.tuned
    begun = time.perf_counter()
    network, x = placed(bench, module, form)
    with torch.inference_mode():
        network(x)
        bench.settle()
        ready_s = time.perf_counter() - begun
        step = graphed(lambda: network(x), bench.device) if form.graphed else lambda: network(x)
        rates = [len(x) / seconds for seconds in bench.windows(step)]
    return {"batch": len(x), "ready_s": round(ready_s, 2), **spread(rates)}


def measure_forward(bench: Bench) -> None:
    """Every network in every form; the first forms of all before the last ones."""
    made: dict[str, Network] = {}
    for name in bench.names:
        with bench.surviving("forward", name):
            made[name] = network = bench.network(name)
            module = network.module.eval()
            gflop = operations(module, torch.zeros(1, 3, bench.size, bench.size))
            bench.tell("forward", name, gflop=round(gflop, 3), features=network.num_features)
            measure_extractor(bench, network)
    for form_name, form in FORMS.items():
        for name, network in made.items():
            if not bench.in_time("forward", f"{name}, {form_name}", 2.0):
                continue
            with bench.surviving("forward", f"{name}, {form_name}"):
                precision = choose_execution(bench.device, form.precision).precision
                about = {"network": name, "form": form_name, "precision": precision}
                bench.tell("forward", name, **about, **forward_in(bench, network.module, form))


def measure_extractor(bench: Bench, network: Network) -> None:
    """`forward` from pixels of the host to features of the host, batch by batch."""
    extractor = FeatureExtractor(network, choose_execution(bench.device), bench.batch)
    side = network.preprocessing.size
    pixels = torch.randint(0, 256, (bench.batch, side, side, 3), dtype=torch.uint8)
    taken = bench.windows(lambda: extractor.forward(pixels))
    form = {"network": network.spec.name, "form": "extractor.forward", "batch": bench.batch}
    rates = [bench.batch / seconds for seconds in taken]
    bench.tell("forward", network.spec.name, **form, **spread(rates))


def measure_job(bench: Bench) -> None:
    """E1's job a network."""
    with tempfile.TemporaryDirectory() as folder:
        place, longest = Path(folder), 0.0
        os.environ["HEADSTART_DATA"] = str(bench.options.data)
        if bench.quick:
            (place / "fashion-mnist").mkdir()
            write_subset(Path(bench.options.data) / "fashion-mnist", place / "fashion-mnist",
                         200, 40)  # fmt: skip
            os.environ["HEADSTART_DATA"] = folder
        with bench.surviving("job", "first run"):
            small = {"weights": "none", "image_size": 32, "audit": "none"}
            seconds, _ = one_job(bench, place / "first", data="digits", **small)
            bench.tell("job", "first run", seconds=round(seconds, 2))
        for name in bench.names:
            if not bench.in_time("job", name, longest):
                continue
            with bench.surviving("job", name):
                seconds, record = one_job(
                    bench, place / name, data="fashion-mnist", model=name, weights="none",
                    image_size=bench.size, layers=LAST_MAP.get(name),
                )  # fmt: skip
                longest = max(longest, seconds)
                bench.tell(
                    "job", name, seconds=round(seconds, 2), times=record["times"],
                    cpu_times=record["cpu_times"], engine=record["engine"],
                )  # fmt: skip


def one_job(bench: Bench, place: Path, **settings: Any) -> tuple[float, dict[str, Any]]:
    """Seconds and record of a job with an empty store."""
    os.environ["HEADSTART_CACHE"] = str(place / "cache")
    begun = time.perf_counter()
    result = run_job(RunSettings(out=str(place / "run"), device=bench.device, **settings))
    return time.perf_counter() - begun, result.record


def measure_decode(bench: Bench) -> None:
    """Our decoding of small pixels and of JPEGs, and nvJPEG beside it."""
    os.environ["HEADSTART_DATA"] = str(bench.options.data)
    repeats, cores = (1 if bench.quick else 3), usable_cores()
    network = bench.network("EfficientNetB0")
    free = dataclasses.replace(network, module=Means(network.num_features), digest="means")
    extractor = FeatureExtractor(free, choose_execution(bench.device), bench.batch)
    with bench.surviving("decode", "Fashion-MNIST"):
        table, count = load_table("fashion-mnist"), 64 if bench.quick else 16_000
        for threads in sorted({1, min(4, cores), cores}):
            part = max(count * threads // cores, 64)
            rates = [prepared_rate(extractor, table, part, threads, isolated=False)
                     for _ in range(repeats)]  # fmt: skip
            bench.tell("decode", f"idx 28 px, {threads} threads", **spread(rates))
        rates = [pass_rate(extractor, table, count) for _ in range(repeats)]
        bench.tell("decode", "idx 28 px, pass of a network that costs nothing", **spread(rates))
    with bench.surviving("decode", "JPEG"):
        jpegs = made_jpegs(8 if bench.quick else 400)
        if bench.options.jpegs:
            files = sorted(Path(bench.options.jpegs).rglob("*.jpg"))[: len(jpegs)]
            jpegs = [file.read_bytes() for file in files]
        kib = round(sum(map(len, jpegs)) / len(jpegs) / 1024, 1)
        many = jpegs * (1 if bench.quick else 4)
        source = ImageList(many, [f"{row}.jpg" for row in range(len(many))])
        prepared_rate(extractor, source, len(jpegs), cores, isolated=True)  # starts the processes
        for word, isolated in (("processes", True), ("threads", False)):
            rates = [prepared_rate(extractor, source, len(many), cores, isolated=isolated)
                     for _ in range(repeats)]  # fmt: skip
            bench.tell("decode", f"JPEG, {cores} threads, in {word}", kib=kib, **spread(rates))
        rates = [pass_rate(extractor, source, len(many)) for _ in range(repeats)]
        bench.tell("decode", "JPEG, pass of a network that costs nothing", kib=kib, **spread(rates))
        measure_nvjpeg(bench, extractor, source, jpegs)


def measure_nvjpeg(
    bench: Bench, extractor: FeatureExtractor, source: ImageList, jpegs: list[bytes]
) -> None:
    """Images/s of nvJPEG, alone and with the resize, and the distance to our pixels."""
    rule = extractor.preprocessing
    for batch in (4,) if bench.quick else (64, 256):
        parts = [jpegs[start : start + batch] for start in range(0, len(jpegs), batch)]
        for word, then in (("", None), (" and resize", rule.interpolation)):
            with bench.surviving("decode", f"nvJPEG{word}"):
                rates = []
                for _ in range(2 if bench.quick else 4):
                    begun = time.perf_counter()
                    for part in parts:
                        pictures = decoded_on(part, bench.device)
                        if then:
                            resized_on(pictures, rule.size, then)
                    bench.settle()
                    rates.append(len(jpegs) / (time.perf_counter() - begun))
                rates = rates[1:]  # the first one makes the decoder
                bench.tell("decode", f"nvJPEG{word}, batch {batch}", **spread(rates))
    with bench.surviving("decode", "nvJPEG, difference"):
        first = list(range(min(64, len(jpegs))))
        ours = np.stack([pixels for _, pixels in extractor.prepare_many(source, first)])
        theirs = decoded_on(jpegs[: len(first)], bench.device)
        theirs = resized_on(theirs, rule.size, rule.interpolation)
        apart = np.abs(ours.astype(int) - theirs.cpu().numpy().astype(int))
        share = round(float((apart > 2).mean()), 4)
        about = {"mean": round(float(apart.mean()), 3), "most": int(apart.max())}
        bench.tell("decode", "nvJPEG, difference", **about, above_2=share)


def measure_heads(bench: Bench) -> None:
    """The same fit on the processor and on the device."""
    rows, columns, folds = (400, 16, 3) if bench.quick else (60_000, 1280, 5)
    features, labels = make_features(rows, columns)
    generator = torch.Generator().manual_seed(0)
    fold = torch.randint(folds, (rows,), generator=generator)
    weights = (fold != torch.arange(folds)[:, None]).float()
    inner = (torch.rand(rows, generator=generator) < 0.2) & weights.bool()
    coefs = {}
    for device in ("cpu", bench.device):
        with bench.surviving("heads", device):
            x, y, w, i = (part.to(device) for part in (features, labels, weights, inner))
            rotate_features(x[:2000])  # loads the solvers
            bench.settle()
            begun = time.perf_counter()
            rotated = rotate_features(x)
            bench.settle()
            turned = time.perf_counter()
            fit = fit_with_chosen_penalty(rotated, y, w, i, penalty_path(), 10)
            bench.settle()
            ended = time.perf_counter()
            coefs[device] = fit.coef.cpu()
            bench.tell(
                "heads",
                device,
                rotation_s=round(turned - begun, 2),
                fit_s=round(ended - turned, 2),
                rounds=int(fit.inner_iterations.sum()),
                converged=bool(fit.converged.all()),
            )
    if bench.device in coefs and "cpu" in coefs:
        apart = (coefs[bench.device] - coefs["cpu"]).abs().max() / coefs["cpu"].abs().max()
        bench.tell("heads", "difference", of_largest=float(f"{float(apart):.2g}"))


def measure_compiled(bench: Bench) -> None:
    """Each network and mode in a process that is killed when over its cap."""
    for name, mode in COMPILED:
        if not bench.in_time("compile", f"{name}, {mode}", 8.0):
            continue
        cap = min(COMPILE_CAP_S * (PATIENCE if bench.quick else 1), bench.until - time.time())
        with tempfile.TemporaryDirectory() as cache:
            given = {"TORCHINDUCTOR_CACHE_DIR": cache}
            failed = child(bench.options, f"compile:{name}:{mode}", cap, given)
        if failed:
            bench.tell("compile", f"{name}, {mode}", failed=failed)


def measure_one_compiled(bench: Bench, name: str, mode: str) -> None:
    """Seconds to compile, and images/s afterwards."""
    module, x = placed(bench, bench.network(name).module, Form(folded=True))
    if bench.device == "cpu":
        ready = module  # a dry run compiles nothing
    else:
        ready = torch.compile(module, mode=None if mode == "default" else mode)
    begun = time.perf_counter()
    with torch.no_grad():
        ready(x)
        bench.settle()
        compile_s = round(time.perf_counter() - begun, 2)
        rates = [len(x) / seconds for seconds in bench.windows(lambda: ready(x))]
    bench.tell("compile", f"{name}, {mode}", network=name, mode=mode, compile_s=compile_s,
               **spread(rates))  # fmt: skip


PARTS: dict[str, Callable[[Bench], None]] = {
    "limits": measure_limits,
    "forward": measure_forward,
    "decode": measure_decode,
    "job": measure_job,
    "heads": measure_heads,
    "compile": measure_compiled,
}


def child(
    options: argparse.Namespace, part: str, cap: float, given: dict[str, str] | None = None
) -> str:
    """Run a part in a process of its own; what went wrong, '' for nothing."""
    command = [sys.executable, __file__, "--child", part, "--until", str(time.time() + cap - 2)]
    command += ["--spawned", str(time.time()), "--out", options.out, "--device", options.device]
    command += ["--networks", options.networks, "--data", options.data, "--jpegs", options.jpegs]
    command += ["--quick"] * options.quick
    process = subprocess.Popen(command, env={**os.environ, **(given or {})}, start_new_session=True)
    try:
        code = process.wait(cap)
    except subprocess.TimeoutExpired:
        return f"killed after {cap:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its decoders too
            process.wait()
    return f"ended with {code}" if code else ""


def run_part(bench: Bench) -> None:
    """In the child: how long it took to be here, then the part."""
    part = bench.options.child
    ready_s = time.time() - bench.options.spawned
    begun = time.perf_counter()
    torch.zeros(1, device=bench.device)
    bench.settle()
    context_s = time.perf_counter() - begun
    if ":" in part:
        _, name, mode = part.split(":")
        with bench.surviving("compile", f"{name}, {mode}"):
            measure_one_compiled(bench, name, mode)
        return
    load = f"load {os.getloadavg()[0]:.1f}"
    bench.tell("machine", machine(), torch=torch.__version__, load=load, quick=bench.quick)
    bench.tell("start", part, imports_s=round(ready_s, 2), device_s=round(context_s, 2))
    with bench.surviving(part, "all"):
        PARTS[part](bench)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One GPU: limits, networks, decoding, E1's job.")
    parser.add_argument("--data", default=os.environ.get("HEADSTART_DATA", "../shared/data"),
                        help="holds fashion-mnist")  # fmt: skip
    parser.add_argument("--out", default="gpu.jsonl", help="results are appended")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--jpegs", default="", help="a folder of photographs; made ones without")
    parser.add_argument("--seconds", type=float, default=150, help="of all parts together")
    parser.add_argument("--quick", action="store_true", help="tiny counts: a dry run")
    parser.add_argument("--table", default="", help="print the tables of this file and end")
    for hidden in ("--child", "--until", "--spawned"):
        kind = str if hidden == "--child" else float
        parser.add_argument(hidden, type=kind, default=kind(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"--parts must be of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so the part is killed too
    if options.table:
        print(tables(options.table))
        return
    if options.child:
        run_part(Bench(options, options.until))
        return
    scale = PATIENCE if options.quick else 1
    bench = Bench(options, time.time() + scale * options.seconds)
    for part in options.parts.split(","):
        cap, begun = min(scale * CAPS_S[part], bench.until - time.time()), time.time()
        failed = child(options, part, cap) if cap > 5 else "no time left"
        if failed:
            bench.tell(part, "all", failed=failed)
        bench.tell("took", part, seconds=round(time.time() - begun, 1))
    print(tables(options.out))


if __name__ == "__main__":
    main()
