"""What a caller names: data, and settings of a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from headstart.errors import UsageError
from headstart.runs import RunSettings


def folder_or_name(data: str | os.PathLike[str]) -> str:
    """Data as the command line would name them; a `Path` always means a folder."""
    return os.path.abspath(data) if isinstance(data, os.PathLike) else data


def check_names(settings: Mapping[str, Any]) -> None:
    """Refuse what is no setting of a run.

    Raises:
        UsageError: one such.
    """
    known = {field.name for field in dataclasses.fields(RunSettings)}
    for name in settings:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise UsageError(f"`{name}` is no setting of a run. Settings are {listed}.")
