"""How sure a figure is: an interval for every metric.

Images are the sample, or groups of images (a patient, a video) where `groups` says so.  Shares
of independent images get Wilson's interval, shares over groups, F1 of a class and areas under
curves one from influences, everything else a bootstrap; each module says how and why.

Rejected: centring on the median (covers no better, and is no bias estimate); Hanley and
McNeil's AUC variance (assumes a distribution); BCa (1,000 more passes for the acceleration, and
no better at these sizes); pooling the folds' scores for one AUC (scores of differently trained
models are not on one scale).
"""

from headstart.metrics.ranking import auc_influences
from headstart.statistics.by_class import (
    class_estimates,
    count_estimates,
    decision_estimates,
    sensitivity_estimate,
)
from headstart.statistics.headline import headline_intervals, out_of_fold_estimates
from headstart.statistics.influence import (
    auc_interval,
    fold_mean,
    fold_mean_auc,
    influence_interval,
    ratio_estimate,
)
from headstart.statistics.intervals import LEVEL, Estimate, Interval, wilson, wilson_on
from headstart.statistics.means import mean_estimate, share_estimate
from headstart.statistics.resampling import (
    RESAMPLES,
    Groups,
    bootstrap_counts,
    bootstrap_mean,
    bootstrap_several,
    bootstrap_sums,
    draw_units,
    group_codes,
    percentile_interval,
)

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "Estimate",
    "Groups",
    "Interval",
    "auc_influences",
    "auc_interval",
    "bootstrap_counts",
    "bootstrap_mean",
    "bootstrap_several",
    "bootstrap_sums",
    "class_estimates",
    "count_estimates",
    "decision_estimates",
    "draw_units",
    "fold_mean",
    "fold_mean_auc",
    "group_codes",
    "headline_intervals",
    "influence_interval",
    "mean_estimate",
    "out_of_fold_estimates",
    "percentile_interval",
    "ratio_estimate",
    "sensitivity_estimate",
    "share_estimate",
    "wilson",
    "wilson_on",
]
