"""The settings of a run that concern training by steps, as `TrainSettings`.

The common ones are options of their own; every other one goes by `--train`, a list such as
'momentum=0.8,clip_norm=1'. What is not given takes the default of `TrainSettings`.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from headstart.errors import UsageError

if TYPE_CHECKING:
    from headstart.finetune import TrainSettings
    from headstart.runs.settings.run import RunSettings

# Settings of the run that have the same name in `TrainSettings`.
SHARED = ("strategy", "lr", "batch_size", "class_weights", "seed")
# Those that are options of fine-tuning alone.
ONLY_TRAINING = ("trainable", "augment", "optimizer", "schedule", "patience", "monitor", "train",
                 "head_blocks", "pool", "compile")  # fmt: skip
# Decided elsewhere: by the run, or by its other options.
NOT_BY_TRAIN = (*SHARED, *ONLY_TRAINING, "epochs", "hidden", "dropout", "augmentation", "profile",
                "stop_after", "drop_after")  # fmt: skip


def train_settings(settings: RunSettings) -> TrainSettings:
    """Everything fine-tuning needs to know.

    Raises:
        UsageError: a setting that cannot be.
    """
    from headstart.backbones import HeadBlocks
    from headstart.finetune import TrainSettings

    HeadBlocks.parse(settings.head_blocks, settings.pool)  # refuses unknown words
    chosen: dict[str, Any] = {
        name: getattr(settings, name)
        for name in (
            *SHARED,
            "trainable",
            "optimizer",
            "schedule",
            "patience",
            "monitor",
            "compile",
        )
    }
    chosen["augmentation"] = settings.augment
    chosen["profile"] = settings.profile
    chosen["epochs"] = numbers(settings.epochs, int, "epochs")
    chosen["hidden"] = numbers(settings.hidden, int, "hidden")
    chosen["dropout"] = numbers(settings.dropout, float, "dropout")
    chosen.update(further(settings.train))
    return TrainSettings(**{name: value for name, value in chosen.items() if value is not None})


def numbers(text: str | None, kind: type, name: str) -> tuple[Any, ...] | None:
    """'512,64' -> (512, 64); None where nothing was given.

    Raises:
        UsageError: something else than numbers and commas.
    """
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        word = "whole numbers" if kind is int else "numbers"
        raise UsageError(
            f"`{name}` must be {word} with commas between, got '{text}'. Correct --{name}."
        ) from error


def further(text: str | None) -> dict[str, Any]:
    """'momentum=0.8,compile=true' -> the values in the types of `TrainSettings`.

    Raises:
        UsageError: no such setting, or a value of another type.
    """
    from headstart.finetune import TrainSettings

    defaults = {
        field.name: field.default
        for field in dataclasses.fields(TrainSettings)
        if field.name not in NOT_BY_TRAIN
    }
    found: dict[str, Any] = {}
    for part in filter(None, (text or "").split(",")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in defaults:
            raise UsageError(
                f"`train` must be a list such as momentum=0.8,clip_norm=1, got '{part}'. "
                f"Settings are {', '.join(sorted(defaults))}."
            )
        found[name] = of_default(name, value, defaults[name])
    return found


def of_default(name: str, value: str, default: Any) -> Any:
    """A value in the type of the default; None stands for a number."""
    if isinstance(default, bool):
        if value.casefold() in ("true", "false"):
            return value.casefold() == "true"
    elif isinstance(default, str):
        return value
    else:
        kind = int if isinstance(default, int) else float
        with suppress(ValueError):  # what is no number is refused below
            return kind(value)
    raise UsageError(f"`train` must give '{name}' a value like {default!r}, got '{value}'.")
