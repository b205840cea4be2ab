"""The files of a bundle: written whole, read with every digest checked, no code in them.

    bundle.json          classes, backbone, preprocessing, head, licences, where it comes from
    weights.safetensors  `backbone.*` and `outliers.*` tensors; of each dense layer of the head
                         `head.0.weight` (out, in) and `head.0.bias` (out,), then `head.1.*`, ...
    model.onnx, ...      what `headstart export` adds
    manifest.json        SHA-256 of every file above; its own SHA-256 is the bundle's root digest

The digests prove that nothing changed since the bundle was written; comparing the root digest
with one that was kept elsewhere proves that it is the same bundle.

Schema 5 brought features of several stages, schema 4 answers averaged over a picture and its mirror
image, schema 3 blocks between the backbone's map and its features, schema 2 heads of several
layers; schema 1 held `head.coef` and `head.intercept`. All of them still load.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from headstart import __version__
from headstart.backbones import BackboneSpec, HeadBlocks, Network, WeightsRecord
from headstart.backbones.networks import LARGEST_SIZE, SMALLEST_SIZE
from headstart.bundle.confidence import PREFIX, Confidence
from headstart.bundle.golden import make_golden
from headstart.bundle.guarding import MOST_FILES, check_plain, check_tensors_file, read_json
from headstart.data.decoding import DECODER_VERSION
from headstart.errors import BundleError, UsageError
from headstart.files import digest_file, storage_errors, write_json
from headstart.heads import HEADS, Layers
from headstart.records import Preprocessing

SHOWN_DIGITS = 16  # of a digest, in what people read; 64 bits are not hit by chance
SCHEMA_VERSION = 5
BUNDLE_FILE = "bundle.json"
WEIGHTS_FILE = "weights.safetensors"
MANIFEST_FILE = "manifest.json"
INTERPOLATIONS = ("bilinear", "bicubic")
MOST_LAYERS = 16
TUNED = "tuned"  # a head that learnt together with its backbone
PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")

State = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedHead:
    """A head over pooled features.

    Attributes:
        kind: name of the head in its registry.
        layers: dense layers, rectified in between; float32.
        chosen: what was chosen for it (a penalty, a number of epochs), for the record.
    """

    kind: str
    layers: Layers
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def linear(cls, coef: torch.Tensor, intercept: torch.Tensor, *, penalty: float) -> FittedHead:
        """A logistic head of (C, D) coefficients and (C,) intercepts."""
        layers = ((coef.float(), intercept.float()),)
        return cls(kind="logistic", layers=layers, chosen={"penalty": penalty})

    @property
    def num_inputs(self) -> int:
        """D, the features it takes."""
        return int(self.layers[0][0].shape[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleContents:
    """What reading a bundle found.

    Attributes:
        about: the contents of `bundle.json`.
        state: tensors by name.
        root_digest: SHA-256 of the manifest.
        files: name and SHA-256 of every file that the manifest lists; all were compared.
    """

    about: dict[str, Any]
    state: State
    root_digest: str
    files: dict[str, str]


def save_bundle(
    folder: Path,
    *,
    network: Network,
    head: FittedHead,
    class_names: Sequence[str],
    about: Mapping[str, object],
    confidence: Confidence | None = None,
) -> str:
    """Write a bundle beside `folder` and rename it there; an older one is replaced.

    Args:
        folder: where the bundle will stand.
        network: the backbone.
        head: fitted on its features.
        class_names: C names, the class order.
        about: where it comes from (data digest, figures), kept as it is.
        confidence: temperature, sets, strangeness; None for none of them.

    Returns:
        The root digest, 64 hexadecimal characters.

    Raises:
        StorageError: the disk is full or failed; `folder` is as it was.
    """
    from safetensors.torch import save

    with storage_errors(folder):
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
        try:
            aside.chmod(0o755)
            sure = confidence or Confidence()
            description = describe(network, head, class_names, about)
            fits = head.num_inputs == network.num_features  # loading refuses it otherwise
            golden = make_golden(network, head.layers, sure) if fits else None
            write_json(
                aside / BUNDLE_FILE,
                description | {"confidence": sure.describe(), "golden": golden},
            )
            state = tensors(network, head) | sure.tensors()
            (aside / WEIGHTS_FILE).write_bytes(save(state))
            digest = write_manifest(aside, [BUNDLE_FILE, WEIGHTS_FILE])
            put_in_place(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return digest


def put_in_place(made: Path, folder: Path) -> None:
    """Rename a folder to its place; what stood there goes when the new one stands, and not before.

    Raises:
        OSError: it cannot be renamed; what stood there stays.
    """
    before = made.with_name(made.name.replace(".new-", ".old-"))
    if folder.exists():
        folder.rename(before)
    try:
        made.rename(folder)
    except OSError:
        if before.exists():
            before.rename(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)


def write_manifest(folder: Path, names: Sequence[str]) -> str:
    """List files of a bundle with their digests; returns the root digest."""
    files = {name: digest_file(folder / name) for name in names}
    write_json(folder / MANIFEST_FILE, {"sha256": files})
    return digest_file(folder / MANIFEST_FILE)


def describe(
    network: Network, head: FittedHead, class_names: Sequence[str], about: Mapping[str, object]
) -> dict[str, object]:
    """The contents of `bundle.json`."""
    spec = network.spec
    return {
        "schema_version": SCHEMA_VERSION,
        "headstart_version": __version__,
        "class_names": list(class_names),
        "backbone": {
            "name": spec.name,
            "origin": spec.origin,
            "architecture": spec.architecture,
            "num_features": network.num_features,
            "head_blocks": asdict(network.blocks),
            "layers": list(network.layers),
            "code_licence": spec.code_licence,
            "weights": asdict(network.weights),
        },
        "preprocessing": asdict(network.preprocessing),
        "decoder_version": DECODER_VERSION,
        "head": {"kind": head.kind, "num_layers": len(head.layers), "chosen": dict(head.chosen)},
        "about": dict(about),
    }


def tensors(network: Network, head: FittedHead) -> State:
    """Every tensor by name; halved where 16 bits hold the same values."""
    state = {f"backbone.{k}": v for k, v in network.module.state_dict().items()}
    packed = {name: halved(tensor) for name, tensor in state.items()}
    for number, (weight, bias) in enumerate(head.layers):
        packed[f"head.{number}.weight"] = weight.float()
        packed[f"head.{number}.bias"] = bias.float()
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in packed.items()}


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float16 where that loses nothing, else as it is."""
    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def read_bundle(folder: Path, *, expect_digest: str | None = None) -> BundleContents:
    """Read a bundle, every digest checked before anything in it is used.

    Raises:
        BundleError: it is missing, damaged, foreign, newer than this version, or another one
            than `expect_digest` says.
    """
    manifest_path = folder / MANIFEST_FILE
    if not manifest_path.is_file():
        raise BundleError(
            f"'{folder}' is no bundle: it has no {MANIFEST_FILE}. Name the folder of a finished "
            "run, or its 'model' folder."
        )
    try:
        raw = read_json(manifest_path)
        root_digest = hashlib.sha256(raw).hexdigest()
        if expect_digest is not None and len(expect_digest) < SHOWN_DIGITS:
            raise BundleError(
                f"`expect_digest` takes a digest or its first {SHOWN_DIGITS} digits or more, got "
                f"'{expect_digest}': it is not the expected one. Give more of it."
            )
        if expect_digest is not None and not root_digest.startswith(expect_digest.lower()):
            raise BundleError(
                f"The bundle '{folder}' is not the expected one: its digest is {root_digest}, "
                f"expected {expect_digest}. Take the right bundle or correct --expect-digest."
            )
        files = check_manifest(folder, parse_json(raw, manifest_path))
        about = parse_json(read_json(folder / BUNDLE_FILE), folder / BUNDLE_FILE)
        check_schema(folder, about)
        state = load_tensors(folder / WEIGHTS_FILE)
        check_contents(folder, about, state)
    except OSError as error:
        raise BundleError(f"The bundle '{folder}' cannot be read: {error}.") from error
    return BundleContents(about=about, state=state, root_digest=root_digest, files=files)


