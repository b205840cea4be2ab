"""A bundle with an ONNX file is served by ONNX Runtime, and answers as PyTorch does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from live import encoded, running, settings_for

from headstart.backbones import build_network, find_backbone
from headstart.bundle import FittedHead, load_classifier, save_bundle
from headstart.serve.model import choose_engine

pytest.importorskip("onnxscript")
TOLERANCE = 0.001  # what an export is proved within


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    from headstart.export import ExportSettings, export_bundle

    folder = tmp_path_factory.mktemp("onnx") / "model"
    network = build_network(find_backbone("LeNet5"), weights="none", image_size=32, seed=3)
    generator = torch.Generator().manual_seed(0)
    head = FittedHead.linear(
        torch.randn(3, network.num_features, generator=generator), torch.zeros(3), penalty=0.1
    )
    save_bundle(folder, network=network, head=head, class_names=("a", "b", "c"), about={})
    return export_bundle(folder, ExportSettings()).out


def test_onnx_is_the_default_and_answers_alike(exported):
    pictures = [encoded(i) for i in range(3)]
    with running(replace(settings_for(exported), engine="auto", precision="auto")) as live:
        model = live.client.get("/model").json()
        assert (model["engine"], model["precision"]) == ("onnx", "float32")
        assert model["golden"] == "stored in the bundle"
        sent = [("files", (f"{i}.png", data, "image/png")) for i, data in enumerate(pictures)]
        found = live.client.post("/predict", files=sent).json()["predictions"]
    values = np.array([list(p["probabilities"].values()) for p in found], dtype=np.float32)
    same = load_classifier(exported, engine="onnx").predict(pictures)
    assert np.array_equal(values, same.probabilities)
    other = load_classifier(exported, precision="float32").predict(pictures)
    assert np.abs(values - other.probabilities).max() <= TOLERANCE


def test_an_engine_is_chosen_with_a_reason(exported, served_bundle):
    automatic = replace(settings_for(exported), engine="auto", precision="auto")
    assert choose_engine(automatic) == ("onnx", "the bundle has it")
    assert choose_engine(replace(automatic, precision="bfloat16"))[0] == "torch"
    without = replace(automatic, bundle=str(served_bundle))
    assert choose_engine(without)[0] == "torch"
    assert "headstart export" in choose_engine(without)[1]
