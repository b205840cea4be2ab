"""Simple rivals on the same features and folds: what the head must beat to be worth its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from headstart.heads import score_baselines
from headstart.records import Integers
from headstart.runs.evaluation import figure
from headstart.runs.parts import group_codes
from headstart.runs.task import Task
from headstart.statistics import share_estimate


def baseline_figures(task: Task) -> dict[str, dict[str, Any]]:
    """Out-of-fold accuracy of every baseline, and of always answering the commonest class.

    Returns:
        Name to `accuracy`, `low` and `high`; nearest neighbours and class means need no training
        but would have to ship features of patients, so they are figures and no heads.
    """
    predicted = score_baselines(
        torch.from_numpy(task.learnt_features),
        torch.from_numpy(task.learnt_labels),
        torch.from_numpy(task.split.fold),
        task.num_classes,
    )
    answers = {name: values.numpy() for name, values in predicted.items()}
    answers["commonest class"] = commonest(task)
    return {name: accuracy_of(task, values) for name, values in answers.items()}


def accuracy_of(task: Task, answers: Integers) -> dict[str, Any]:
    """Accuracy with interval of (M,) answers to the training images."""
    correct = answers == task.learnt_labels
    groups = group_codes(task.table.take(task.split.train))
    found = share_estimate(correct, groups=groups, seed=task.settings.seed)
    made = figure(found.value, found.interval)
    return {"accuracy": made["value"], "low": made["low"], "high": made["high"]}


def commonest(task: Task) -> Integers:
    """(M,) the commonest class of what each image's fold has learnt from."""
    answers = np.empty(len(task.learnt_labels), dtype=np.int64)
    for k in range(task.split.num_folds):
        counts = np.bincount(task.learnt_labels[task.split.fold != k])
        answers[task.split.fold == k] = counts.argmax()
    return answers
