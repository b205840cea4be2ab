"""A bundle answers as what it was saved from, and is refused when anything in it changed."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import on_cpu
from PIL import Image

import headstart
from headstart.backbones import build_network, find_backbone
from headstart.bundle import FittedHead, load_classifier, save_bundle
from headstart.bundle.format import SCHEMA_VERSION, halved, put_in_place
from headstart.errors import BundleError, DataError, UsageError
from headstart.files import digest_file, write_json
from headstart.heads import head_probabilities
from headstart.inference import FeatureExtractor, ImageList

CLASSES = ("cat", "dog", "ötter/x")


@pytest.fixture(scope="module")
def network():
    return build_network(find_backbone("mini"), weights="none", image_size=32, seed=3)


@pytest.fixture(scope="module")
def head(network):
    generator = torch.Generator().manual_seed(0)
    return FittedHead.linear(
        torch.randn(3, network.num_features, generator=generator),
        torch.randn(3, generator=generator),
        penalty=0.1,
    )


@pytest.fixture
def folder(tmp_path, network, head):
    save_bundle(
        tmp_path / "model", network=network, head=head, class_names=CLASSES, about={"note": 1}
    )
    return tmp_path / "model"


def pictures(count=5):
    return list(np.random.default_rng(0).integers(0, 256, (count, 50, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_saved_and_loaded_answers_bit_equal(folder, network, head, precision):
    source = ImageList(pictures(), [str(i) for i in range(5)])
    extractor = FeatureExtractor(network, on_cpu(precision))
    values = np.concatenate([v for _, _, v in extractor.extract(source, range(5))])
    expected = head_probabilities(values, head.layers)
    found = load_classifier(folder, precision=precision).predict(np.stack(pictures()))
    assert found.class_names == CLASSES
    assert np.array_equal(found.probabilities, expected)


def test_every_kind_of_input_gives_the_same_answer(folder, tmp_path):
    array = pictures(1)[0]
    Image.fromarray(array).save(tmp_path / "a.png")
    classifier = headstart.load(folder)
    kinds = [
        array, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(),
        Image.fromarray(array), [array], [str(tmp_path / "a.png")], array[None],
    ]  # fmt: skip
    answers = [classifier.predict(kind).probabilities for kind in kinds]
    for answer in answers[1:]:
        assert np.array_equal(answer, answers[0])


def test_prepared_pixels_get_the_same_answer(folder, tmp_path):
    classifier = load_classifier(folder)
    pictures = [np.random.default_rng(i).integers(0, 255, (50, 40, 3), np.uint8) for i in range(3)]
    source = ImageList(pictures, ["a", "b", "c"])
    pixels = np.stack([classifier.extractor.prepare(source, row)[1] for row in range(3)])
    answered = classifier.answer_pixels(pixels)
    assert np.array_equal(answered.probabilities, classifier.predict(pictures).probabilities)


def test_a_turned_pil_image_is_put_upright(folder, tmp_path):
    turned = Image.fromarray(np.rot90(pictures(1)[0]))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    classifier = headstart.load(folder)
    with Image.open(tmp_path / "turned.png") as image:
        from_pil = classifier.predict(image).probabilities
    assert np.array_equal(from_pil, classifier.predict(pictures(1)[0]).probabilities)


def test_a_path_named_twice_is_answered_twice(folder, tmp_path):
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.png")
    predictions = headstart.load(folder).predict([tmp_path / "a.png"] * 2)
    assert len(predictions) == 2
    assert predictions.names[0] == predictions.names[1]


def test_an_unreadable_image_has_no_answer(folder, tmp_path):
    (tmp_path / "a.jpg").write_text("text")
    predictions = headstart.load(folder).predict([tmp_path / "a.jpg", pictures(1)[0]])
    assert predictions.names[0] == ""
    assert predictions.problems[0]
    assert np.isnan(predictions.probabilities[0]).all()
    assert predictions.names[1] in CLASSES


def test_bad_inputs_are_one_sentence(folder, tmp_path):
    classifier = headstart.load(folder)
    with pytest.raises(DataError, match="nothing to predict"):
        classifier.predict([])
    with pytest.raises(DataError, match=r"nothere\.png"):
        classifier.predict(tmp_path / "nothere.png")
    with pytest.raises(UsageError, match=r"must be .* uint8"):
        classifier.predict(np.zeros((4, 4, 3)))


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors", "manifest.json"])
def test_a_changed_byte_is_refused_by_name(folder, name):
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(BundleError) as caught:
        load_classifier(folder)
    assert str(folder) in str(caught.value)
    if name != "manifest.json":
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors", "manifest.json"])
def test_a_missing_file_is_refused_by_name(folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_classifier(folder)


def rewrite(folder, **changes):
    about = json.loads((folder / "bundle.json").read_text())
    about.update(changes)
    write_json(folder / "bundle.json", about)
    files = {n: digest_file(folder / n) for n in ("bundle.json", "weights.safetensors")}
    write_json(folder / "manifest.json", {"sha256": files})


def change_part(folder, part, **changes):
    about = json.loads((folder / "bundle.json").read_text())
    rewrite(folder, **{part: {**about[part], **changes}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("interpolation", "nearest"), ("size", 0), ("size", "96"), ("size", 100_000),
        ("size", True), ("size", None), ("mean", [0.5, 0.5]), ("mean", "abc"),
        ("std", [0.5, 0.5, None]), ("resize", "crop"),
    ],
)  # fmt: skip
def test_another_preprocessing_than_it_knows_is_refused_by_name(folder, name, value):
    change_part(folder, "preprocessing", **{name: value})
    with pytest.raises(BundleError, match=rf"'preprocessing\.[a-z ]*{name}"):
        load_classifier(folder)


@pytest.mark.parametrize(
    "names",
    [["cat", "dog"], [*CLASSES, "d"], ["cat", "cat", "dog"], "cat", [1, 2, 3], [], None],
    ids=["short", "long", "twice", "text", "numbers", "empty", "none"],
)
def test_class_names_that_do_not_fit_the_head_are_refused(folder, names):
    rewrite(folder, class_names=names)
    fitting = isinstance(names, list) and set(map(type, names)) == {str}
    distinct = fitting and len(set(names)) == len(names)
    with pytest.raises(BundleError, match="'head" if distinct else "'class_names'"):
        load_classifier(folder)


@pytest.mark.parametrize("version", [99, 0, "1", None])
def test_another_decoder_is_refused(folder, version):
    rewrite(folder, decoder_version=version)
    with pytest.raises(BundleError, match="'decoder_version'"):
        load_classifier(folder)


def test_an_unknown_head_is_refused(folder):
    change_part(folder, "head", kind="oracle")
    with pytest.raises(BundleError, match=r"'head\.kind'"):
        load_classifier(folder)


@pytest.mark.parametrize("version", [True, "1", 0, None])
def test_a_schema_version_is_a_number(folder, version):
    rewrite(folder, schema_version=version)
    with pytest.raises(BundleError, match="no schema version"):
        load_classifier(folder)


@pytest.mark.parametrize("name", ["head.0.weight", "head.0.bias"])
@pytest.mark.parametrize("change", ["nan", "infinite", "missing", "more rows"])
def test_a_head_that_cannot_answer_is_refused_by_name(folder, name, change):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "weights.safetensors")
    tensor = state.pop(name)
    if change == "more rows":
        state[name] = torch.cat([tensor, tensor[:1]])
    elif change != "missing":
        tensor.view(-1)[1] = float("nan" if change == "nan" else "inf")
        state[name] = tensor
    save_file(state, folder / "weights.safetensors")
    rewrite(folder)
    with pytest.raises(BundleError, match=r"'head\.\*'"):
        load_classifier(folder)


def test_a_newer_schema_is_refused(folder):
    rewrite(folder, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(BundleError, match="Update Headstart"):
        load_classifier(folder)


def test_only_known_networks_are_built(folder):
    about = json.loads((folder / "bundle.json").read_text())
    for origin, architecture in (("timm", "hf-hub:evil/model"), ("own", "resnet18"), ("x", "mini")):
        rewrite(
            folder, backbone={**about["backbone"], "origin": origin, "architecture": architecture}
        )
        with pytest.raises(BundleError, match="does not have"):
            load_classifier(folder)


def test_a_manifest_cannot_point_outside(folder, tmp_path):
    (tmp_path / "secret").write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["../secret"] = digest_file(tmp_path / "secret")
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(BundleError, match="outside"):
        load_classifier(folder)


def test_another_bundle_than_expected_is_refused(folder):
    digest = digest_file(folder / "manifest.json")
    assert load_classifier(folder, expect_digest=digest).root_digest == digest
    with pytest.raises(BundleError, match="not the expected one"):
        load_classifier(folder, expect_digest="0" * 64)
    assert load_classifier(folder, expect_digest=digest[:16].upper()).root_digest == digest
    for beginning in ("", digest[:15], "0" * 16):
        with pytest.raises(BundleError, match="not the expected one"):
            load_classifier(folder, expect_digest=beginning)


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="is no bundle"):
        load_classifier(tmp_path)
    with pytest.raises(BundleError, match="no such folder"):
        load_classifier(tmp_path / "nothere")


def test_sixteen_bits_only_where_nothing_is_lost():
    exact = torch.tensor([0.5, 1.0, 2.0**-10])
    assert halved(exact).dtype == torch.float16
    assert halved(torch.tensor([1 / 3])).dtype == torch.float32
    assert halved(torch.tensor([1e9])).dtype == torch.float32
    assert halved(torch.tensor([1, 2])).dtype == torch.int64


@pytest.mark.parametrize("name", ["preprocessing", "head", "backbone"])
def test_parts_that_are_no_objects_are_refused_by_name(folder, name):
    for value in ("x", 5, None, []):
        rewrite(folder, **{name: value})
        with pytest.raises(BundleError, match=name):
            load_classifier(folder)


def test_a_head_of_another_width_is_refused(tmp_path, network, head):
    wide = FittedHead.linear(torch.zeros(3, network.num_features + 1), torch.zeros(3), penalty=0.1)
    save_bundle(tmp_path / "m", network=network, head=wide, class_names=CLASSES, about={})
    with pytest.raises(BundleError, match="takes 385 features"):
        load_classifier(tmp_path / "m")


def test_a_head_of_several_layers_answers_from_its_bundle(tmp_path, network):
    generator = torch.Generator().manual_seed(1)
    widths = (network.num_features, 7, 5, 3)
    layers = tuple(
        (torch.randn(b, a, generator=generator) / a**0.5, torch.randn(b, generator=generator))
        for a, b in pairwise(widths)
    )
    deep = FittedHead(kind="logistic", layers=layers, chosen={"epochs": 4})
    save_bundle(tmp_path / "m", network=network, head=deep, class_names=CLASSES, about={})
    loaded = load_classifier(tmp_path / "m", precision="float32")
    values = np.concatenate(
        [v for _, _, v in loaded.extractor.extract(ImageList(pictures(), list("abcde")), range(5))]
    )
    x = torch.from_numpy(values).double()
    for number, (weight, bias) in enumerate(layers):
        x = (x.relu() if number else x) @ weight.double().T + bias.double()
    found = loaded.predict(np.stack(pictures())).probabilities
    assert np.allclose(found, x.softmax(1).numpy(), atol=1e-6)
    assert loaded.head.chosen == {"epochs": 4}


@pytest.mark.parametrize("count", [0, 2, 99, True, "1", None])
def test_a_wrong_number_of_layers_is_refused(folder, count):
    change_part(folder, "head", num_layers=count)
    with pytest.raises(BundleError, match=r"'head\.\*'"):
        load_classifier(folder)


def test_a_bundle_of_the_first_schema_still_answers(folder):
    from safetensors.torch import load_file, save_file

    before = load_classifier(folder).predict(np.stack(pictures())).probabilities
    state = load_file(folder / "weights.safetensors")
    state["head.coef"] = state.pop("head.0.weight")
    state["head.intercept"] = state.pop("head.0.bias")
    save_file(state, folder / "weights.safetensors")
    rewrite(folder, schema_version=1, head={"kind": "logistic", "penalty": 0.1})
    old = load_classifier(folder)
    assert np.array_equal(old.predict(np.stack(pictures())).probabilities, before)
    assert old.head.chosen == {"penalty": 0.1}


def test_a_bundle_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    old, made = tmp_path / "model", tmp_path / ".new-model"
    for folder in (old, made):
        folder.mkdir()
        (folder / "name.txt").write_text(folder.name)
    rename = Path.rename

    def failing(self, target):
        if self == made:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(OSError, match="Input/output"):
            put_in_place(made, old)
    assert (old / "name.txt").read_text() == "model"
    put_in_place(made, old)
    assert (old / "name.txt").read_text() == ".new-model"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
