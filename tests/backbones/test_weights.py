"""Weights come from where they were said to come from, or a sentence says what to do."""

from __future__ import annotations

import time

import pytest
import torch
from safetensors.torch import save_file

from headstart.backbones import build_network, find_backbone
from headstart.errors import UnknownNameError, UsageError, WeightsError
from headstart.files import digest_file


@pytest.fixture(scope="module")
def resnet_state():
    import timm

    torch.manual_seed(5)
    return timm.create_model("resnet10t").state_dict()


def test_the_box_holds_its_weights():
    network = build_network(find_backbone("mini"))
    assert network.weights.source == "bundled"
    assert len(network.weights.file_digest) == 64
    assert "research" in network.weights.licence
    assert network.spec.code_licence == "Apache-2.0"


def test_random_weights_only_when_asked_and_by_seed():
    spec = find_backbone("mini")
    first, again = (build_network(spec, weights="none", seed=1) for _ in range(2))
    other = build_network(spec, weights="none", seed=2)
    assert first.weights.source == "none"
    assert first.digest == again.digest != other.digest


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    build_network(find_backbone("mini"), weights="none", seed=9)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_file_is_loaded_and_its_checksum_shown(tmp_path, resnet_state, suffix):
    path = tmp_path / f"w.{suffix}"
    save = save_file if suffix == "safetensors" else torch.save
    save(resnet_state, path)
    network = build_network(find_backbone("resnet10t"), weights=str(path))
    assert network.weights.file_digest == digest_file(path)
    assert digest_file(path)[:12] in network.weights.describe()
    loaded = network.module.state_dict()
    assert all(torch.equal(loaded[k], resnet_state[k]) for k in loaded)


def test_wrappers_of_training_scripts_are_taken_off(tmp_path, resnet_state):
    wrapped = {"state_dict": {f"module.{k}": v for k, v in resnet_state.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "w.pth")
    network = build_network(find_backbone("resnet10t"), weights=str(tmp_path / "w.pth"))
    loaded = network.module.state_dict()
    assert all(torch.equal(loaded[k], resnet_state[k]) for k in loaded)


def test_the_folder_of_weights_is_searched_first(tmp_path, monkeypatch, resnet_state):
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path))
    save_file(resnet_state, tmp_path / "resnet10t.safetensors")
    assert build_network(find_backbone("timm:resnet10t")).weights.source == "file"


def test_a_mismatch_names_the_keys(tmp_path, resnet_state):
    fewer = {k: v for k, v in resnet_state.items() if not k.startswith("layer4")}
    fewer["surplus.weight"] = torch.zeros(2)
    save_file(fewer, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"missing \(layer4.*left over \(surplus.weight"):
        build_network(find_backbone("resnet10t"), weights=str(tmp_path / "w.safetensors"))


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    torch.save({"a": Evil()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="damaged or holds more than tensors"):
        build_network(find_backbone("mini"), weights=str(tmp_path / "w.pth"))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("w.safetensors", b"rubbish", "cannot be read"),
        ("w.zip", b"", "must end in"),
        (None, b"", "does not exist"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, name, content, match):
    path = tmp_path / (name or "nothere.pth")
    if name:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=match):
        build_network(find_backbone("mini"), weights=str(path))


def test_weights_not_at_hand_say_where_to_put_them(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    begun = time.monotonic()
    with pytest.raises(WeightsError, match=r"HEADSTART_WEIGHTS.*--model mini"):
        build_network(find_backbone("resnet10t"))
    assert time.monotonic() - begun < 15


def test_only_mini_is_bundled():
    with pytest.raises(WeightsError, match="holds no weights of resnet50"):
        build_network(find_backbone("ResNet50"), weights="bundled")


def test_names():
    assert find_backbone("resnet50") == find_backbone("ResNet50")
    assert find_backbone("timm:resnet18").architecture == "resnet18"
    with pytest.raises(UnknownNameError, match="'EfficientNetB0'"):
        find_backbone("EfficentNetB0")
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet"):
        find_backbone("timm:resnet999")
    for name in ("hf-hub:a/b", "local-dir:/tmp", "timm:hf-hub:a/b"):
        with pytest.raises(UnknownNameError):
            find_backbone(name)


@pytest.mark.parametrize("size", [31, 2000])
def test_image_sizes_have_limits(size):
    with pytest.raises(UsageError, match="image_size"):
        build_network(find_backbone("mini"), image_size=size)
