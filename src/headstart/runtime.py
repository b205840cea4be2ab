"""Device, precision, layout, threads and seeds: chosen here once, with the reason.

Rule: a CUDA device computes in bfloat16 where it has it, else float32; Apple's MPS in float32; a
CPU in bfloat16 where the processor multiplies it natively (AVX512-BF16 or AMX), because that is
two to four times float32 there and many times slower elsewhere. Activations lie channels-last on
CUDA and CPU: in float32, too, that is 1.1 to 1.5 times as fast on a CPU (docs/benchmarks.md).
"""

from __future__ import annotations

import os
import platform
import random
from dataclasses import dataclass

import numpy as np
import torch

from headstart.errors import UsageError

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
        return f"torch{torch.__version__}-{self.device}-{self.precision}-{layout}"

    def describe(self) -> str:
        """One line for people."""
        layout = "channels-last" if self.channels_last else "channels-first"
        threads = f", {self.threads} threads" if self.device == "cpu" else ""
        return f"{self.device} in {self.precision}, {layout}{threads} ({self.reason})"


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has bfloat16 arithmetic of its own."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def cpu_has_avx512() -> bool:
    """Whether this processor computes on vectors of 512 bits."""
    return bool(torch.cpu.get_capabilities().get("avx512_f"))


def choose_execution(device: str = "auto", precision: str = "auto") -> Execution:
    """Choose device and precision, or check the user's choice.

    Raises:
        UsageError: the device is not there, or the precision is unknown.
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


def usable_cores() -> int:
    """Cores this process may use, which in a container are fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> str:
    """The machine in a few words, for records."""
    name = str(torch.cpu.get_capabilities().get("cpu_name", "")) or platform.machine()
    if torch.cuda.is_available():
        name = f"{torch.cuda.get_device_name()}, {name}"
    return f"{platform.system()} {platform.machine()}, {name}, {usable_cores()} cores"
