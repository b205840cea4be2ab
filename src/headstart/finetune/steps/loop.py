"""From the first phase to the best weights: one Lightning trainer a phase, its state ours.

A phase goes on from the last weights of the one before, not from its best, so that a fit of given
lengths repeats it. Loading this module loads Lightning.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as lightning
import torch

from headstart.finetune.records.history import START, EpochRecord
from headstart.finetune.records.profiling import CHECKPOINT, REST
from headstart.finetune.steps.averaging import restore
from headstart.finetune.steps.schedules import Plateau
from headstart.finetune.steps.state import FitState, Task
from headstart.finetune.steps.training import Keep, PhaseModule, keep_best
from headstart.runtime import repeatable


def run_phases(task: Task, state: FitState, keep: Keep) -> None:
    """Everything that is left to do, from `state` on; afterwards the best weights are in place."""
    epochs = sum(task.stop_after(i) for i in range(len(task.plan.phases))) - sum(state.epochs)
    title = f"Fine-tuning, fold {task.fold}" if task.fold else "Fine-tuning"
    with (
        repeatable(task.execution),
        task.progress.phase(title, epochs * len(task.data.train_rows)) as advance,
        quiet_lightning(),
        task.stopwatch.span(REST),
    ):
        while state.phase < len(task.plan.phases):
            go_through(PhaseModule(task, state, keep, advance))
            next_phase(state)
    if not len(task.data.inner_rows):
        keep_best(task, state)
    restore(task.changing(), state.best)
    state.finished = True
    state.optimizer = None
    with task.stopwatch.span(CHECKPOINT):
        keep(state, {})


def go_through(module: PhaseModule) -> None:
    """What is left of one phase; its freeze-point cache is there while it is needed, and no longer.

    Nobody waits for the collector: Lightning's trainer and the module hold each other.
    """
    unscored = not module.state.history and len(module.task.data.inner_rows) > 0
    if unscored or not module.is_over():
        module.fill()
    if unscored:
        score_start(module)
    if not module.is_over():
        run_phase(module)
    module.cache = None


def score_start(module: PhaseModule) -> None:
    """The inner figures before any step: what fine-tuning has to beat."""
    state = module.state
    begun = time.perf_counter(), time.process_time()
    record = EpochRecord(
        epoch=0,
        phase=START,
        train_loss=None,
        train_accuracy=None,
        inner=module.evaluate_inner(),
        seconds=time.perf_counter() - begun[0],
        cpu_seconds=time.process_time() - begun[1],
    )
    state.history.append(record)
    module.choose(record)


def next_phase(state: FitState) -> None:
    """Turn to the phase after this one."""
    state.phase += 1
    state.epochs.append(0)
    state.bad_epochs, state.phase_best = 0, None
    state.plateau, state.optimizer = Plateau(), None


def run_phase(module: PhaseModule) -> None:
    """Let Lightning run what is left of a phase.

    Raises:
        KeyboardInterrupt: where Lightning would have left the process.
    """
    settings, execution = module.task.settings, module.task.execution
    handler = signal.getsignal(signal.SIGINT)
    trainer = lightning.Trainer(
        max_epochs=module.task.stop_after(module.state.phase) - module.epoch,
        accelerator="gpu" if execution.device == "cuda" else execution.device,
        devices=1,
        precision="bf16-mixed" if execution.dtype == torch.bfloat16 else "32-true",
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip_norm or None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(module)
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
        for held in module.held:  # Lightning's end moves everything to the CPU
            held.to(execution.device)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's tips and warnings are about a loader and callbacks that are not used here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=r".*train_dataloader.*|.*LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
