"""Pictures for tests: painted ones, and where real ones are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def paint(path: Path, colour: tuple[int, int, int], seed: int, size: int = 40) -> None:
    """A noisy picture of one colour."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(-40, 40, (size, size + 8, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def paint_colours(folder: Path) -> Path:
    """Three easy classes of twelve PNG pictures each."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(12):
            paint(folder / name / f"{i:02d}.png", colour, seed=100 * number + i)
    return folder


def data_folder() -> Path | None:
    """The optional folder of real pictures."""
    for place in (os.environ.get("HEADSTART_DATA"), ROOT.parent / "shared" / "data"):
        if place and Path(place).is_dir():
            return Path(place)
    return None
