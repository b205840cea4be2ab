"""Which backbone is recommended, from out-of-fold answers of the probe and times of the pass.

The rule is that of the full comparison (`headstart.comparison.recommend`): the quickest that
cannot be told apart from the most accurate one.  Quick means the pass over all images, which is
nearly all of what a run with a frozen backbone takes.  Neighbours and LogME stand beside it and
decide nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headstart.comparison import Candidate, pareto_front, recommend
from headstart.records import Floats, Integers
from headstart.studies.judging import accuracy, ends
from headstart.studies.quick.sample import Sample
from headstart.studies.quick.scoring import Scores

CLEARLY = 0.03  # of accuracy: from here on 'not told apart' may hide a loss that matters
Row = dict[str, Any]


def judge_quickly(
    measured: Sequence[Row], scores: Sequence[Scores], sample: Sample, *, seed: int
) -> dict[str, Any]:
    """Table and recommendation as `quick.json` keeps them.

    Args:
        measured: name and costs of each backbone, `all_images_s` among them.
        scores: of each, in the same order.
        sample: the M images that they answered.
        seed: of resampling and signs.
    """
    labels, groups = sample.table.labels, sample.groups
    rights = [right(s.probe, labels) for s in scores]
    seconds = [float(m["all_images_s"]) for m in measured]
    advice = recommend(
        [
            Candidate(name=m["name"], right=r, seconds=s)
            for m, r, s in zip(measured, rights, seconds, strict=True)
        ],
        groups=groups,
        seed=seed,
    )
    front = pareto_front(seconds, [float(r.mean()) for r in rights])
    rows: list[Row] = []
    for index, (m, found) in enumerate(zip(measured, scores, strict=True)):
        behind = advice.differences[index]
        rows.append(
            {
                **m,
                "accuracy": accuracy(rights[index], groups, seed=seed),
                "neighbours": accuracy(right(found.neighbours, labels), groups, seed=seed),
                "logme": found.logme,
                "behind_best": ends(behind.value, behind.interval),
                "p_to_best_holm": advice.p_values[index],
                "within_noise": index in advice.within_noise,
                "front": index in front,
            }
        )
    names = [m["name"] for m in measured]
    return {
        "table": sorted(rows, key=lambda row: (-row["accuracy"]["value"], row["all_images_s"])),
        "recommendation": {
            "chosen": names[advice.chosen],
            "best": names[advice.best],
            "within_noise": [names[i] for i in advice.within_noise],
            "reason": advice.reason.replace("times faster.", "times faster in the feature pass."),
            "rule": "the quickest pass among those whose probe is within noise of the most "
            "accurate: the paired bootstrap interval includes no difference, or the sign-flip "
            "test has p > 0.05",
        },
        "warnings": [*random_weights(rows), *wide_noise(rows[advice.chosen], sample)],
    }


def right(answers: Integers, labels: Integers) -> Floats:
    """(M,) one where the answer is right, else zero."""
    found: Floats = (answers == labels).astype(float)
    return found


def wide_noise(chosen: Row, sample: Sample) -> list[str]:
    """A sentence where the recommended one may be clearly worse than the best, as few told."""
    low = chosen["behind_best"]["low"]
    if low is None or low > -CLEARLY or len(sample) >= sample.num_train:
        return []
    return [
        f"{chosen['name']} may be up to {-100 * low:.1f} points less accurate than the best: "
        f"{len(sample):,} images tell no more. Raise --max-images; there are "
        f"{sample.num_train:,} to learn from."
    ]


def random_weights(rows: Sequence[Row]) -> list[str]:
    """A sentence where random weights stand beside pretrained ones, or alone."""
    random = [row["name"] for row in rows if row["weights"] == "none"]
    if not random:
        return []
    verb = "has" if len(random) == 1 else "have"
    return [
        f"{', '.join(random)} {verb} random weights, as asked: that says nothing of what "
        "pretrained ones are worth."
    ]
