"""Studies of many runs: candidates compared on the same images, folds and seeds."""

from headstart.studies.candidates import ComparisonSettings
from headstart.studies.comparing import ComparisonResult, asked_before, compare_jobs

__all__ = ["ComparisonResult", "ComparisonSettings", "asked_before", "compare_jobs"]
