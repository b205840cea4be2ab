"""Decode, preprocess, forward: the only way from a picture to features."""

from headstart.inference.extractor import FeatureExtractor, ImageList, ImageSource
from headstart.inference.preprocessing import resize_pixels

__all__ = ["FeatureExtractor", "ImageList", "ImageSource", "resize_pixels"]
