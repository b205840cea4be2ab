"""Temperature, sets and strangeness: fitted out of fold, in the bundle, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from test_job import rows, settings

import headstart
from headstart.runs import run_job
from headstart.runs.judging.confidence import FEWEST_WRONG, calibrate


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on a sample of the digits, with some errors to learn a temperature from."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    return run_job(settings("digits", folder, max_images=600, seed=1))


def overconfident(num=400, classes=3, sharpness=4.0):
    """Logits that are `sharpness` times too large: labels are drawn from the honest ones."""
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(num, classes)) * 1.5
    chances = np.exp(honest) / np.exp(honest).sum(1, keepdims=True)
    labels = np.array([generator.choice(classes, p=row) for row in chances])
    return honest * sharpness, labels, np.arange(num) % 4


def test_the_temperature_undoes_overconfidence():
    logits, labels, fold = overconfident()
    temperature, probabilities, about = calibrate(logits, labels, fold)
    assert temperature == pytest.approx(4.0, rel=0.2)
    assert len(about["by_fold"]) == 4
    before = np.exp(logits - logits.max(1, keepdims=True))
    before /= before.sum(1, keepdims=True)
    chosen = (np.arange(len(labels)), labels)
    assert -np.log(probabilities[chosen]).mean() < -np.log(before[chosen]).mean() - 0.3
    assert (probabilities.argmax(1) == logits.argmax(1)).all()


def test_a_fold_is_not_calibrated_on_itself():
    logits, labels, fold = overconfident()
    _, before, _ = calibrate(logits, labels, fold)
    changed = logits.copy()
    changed[fold == 2] *= 10
    _, after, _ = calibrate(changed, labels, fold)
    temperature_2 = calibrate(logits, labels, fold)[2]["by_fold"][2]
    assert calibrate(changed, labels, fold)[2]["by_fold"][2] == temperature_2
    assert not np.allclose(before[fold == 1], after[fold == 1])


def test_too_few_errors_leave_the_temperature_alone():
    logits = np.eye(3)[np.arange(90) % 3] * 5
    labels = np.arange(90) % 3
    labels[: FEWEST_WRONG - 1] = (labels[: FEWEST_WRONG - 1] + 1) % 3
    temperature, _, about = calibrate(logits, labels, np.arange(90) % 3)
    assert temperature == 1
    assert "only 9 of 90" in about["note"]


def test_the_bundle_answers_as_the_run_did(finished):
    table = rows(finished.out / "predictions.csv")
    from headstart.data import load_table

    digits = load_table("digits")
    where = {path: row for row, path in enumerate(digits.paths)}
    pixels = np.stack([digits.pixels[where[row["path"]]] for row in table])
    found = headstart.load(finished.out).predict(list(pixels))
    told = [[float(row[f"prob_{name}"]) for name in found.class_names] for row in table]
    assert np.allclose(told, found.probabilities, atol=1e-6)
    assert [row["unknown"] == "yes" for row in table] == found.unknown.tolist()
    names = np.array(found.class_names)
    assert [row["set"] for row in table] == [" | ".join(names[held]) for held in found.sets]


def test_figures_of_the_test_part_are_those_of_its_file(finished):
    table = rows(finished.out / "predictions.csv")
    conformal = finished.metrics["test"]["conformal"]
    held = np.mean([row["true"] in row["set"].split(" | ") for row in table])
    assert conformal["coverage"]["value"] == pytest.approx(held)
    sizes = [len([name for name in row["set"].split(" | ") if name]) for row in table]
    assert conformal["mean_size"]["value"] == pytest.approx(np.mean(sizes))
    strange = np.mean([row["unknown"] == "yes" for row in table])
    assert finished.metrics["test"]["outliers"]["unknown"]["value"] == pytest.approx(strange)


def test_pictures_of_another_kind_are_unknown(finished):
    generator = np.random.default_rng(0)
    stripes = np.tile(np.arange(64, dtype=np.uint8)[None] * 4, (6, 64, 1))
    noise = generator.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    classifier = headstart.load(finished.out)
    assert classifier.predict(list(noise)).unknown.all()
    assert classifier.predict(list(stripes)).unknown.mean() > 0.5
    scores = classifier.predict(list(noise)).outlier_scores
    assert (scores > classifier.confidence.outlier_threshold).all()
