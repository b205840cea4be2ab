"""The list of backbones: figures from the networks themselves, weights looked for."""

from __future__ import annotations

import json

import pytest

from headstart.backbones import BACKBONES, build_network, find_backbone
from headstart.backbones.survey import MOST_MEASURED, survey_backbones
from headstart.cli import models

# Parameters of the papers' networks without the last layer: torchvision's published counts less
# (D + 1) x 1000.
PUBLISHED = {
    "AlexNet": (61_100_840, 4096),
    "GoogLeNet": (6_624_904, 1024),
    "VGG16": (138_357_544, 4096),
    "VGG19": (143_667_240, 4096),
    "ResNet50": (25_557_032, 2048),
    "DenseNet121": (7_978_856, 1024),
    "MobileNetV2": (3_504_872, 1280),
    "MobileNetV3Small": (2_542_856, 1024),
    "EfficientNetB0": (5_288_548, 1280),
    "ConvNeXtTiny": (28_589_128, 768),
}


@pytest.fixture(scope="module")
def listed():
    return {entry["name"]: entry for entry in survey_backbones()}


def test_every_backbone_is_listed_whole(listed):
    assert list(listed) == BACKBONES.names()
    for entry in listed.values():
        assert len(entry["stages"]) >= 4
        assert entry["image_size"] == entry["preprocessing"]["size"]
        assert entry["weights_source"]
        assert entry["weights_licence"] not in ("", "see the hub")
    assert json.loads(json.dumps(listed)) == {
        name: json.loads(json.dumps(entry)) for name, entry in listed.items()
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(listed, name):
    total, features = PUBLISHED[name]
    assert listed[name]["num_features"] == features
    assert listed[name]["num_parameters"] == total - (features + 1) * 1000


@pytest.mark.parametrize("name", ["mini", "LeNet5", "ViTSmall"])
def test_figures_are_those_of_the_built_network(listed, name):
    network = build_network(find_backbone(name), weights="none")
    entry = listed[name]
    assert entry["num_parameters"] == network.num_parameters
    assert entry["num_features"] == network.num_features
    assert tuple(entry["stages"]) == network.stages
    assert entry["image_size"] == network.preprocessing.size


def test_weights_are_looked_for(listed, monkeypatch, tmp_path):
    assert (listed["mini"]["weights"], listed["mini"]["at_hand"]) == ("in the package", True)
    assert (listed["LeNet5"]["weights"], listed["LeNet5"]["at_hand"]) == ("none published", False)
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path))
    (tmp_path / "alexnet.pth").write_bytes(b"")
    entry = survey_backbones("alexnet")[0]
    assert (entry["weights"], entry["at_hand"]) == ("at hand: alexnet.pth", True)


def test_many_networks_are_listed_by_their_configuration():
    further = [e for e in survey_backbones("vit_") if e["name"] not in BACKBONES.names()]
    assert len(further) > MOST_MEASURED
    assert all(e["num_parameters"] is None and e["image_size"] >= 32 for e in further)
    assert {e["weights_licence"] for e in further} > {"apache-2.0"}


def test_without_measuring_nothing_is_built(listed):
    quick = {entry["name"]: entry for entry in survey_backbones(measure=False)}
    assert list(quick) == list(listed)
    assert quick["mini"]["at_hand"]
    assert quick["ResNet50"]["num_parameters"] is None


def test_lines_of_a_pipe_are_aligned_and_whole(listed, capsys):
    rows = [models.cells(entry) for entry in listed.values()]
    models.print_lines(rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows)
    assert max(map(len, lines)) <= 120
    assert lines[0].startswith("mini ")
    begins = {line.index(row[-1]) for line, row in zip(lines, rows, strict=True)}
    assert len(begins) == 1
    assert any("VGG16" in line and "134.3 M  4096  224 px" in line for line in lines)


def test_the_table_of_a_terminal_has_a_heading(listed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    models.print_table([models.cells(entry) for entry in listed.values()])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["NAME", "PARAMS", "FEATURES"]
    assert len(lines) == len(listed) + 1
    assert all("..." not in line for line in lines)
