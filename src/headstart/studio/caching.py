"""What is read once and kept between reruns, by folder and by what its files look like.

A finished file never changes in place (it is renamed into it), so name, size and time of a run's
records tell whether they are still the same.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from headstart.api import load
from headstart.bundle import Classifier
from headstart.bundle.classifier import find_bundle
from headstart.errors import BundleError
from headstart.files import digest_file
from headstart.report.drawing.pictures import Pictures, find_pictures
from headstart.report.reading import StoredRun, read_stored_run
from headstart.studio.places import MANIFEST

RECORDS = (
    *("run.json", "metrics.json", "images.csv", "splits.csv", "predictions.csv", "audit.json"),
    *("out_of_fold_predictions.csv", "history.csv", "report.html", "comparison.json"),
)
PICTURES_S = 300  # after that it is looked again whether the pictures are at hand
THUMBNAIL = 176  # px


def mark_of(folder: Path) -> str:
    """Changes when a record of the folder does."""
    parts = []
    for name in RECORDS:
        try:
            facts = (folder / name).stat()
        except OSError:
            continue
        parts.append(f"{name}:{facts.st_mtime_ns}:{facts.st_size}")
    return " ".join(parts)


def open_run(folder: Path) -> StoredRun:
    """A finished run, read once.

    Raises:
        UsageError: it is not finished, or damaged.
    """
    return _open_run(str(folder), mark_of(folder))


@st.cache_resource(show_spinner="Reading the run", max_entries=4)
def _open_run(folder: str, mark: str) -> StoredRun:
    del mark
    return read_stored_run(Path(folder))


def open_pictures(folder: Path) -> Pictures:
    """Where the pictures of a run are, or why there are none."""
    return _open_pictures(str(folder), mark_of(folder))


@st.cache_resource(show_spinner="Looking for the pictures", max_entries=3, ttl=PICTURES_S)
def _open_pictures(folder: str, mark: str) -> Pictures:
    run = _open_run(folder, mark)
    return find_pictures(run.settings, run.images, wanted=True)


def thumbnail(folder: Path, path: str) -> str:
    """A picture of a run as a data URI, '' where it cannot be shown."""
    return _thumbnail(str(folder), mark_of(folder), path)


@st.cache_data(show_spinner=False, max_entries=3000, ttl=PICTURES_S)
def _thumbnail(folder: str, mark: str, path: str) -> str:
    return _open_pictures(folder, mark).make(path, side=THUMBNAIL)


def bundle_digest(folder: Path) -> str:
    """SHA-256 of the manifest of a run's or a bundle's model: its name.

    Raises:
        BundleError: there is no model, or none that is whole.
    """
    bundle = find_bundle(folder)
    try:
        return digest_file(bundle / MANIFEST)
    except OSError as error:
        raise BundleError(
            f"The bundle '{bundle}' cannot be read ({error.strerror}). Write it again from its run."
        ) from error


def open_classifier(folder: Path) -> Classifier:
    """The model of a run or a bundle, loaded once.

    Raises:
        BundleError: it is missing or damaged.
    """
    return _open_classifier(str(folder), bundle_digest(folder))


@st.cache_resource(show_spinner="Loading the model", max_entries=2)
def _open_classifier(folder: str, digest: str) -> Classifier:
    return load(folder, expect_digest=digest)
