"""Decode, preprocess, forward: the only way from a picture to features."""

from headstart.inference.extractor import Extractor, FeatureExtractor, ImageList, ImageSource
from headstart.inference.preprocessing import resize_pixels

__all__ = ["Extractor", "FeatureExtractor", "ImageList", "ImageSource", "resize_pixels"]