def parse_json(raw: bytes, path: Path) -> dict[str, Any]:
    """Parse one of a bundle's JSON files into a dictionary."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"'{path}' is damaged: it is not JSON. Copy the bundle again.") from error
    if not isinstance(value, dict):
        raise BundleError(f"'{path}' is damaged: it holds no object. Copy the bundle again.")
    return value


def check_manifest(folder: Path, manifest: dict[str, Any]) -> dict[str, str]:
    """Compare every file with its digest and return both; the file that differs is named."""
    files = manifest.get("sha256")
    needed = {BUNDLE_FILE, WEIGHTS_FILE}
    if not isinstance(files, dict) or not needed <= set(files):
        raise BundleError(
            f"'{folder / MANIFEST_FILE}' is damaged: it does not list {', '.join(sorted(needed))}. "
            "Copy the bundle again."
        )
    if len(files) > MOST_FILES:
        raise BundleError(
            f"'{folder / MANIFEST_FILE}' names {len(files):,} files; a bundle has at most "
            f"{MOST_FILES}. It is no bundle of Headstart's."
        )
    for name, digest in files.items():
        if not PLAIN_NAME.fullmatch(name):
            raise BundleError(f"'{folder / MANIFEST_FILE}' names a file outside it: {name!r}.")
        path = folder / name
        if not path.is_file():
            raise BundleError(f"'{path}' is missing. Copy the bundle again.")
        check_plain(path)
        if digest_file(path) != digest:
            raise BundleError(
                f"'{path}' was changed or damaged: its SHA-256 is not the manifest's. "
                "Copy the bundle again, or export it from its run."
            )
    return files


def check_schema(folder: Path, about: dict[str, Any]) -> None:
    """Refuse a bundle of a newer schema."""
    version = about.get("schema_version")
    if type(version) is not int or version < 1:
        raise BundleError(f"'{folder / BUNDLE_FILE}' has no schema version: it is no bundle.")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"The bundle '{folder}' has schema version {version}; this Headstart ({__version__}) "
            f"knows up to {SCHEMA_VERSION}. Update Headstart."
        )


def check_contents(folder: Path, about: dict[str, Any], state: State) -> None:
    """Refuse what this version cannot answer from exactly as the bundle says.

    Raises:
        BundleError: the first thing that is missing, of a wrong kind or not known here.
    """
    for name in ("preprocessing", "head", "backbone"):
        if not isinstance(about.get(name), dict):
            raise BundleError(f"The bundle '{folder}' has no '{name}'. Write it again.")
    names, preprocessing = about.get("class_names"), about["preprocessing"]
    layers = head_layers(about, state)
    size, means = preprocessing.get("size"), (preprocessing.get("mean"), preprocessing.get("std"))
    count = len(names) if isinstance(names, list) else 0
    checks = {
        "class_names": count > 1 and all(isinstance(n, str) for n in names or ())
        and len(set(names or ())) == count,
        "decoder_version": about.get("decoder_version") == DECODER_VERSION,
        "head.kind": about["head"].get("kind") in (*HEADS.names(), TUNED),
        "preprocessing.size": type(size) is int
        and SMALLEST_SIZE <= (size or 0) <= LARGEST_SIZE,
        "preprocessing.resize": preprocessing.get("resize") == "squash",
        "preprocessing.interpolation": preprocessing.get("interpolation") in INTERPOLATIONS,
        "preprocessing.mean and std": all(
            isinstance(m, list) and len(m) == 3 and all(is_finite(v) for v in m)
            for m in means
        ) and 0 not in preprocessing["std"],
        "weights": all(
            bool(tensor.isfinite().all()) for name, tensor in state.items()
            if name.startswith("backbone.") and tensor.is_floating_point()
        ),
        "head.*": fit_together(layers, count)
        and len(layers) == (1 if about["schema_version"] == 1 else about["head"].get("num_layers")),
    }  # fmt: skip
    for name, good in checks.items():
        if not good:
            raise BundleError(
                f"The bundle '{folder}' holds a '{name}' that this Headstart ({__version__}) "
                "cannot answer from. Update Headstart, or write the bundle again from its run."
            )


def is_finite(value: object) -> bool:
    """Whether it is a number that can be computed with; JSON of Python's may hold NaN."""
    return type(value) in (int, float) and abs(value) < 1e30  # type: ignore[arg-type]


