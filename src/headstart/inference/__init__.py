"""Decode, preprocess, forward: the only way from a picture to features."""

from headstart.inference.engines import PassEngine, PassWork, choose_engine
from headstart.inference.extractor import Extractor, FeatureExtractor, ImageList, ImageSource
from headstart.inference.preprocessing import resize_pixels

__all__ = [
    "Extractor",
    "FeatureExtractor",
    "ImageList",
    "ImageSource",
    "PassEngine",
    "PassWork",
    "choose_engine",
    "resize_pixels",
]
