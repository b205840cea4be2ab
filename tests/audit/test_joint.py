"""The audit's pass on the way of a run's own."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from headstart.audit.fingerprints import IMAGE_SIZE, examine, fixed_execution
from headstart.audit.joint import JointExtractor
from headstart.backbones import build_network, find_backbone
from headstart.data import load_table
from headstart.features import extract_features
from headstart.inference import FeatureExtractor
from headstart.progress import Progress
from headstart.runtime import choose_execution


@pytest.fixture
def pictures(colour_folder):
    """Small PNGs and two JPEGs that are large enough to be decoded at a half or a quarter."""
    generator = np.random.default_rng(0)
    for number, size in enumerate([(520, 400), (900, 1100)]):
        coarse = Image.fromarray(generator.integers(0, 256, (9, 7, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(
            colour_folder / "red" / f"large-{number}.jpg", quality=90
        )
    (colour_folder / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    return load_table(colour_folder)


def cells(size=48):
    return build_network(find_backbone("SmallCNN"), weights="none", image_size=size)


@pytest.mark.parametrize("network", ["other", "the audit's"])
def test_both_passes_are_as_each_alone(pictures, monkeypatch, tmp_path, network):
    execution = choose_execution("cpu", "float32")
    audits = build_network(find_backbone("mini"), image_size=IMAGE_SIZE)
    plain = FeatureExtractor(cells() if network == "other" else audits, execution)
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "alone"))
    features = extract_features(pictures, plain, progress=Progress())
    alone = examine(pictures, fixed_execution(), Progress())

    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "joint"))
    joint = extract_features(pictures, JointExtractor(plain), progress=Progress())
    monkeypatch.setattr(FeatureExtractor, "forward", None)  # no picture is looked at again
    monkeypatch.setattr(FeatureExtractor, "prepare_views", None)
    found = examine(readable_rows(pictures, joint), fixed_execution(), Progress())
    np.testing.assert_array_equal(joint.values, features.values)
    assert joint.facts == features.facts
    np.testing.assert_array_equal(found.features.values, alone.features.values[joint.good])
    np.testing.assert_array_equal(found.records, alone.records[joint.good])


def readable_rows(table, features):
    assert not features.good.all()
    return table.take(np.flatnonzero(features.good))


def test_a_second_network_does_not_pay_for_the_audit_again(pictures, monkeypatch):
    execution = choose_execution("cpu", "float32")
    extract_features(pictures, JointExtractor(FeatureExtractor(cells(), execution)),
                     progress=Progress())  # fmt: skip
    second = JointExtractor(FeatureExtractor(cells(size=40), execution))
    monkeypatch.setattr(second.auditing, "forward", None)
    features = extract_features(pictures, second, progress=Progress())
    assert features.computed == len(pictures)
    assert 0 < features.seconds["audit"] < features.seconds["compute"]


def test_the_audit_s_own_network_runs_once_for_both(pictures):
    audits = build_network(find_backbone("mini"), image_size=IMAGE_SIZE)
    joint = JointExtractor(FeatureExtractor(audits, choose_execution("cpu", "float32")))
    assert joint.order.second is None
