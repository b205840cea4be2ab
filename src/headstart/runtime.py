"""Device, precision, layout, threads and seeds: chosen here once, with the reason.

Rule: a CUDA device computes in bfloat16 where it has it, else float32; Apple's MPS in float32; a
CPU in bfloat16 where the processor multiplies it natively (AVX512-BF16 or AMX), because that is
two to four times float32 there and many times slower elsewhere. Activations lie channels-last on
CUDA and CPU: in float32, too, that is 1.1 to 1.5 times as fast on a CPU (docs/benchmarks.md).

Threads are as many as torch takes by itself, but no more than a container may use cores: torch does
not see that limit, and threads beyond it are stopped again and again.

float32 means float32: cuDNN's convolutions would use TF32 by default, which keeps 10 bits of the
fraction where float32 has 23. A process that computes on a GPU switches that off.
"""

from __future__ import annotations

import platform
import random
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headstart.errors import GpuError, UsageError
from headstart.limits import usable_cores

PRECISIONS = ("auto", "bfloat16", "float32")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How networks run in this process.

    Attributes:
        device: 'cpu', 'cuda' or 'mps'.
        precision: 'bfloat16' or 'float32', the type convolutions compute in.
        channels_last: whether activations lie in memory with channels innermost.
        threads: intra-operation threads on the CPU.
        reason: why, in a few words for the user.
    """

    device: str
    precision: str
    channels_last: bool
    threads: int
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of `precision`."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    @property
    def key(self) -> str:
        """What of this choice can change the figures; part of every cache key."""
        layout = "nhwc" if self.channels_last else "nchw"
        exact = "-ieee" if self.without_tf32 else ""
        return f"torch{torch.__version__}-{self.device}-{self.precision}{exact}-{layout}"

    @property
    def without_tf32(self) -> bool:
        """Whether float32 might be computed in TF32 here, and is not."""
        return self.device == "cuda" and self.precision == "float32"

    def describe(self) -> str:
        """One line for people."""
        layout = "channels-last" if self.channels_last else "channels-first"
        threads = f", {self.threads} threads" if self.device == "cpu" else ""
        exact = " without TF32" if self.without_tf32 else ""
        return f"{self.device} in {self.precision}{exact}, {layout}{threads} ({self.reason})"


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has bfloat16 arithmetic of its own."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def cpu_stops_at_avx2() -> bool:
    """Whether this processor computes on vectors of 256 bits, and not of 512."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx2")) and not capabilities.get("avx512_f")


def choose_execution(device: str = "auto", precision: str = "auto") -> Execution:
    """Choose device and precision, or check the user's choice.

    Raises:
        UsageError: the device is not there, or the precision is unknown.
        GpuError: there is a GPU that cannot compute.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"`precision` must be one of {', '.join(PRECISIONS)}, got '{precision}'. Correct it."
        )
    present = available_devices()
    if device == "auto":
        device = present[0]
    elif device not in present:
        raise UsageError(
            f"`device` must be one of {', '.join(['auto', *present])} on this machine, "
            f"got '{device}'. Leave --device out to choose by itself."
        )
    if device == "cuda":
        prepare_gpu()
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    best, reason = best_precision(device)
    if precision != "auto":
        best, reason = precision, "asked for"
    return Execution(
        device=device,
        precision=best,
        channels_last=device in ("cuda", "cpu") or best == "bfloat16",
        threads=torch.get_num_threads(),
        reason=reason,
    )


def prepare_gpu() -> None:
    """Switch TF32 off, and compute one number, which finds a GPU that cannot.

    Raises:
        GpuError: it is too old for this torch, in use by others alone, or its memory is full.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        torch.ones(1, device="cuda").add(1).item()
    except RuntimeError as error:
        raise gpu_problem(error) or GpuError(
            f"The GPU must be able to compute, got '{first_line(error)}'. "
            "Free it or mend its driver, or take --device cpu."
        ) from error


def gpu_problem(error: Exception) -> GpuError | None:
    """What a user can do about an error of torch on a GPU; None for any other error."""
    if isinstance(error, torch.OutOfMemoryError):
        return GpuError(
            f"The GPU's memory is full ({first_line(error)}). Lower --batch-size or --image-size, "
            "take a smaller --model, end other programs on the GPU, or take --device cpu."
        )
    if "no kernel image is available" in str(error):
        return GpuError(
            f"The GPU must be one that this torch was built for ({torch.__version__}: "
            f"{' '.join(torch.cuda.get_arch_list())}), got {torch.cuda.get_device_name()}. "
            "Install a torch built for it, or take --device cpu."
        )
    return None


def first_line(error: Exception) -> str:
    """The first sentence of an error, for torch goes on with advice of its own."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0].rstrip(".")


@contextmanager
def repeatable(execution: Execution) -> Iterator[None]:
    """Let the same training give the same bits while the block runs.

    torch's generators of the processor and of every CUDA device are afterwards as they were. On a
    CUDA device every kernel that has a repeatable form takes it; the others, such as the gradient
    of a maximum over overlapping windows, still run. Nothing else is repeatable on a GPU than the
    same training on the same kind of GPU.
    """
    if execution.device != "cuda":
        with torch.random.fork_rng(devices=[]):
            yield
        return
    with (
        torch.random.fork_rng(devices=range(torch.cuda.device_count())),
        torch.backends.cudnn.flags(  # its own defaults switch cuDNN off and TF32 on
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ),
        deterministic_algorithms(),
    ):
        yield


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Torch's own switch, without its warnings of kernels that have no repeatable form."""
    asked = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torchs: Any = torch.utils.deterministic  # a module that is typed as none
    filled = torchs.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torchs.fill_uninitialized_memory = False  # for finding defects only
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*[dD]eterministic")
            yield
    finally:
        torchs.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(asked, warn_only=warned)


@contextmanager
def interrupted_later() -> Iterator[None]:
    """Ctrl-C meanwhile is heard at the end: Python discards what is raised inside a finalizer."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        handler(came[0], None)


def available_devices() -> list[str]:
    """The devices of this machine, best first; the CPU is always last."""
    devices = ["cuda"] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def best_precision(device: str) -> tuple[str, str]:
    """The fastest precision that keeps the accuracy, and why."""
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the GPU has bfloat16 arithmetic"
        return "float32", "the GPU has no bfloat16 arithmetic"
    if device == "mps":
        return "float32", "MPS keeps full precision"
    if cpu_multiplies_bfloat16():
        return "bfloat16", "the processor has bfloat16 arithmetic"
    return "float32", "the processor has no bfloat16 arithmetic"


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; rooms that draw numbers take their own generator besides."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - third parties draw from the global generator
    torch.manual_seed(seed)


def machine() -> str:
    """The machine in a few words, for records."""
    name = str(torch.cpu.get_capabilities().get("cpu_name", "")) or platform.machine()
    if torch.cuda.is_available():
        name = f"{torch.cuda.get_device_name()}, {name}"
    return f"{platform.system()} {platform.machine()}, {name}, {usable_cores()} cores"
