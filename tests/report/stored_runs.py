"""Runs made by hand: the documented files of a finished run, without the work behind them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.data import digest_of
from headstart.files import write_csv, write_json

CLASSES = ("cat", "dog", "owl")
LEARNT, TESTED, FOLDS = 12, 8, 3  # images a class, and folds


def paint(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> str:
    """A small noisy picture; returns the digest of its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return digest_of(path.read_bytes())


def make_run(
    folder: Path,
    *,
    classes: tuple[str, ...] = CLASSES,
    data: Path | None = None,
    name: str = "pets",
    grouped: bool = False,
    seed: int = 0,
) -> Path:
    """A finished run in `folder` on pictures in `data` (painted there), which `data` may lack.

    Classes may have any name; folders of pictures are numbered then ('0/03.png').
    """
    folder.mkdir(parents=True)
    images, splits, paths, parts, labels = [], [], [], [], []
    for c, label in enumerate(classes):
        for i in range(LEARNT + TESTED):
            path = f"{label if data else c}/{i:02d}.png"
            digest = paint(data / path, seed=100 * c + i) if data else f"digest-{c}-{i}"
            part, fold = ("train", i % FOLDS + 1) if i < LEARNT else ("test", "")
            group = f"g{c}-{part}-{fold or i}" if grouped else ""
            images.append([label, "", path, digest, 40, 30, "PNG", "RGB", "", ""])
            splits.append([path, label, group, part, fold])
            paths.append(path)
            parts.append(part)
            labels.append(c)
    header = ["label", "split", "path", "digest", "width", "height", "format", "mode"]
    header += ["treatment", "problem"]
    write_csv(folder / "images.csv", header, images)
    write_csv(folder / "splits.csv", ["path", "label", "group", "part", "fold"], splits)
    generator = np.random.default_rng(seed)
    scores = np.exp(generator.normal(size=(len(paths), len(classes))))
    scores[np.arange(len(paths)), labels] += 3
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    rows = {"train": [], "test": []}
    for path, part, label, row in zip(paths, parts, labels, probabilities, strict=True):
        best = classes[int(row.argmax())]
        rows[part].append([path, classes[label], best, *(f"{p:.6f}" for p in row)])
    columns = ["path", "true", "predicted", *(f"prob_{label}" for label in classes)]
    write_csv(folder / "predictions.csv", columns, rows["test"])
    write_csv(folder / "out_of_fold_predictions.csv", columns, rows["train"])
    write_history(folder)
    tested = np.array([part == "test" for part in parts])
    write_json(
        folder / "metrics.json",
        metrics_of(probabilities[tested], np.array(labels)[tested], classes),
    )
    write_json(folder / "run.json", record_of(classes, data, name, folder))
    return folder


def write_history(folder: Path) -> None:
    rows = [
        [fold, 10.0**-p, 0.5 + 0.1 * p + 0.02 * fold, 0.8 - 0.05 * p, "yes"]
        for fold in (1, 2, 3)
        for p in range(4)
    ]
    header = ["fold", "penalty", "inner_log_loss", "inner_accuracy", "contender"]
    write_csv(folder / "history.csv", header, rows)


def figure(value: float, method: str = "bootstrap") -> dict[str, object]:
    low, high = max(0.0, value - 0.04), min(1.0, value + 0.03)
    return {"value": value, "low": low, "high": high, "method": method}


def metrics_of(
    probabilities: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
) -> dict[str, object]:
    matrix = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(matrix, (labels, probabilities.argmax(axis=1)), 1)
    accuracy = float(np.trace(matrix) / matrix.sum())
    values = {"accuracy": accuracy, "balanced_accuracy": accuracy, "macro_f1": 0.83,
              "macro_auc": 0.95, "log_loss": 0.41, "brier_score": 0.3}  # fmt: skip
    figures = {name: figure(value) for name, value in values.items()}
    per_class = [
        {"class": name, "precision": 0.8, "recall": float(matrix[c, c] / matrix[c].sum()),
         "f1": 0.8, "support": int(matrix[c].sum()),
         "figures": {"auc": {"value": 0.9375, "low": 0.9, "high": 0.96}}}
        for c, name in enumerate(classes)
    ]  # fmt: skip
    return {
        "cross_validation": {
            "num_images": LEARNT * len(classes), "num_folds": FOLDS,
            "note": "from out-of-fold predictions; conditional on the fitted models",
            "figures": {n: f | {"fold_mean": f["value"], "fold_std": 0.02}
                        for n, f in figures.items()},
            "folds": [],
        },
        "baselines": {"neighbours": {"accuracy": 0.6, "low": 0.5, "high": 0.7},
                      "commonest class": {"accuracy": 0.33, "low": 0.2, "high": 0.5}},
        "learning_curve": {
            "points": [{"fraction": s, "num_images": round(24 * s), "accuracy": 0.6 + s / 5,
                        "low": 0.5 + s / 5, "high": 0.7 + s / 5} for s in (0.25, 0.5, 1.0)],
            "verdict": "Still rising: more images would probably help.", "note": "a logistic head",
        },
        "test": {"num_images": len(labels), "figures": figures, "per_class": per_class,
                 "confusion_matrix": matrix.tolist(), "origin": "40 % of each class held out"},
    }  # fmt: skip


