"""Metrics against scikit-learn and torchmetrics, and what each promises at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from headstart.metrics import (
    HEADLINES,
    METRICS,
    confusion_matrix,
    per_class_table,
    score,
    text_report,
)
from headstart.metrics.classification import top_k_hits


def make_predictions(n: int = 300, num_classes: int = 7, seed: int = 0, present: int | None = None):
    """Probabilities that know something about the labels; classes from `present` on are absent."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(present or num_classes, size=n)
    logits = generator.normal(size=(n, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, labels


def specificities(labels, predictions):
    """Recall of 'not this class', a class."""
    return [
        sklearn_metrics.recall_score(labels != c, predictions != c) for c in range(labels.max() + 1)
    ]


def test_all_metrics_agree_with_sklearn():
    """Value by value, with explicit labels."""
    probabilities, labels = make_predictions()
    predictions, classes = probabilities.argmax(1), np.arange(7)
    averages = {"labels": classes, "average": "macro", "zero_division": 0}
    wanted = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predictions),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, predictions),
        "top3_accuracy": sklearn_metrics.top_k_accuracy_score(
            labels, probabilities, k=3, labels=classes
        ),
        "top5_accuracy": sklearn_metrics.top_k_accuracy_score(
            labels, probabilities, k=5, labels=classes
        ),
        "macro_precision": sklearn_metrics.precision_score(labels, predictions, **averages),
        "macro_recall": sklearn_metrics.recall_score(labels, predictions, **averages),
        "macro_f1": sklearn_metrics.f1_score(labels, predictions, **averages),
        "macro_auc": sklearn_metrics.roc_auc_score(labels, probabilities, multi_class="ovr"),
        "log_loss": sklearn_metrics.log_loss(labels, probabilities, labels=classes),
        "brier_score": sklearn_metrics.brier_score_loss(labels, probabilities, labels=classes),
        "macro_average_precision": sklearn_metrics.average_precision_score(
            np.eye(7)[labels], probabilities, average="macro"
        ),
        "matthews": sklearn_metrics.matthews_corrcoef(labels, predictions),
        "macro_specificity": np.mean(specificities(labels, predictions)),
        "weighted_specificity": np.average(
            specificities(labels, predictions), weights=np.bincount(labels)
        ),
        **{
            f"weighted_{name}": function(labels, predictions, average="weighted")
            for name, function in (
                ("precision", sklearn_metrics.precision_score),
                ("recall", sklearn_metrics.recall_score),
                ("f1", sklearn_metrics.f1_score),
            )
        },
    }
    got = score(probabilities, labels, 7)
    assert list(got) == METRICS.names()
    assert got == pytest.approx(wanted)


def test_all_metrics_agree_with_torchmetrics():
    """A second, independent library."""
    probabilities, labels = make_predictions(seed=1)
    scores, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    got = score(probabilities, labels, 7)
    wanted = {
        "macro_auc": reference.multiclass_auroc(scores, targets, 7),
        "macro_f1": reference.multiclass_f1_score(scores, targets, 7),
        "balanced_accuracy": reference.multiclass_accuracy(scores, targets, 7),
        "accuracy": reference.multiclass_accuracy(scores, targets, 7, average="micro"),
        "top3_accuracy": reference.multiclass_accuracy(
            scores, targets, 7, average="micro", top_k=3
        ),
        "macro_average_precision": reference.multiclass_average_precision(scores, targets, 7),
        "matthews": reference.multiclass_matthews_corrcoef(scores, targets, 7),
        "macro_specificity": reference.multiclass_specificity(scores, targets, 7),
        "weighted_specificity": reference.multiclass_specificity(
            scores, targets, 7, average="weighted"
        ),
        "weighted_precision": reference.multiclass_precision(
            scores, targets, 7, average="weighted"
        ),
        "weighted_f1": reference.multiclass_f1_score(scores, targets, 7, average="weighted"),
    }
    for name, value in wanted.items():
        assert got[name] == pytest.approx(float(value), abs=1e-6)
    matrix = reference.multiclass_confusion_matrix(scores, targets, 7).numpy()
    np.testing.assert_array_equal(confusion_matrix(labels, probabilities.argmax(1), 7), matrix)


MACROS = {
    "macro_precision": sklearn_metrics.precision_score,
    "macro_recall": sklearn_metrics.recall_score,
    "macro_f1": sklearn_metrics.f1_score,
}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 15), present=st.integers(1, 9))
def test_macros_average_over_the_classes_that_occur(seed, n, present):
    """As scikit-learn with its own labels: nine classes, most of them in neither."""
    probabilities, labels = make_predictions(n, 9, seed, present)
    got = score(probabilities, labels, 9)
    for name, function in MACROS.items():
        wanted = function(labels, probabilities.argmax(1), average="macro", zero_division=0)
        assert got[name] == pytest.approx(wanted), name


def test_absent_classes_count_as_documented():
    """Only predicted: zero in macro recall, left out of balanced accuracy and AUC."""
    probabilities, labels = make_predictions(present=4)
    assert set(probabilities.argmax(1)) == set(range(7))
    got = score(probabilities, labels, 7)
    assert got["macro_recall"] == pytest.approx(got["balanced_accuracy"] * 4 / 7)
    areas = [sklearn_metrics.roc_auc_score(labels == c, probabilities[:, c]) for c in range(4)]
    assert got["macro_auc"] == pytest.approx(np.mean(areas))


