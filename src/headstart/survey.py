"""What `headstart doctor` finds: the installation as it is, and how to get what is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from headstart.backbones.survey import survey_backbones
from headstart.backbones.weights import WEIGHTS_VARIABLE
from headstart.data import DATASETS
from headstart.data.packed.downloads import find_file
from headstart.errors import GpuError
from headstart.features import cache_folder, describe_bytes, limit_bytes, list_cache
from headstart.features.scratch import MEMORY_VARIABLE, memory_bytes
from headstart.runs.files.record import versions
from headstart.runtime import choose_execution, machine

DATA_VARIABLE = "HEADSTART_DATA"


def examine_installation() -> dict[str, dict[str, object]]:
    """Sections of named findings, readable as they stand."""
    try:
        device = choose_execution().describe()
    except GpuError as error:
        device = str(error)
    return {
        "Versions": dict(versions()),
        "Machine": {
            "machine": machine(),
            "memory": f"{describe_bytes(memory_bytes())} to reckon with ({MEMORY_VARIABLE})",
            "device": device,
            "threads": torch.get_num_threads(),
        },
        "Weights": weights_at_hand(),
        "Data": data_at_hand(),
        "Folders": folders(),
    }


def weights_at_hand() -> dict[str, object]:
    """Backbones whose weights are here, and where to put the others'."""
    found: dict[str, object] = {
        entry["name"]: entry["weights"]
        for entry in survey_backbones(measure=False)
        if entry["at_hand"]
    }
    folder = os.environ.get(WEIGHTS_VARIABLE)
    if folder is None:
        found[WEIGHTS_VARIABLE] = (
            "not set; name a folder of ARCHITECTURE.safetensors files there to work offline"
        )
    else:
        state = "" if Path(folder).is_dir() else " (there is no such folder: correct it)"
        found[WEIGHTS_VARIABLE] = folder + state
    return found


def data_at_hand() -> dict[str, object]:
    """Built-in data sets, and how to get those that are missing."""
    found: dict[str, object] = {}
    folder = os.environ.get(DATA_VARIABLE)
    for spec in DATASETS:
        places = [find_file(spec.name, file) for file in spec.files]
        if not spec.files:
            found[spec.name] = "at hand (part of scikit-learn)"
        elif all(places):
            found[spec.name] = f"at hand in {Path(str(places[0])).parent}"
        else:
            files = ", ".join(spec.files)
            found[spec.name] = f"missing; put {files} into {DATA_VARIABLE}/{spec.name}/"
    found[DATA_VARIABLE] = folder or "not set"
    return found


def folders() -> dict[str, object]:
    """The feature store: place, size, free space, whether it can be written to."""
    cache = cache_folder()
    existing = next(parent for parent in [cache, *cache.parents] if parent.exists())
    entries = list_cache()
    size = sum(entry.num_bytes for entry in entries)
    free = shutil.disk_usage(existing).free
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    return {
        "feature store": f"{cache} ({describe_bytes(size)} in {len(entries)} files, of at most "
        f"{describe_bytes(limit_bytes())})",
        "writable": "yes" if writable else "no; set HEADSTART_CACHE to a folder that is",
        "free space": f"{free / 1e9:.1f} GB",
    }