def record_of(
    classes: tuple[str, ...], data: Path | None, name: str, folder: Path
) -> dict[str, object]:
    count = (LEARNT + TESTED) * len(classes)
    return {
        "schema_version": 1, "status": "finished", "begun": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:00+00:00", "seed": 7, "test_openings": 1,
        "settings": {"data": str(data or folder / "gone"), "test_data": None, "model": "mini",
                     "head": "logistic", "folds": FOLDS, "seed": 7, "out": str(folder)},
        "versions": {"headstart": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
        "machine": "Linux x86_64, 2 cores", "command": ["headstart", "run", "--data", "pets/"],
        "times": {"features": 4.0, "folds": 1.5, "final fit": 0.5, "peak_memory_mib": 512.0},
        "data": {"name": name, "digest": "d" * 32, "num_images": count, "num_left_out": 0,
                 "class_names": list(classes), "class_counts": [LEARNT + TESTED] * len(classes)},
        "backbone": {"name": "mini", "architecture": "mini2", "num_features": 384,
                     "num_parameters": 2_295_672, "code_licence": "Apache-2.0",
                     "weights": {"source": "bundled", "origin": "mini.safetensors",
                                 "licence": "research only", "file_digest": "f" * 64}},
        "preprocessing": {"size": 96, "resize": "squash", "interpolation": "bilinear",
                          "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        "engine": {"device": "cpu", "precision": "float32", "key": "cpu-float32",
                   "reason": "no bfloat16"},
        "choice": {"backbone": "mini", "head": "logistic", "penalty": 0.01,
                   "model_digest": "a" * 64, "locked": "2026-01-02T03:04:50+00:00"},
    }  # fmt: skip


def edit_json(path: Path, **entries: object) -> None:
    """Replace some entries of a JSON file."""
    write_json(path, {**json.loads(path.read_text()), **entries})


EVERYTHING = {
    "calibration": {
        "temperature": 1.3, "note": "fitted out of fold",
        "before": {"ece": 0.06, "ece_low": 0.04, "ece_high": 0.09, "log_loss": 0.5},
        "after": {"ece": 0.03, "ece_low": 0.02, "ece_high": 0.05, "log_loss": 0.4,
                  "reliability": [{"confidence": 0.4, "accuracy": 0.5, "accuracy_low": 0.3,
                                   "accuracy_high": 0.7},
                                  {"confidence": None, "accuracy": None},
                                  {"confidence": 0.9, "accuracy": 0.88}]},
    },
    "conformal": {
        "alpha": 0.1, "note": "approximate",
        "coverage": {"value": 0.91, "interval": {"low": 0.87, "high": 0.94}},
        "mean_size": {"value": 1.25, "low": 1.1, "high": 1.4},
        "by_class": [{"class": "cat", "coverage": {"value": 0.875}}],
    },
    "outliers": {
        "threshold": 12.5, "note": "tells pictures of another kind",
        "classes_left_out": [{"class": "owl", "auroc": {"value": 0.97}, "fpr95": 0.1}],
    },
    "shortcuts": [
        {"name": "file size", "balanced_accuracy": 0.82, "low": 0.78, "high": 0.86,
         "chance": 0.33, "alarm": True, "note": "No grouping can mend it."},
        {"name": "the border", "balanced_accuracy": 0.35, "low": 0.3, "high": 0.4,
         "chance": 0.33, "alarm": False},
    ],
    "training": {
        "strategy": "two-stage", "plan": "head: 3 epochs\n  all frozen", "verdicts": ["went well"],
    },
    "something_new": {"alpha": {"value": 0.25, "low": 0.125, "high": 0.5}},
}  # fmt: skip
