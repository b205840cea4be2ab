"""The classifier as a scikit-learn estimator: its inputs are pictures, not tables of numbers."""

from headstart.estimator.classifier import ImageClassifier

__all__ = ["ImageClassifier"]
