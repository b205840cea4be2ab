"""Fixtures for every test: a private cache, tiny picture folders, packs where they are at hand."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from pictures import data_folder, paint_colours

import headstart  # noqa: F401 - first, because torchmetrics imports torchvision


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's store, weights or data settings."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HEADSTART_CACHE", str(folder))
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    monkeypatch.delenv("HEADSTART_WEIGHTS", raising=False)
    return folder


@pytest.fixture
def colour_folder(tmp_path) -> Path:
    """Three easy classes of twelve PNG pictures each."""
    return paint_colours(tmp_path / "colours")


@pytest.fixture(scope="session")
def pack(tmp_path_factory):
    """A function that unpacks one pack of real pictures and gives its folder, or skips."""

    def unpack(name: str) -> Path:
        folder = data_folder()
        archive = folder / name / f"{name}.tar" if folder else None
        if archive is None or not archive.is_file():
            pytest.skip(f"the pack '{name}' is not at hand (HEADSTART_DATA)")
        target = tmp_path_factory.getbasetemp() / "packs"
        if not (target / name).is_dir():
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")
        return target / name

    return unpack
