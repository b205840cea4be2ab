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


def test_the_bundled_file_must_be_this_versions(tmp_path, monkeypatch):
    from headstart.backbones import weights

    changed = tmp_path / "mini.safetensors"
    state = weights.read_state(weights.bundled_file("mini2"))
    state["stem.0.weight"] = state["stem.0.weight"] + 1
    save_file(state, changed)
    monkeypatch.setattr(weights, "bundled_file", lambda architecture: changed)
    with pytest.raises(WeightsError, match=r"not those of this version.*expected [0-9a-f]{64}"):
        build_network(find_backbone("mini"))
    assert build_network(find_backbone("mini"), weights=str(changed)).weights.source == "file"


def test_lenet_has_no_pretrained_weights(tmp_path, monkeypatch):
    spec = find_backbone("LeNet5")
    for choice in ("auto", "hub"):
        with pytest.raises(WeightsError, match=r"no pretrained weights of LeNet5.*--weights none"):
            build_network(spec, weights=choice)
    network = build_network(spec, weights="none")
    assert network.num_features == 84
    save_file(network.module.state_dict(), tmp_path / "lenet5.safetensors")
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path))
    assert build_network(spec, seed=3).digest == network.digest


def test_no_hub_has_mini():
    with pytest.raises(WeightsError, match=r"No hub has weights of mini.*--weights bundled"):
        build_network(find_backbone("mini"), weights="hub")


def test_weights_of_another_network_are_refused(tmp_path, resnet_state):
    path = tmp_path / "w.pth"
    torch.save(resnet_state, path)
    for name in ("LeNet5", "ViTSmall", "DenseNet121", "GoogLeNet", "mini"):
        with pytest.raises(WeightsError, match=rf"do not fit {name}: .* missing .* left over") as e:
            build_network(find_backbone(name), weights=str(path))
        assert e.value.exit_code == 2


def test_torchvisions_files_fit_the_same_network_of_timm(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    whole = resnet18(num_classes=7).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    network = build_network(
        find_backbone("resnet18"), weights=str(tmp_path / "w.pth"), image_size=64
    )
    whole.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network.module(x), whole(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "native", "size"),
    [
        ("vit_tiny_patch16_224", 224, 96),
        ("DINOv2Small", 518, 224),
        pytest.param("swin_tiny_patch4_window7_224", 224, 64, marks=pytest.mark.slow),
    ],
)
def test_weights_of_another_image_size_are_resampled_as_timm_does(tmp_path, name, native, size):
    import timm

    spec = find_backbone(name)
    torch.manual_seed(0)
    published = timm.create_model(spec.architecture, num_classes=5)
    assert published.patch_embed.img_size == (native, native)
    path = tmp_path / "w.safetensors"
    save_file(published.state_dict(), path)
    image_size = None if spec.image_size == size else size
    network = build_network(spec, weights=str(path), image_size=image_size)
    expected = timm.create_model(
        spec.architecture,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path), "num_classes": 5, "custom_load": False},
        num_classes=0,
        img_size=size,
    ).eval()
    assert network.preprocessing.size == size
    loaded, wanted = network.module.state_dict(), expected.state_dict()
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    ("name", "size", "match"),
    [
        ("LeNet5", 64, "32 px only"),
        ("DINOv2Small", 100, "multiple of 14, got 100. Pass --image-size 98 or 112"),
        ("ViTSmall", 100, "--image-size 96 or 112"),
        ("InceptionV3", 64, "cannot take pictures of 64 px"),
        ("AlexNet", 48, "cannot take pictures of 48 px"),
    ],
)
def test_a_size_a_network_cannot_take_is_one_sentence(name, size, match):
    with pytest.raises(UsageError, match=match):
        build_network(find_backbone(name), weights="none", image_size=size)


def test_only_mini_is_bundled():
    with pytest.raises(WeightsError, match="holds no weights of ResNet50"):
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
