"""The feature store and the pass that fills it."""

from headstart.features.cache import (
    CacheEntry,
    Removal,
    clear_cache,
    describe_bytes,
    limit_bytes,
    list_cache,
    parse_size,
    trim_cache,
)
from headstart.features.folder import cache_folder, store_path
from headstart.features.passes import extract_features
from headstart.features.store import FeatureStore

__all__ = [
    "CacheEntry",
    "FeatureStore",
    "Removal",
    "cache_folder",
    "clear_cache",
    "describe_bytes",
    "extract_features",
    "limit_bytes",
    "list_cache",
    "parse_size",
    "store_path",
    "trim_cache",
]
