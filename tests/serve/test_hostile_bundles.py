"""Bundles that somebody made to harm: refused in one sentence, in bounded memory and time."""

from __future__ import annotations

import json
import os
import shutil
import struct

import pytest
from live import rewrite, write_bundle

from headstart.bundle import load_classifier
from headstart.bundle.guarding import MOST_HEADER_BYTES, header_problem
from headstart.errors import BundleError

WEIGHTS, ABOUT, MANIFEST = "weights.safetensors", "bundle.json", "manifest.json"


@pytest.fixture
def bundle(served_bundle, tmp_path):
    shutil.copytree(served_bundle, tmp_path / "model")
    return tmp_path / "model"


def tensors_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        tensors_file({}, length=2**63 - 1),
        tensors_file({}, length=MOST_HEADER_BYTES + 1),
        tensors_file(b"[" * 200_000),
        tensors_file(b"{}" + b" " * 100, length=500),
        tensors_file({"a": entry(shape=[2**62, 2**62], offsets=[0, 4])}, b"\x00" * 4),
        tensors_file({"a": entry(shape=[2**40], offsets=[0, 2**42])}, b"\x00" * 4),
        tensors_file({"a": entry(shape=[-1])}, b"\x00" * 4),
        tensors_file({"a": entry(shape=[True])}, b"\x00" * 4),
        tensors_file({"a": entry(dtype="F7")}, b"\x00" * 4),
        tensors_file({"a": entry(), "b": entry()}, b"\x00" * 4),
        tensors_file({"a": entry(offsets=[4, 0])}, b"\x00" * 4),
        tensors_file({"a": entry()}, b"\x00" * 400),
        tensors_file({"a": "b"}),
        tensors_file([1, 2]),
        tensors_file({str(i): entry(shape=[0], offsets=[0, 0]) for i in range(20_001)}),
    ],
)
def test_weights_that_cannot_be(bundle, content):
    rewrite(bundle, WEIGHTS, content)
    with pytest.raises(BundleError, match=WEIGHTS) as caught:
        load_classifier(bundle)
    assert "\n" not in str(caught.value)


def test_a_header_that_fits_passes():
    raw = json.dumps({"a": entry(), "b": entry(offsets=[4, 8])}).encode()
    assert header_problem(raw, 8) == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (ABOUT, b"[" * 100_000),
        (ABOUT, b"\xff\xfe"),
        (ABOUT, b"{}"),
        (ABOUT, b" " * (17 << 20)),
        (MANIFEST, b"[" * 100_000),
        (MANIFEST, b" " * (17 << 20)),
        (MANIFEST, json.dumps({"sha256": {f"f{i}": "0" for i in range(100)}
                               | {ABOUT: "0", WEIGHTS: "0"}}).encode()),
        (MANIFEST, json.dumps({"sha256": {"../../etc/passwd": "0", ABOUT: "0",
                                          WEIGHTS: "0"}}).encode()),
        (MANIFEST, json.dumps({"sha256": {ABOUT: {"a": 1}, WEIGHTS: 5}}).encode()),
    ],
)  # fmt: skip
def test_json_that_cannot_be(bundle, name, content):
    if name == ABOUT:
        rewrite(bundle, name, content)
    else:
        (bundle / name).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        load_classifier(bundle)
    assert "\n" not in str(caught.value)


def change(key, value):
    def apply(about):
        *path, last = key.split(".")
        for step in path:
            about = about[step]
        about[last] = value

    return apply


@pytest.mark.parametrize(
    "apply",
    [
        change("class_names", ["a"] * 3),
        change("class_names", [str(i) for i in range(100_000)]),
        change("class_names", "abc"),
        change("preprocessing.size", 10**9),
        change("preprocessing.size", 1e3),
        change("preprocessing.mean", [0, 0, float("nan")]),
        change("preprocessing.std", [0, 0, 0]),
        change("preprocessing.interpolation", "__import__('os')"),
        change("backbone.architecture", "hf-hub:somebody/something"),
        change("backbone.architecture", "../../x"),
        change("backbone.origin", "pickle"),
        change("head.num_layers", 10**9),
        change("confidence.temperature", 0),
        change("confidence.sets", {"alpha": "x"}),
        change("schema_version", 10**30),
        change("schema_version", True),
        change("golden", {"picture": "!!!", "probabilities": [1]}),
        change("golden", {"picture": "A" * (2 << 20), "probabilities": [1, 0, 0]}),
    ],
)
def test_facts_that_cannot_be(bundle, apply):
    from headstart.serve.model import load_model
    from headstart.serve.settings import ServeSettings

    about = json.loads((bundle / ABOUT).read_text())
    apply(about)
    rewrite(bundle, ABOUT, json.dumps(about).encode())
    with pytest.raises(BundleError) as caught:
        load_model(ServeSettings(bundle=str(bundle), engine="torch"))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("name", [WEIGHTS, ABOUT, MANIFEST])
def test_links_are_refused(bundle, tmp_path, name):
    outside = tmp_path / "outside"
    shutil.move(bundle / name, outside)
    (bundle / name).symlink_to(outside)
    with pytest.raises(BundleError, match="is a link"):
        load_classifier(bundle)


def test_a_flipped_bit_anywhere_is_named(tmp_path):
    folder = write_bundle(tmp_path / "model")
    for name in (WEIGHTS, ABOUT):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(BundleError, match=name):
            load_classifier(folder)
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
