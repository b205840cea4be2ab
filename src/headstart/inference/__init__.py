"""Decode, preprocess, forward: the only way from a picture to features."""

from headstart.inference.engines import PassEngine, PassWork, choose_engine
from headstart.inference.extractor import Extractor, FeatureExtractor
from headstart.inference.preprocessing import resize_pixels
from headstart.inference.sources import ImageList, ImageSource

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
