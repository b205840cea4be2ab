"""Do 95 % intervals hold the truth 95 times in 100, with few groups and in bursts of copies?

    python benchmarks/interval_coverage.py [--draws 500] [--figures accuracy,recall]

Made-up data whose truth is known. Groups of 1 + Poisson(m) images; a group's difficulty is normal
(standard deviation 1 on the logit scale) and shared by its images, which are right with that
chance. Two classes; a group is of one class, the second is the positive one. Scores are normal,
shifted by the class (1.5) and by the group (standard deviation 1). Each draw is a whole test part
with so many groups of either class; the truth is the figure of 200,000 groups in these shares.
Printed: how often the interval held it, how many had none, and its median width.

No clock is read: the figures do not depend on the machine. Those of the last run are in
docs/experiments.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from headstart.comparison import paired_bootstrap
from headstart.metrics.operating import Bools
from headstart.metrics.ranking import auc_influences
from headstart.records import Floats, Integers
from headstart.statistics import (
    Interval,
    auc_interval,
    decision_estimates,
    headline_intervals,
    sensitivity_estimate,
    share_estimate,
)

GROUPS = ((2, 2), (3, 3), (5, 5), (10, 10), (20, 20), (50, 50), (20, 3), (3, 20), (36, 4))
MEAN_MORE = (1, 19)  # Poisson's mean of the images of a group beyond the first
TRUTH_GROUPS = 200_000
SPECIFICITY = 0.9


class Sample:
    """A test part: labels, scores of two models, groups."""

    def __init__(
        self, of_class: tuple[int, int], more: float, generator: np.random.Generator
    ) -> None:
        """Draw so many groups of each class."""
        num_groups = sum(of_class)
        sizes = 1 + generator.poisson(more, num_groups)
        of_group = np.repeat([0, 1], of_class)
        self.groups: Integers = np.repeat(np.arange(num_groups), sizes)
        self.labels: Integers = of_group[self.groups].astype(np.int64)
        self.scores = [self._scores(num_groups, generator) for _ in range(2)]

    def _scores(self, num_groups: int, generator: np.random.Generator) -> Floats:
        """(N,) of one model; above 0 it says 1."""
        shift = generator.normal(size=num_groups)[self.groups]
        return 1.5 * (2 * self.labels - 1) + shift + generator.normal(size=len(self.labels))

    def right(self, model: int = 0) -> Bools:
        """(N,) whether a model is."""
        found: Bools = (self.scores[model] > 0) == (self.labels == 1)
        return found

    @property
    def probabilities(self) -> Floats:
        """(N, 2) of the first model."""
        yes = 1 / (1 + np.exp(-self.scores[0]))
        return np.stack([1 - yes, yes], axis=1)


def accuracy(sample: Sample) -> Interval | None:
    """Share of right answers."""
    return share_estimate(sample.right(), groups=sample.groups).interval


def recall(sample: Sample) -> Interval | None:
    """Sensitivity of a decision."""
    made = decision_estimates(sample.scores[0] > 0, sample.labels == 1, groups=sample.groups)
    return made["sensitivity"].interval


def ppv(sample: Sample) -> Interval | None:
    """Positive predictive value at a prevalence of a tenth."""
    made = decision_estimates(
        sample.scores[0] > 0, sample.labels == 1, groups=sample.groups, prevalence=0.1
    )
    return made["ppv"].interval


def macro_f1(sample: Sample) -> Interval | None:
    """Mean F1 of the classes."""
    made = headline_intervals(sample.probabilities, sample.labels, 2, groups=sample.groups, seed=0)
    return made["macro_f1"]


def balanced_accuracy(sample: Sample) -> Interval | None:
    """Mean recall of the classes."""
    made = headline_intervals(sample.probabilities, sample.labels, 2, groups=sample.groups, seed=0)
    return made["balanced_accuracy"]


def sensitivity_at(scores: Floats, yes: Bools) -> float:
    """Sensitivity where a tenth of the negatives is called positive."""
    return float((scores[yes] > np.quantile(scores[~yes], SPECIFICITY)).mean())


def fixed_specificity(sample: Sample) -> Interval | None:
    """Sensitivity at that specificity."""
    return sensitivity_estimate(
        sample.scores[0], sample.labels == 1, SPECIFICITY, groups=sample.groups, seed=0
    ).interval


def auc(sample: Sample) -> Interval | None:
    """Area under the ROC curve."""
    return auc_interval(sample.probabilities, sample.labels, groups=sample.groups)


def difference(sample: Sample) -> Interval | None:
    """Accuracy of two equally good models, one minus the other."""
    first, second = (sample.right(m).astype(float) for m in (0, 1))
    return paired_bootstrap(first, second, groups=sample.groups, seed=0).interval


def truths(of_class: tuple[int, int], more: float) -> dict[str, float]:
    """Every figure of very many groups."""
    times = TRUTH_GROUPS // sum(of_class)
    many = of_class[0] * times, of_class[1] * times
    sample = Sample(many, more, np.random.default_rng(1))
    right, yes = sample.right(), sample.labels == 1
    se, sp = float(right[yes].mean()), float(right[~yes].mean())
    share = float(yes.mean())
    precision = [sp * (1 - share) / (sp * (1 - share) + (1 - se) * share)]
    precision.append(se * share / (se * share + (1 - sp) * (1 - share)))
    f1 = [2 * p * r / (p + r) for p, r in zip(precision, (sp, se), strict=True)]
    found = auc_influences(sample.probabilities, sample.labels)
    assert found is not None
    return {
        "accuracy": float(right.mean()),
        "recall": se,
        "ppv": 0.1 * se / (0.1 * se + 0.9 * (1 - sp)),
        "balanced accuracy": (se + sp) / 2,
        "macro F1": float(np.mean(f1)),
        "sensitivity at": sensitivity_at(sample.scores[0], yes),
        "AUC": found[0],
        "difference": 0.0,
    }


FIGURES: dict[str, Callable[[Sample], Interval | None]] = {
    "accuracy": accuracy,
    "recall": recall,
    "ppv": ppv,
    "balanced accuracy": balanced_accuracy,
    "macro F1": macro_f1,
    "sensitivity at": fixed_specificity,
    "AUC": auc,
    "difference": difference,
}


def main() -> None:
    """Print the table."""
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=about, epilog=rest)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--figures", default=",".join(FIGURES))
    asked = parser.parse_args()
    names = asked.figures.split(",")
    print("images a group | groups | " + " | ".join(f"{n} held, none, width" for n in names))
    for more in MEAN_MORE:
        for of_class in GROUPS:
            truth, cells = truths(of_class, more), []
            for name in names:
                generator = np.random.default_rng(sum(of_class))
                made = [
                    FIGURES[name](Sample(of_class, more, generator)) for _ in range(asked.draws)
                ]
                given = [one for one in made if one is not None]
                held = sum(one.low <= truth[name] <= one.high for one in given)
                width = np.median([one.high - one.low for one in given])
                cells.append(
                    f"{100 * held / len(given):.1f} %, {len(made) - len(given)}, {width:.3f}"
                )
            print(f"{1 + more} | {of_class[0]} + {of_class[1]} | " + " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
