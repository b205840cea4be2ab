"""The feature store and the pass that fills it."""

from headstart.features.passes import ViewFeatures, extract_features, extract_views
from headstart.features.store import FeatureStore, cache_folder, clear_cache, list_cache, store_path

__all__ = [
    "FeatureStore",
    "ViewFeatures",
    "cache_folder",
    "clear_cache",
    "extract_features",
    "extract_views",
    "list_cache",
    "store_path",
]
