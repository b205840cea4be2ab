"""Who is better, from out-of-fold answers alone: the table, the tests and the recommendation.

Candidates are paired image by image on the same folds.  A probe has several repetitions of the
cross-validation and fine-tuning one; what is compared are the repetitions that all have.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.comparison import (
    HEURISTIC,
    Candidate,
    corrected_resampled_t,
    holm,
    paired_bootstrap,
    pareto_front,
    recommend,
    sign_flip_test,
)
from headstart.errors import ResumeError
from headstart.records import Floats, Integers
from headstart.statistics import Interval, mean_estimate, share_estimate
from headstart.studies.answers import Answers
from headstart.studies.candidates import COSTS

Measured = dict[str, Any]


def judge(
    measured: Sequence[Measured], answers: Sequence[Answers], *, fast: str, seed: int
) -> dict[str, Any]:
    """Everything that `comparison.json` says before a test part is opened.

    Args:
        measured: what `candidate.json` says of each candidate.
        answers: of each, in the same order.
        fast: which time counts, a key of `COSTS`.
        seed: of resampling and signs.

    Raises:
        ResumeError: the candidates were not scored on the same images and folds.
    """
    check_paired(measured, answers)
    common = min(a.repeats for a in answers)
    groups = answers[0].groups
    seconds = [cost_s(m, fast) for m in measured]
    rights = [a.right[:common].mean(axis=0) for a in answers]
    rows = [
        table_row(m, a, right, seed=seed)
        for m, a, right in zip(measured, answers, rights, strict=True)
    ]
    for key in COSTS:
        front = pareto_front([cost_s(m, key) for m in measured], [float(r.mean()) for r in rights])
        for index, row in enumerate(rows):
            row[f"front_{key}"] = index in front
    advice = recommend(
        [
            Candidate(name=m["name"], right=right, seconds=s)
            for m, right, s in zip(measured, rights, seconds, strict=True)
        ],
        groups=groups,
        seed=seed,
    )
    for index, row in enumerate(rows):
        found = advice.differences[index]
        row["behind_best"] = ends(found.value, found.interval)
        row["p_to_best_holm"] = advice.p_values[index]
        row["within_noise"] = index in advice.within_noise
    names = [m["name"] for m in measured]
    return {
        "repeats_compared": common,
        "num_images": len(answers[0].labels),
        "num_groups": None if groups is None else len(np.unique(groups)),
        "table": sorted(rows, key=lambda row: -row["accuracy"]["value"]),
        "pairs": pair_tests(names, answers, groups, seed=seed),
        "recommendation": {
            "chosen": names[advice.chosen],
            "best": names[advice.best],
            "within_noise": [names[i] for i in advice.within_noise],
            "reason": advice.reason.replace("times faster.", f"times faster {COSTS[fast]}."),
            "fast": fast,
            "from": "out-of-fold answers on the training part; nothing was predicted on the test "
            "part",
        },
    }


def check_pictures(measured: Sequence[Measured]) -> None:
    """Refuse candidates that have seen other pictures under the same names.

    Raises:
        ResumeError: the last one has.
    """
    known = [one for one in measured if "data" in one]  # those of an earlier version have none
    if not known:
        return
    first, last = known[0], known[-1]
    if first["data"] != last["data"]:
        raise ResumeError(
            f"The pictures changed between the candidates '{first['name']}' and '{last['name']}', "
            "so they cannot be compared. Put them back and remove the folder of the second, or "
            "begin anew with another --out."
        )


def check_paired(measured: Sequence[Measured], answers: Sequence[Answers]) -> None:
    """Refuse to compare what was not scored on the same images and folds.

    Raises:
        ResumeError: one such.
    """
    first, whose = answers[0], measured[0]["name"]
    for m, other in zip(measured[1:], answers[1:], strict=True):
        common = min(first.repeats, other.repeats)
        same = (
            other.paths == first.paths
            and np.array_equal(other.labels, first.labels)
            and np.array_equal(other.folds[:common], first.folds[:common])
        )
        if not same or m["split"] != measured[0]["split"]:
            raise ResumeError(
                f"The candidates '{whose}' and '{m['name']}' were not scored on the same images "
                "and folds, so they cannot be compared. Remove their folders and go on with "
                "--resume."
            )


def cost_s(measured: Measured, fast: str) -> float:
    """Seconds in the sense in which a candidate is to be fast."""
    if fast == "prediction":
        return float(measured["prediction_ms"]) / 1000
    return float(measured["pass_s"]) + float(measured["training_s"])


def table_row(measured: Measured, answers: Answers, right: Floats, *, seed: int) -> dict[str, Any]:
    """One line: figures over the compared repetitions, the spread over all, and costs."""
    by_repeat = answers.right.mean(axis=1)
    kept = ("name", "model", "strategy", "image_size", "weights", "pass_s", "pass_is",
            "training_s", "prediction_ms", "parameters", "peak_memory_mib", "memory_of",
            "interrupted")  # fmt: skip
    return {
        **{name: measured[name] for name in kept},
        "accuracy": accuracy(right, answers.groups, seed=seed),
        "macro_f1": {k: measured["macro_f1"][k] for k in ("value", "low", "high")},
        "repeats": answers.repeats,
        "repeats_mean": float(answers.right.mean()),  # of whole numbers, so rounded once
        "repeats_std": float(by_repeat.std(ddof=1)) if answers.repeats > 1 else None,
    }


def accuracy(right: Floats, groups: Integers | None, *, seed: int) -> dict[str, Any]:
    """Share of right answers with its interval, conditional on the fitted models."""
    if ((right == 0) | (right == 1)).all():
        found = share_estimate(right.astype(bool), groups=groups)
    else:
        found = mean_estimate(right, groups=groups, seed=seed)
    return ends(found.value, found.interval)


def ends(value: float | None, interval: Interval | None) -> dict[str, Any]:
    """A value and its interval as records keep them."""
    if interval is None:
        return {"value": value, "low": None, "high": None, "method": ""}
    return {"value": value, "low": interval.low, "high": interval.high, "method": interval.method}


def pair_tests(
    names: Sequence[str], answers: Sequence[Answers], groups: Integers | None, *, seed: int
) -> list[dict[str, Any]]:
    """Every pair: difference with its interval, sign-flip p and the heuristic t, both by Holm.

    Args:
        names: of the candidates.
        answers: of each.
        groups: (M,) or None; drawn and flipped whole.
        seed: of resampling and signs.
    """
    found: list[dict[str, Any]] = []
    for i, j in itertools.combinations(range(len(names)), 2):
        common = min(answers[i].repeats, answers[j].repeats)
        first, second = (answers[k].right[:common].mean(axis=0) for k in (i, j))
        difference = paired_bootstrap(first, second, groups=groups, seed=seed)
        folds = int(answers[i].folds[0].max()) + 1
        resampled = corrected_resampled_t(
            answers[i].fold_accuracies(common) - answers[j].fold_accuracies(common),
            test_fraction=1 / folds,
        )
        found.append(
            {
                "first": names[i],
                "second": names[j],
                "repeats": common,
                "difference": ends(difference.value, difference.interval),
                "sign_flip_p": sign_flip_test(first, second, groups=groups, seed=seed),
                "t_difference": ends(resampled.difference, resampled.interval),
                "t_p": resampled.p_value,
                "t_method": HEURISTIC,
            }
        )
    adjusted = holm([pair["sign_flip_p"] for pair in found])
    for pair, value in zip(found, adjusted, strict=True):
        pair["sign_flip_p_holm"] = value
    known = [pair for pair in found if not np.isnan(pair["t_p"])]
    for pair, value in zip(known, holm([p["t_p"] for p in known]), strict=True):
        pair["t_p_holm"] = value
    return found
