"""Device and precision: what a GPU that cannot is told as, and that settings come back."""

from __future__ import annotations

import signal
import sys

import pytest
import torch

from headstart.cli import main
from headstart.errors import GpuError
from headstart.inference import FeatureExtractor
from headstart.runtime import (
    Execution,
    choose_execution,
    deterministic_algorithms,
    gpu_problem,
    interrupted_later,
    repeatable,
)

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB."
OLD = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors"


@pytest.fixture
def broken_gpu(monkeypatch):
    """A GPU that answers with an error of torch, on a machine without one."""

    def breaking(error):
        def fail(*_arguments, **_options):
            raise error

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old One")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
        monkeypatch.setattr(torch, "ones", fail)

    return breaking


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError(OLD), r"built for \(torch|sm_75 sm_90\), got Old One. Install a torch"),
        (RuntimeError("CUDA error: out of luck\nmore"), r"got 'CUDA error: out of luck'. Free it"),
        (torch.OutOfMemoryError(FULL), r"memory is full \(CUDA out of memory\). Lower --batch"),
    ],
)
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_that_cannot_compute_is_one_sentence(broken_gpu, error, words, device):
    broken_gpu(error)
    with pytest.raises(GpuError, match=words):
        choose_execution(device)


def test_other_errors_are_not_the_gpus():
    assert gpu_problem(RuntimeError("a shape that does not fit")) is None


def test_the_doctor_tells_of_a_broken_gpu(broken_gpu):
    from headstart.survey import examine_installation

    broken_gpu(RuntimeError(OLD))
    assert "got Old One" in str(examine_installation()["Machine"]["device"])


def test_a_full_memory_keeps_what_a_run_has(colour_folder, tmp_path, monkeypatch, capsys):
    def fail(self, pixels):
        raise torch.OutOfMemoryError(FULL)

    monkeypatch.delenv("HEADSTART_DEBUG", raising=False)
    monkeypatch.setattr(FeatureExtractor, "forward", fail)
    out = tmp_path / "run"
    words = ["run", "--data", str(colour_folder), "--out", str(out), "--audit", "none"]
    monkeypatch.setattr(sys, "argv", ["headstart", *words, "--image-size", "32"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "headstart: " in line]
    assert line.startswith("headstart: The GPU's memory is full (CUDA out of memory). Lower")
    assert (out / "run.json").is_file()


def test_keys_tell_devices_precisions_and_tf32_apart():
    def key(device, precision):
        return Execution(
            device=device, precision=precision, channels_last=True, threads=1, reason=""
        ).key

    keys = [key(d, p) for d in ("cpu", "cuda") for p in ("float32", "bfloat16")]
    assert len(set(keys)) == 4
    assert key("cuda", "float32").endswith("-cuda-float32-ieee-nhwc")


def test_training_gives_generators_and_switches_back():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with repeatable(choose_execution("cpu")):
        torch.rand(5)
        assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with deterministic_algorithms():
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == filled


def test_an_interruption_inside_a_finalizer_is_heard_afterwards():
    """Python prints 'Exception ignored' and goes on; a run trained to its end after Ctrl-C."""

    class Unlucky:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def let_go():
        with interrupted_later():
            one = Unlucky()
            del one
            done.append(True)

    done = []
    with pytest.raises(KeyboardInterrupt):
        let_go()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interrupted_later():
        pass