def test_classes_that_never_occur_stay_in_the_table_only():
    """Two of seven classes occur and are all right."""
    labels = np.arange(6) % 2
    assert score(np.eye(7)[labels], labels, 7)["macro_recall"] == 1
    assert per_class_table(np.eye(7)[labels], labels)["recall"].tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_undefined_metrics_are_none():
    """Top 3 of three classes, AUC of one class."""
    probabilities, _ = make_predictions(20, 3)
    got = score(probabilities, np.zeros(20, dtype=np.int64), 3)
    assert got["top3_accuracy"] is None
    assert got["top5_accuracy"] is None
    assert got["macro_auc"] is None
    assert got["macro_average_precision"] is None
    assert got["macro_specificity"] is None
    assert score(*make_predictions(20, 4), 4)["top3_accuracy"] is not None


def test_log_loss_is_clipped():
    """A label of probability zero costs -log(1e-15)."""
    got = score(np.array([[1.0, 0.0]]), np.array([1]), 2)
    assert got["log_loss"] == pytest.approx(-np.log(1e-15))


def test_a_perfect_and_a_constant_answer():
    """Closed forms."""
    labels = np.arange(12) % 4
    perfect = score(np.eye(4)[labels], labels, 4)
    losses = {"log_loss", "brier_score"}
    assert all(perfect[name] == pytest.approx(0, abs=1e-12) for name in losses)
    for name, value in perfect.items():
        assert value == pytest.approx(1) or value is None or name in losses, name
    constant = score(np.full((12, 4), 0.25), labels, 4)
    assert constant["macro_auc"] == pytest.approx(0.5)
    assert constant["accuracy"] == pytest.approx(0.25)
    assert constant["log_loss"] == pytest.approx(np.log(4))
    assert constant["brier_score"] == pytest.approx(0.75)  # (3/4)^2 + 3 (1/4)^2
    assert constant["macro_average_precision"] == pytest.approx(0.25)
    assert constant["matthews"] == 0
    assert constant["top3_accuracy"] == pytest.approx(0.75)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_of_images_and_of_classes_does_not_matter(seed):
    """Permuting rows, or renaming classes, leaves every metric."""
    probabilities, labels = make_predictions(40, 6, seed)
    generator = np.random.default_rng(seed)
    rows, classes = generator.permutation(40), generator.permutation(6)
    before = score(probabilities, labels, 6)
    after = score(probabilities[rows][:, classes], np.argsort(classes)[labels[rows]], 6)
    assert after == pytest.approx(before)


def test_top_one_is_the_prediction_even_in_ties():
    """Both take the first of equals."""
    probabilities = np.array([[0.4, 0.4, 0.2], [0.1, 0.45, 0.45]])
    for label in range(3):
        labels = np.array([label, label])
        hits = probabilities.argmax(1) == labels
        np.testing.assert_array_equal(top_k_hits(probabilities, labels, k=1), hits)


def test_per_class_table_and_text_report_agree_with_sklearn():
    """Columns and text, with a class that never occurs."""
    probabilities, labels = make_predictions(present=6)
    table = per_class_table(probabilities, labels)
    wanted = sklearn_metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(1), labels=np.arange(7), zero_division=0
    )
    for column, values in zip(("precision", "recall", "f1", "support"), wanted, strict=True):
        np.testing.assert_allclose(table[column], values)
    np.testing.assert_allclose(
        table["specificity"],
        [sklearn_metrics.recall_score(labels != c, probabilities.argmax(1) != c) for c in range(7)],
    )
    for names in (
        tuple("abcdefg"),
        ("a class of a long name", *"bcdefg"),
        ("\u00e4\u6f22", *"bcdefg"),
    ):
        assert text_report(probabilities, labels, names) == sklearn_metrics.classification_report(
            labels,
            probabilities.argmax(1),
            labels=np.arange(7),
            target_names=names,
            digits=4,
            zero_division=0,
        )


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=np.int64), "N > 0"),
        (np.full((2, 3), 0.5), np.array([0, 1]), r"\(N, 2\)"),
        (np.full((2, 2), np.nan), np.array([0, 1]), "finite"),
        (np.full((2, 2), 0.5), np.array([0, -1]), "0 to 1"),
    ],
)
def test_what_cannot_be_scored_is_named(probabilities, labels, message):
    """ValueError with the reason."""
    with pytest.raises(ValueError, match=message):
        score(probabilities, labels, 2)


def test_registered_metrics_say_how_they_are_resampled():
    """Every entry can be given an interval in the way that it names."""
    for spec in METRICS:
        assert spec.label
        if spec.interval == "wilson":
            assert spec.per_image is not None
        assert (spec.interval == "influence") == (spec.influences is not None)
        if spec.interval == "bootstrap":
            assert (spec.from_counts is None) != (spec.per_image is None)


def test_two_classes_have_the_usual_brier_score_and_correlation():
    """(p - y)^2, and the correlation of two 0/1 columns."""
    probabilities, labels = make_predictions(50, 2, 3)
    got = score(probabilities, labels, 2)
    assert got["brier_score"] == pytest.approx(((probabilities[:, 1] - labels) ** 2).mean())
    correlation = np.corrcoef(labels, probabilities.argmax(1))[0, 1]
    assert got["matthews"] == pytest.approx(correlation)
    assert score(1 - probabilities, labels, 2)["matthews"] == pytest.approx(-correlation)


def test_headlines_are_few_and_lead():
    """Tables for people show nine figures, the first of the registry."""
    names = [spec.name for spec in HEADLINES]
    assert names == METRICS.names()[: len(names)]
    assert names[0] == "accuracy"
    assert len(names) == 9 < len(METRICS)
