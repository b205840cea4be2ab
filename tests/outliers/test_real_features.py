"""Mahalanobis scores on features of real pictures by the network in the box."""

from __future__ import annotations

import numpy as np

from headstart.backbones import build_network, find_backbone
from headstart.data import load_table
from headstart.features import extract_features
from headstart.inference import FeatureExtractor
from headstart.outliers import cross_fit_scores, fit_mahalanobis, judge_separation
from headstart.progress import Progress
from headstart.runtime import choose_execution


def test_digits_are_no_flowers(pack):
    """Far data: nearly all digits score above nearly all held-out flowers."""
    extractor = FeatureExtractor(build_network(find_backbone("mini")), choose_execution("cpu"))
    flowers = load_table(pack("flowers5"))
    rows = np.concatenate([np.flatnonzero(flowers.labels == c)[:40] for c in range(3)])
    known, digits = flowers.take(rows), load_table("digits").take(range(40))
    features, strange = (
        extract_features(table, extractor, progress=Progress()).values for table in (known, digits)
    )
    folds = np.arange(len(known)) % 4
    model = fit_mahalanobis(features, known.labels)
    found = judge_separation(cross_fit_scores(features, known.labels, folds), model.score(strange))
    assert found.auroc.value > 0.95
    assert found.accepted_at_95.value < 0.1
