"""Calibration: do probabilities mean what they say, and one temperature to mend it."""

from headstart.calibration.errors import (
    CalibrationFigures,
    ReliabilityBins,
    calibration_error,
    calibration_figures,
    calibration_interval,
    classwise_calibration_error,
    debiased_calibration_error,
    reliability_bins,
)
from headstart.calibration.temperature import (
    Temperature,
    apply_temperature,
    cross_fit_temperature,
    fit_temperature,
)

__all__ = [
    "CalibrationFigures",
    "ReliabilityBins",
    "Temperature",
    "apply_temperature",
    "calibration_error",
    "calibration_figures",
    "calibration_interval",
    "classwise_calibration_error",
    "cross_fit_temperature",
    "debiased_calibration_error",
    "fit_temperature",
    "reliability_bins",
]
