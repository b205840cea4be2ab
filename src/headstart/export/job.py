"""`headstart export`: a bundle and its ONNX files in a new folder, proved, or nothing.

    copy bundle.json and weights.safetensors -> model.onnx -> [model-resize.onnx]
    -> [model-int8.onnx] -> the manifest over all of them -> the proof, on the files as they will
    be loaded -> parity.json -> the manifest again -> rename

The new folder is a bundle: it answers with every engine. Its own digest covers the ONNX files, so
it is another one than that of the bundle it was made from; the latter stands as `exported_from` in
`parity.json` and in the metadata of each ONNX file.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from headstart import __version__
from headstart.bundle import Classifier, load_classifier
from headstart.bundle.classifier import EXPORT_FOLDER, find_bundle
from headstart.bundle.format import BUNDLE_FILE, WEIGHTS_FILE, write_manifest
from headstart.bundle.onnx_engine import (
    INT8_FILE,
    ONNX_FILE,
    PARITY_FILE,
    RESIZING_FILE,
    import_onnxruntime,
)
from headstart.errors import OutputError
from headstart.export import quantising
from headstart.export.examples import write_examples
from headstart.export.graph import LARGEST_FILE_BYTES, import_onnx, write_graph, write_resizing
from headstart.export.images import ProofImages, choose_images, run_of, some
from headstart.export.parity import (
    MOST_COMPARED,
    MOST_RESIZED,
    TOLERANCE,
    prepared,
    prove,
    prove_resizing,
)
from headstart.files import make_folder, storage_errors, write_json
from headstart.progress import Progress
from headstart.runs.parts.dividing import group_codes
from headstart.runtime import machine

PARITY_VERSION = 1
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "pillow")


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What is to be written.

    Attributes:
        int8: a quantised file as well.
        with_resize: a second graph that also resizes, for one picture at a time.
        data: pictures for the proof, labelled where accuracy is to be told; None takes the run's.
        largest_bytes: of tensors inside `model.onnx`; larger ones lie in `model.onnx.data`.
    """

    int8: bool = False
    with_resize: bool = False
    data: str | None = None
    largest_bytes: int = LARGEST_FILE_BYTES


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """A finished export.

    Attributes:
        out: its folder, a bundle.
        files: bytes of every file by name.
        model_digest: of the new bundle.
        parity: the contents of `parity.json`.
    """

    out: Path
    files: dict[str, int]
    model_digest: str
    parity: dict[str, Any]


