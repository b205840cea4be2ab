"""Small bundles with random weights and everything a model knows of how sure it is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from networks import on_cpu
from PIL import Image

from headstart.backbones import build_network, find_backbone
from headstart.bundle import FittedHead, save_bundle
from headstart.bundle.confidence import Confidence, Decision
from headstart.conformal import ConformalRule
from headstart.heads import head_logits
from headstart.inference import FeatureExtractor, ImageList
from headstart.outliers import fit_mahalanobis, outlier_threshold

CLASSES = ("cat", "dog", "ötter/x")


def coarse_pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    """Pictures of coarse noise, each of another size."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        noise = generator.integers(0, 256, (4 + number % 5, 6, 3), dtype=np.uint8)
        size = (60 + 3 * number, 50 + 2 * number)
        made.append(np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)))
    return made


def wake(module: torch.nn.Module, seed: int) -> None:
    """Draw convolutions wide enough that what a picture shows reaches the features."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)


def random_bundle(
    folder: Path,
    name: str,
    size: int,
    *,
    hidden: int = 0,
    class_names: tuple[str, ...] | None = None,
    seed: int = 0,
    tta: str | None = None,
    layers: str | None = None,
) -> Path:
    """A bundle of a catalogue network whose head, sets and threshold fit its own features."""
    network = build_network(
        find_backbone(name), weights="none", image_size=size, seed=seed, layers=layers
    )
    wake(network.module, seed)
    extractor = FeatureExtractor(network, on_cpu())
    source = ImageList(coarse_pictures(40), [str(i) for i in range(40)])
    features = np.concatenate([v for _, _, v in extractor.extract(source, range(40))])
    generator = torch.Generator().manual_seed(seed)
    widths = [network.num_features, *([hidden] if hidden else []), len(CLASSES)]
    layers = []
    values = features.astype(np.float64)
    for wide, narrow in pairwise(widths):
        scale = 3 / max(float(np.linalg.norm(values - values.mean(0), axis=1).mean()), 1e-6)
        weight = torch.randn(narrow, wide, generator=generator) * scale
        layers.append((weight, -weight @ torch.from_numpy(values.mean(0)).float()))
        values = np.maximum(head_logits(values, (layers[-1],)), 0)
    labels = np.arange(40) % 3
    model = fit_mahalanobis(features, labels)
    save_bundle(
        folder,
        network=network,
        head=FittedHead(kind="mlp" if hidden else "logistic", layers=tuple(layers)),
        class_names=class_names or CLASSES,
        about={"settings": {}},
        confidence=Confidence(
            temperature=1.3,
            sets=ConformalRule(alpha=0.1, thresholds=(0.8,) * 3, num_images=(40,) * 3),
            outliers=model,
            outlier_threshold=outlier_threshold(model.score(features)),
            tta=tta,
            decision=None
            if class_names
            else Decision(positive=CLASSES[1], index=1, threshold=0.3, rule="youden"),
        ),
    )
    return folder
