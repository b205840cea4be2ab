"""Simple rivals on the same features and folds: what the head must beat to be worth its name.

Nearest neighbours cost the square of the number of images, 131 of a run's 227 seconds on 100,000.
So no more than `MOST_QUERIES` images ask for their neighbours, among all images of the other folds:
the cost then grows with the images as the pass does, 13 million operations an image of 1,280
features where a network takes some hundred million. The images that ask are drawn by fold and
class with equal chances, so that their share of right answers estimates that of all; the interval
is that of the sample, for accuracies about 0.8 one point to either side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from headstart.heads import score_baselines
from headstart.records import Integers
from headstart.runs.fitting.task import Task
from headstart.runs.judging.evaluation import figure
from headstart.splitting import sample_evenly
from headstart.statistics import share_estimate

MOST_QUERIES = 5_000


def baseline_figures(task: Task) -> dict[str, dict[str, Any]]:
    """Out-of-fold accuracy of every baseline, and of always answering the commonest class.

    Returns:
        Name to `accuracy`, `low` and `high`, and `sample`, the number of images, where these are
        not all; nearest neighbours and class means need no training but would have to ship
        features of patients, so they are figures and no heads.
    """
    labels, fold = task.learnt_labels, task.split.fold
    strata = fold * task.num_classes + labels
    sample = sample_evenly(strata, MOST_QUERIES, seed=task.settings.seed)
    predicted = score_baselines(
        torch.from_numpy(task.learnt_features),
        torch.from_numpy(labels),
        torch.from_numpy(fold),
        task.num_classes,
        sample=torch.from_numpy(sample),
    )
    answers = {name: values.numpy() for name, values in predicted.items()}
    answers["commonest class"] = commonest(task)
    return {name: accuracy_of(task, values) for name, values in answers.items()}


def accuracy_of(task: Task, answers: Integers) -> dict[str, Any]:
    """Accuracy with interval of (M,) answers to the training images, below 0 where not asked."""
    asked = answers >= 0
    correct = answers[asked] == task.learnt_labels[asked]
    groups = task.drawn(task.split.train[asked])
    found = share_estimate(correct, groups=groups)
    made = figure(found.value, found.interval)
    about = {"accuracy": made["value"], "low": made["low"], "high": made["high"]}
    return about if asked.all() else about | {"sample": len(correct)}


def commonest(task: Task) -> Integers:
    """(M,) the commonest class of what each image's fold has learnt from."""
    answers = np.empty(len(task.learnt_labels), dtype=np.int64)
    for k in range(task.split.num_folds):
        counts = np.bincount(task.learnt_labels[task.split.fold != k])
        answers[task.split.fold == k] = counts.argmax()
    return answers