def export_bundle(
    model: Path,
    settings: ExportSettings,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Export a run's model or a bundle to ONNX, prove it, and keep it or nothing.

    Args:
        model: folder of a run or of a bundle.
        settings: what to write.
        out: new or empty folder; None takes `export` in the run, else NAME-onnx beside the bundle.
        progress: silent where None.

    Raises:
        UsageError: no model there, a folder that is taken, no pictures for int8.
        MissingExtraError: a package is not installed.
        ExportError: the network cannot be exported, or the export answers otherwise.
    """
    progress = progress or Progress()
    source = find_bundle(model)
    target = default_folder(source) if out is None else out
    check_free(target)
    import_onnx()
    import_onnxruntime()
    classifier = load_classifier(source, device="cpu", precision="float32")
    images = choose_images(classifier, settings.data, calibrate=settings.int8, progress=progress)
    progress.note(f"Proof      on {images.origin}, {len(images.judged):,} images")
    make_folder(target.parent)
    with storage_errors(target):
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
        try:
            aside.chmod(0o755)
            digest, parity = fill(aside, classifier, images, settings, progress)
            aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return ExportResult(
        out=target,
        files={path.name: path.stat().st_size for path in sorted(target.iterdir())},
        model_digest=digest,
        parity=parity,
    )


def default_folder(source: Path) -> Path:
    """Where an export goes unless told otherwise."""
    run = run_of(source)
    if run is None:
        place = source.resolve()
        return place.with_name(f"{place.name}-onnx")
    inside = source.parent if source.name else source.resolve().parent
    return inside / EXPORT_FOLDER


def check_free(target: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        OutputError: it is a file, or not empty.
    """
    if target.exists() and not target.is_dir():
        raise OutputError(f"`--out` must be a folder, '{target}' is a file. Choose another --out.")
    if target.is_dir() and any(target.iterdir()):
        raise OutputError(
            f"The folder '{target}' is there already, and an export changes none. "
            "Remove it, or choose another --out."
        )


def fill(
    folder: Path,
    classifier: Classifier,
    images: ProofImages,
    settings: ExportSettings,
    progress: Progress,
) -> tuple[str, dict[str, Any]]:
    """Write and prove everything; returns the digest and the contents of `parity.json`."""
    for name in (BUNDLE_FILE, WEIGHTS_FILE):
        shutil.copyfile(classifier.folder / name, folder / name)
    progress.note(f"Graph      tracing {classifier.about['backbone']['name']}")
    listed = [BUNDLE_FILE, WEIGHTS_FILE]
    listed += write_graph(folder, classifier, largest_bytes=settings.largest_bytes)
    if settings.with_resize:
        write_resizing(folder, RESIZING_FILE, classifier)
        listed.append(RESIZING_FILE)
    quantised: dict[str, Any] = {}
    if settings.int8:
        assert images.calibrating is not None
        quantised = quantising.quantise(folder, classifier, images.calibrating, progress=progress)
        quantised["calibrated_on"] = images.calibrating_origin
        listed.append(INT8_FILE)
    write_manifest(folder, listed)
    parity = {**head_of(classifier, images), **proofs(folder, classifier, images, progress)}
    if settings.int8:
        parity[INT8_FILE] = quantised | cost_of_int8(folder, classifier, images, progress)
    write_json(folder / PARITY_FILE, parity)
    write_examples(folder, classifier)
    return write_manifest(folder, [*listed, PARITY_FILE]), parity


def head_of(classifier: Classifier, images: ProofImages) -> dict[str, Any]:
    """What was proved, on what, with which versions."""
    return {
        "schema_version": PARITY_VERSION,
        "headstart_version": __version__,
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "machine": machine(),
        "exported_from": classifier.root_digest,
        "images": images.origin,
        "tolerance": TOLERANCE,
        "reference": "PyTorch on the processor in float32",
    }


def proofs(
    folder: Path, classifier: Classifier, images: ProofImages, progress: Progress
) -> dict[str, Any]:
    """The float32 graphs against the bundle.

    Raises:
        ExportError: one differs by more than the tolerance.
    """
    onnx = load_classifier(folder, engine="onnx")
    table = some(images.judged, MOST_COMPARED)
    found = {ONNX_FILE: prove(classifier, onnx, table, progress=progress)}
    if (folder / RESIZING_FILE).exists():
        found[RESIZING_FILE] = prove_resizing(classifier, folder, some(table, MOST_RESIZED))
    return found


def cost_of_int8(
    folder: Path, classifier: Classifier, images: ProofImages, progress: Progress
) -> dict[str, Any]:
    """Accuracy, size and speed of int8 beside float32, both in ONNX Runtime."""
    table = images.judged
    answers = [
        load_classifier(folder, engine=engine).predict_source(
            table, progress=progress, labels=table.labels
        )
        for engine in ("onnx", "onnx-int8")
    ]
    rows = np.flatnonzero(answers[0].good)
    groups = group_codes(table)
    found = quantising.judge(
        folder,
        answers[0].take(rows),
        answers[1].take(rows),
        groups=None if groups is None else groups[rows],
    )
    pixels = next(prepared(classifier, table, range(len(table))))
    found["speed"] = quantising.time_engines(folder, pixels)
    found["verdict"] = quantising.verdict(found)
    progress.note(f"int8       {found['verdict']}")
    return found
