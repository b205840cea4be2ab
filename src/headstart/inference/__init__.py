"""Decode, preprocess, forward: the only way from a picture to features."""

from headstart.inference.extractor import FeatureExtractor, FileImages, ImageSource, MemoryImages
from headstart.inference.preprocessing import resize_pixels

__all__ = ["FeatureExtractor", "FileImages", "ImageSource", "MemoryImages", "resize_pixels"]
