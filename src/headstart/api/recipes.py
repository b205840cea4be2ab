"""Named experiments: listed and run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from headstart.progress import Progress


def run_recipe(
    name: str,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Run a named experiment; a second call with the same folder goes on.

    Args:
        name: of the recipe.
        data: folder of its data.
        out: folder of the results.
        progress: silent where None.
        device: 'auto', 'cpu', 'cuda' or 'mps'.

    Raises:
        UsageError: an unknown name, data that are not its own, or a device that is not there.
    """
    from headstart.recipes import RECIPES

    return dict(RECIPES.get(name).run(Path(data), Path(out), progress or Progress(), device))


def list_recipes() -> list[dict[str, str]]:
    """Name, summary, data and expectation of every recipe."""
    from headstart.recipes import RECIPES

    fields = ("name", "summary", "data", "expected")
    return [{field: getattr(spec, field) for field in fields} for spec in RECIPES]