def head_layers(about: dict[str, Any], state: State) -> Layers:
    """The layers of the head, as far as their tensors are there; schema 1 held one."""
    if about["schema_version"] == 1:
        names = [("head.coef", "head.intercept")]
    else:
        count = about["head"].get("num_layers")
        known = type(count) is int and 0 < count <= MOST_LAYERS
        names = [(f"head.{i}.weight", f"head.{i}.bias") for i in range(count if known else 0)]
    return tuple((state[w], state[b]) for w, b in names if w in state and b in state)


def fit_together(layers: Layers, num_classes: int) -> bool:
    """Whether each layer takes what the one before gives, and the last gives the classes."""
    width = None
    for weight, bias in layers:
        if weight.ndim != 2 or bias.shape != (len(weight),):
            return False
        if width is not None and weight.shape[1] != width:
            return False
        if not (bool(weight.isfinite().all()) and bool(bias.isfinite().all())):
            return False
        width = len(weight)
    return width == num_classes


def read_head(about: dict[str, Any], state: State) -> FittedHead:
    """The head of a bundle whose contents were checked."""
    stored = about["head"]
    chosen = {"penalty": stored["penalty"]} if "penalty" in stored else stored["chosen"]
    return FittedHead(kind=stored["kind"], layers=head_layers(about, state), chosen=chosen)


