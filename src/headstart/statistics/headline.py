"""An interval for every registered metric, of predictions by one model or out of fold.

Averages over classes are centred: their resamples are shifted by the value minus their mean
(the bootstrap's estimate of bias, Efron and Tibshirani 1993, ch. 10) and clipped to what the
metric can be.  Resamples miss small classes and change what is averaged, a bias that the value
itself does not have; 100 classes of two images would otherwise get intervals below their own
value.  Always and not on a test, so that the interval does not jump; with large classes the
shift vanishes.  Means over images have no such bias and are left alone.  Where a lump of equal
resamples still leaves the value outside, the nearer end moves to it: low <= value <= high.
A class without a single error adds no spread, here as in every bootstrap.

Where the resamples do not vary, they say nothing.  `Interval.method` names the replacement: for
an average over classes that is 0 or 1 Wilson on the images of the smallest class, or on the
groups that have it.  A loss, a correlation or another average over classes gets None.
"""

from __future__ import annotations

import numpy as np

from headstart.metrics.classification import METRICS, MetricSpec, check_scored, predict
from headstart.metrics.counts import ClassCounts
from headstart.records import Floats, Integers
from headstart.statistics.influence import (
    effective_units,
    fold_mean,
    influence_interval,
    smallest_what,
    units_by_class,
)
from headstart.statistics.intervals import LEVEL, Estimate, Interval, wilson_on
from headstart.statistics.means import share_estimate
from headstart.statistics.resampling import (
    RESAMPLES,
    Groups,
    bootstrap_counts,
    bootstrap_mean,
    group_codes,
    percentile_interval,
)


def headline_intervals(
    probabilities: Floats,
    labels: Integers,
    num_classes: int,
    *,
    groups: Groups | None = None,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> dict[str, Interval | None]:
    """An interval for every registered metric.

    Args:
        probabilities: (N, C).
        labels: (N,) int64.
        num_classes: C.
        groups: (N,) a group code or name an image, or None where images are independent.
        seed: of the resampling; every metric starts from it anew.
        level: coverage.
        resamples: how many.

    Returns:
        By metric name; None where the metric is None, or where nothing can be said.
    """
    check_scored(probabilities, labels, num_classes)
    sample = _Sample(probabilities, labels, group_codes(groups), seed, level, resamples)
    return {spec.name: sample.interval(spec) for spec in METRICS}


def out_of_fold_estimates(
    probabilities: Floats,
    labels: Integers,
    num_classes: int,
    folds: Integers,
    *,
    groups: Groups | None = None,
    seed: int,
    level: float = LEVEL,
) -> dict[str, Estimate]:
    """Value and interval of every registered metric, conditional on the folds' fitted models.

    Metrics of the order of scores (AUC, AP) are the mean of the folds' own values; all others are
    those of the pooled out-of-fold predictions.

    Args:
        probabilities: (N, C), each row from the model that did not learn from it.
        labels: (N,) int64.
        num_classes: C.
        folds: (N,) the fold in which an image was scored.
        groups: (N,) or None.
        seed: of the resampling.
        level: coverage.
    """
    intervals = headline_intervals(
        probabilities, labels, num_classes, groups=groups, seed=seed, level=level
    )
    made = {}
    for spec in METRICS:
        value, interval = spec.function(probabilities, labels), intervals[spec.name]
        if spec.influences is not None:
            found = fold_mean(
                spec.influences, probabilities, labels, folds, groups=groups, level=level
            )
            value, interval = found if found is not None else (None, None)
        made[spec.name] = Estimate(value=value, interval=interval)
    return made


class _Sample:
    """Predictions with what their metrics share: the resampled counts are drawn once."""

    def __init__(
        self,
        probabilities: Floats,
        labels: Integers,
        codes: Integers | None,
        seed: int,
        level: float,
        resamples: int,
    ) -> None:
        """Keep everything; nothing is drawn yet."""
        self.probabilities, self.labels, self.codes = probabilities, labels, codes
        self.seed, self.level, self.resamples = seed, level, resamples
        self.counts: ClassCounts | None = None

    def interval(self, spec: MetricSpec) -> Interval | None:
        """Interval of one metric, in the way that it names."""
        if spec.influences is not None:
            found = spec.influences(self.probabilities, self.labels)
            return influence_interval(found, self.labels, self.codes, self.level)
        value = spec.function(self.probabilities, self.labels)
        if value is None:
            return None
        if spec.interval == "wilson":
            assert spec.per_image is not None
            right = spec.per_image(self.probabilities, self.labels) > 0
            return share_estimate(right, groups=self.codes, level=self.level).interval
        return self._percentiles(spec, value) or self._without_spread(spec, value)

    def _draws(self, spec: MetricSpec) -> Floats:
        """(resamples,) values of a metric of counts or of a mean."""
        generator = np.random.default_rng(self.seed)
        if spec.from_counts is None:
            assert spec.per_image is not None
            values = spec.per_image(self.probabilities, self.labels)
            return bootstrap_mean(
                values, groups=self.codes, generator=generator, resamples=self.resamples
            )
        if self.counts is None:
            self.counts = bootstrap_counts(
                self.labels,
                predict(self.probabilities),
                self.probabilities.shape[1],
                groups=self.codes,
                generator=generator,
                resamples=self.resamples,
            )
        return spec.from_counts(self.counts)

    def _percentiles(self, spec: MetricSpec, value: float) -> Interval | None:
        """Percentile interval, centred for averages over classes; None where its ends are equal."""
        draws, method = self._draws(spec), "bootstrap"
        if spec.averages_classes:
            draws = np.clip(draws + (value - draws.mean()), spec.lowest, 1.0)
            method = "centred bootstrap"
        units = len(self.labels)
        if self.codes is not None:
            alone = int(self.codes.max()) + 1
            averages = spec.averages_classes
            units = min(alone, effective_units(self.labels, self.codes)) if averages else alone
        return percentile_interval(
            draws, value, self.level, units=units, method=method, grouped=self.codes is not None
        )

    def _without_spread(self, spec: MetricSpec, value: float) -> Interval | None:
        """Wilson where resamples are equal and all classes are at one end, else None."""
        shares = spec.averages_classes and spec.bigger_is_better and spec.lowest == 0
        if not shares or value not in (0.0, 1.0):
            return None
        smallest = int(units_by_class(self.labels, self.codes).min())
        what = smallest_what(smallest, self.codes is not None)
        return wilson_on(value, smallest, what, "all resamples equal", self.level)
