from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killed import SETTINGS as LONG
from staged import EXECUTION, colourful, staged_network
from test_tuning import equal_weights

from headstart.errors import ResumeError, StorageError
from headstart.finetune import fit_network, fitting
from headstart.finetune.records.checkpoints import load_checkpoint, save_checkpoint
from headstart.finetune.steps import loop

DATA = colourful()
SETTINGS = replace(LONG, epochs=(2, 3))
HERE = Path(__file__).parent


class StopHereError(Exception):
    """Ends a training from inside."""


def fit(folder, settings=SETTINGS, data=DATA, network=None):
    return fit_network(
        network or staged_network(), data, settings, execution=EXECUTION, checkpoint_dir=folder
    )


@pytest.fixture(scope="module")
def whole():
    return fit_network(staged_network(), DATA, SETTINGS, execution=EXECUTION)


def figures(tuned):
    return [replace(record, seconds=0.0, cpu_seconds=0.0) for record in tuned.history]


def interrupted(folder, monkeypatch, epoch, settings=SETTINGS):
    """Stop a training after the checkpoint of that epoch; its figures so far."""
    kept, seen = fitting.Keeper.save, []

    def stop(self, state, current):
        kept(self, state, current)
        if sum(state.epochs) == epoch:
            seen.extend(state.history)
            raise StopHereError

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Keeper, "save", stop)
        with pytest.raises(StopHereError):
            fit(folder, settings)
    return [replace(record, seconds=0.0, cpu_seconds=0.0) for record in seen]


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])  # in and at the end of either phase
def test_interrupted_and_resumed_is_uninterrupted(tmp_path, monkeypatch, whole, epoch):
    interrupted(tmp_path, monkeypatch, epoch)
    resumed = fit(tmp_path)
    assert equal_weights(resumed, whole)
    assert figures(resumed) == figures(whole)
    assert (resumed.best_epochs, resumed.verdict) == (whole.best_epochs, whole.verdict)


@pytest.mark.parametrize(
    "changes",
    [{"sampling": "balanced"}, {"sampling": "balanced", "views": 2}, {"spatial_dropout": 0.4}],
    ids=str,
)
def test_every_draw_is_drawn_again_after_a_stop(tmp_path, monkeypatch, changes):
    settings = replace(SETTINGS, epochs=(1, 2), **changes)
    whole = fit_network(staged_network(), DATA, settings, execution=EXECUTION)
    assert interrupted(tmp_path, monkeypatch, 2, settings) == figures(whole)[:3]
    resumed = fit(tmp_path, settings)
    assert equal_weights(resumed, whole)
    assert figures(resumed) == figures(whole)


def test_a_finished_fit_is_read_back(tmp_path, monkeypatch, whole):
    fit(tmp_path)
    monkeypatch.setattr(loop, "run_phases", None)  # nothing is trained again
    again = fit(tmp_path)
    assert equal_weights(again, whole)
    assert figures(again) == figures(whole)


def kills(tmp_path, count, seed):
    """How often a training was killed that ended, bit by bit, with the weights of a whole one."""
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE / "killed.py"), str(tmp_path), str(count), str(seed)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    whole, killed = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "killed"))
    torch.testing.assert_close(killed, whole, rtol=0, atol=0)
    return int(done.stdout.split()[0])


@pytest.mark.skipif(os.name == "nt", reason="Windows forks no processes")
def test_killed_and_resumed_is_bit_equal(tmp_path):
    assert kills(tmp_path, 3, seed=int.from_bytes(os.urandom(4), "little")) == 3


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows forks no processes")
@pytest.mark.parametrize("seed", range(4))
def test_twenty_kills_in_four_trainings(tmp_path, seed):
    assert kills(tmp_path, 5, seed) == 5


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows forks no processes")
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_hundred_kills_in_twenty_trainings(tmp_path, seed):
    assert kills(tmp_path, 5, seed) == 5


def test_a_damaged_checkpoint_is_begun_anew(tmp_path, whole):
    fit(tmp_path)
    path = tmp_path / "fold-0.ckpt"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    assert load_checkpoint(path) is None
    assert equal_weights(fit(tmp_path), whole)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": replace(SETTINGS, lr=0.5)}, "settings"),
        ({"data": colourful(seed=1)}, "pictures"),
        ({"data": replace(DATA, labels=np.roll(DATA.labels, 1))}, "rows and labels"),
        ({"network": staged_network(seed=1)}, "network"),
    ],
    ids=["settings", "pictures", "labels", "network"],
)
def test_another_training_is_not_gone_on_with(tmp_path, change, named):
    fit(tmp_path, replace(SETTINGS, epochs=(1,)))
    original = {"settings": replace(SETTINGS, epochs=(1,))}
    with pytest.raises(ResumeError, match=named):
        fit(tmp_path, **{**original, **change})


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "fold-0.ckpt"
    save_checkpoint(path, {"epoch": 1})

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        save_checkpoint(path, {"epoch": 2})
    assert load_checkpoint(path) == {"epoch": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["fold-0.ckpt"]


def test_nothing_in_a_checkpoint_can_run(tmp_path):
    from headstart.files import digest_bytes

    class Attack:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "attacked"),))

    torch.save({"x": Attack()}, tmp_path / "plain")
    data = (tmp_path / "plain").read_bytes()
    (tmp_path / "bad.ckpt").write_bytes(digest_bytes(data).encode() + data)
    with pytest.raises(Exception, match="weights_only"):
        load_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "attacked").exists()
