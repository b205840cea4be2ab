"""What a user decides about a run; validated when made."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.backbones import WEIGHT_CHOICES
from headstart.data import DATASETS
from headstart.errors import UsageError
from headstart.heads import HEADS

# Settings that name places or ways of working; a run may be resumed with others.
NOT_COMPARED = ("out", "strict")
# Settings that may be paths, and the names that win over a path of the same spelling.
NAMES = {"data": DATASETS.names(), "test_data": [], "weights": list(WEIGHT_CHOICES)}
WORDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of the main job.

    Attributes:
        data: a folder of class folders, or the name of a built-in data set.
        test_data: a folder of test images, None to take `data`'s own or hold some out.
        model: name of the backbone.
        head: name of the head on its features.
        folds: number of cross-validation folds.
        test_fraction: share held out as test part where the data bring none.
        weights: 'auto', 'bundled', 'hub', 'none' or a file.
        image_size: input size in px, None for the network's own.
        seed: every random choice hangs on it.
        out: folder of the run.
        strict: stop at the first list of unreadable files instead of leaving them out.
        device: 'auto', 'cpu', 'cuda' or 'mps'.
        precision: 'auto', 'bfloat16' or 'float32'.
    """

    data: str
    out: str
    test_data: str | None = None
    model: str = "mini"
    head: str = "logistic"
    folds: int = 5
    test_fraction: float = 0.2
    weights: str = "auto"
    image_size: int | None = None
    seed: int = 0
    strict: bool = False
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Bring every value to its type, and check what needs no image."""
        for field in dataclasses.fields(self):
            kind = str(field.type)
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, of_type(field.name, kind, value))
        if self.folds < 2:
            raise UsageError(f"`folds` must be at least 2, got {self.folds}. Raise --folds.")
        if not 0 < self.test_fraction < 1:
            raise UsageError(
                "`test_fraction` must be a number between 0 and 1, got "
                f"{self.test_fraction}. The usual value is 0.2."
            )
        if not 0 <= self.seed < 2**32:
            raise UsageError(
                f"`seed` must be between 0 and {2**32 - 1}, got {self.seed}. Correct --seed."
            )
        HEADS.get(self.head)

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, for `run.json`."""
        return dataclasses.asdict(self)

    def compared(self) -> dict[str, Any]:
        """The settings that must be the same when a run is resumed, paths made absolute."""
        return {k: v for k, v in self.stored().items() if k not in NOT_COMPARED}

    def stored(self) -> dict[str, Any]:
        """The settings as records keep them, paths made absolute so that a run can be repeated."""
        kept = self.as_dict()
        for name, names in NAMES.items():
            kept[name] = absolute_if_path(kept[name], names)
        return kept


def absolute_if_path(value: str | None, names: Sequence[str]) -> str | None:
    """The absolute form of an existing path; one of `names`, or anything else, as it is."""
    if value is None or value in names or not Path(value).exists():
        return value
    return os.path.abspath(value)


def of_type(name: str, kind: str, value: object) -> object:
    """A setting as its annotation wants it: paths as text, NumPy's numbers as Python's.

    Args:
        name: the setting, for the message.
        kind: 'str', 'int', 'float' or 'bool', and '| None' where it may be left open.
        value: what the caller gave.

    Raises:
        UsageError: it is of another type.
    """
    if value is None and kind.endswith("| None"):
        return None
    wanted = kind.removesuffix(" | None")
    try:
        if wanted == "str" and isinstance(value, str | os.PathLike):
            return os.fspath(value)
        if wanted == "int" and not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type]
        if wanted == "float" and not isinstance(value, str | bool):
            return float(value)  # type: ignore[arg-type]
        if wanted == "bool" and isinstance(value, bool):
            return value
    except TypeError as error:
        reason: TypeError | None = error
    else:
        reason = None
    raise UsageError(
        f"`{name}` must be {WORDS[wanted]}, got {value!r} ({type(value).__name__}). Correct it."
    ) from reason


def settings_from(stored: dict[str, Any], **changes: Any) -> RunSettings:
    """Settings as a `run.json` keeps them, some of them changed.

    Raises:
        UsageError: the file names a setting that this version does not know.
    """
    known = {field.name for field in dataclasses.fields(RunSettings)}
    unknown = sorted(set(stored) - known)
    if unknown:
        raise UsageError(
            f"The run was written with settings unknown to this version: {', '.join(unknown)}. "
            "Update Headstart."
        )
    return RunSettings(**{**stored, **changes})
