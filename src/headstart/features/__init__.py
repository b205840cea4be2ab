"""The feature store and the pass that fills it."""

from headstart.features.passes import extract_features
from headstart.features.store import FeatureStore, cache_folder, clear_cache, list_cache, store_path

__all__ = [
    "FeatureStore",
    "cache_folder",
    "clear_cache",
    "extract_features",
    "list_cache",
    "store_path",
]
