"""What a user says of decisions and sets: `--positive`, `--threshold`, `--sets` and their kin."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from headstart.conformal import images_needed
from headstart.data.folders import close_names
from headstart.errors import DataError, UsageError
from headstart.metrics import ThresholdRule
from headstart.metrics.operating import check_prevalence
from headstart.records import ImageTable, Split
from headstart.runs.parts.units import Units

SETS = ("marginal", "by-class")
DEFAULT_THRESHOLD = "0.5"
LARGEST_CALIBRATION = 0.5  # more would leave less to learn from than to set thresholds on


class DecisionSettings(Protocol):
    """The settings that this module reads; `RunSettings` has them."""

    @property
    def positive(self) -> str | None:
        """The class that a decision is about."""

    @property
    def threshold(self) -> str | None:
        """How its threshold is chosen."""

    @property
    def prevalence(self) -> str | None:
        """Of the positive class where the model is to be used."""

    @property
    def calibration_split(self) -> float | None:
        """Share of the training part that thresholds of sets are set on."""

    @property
    def sets(self) -> str:
        """Of what prediction sets promise to hold."""

    @property
    def alpha(self) -> float:
        """Share of sets that may miss."""


def check_decision_settings(settings: DecisionSettings) -> None:
    """Refuse what needs no image to be refused.

    Raises:
        UsageError: one such.
    """
    if settings.positive is None:
        for name in ("threshold", "prevalence"):
            if getattr(settings, name) is not None:
                raise UsageError(
                    f"`{name}` is about one class: name it by --positive CLASS, or leave "
                    f"--{name} out."
                )
    rule_of(settings)
    parse_prevalences(settings.prevalence)
    if settings.sets not in SETS:
        raise UsageError(
            f"`sets` must be {' or '.join(SETS)}, got '{settings.sets}'. Correct --sets."
        )
    images_needed(settings.alpha)
    share = settings.calibration_split
    if share is not None and not 0 < share <= LARGEST_CALIBRATION:
        raise UsageError(
            f"`calibration_split` must be above 0 and at most {LARGEST_CALIBRATION:g}, got "
            f"{share}: it is a share of the training part. Correct --calibration-split."
        )


def rule_of(settings: DecisionSettings) -> ThresholdRule:
    """How the threshold is chosen; 0.5 where nothing is said.

    Raises:
        UsageError: no such rule.
    """
    return ThresholdRule.parse(settings.threshold or DEFAULT_THRESHOLD)


def parse_prevalences(text: str | None) -> tuple[float, ...]:
    """'0.05' or '0.01,0.05' as shares, none where nothing is said.

    Raises:
        UsageError: something else, or a share that cannot be one.
    """
    if text is None:
        return ()
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"`prevalence` must be a share or several with commas between, as in 0.05 or "
            f"0.01,0.05, got '{text}'. Correct --prevalence."
        ) from None
    for value in found:
        check_prevalence(value)
    return found


def check_positive(settings: DecisionSettings, table: ImageTable) -> None:
    """Refuse a positive class that the data do not have.

    Raises:
        UsageError: there is none of that name; close ones are listed.
    """
    name = settings.positive
    if name is not None and name not in table.class_names:
        raise UsageError(
            f"`positive` must be a class of '{table.name}', got '{name}'. "
            f"{close_names(name, table.class_names)}Classes are "
            f"{', '.join(table.class_names[:8])}{', ...' if len(table.class_names) > 8 else ''}."
        )


def check_sets(
    settings: DecisionSettings, table: ImageTable, split: Split, units: Units | None
) -> None:
    """Refuse sets that were asked for and cannot be made, before any work.

    With a calibration part independent images or groups count, without one images.

    Raises:
        DataError: too few, of a class or in all; the message has the number needed.
    """
    needed, aside = images_needed(settings.alpha), len(split.calibration) > 0
    rows = split.calibration if aside else split.train
    codes = rows if units is None or not aside else units.codes[rows]
    word = "images" if units is None or not aside else f"{units.word}s"
    labels = table.labels[rows]
    if settings.sets == "by-class":
        counts = [len(np.unique(codes[labels == c])) for c in range(len(table.class_names))]
        smallest = int(np.argmin(counts))
        if counts[smallest] < needed:
            raise DataError(
                f"`sets` by class with alpha {settings.alpha:g} need at least {needed} {word} of "
                f"every class in the {'calibration' if aside else 'training'} part, got "
                f"{counts[smallest]} of '{table.class_names[smallest]}'. Add images, raise --alpha"
                + (" or --calibration-split" if aside else "")
                + ", or take --sets marginal."
            )
    count = len(np.unique(codes))
    if aside and count < needed:
        raise DataError(
            f"`calibration_split` keeps {count} {word} aside, and sets with alpha "
            f"{settings.alpha:g} need at least {needed}. Raise --calibration-split or --alpha."
        )
