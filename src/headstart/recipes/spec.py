"""What a recipe is: a named experiment with its data, its steps and what to expect of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.progress import Progress
from headstart.registry import Registry


@dataclass(frozen=True, kw_only=True)
class RecipeSpec:
    """One named experiment.

    Attributes:
        name: what users type.
        summary: one line.
        data: which data it takes, in words.
        expected: what comes out, and how long it takes, in words.
        run: takes the data folder, the output folder, a progress and a device ('auto' or its name);
            gives facts to print.
    """

    name: str
    summary: str
    data: str
    expected: str
    run: Callable[[Path, Path, Progress, str], Mapping[str, Any]]


RECIPES: Registry[RecipeSpec] = Registry("recipe")
