"""What learns in a phase, and what stays as it is to the bit."""

from __future__ import annotations

from torch import nn

from headstart.finetune.settings import TrainSettings
from headstart.finetune.steps.state import Task
from headstart.finetune.strategies import Phase, is_norm


def sees_same_pictures(task: Task) -> bool:
    """Whether epochs repeat their pictures, so that what frozen stages give can be kept."""
    repeats = not task.frames.augmenter or task.settings.views > 0
    return repeats and not task.settings.mixes_images


def set_learning(task: Task, phase: Phase) -> None:
    """Gradients for what the phase names and for the head, for nothing else."""
    for stage, module in task.stages.items():
        for name, parameter in module.named_parameters(prefix=stage):
            parameter.requires_grad_(name in phase.rates)
    task.head.requires_grad_(True)
    task.auxiliary.requires_grad_(True)


def set_modes(task: Task, phase: Phase) -> None:
    """Training mode for the stages after the freeze point, eval for frozen normalisation.

    A normalisation layer whose scale and shift do not learn keeps its statistics to the bit.
    """
    task.head.train()
    task.auxiliary.train()
    for stage, module in task.stages.items():
        module.train(stage not in phase.frozen_stages)
        for part in module.modules():
            if is_norm(part) and is_still(part, task.settings):
                part.eval()


def is_still(norm: nn.Module, settings: TrainSettings) -> bool:
    """Whether a normalisation layer does not learn."""
    own = list(norm.parameters())
    return not any(p.requires_grad for p in own) if own else settings.freeze_norms
