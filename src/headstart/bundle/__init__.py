"""The bundle: one folder from which every answer comes."""

from headstart.bundle.classifier import Classifier, load_classifier
from headstart.bundle.format import SCHEMA_VERSION, FittedHead, save_bundle

__all__ = ["SCHEMA_VERSION", "Classifier", "FittedHead", "load_classifier", "save_bundle"]
