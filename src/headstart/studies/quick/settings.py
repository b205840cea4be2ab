"""What a user decides about a quick choice: data, backbones, how many images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart.backbones.networks import check_image_size
from headstart.errors import UsageError
from headstart.runs import RunSettings
from headstart.runs.settings.run import stored_settings
from headstart.runs.settings.splits import parse_folds
from headstart.studies.candidates import (
    CandidateRun,
    full_name,
    refuse_text,
    refuse_twice,
    split_name,
)

# Settings of the data, the split and the pass; all others are of what is fitted later.
TAKEN = (
    *("data", "test_data", "columns", "group_by", "crop_margin", "test_fraction", "ratio"),
    *("splits", "folds", "calibration_split", "weights", "image_size", "seed", "device"),
    *("precision", "audit", "allow_leaks", "strict"),
)
# Where two networks answer a tenth of the images differently, the standard error of their
# difference is a point at 1,000 images.
DEFAULT_IMAGES = 1000
IMAGES_A_CLASS = 10


@dataclass(frozen=True, kw_only=True)
class QuickSettings:
    """What is tried, and on what.

    Attributes:
        out: folder of the result.
        settings: of a run, by name, the same for all backbones; those in `TAKEN`.
        models: names of backbones; 'ResNet50@none' gives one other weights than the rest.
        max_images: about how many training images to try them on; None takes 1,000, or 10 a
            class where that is more.
        candidates: made from these.
    """

    out: str
    settings: Mapping[str, Any]
    models: Sequence[str] = ("mini",)
    max_images: int | None = None
    candidates: tuple[CandidateRun, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Check what needs no image, and make the candidates."""
        refuse_text("models", self.models)
        if not self.settings.get("data"):
            raise UsageError("`--data` is missing: name a folder of class folders, or 'digits'.")
        object.__setattr__(self, "settings", stored_settings(self.settings))
        for name in self.settings:
            refuse_foreign(name)
        names = [full_name(name) for name in self.models]
        refuse_twice("model", names)
        object.__setattr__(self, "candidates", tuple(self._candidate(name) for name in names))
        if isinstance(parse_folds(self.reading.folds), str):
            raise UsageError(
                f"`folds` must be a number with --quick, got '{self.reading.folds}': a sample "
                "holds some groups or sources only. Leave --folds or --quick out."
            )
        check_image_size(self.reading.image_size)

    def _candidate(self, name: str) -> CandidateRun:
        model, weights = split_name(name)
        chosen = {**self.settings, **({"weights": weights} if weights else {})}
        settings = RunSettings(**chosen, model=model, out=self.out, max_images=self.max_images)
        return CandidateRun(name=name, settings=settings)

    @property
    def reading(self) -> RunSettings:
        """The settings under which the images are read and split: those of a run on all."""
        return dataclasses.replace(self.candidates[0].settings, max_images=None)

    def count(self, num_classes: int) -> int:
        """About how many images to take."""
        if self.max_images is not None:
            return self.candidates[0].settings.max_images or 0
        return max(DEFAULT_IMAGES, IMAGES_A_CLASS * num_classes)

    def asked(self) -> dict[str, Any]:
        """What was asked, as the record keeps it."""
        return {
            "settings": dict(self.settings),
            "models": list(self.models),
            "max_images": self.max_images,
        }


def refuse_foreign(name: str) -> None:
    """Refuse a setting that a quick choice would pass over in silence.

    Raises:
        UsageError: one such.
    """
    if name not in TAKEN:
        raise UsageError(
            f"`{name}` means nothing with --quick, which tries backbones by their frozen features "
            f"alone. Leave --{name.replace('_', '-')} or --quick out."
        )