def load_tensors(path: Path) -> State:
    """Read the safetensors file, everything as float32 where it was halved."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_tensors_file(path)
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise BundleError(f"'{path}' is damaged ({error}). Copy the bundle again.") from error
    return {
        k: v.float() if v.dtype == torch.float16 and not k.startswith(PREFIX) else v
        for k, v in state.items()
    }


def read_spec(about: dict[str, Any], folder: Path) -> tuple[BackboneSpec, WeightsRecord]:
    """The backbone that a bundle names; only plain architecture names pass."""
    from headstart.backbones.catalogue import known_architectures

    backbone = about["backbone"]
    origin, architecture = backbone["origin"], backbone["architecture"]
    if architecture not in known_architectures(origin):
        raise BundleError(
            f"The bundle '{folder}' needs the network '{architecture}' of '{origin}', which this "
            "installation does not have. Update Headstart and timm, or run the data again if the "
            "bundle is older than they are."
        )
    spec = BackboneSpec(
        name=backbone["name"],
        origin=origin,
        architecture=architecture,
        summary="from a bundle",
        code_licence=backbone["code_licence"],
        weights_licence=backbone["weights"]["licence"],
        image_size=about["preprocessing"]["size"],
    )
    return spec, WeightsRecord(**backbone["weights"])


def read_blocks(about: dict[str, Any], folder: Path) -> HeadBlocks:
    """What stands between the backbone's map and its features; nothing before schema 3.

    Raises:
        BundleError: words that this version does not know.
    """
    stored = about["backbone"].get("head_blocks") or {}
    try:
        blocks, pool = stored.get("blocks", []), stored.get("pool", "own")
        if not (isinstance(blocks, list) and all(isinstance(b, str) for b in [*blocks, pool])):
            raise UsageError(f"got {stored}")
        return HeadBlocks(blocks=tuple(blocks), pool=pool)
    except (AttributeError, UsageError) as error:
        raise BundleError(
            f"The bundle '{folder}' holds 'backbone.head_blocks' that this Headstart "
            f"({__version__}) cannot answer from ({error}). Update Headstart, or write the bundle "
            "again from its run."
        ) from error


def read_layers(about: dict[str, Any], folder: Path) -> list[str]:
    """Stages whose features the head takes; none before schema 5, for the network's own.

    Raises:
        BundleError: no list of names.
    """
    stored = about["backbone"].get("layers") or []
    if not (isinstance(stored, list) and all(isinstance(name, str) for name in stored)):
        raise BundleError(
            f"The bundle '{folder}' holds 'backbone.layers' that are no names of stages, got "
            f"{stored!r}. Write the bundle again from its run."
        )
    return stored


def read_preprocessing(about: dict[str, Any]) -> Preprocessing:
    """The preprocessing that a bundle prescribes."""
    stored = dict(about["preprocessing"])
    return Preprocessing(**{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])})
