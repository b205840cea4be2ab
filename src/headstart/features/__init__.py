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
from headstart.features.passes import (
    ViewFeatures,
    check_unchanged,
    extract_features,
    extract_views,
)
from headstart.features.scratch import (
    announced_files,
    new_array,
    row_slices,
    scratch_array,
    take_rows,
)
from headstart.features.store import FeatureStore

__all__ = [
    "CacheEntry",
    "FeatureStore",
    "Removal",
    "ViewFeatures",
    "announced_files",
    "cache_folder",
    "check_unchanged",
    "clear_cache",
    "describe_bytes",
    "extract_features",
    "extract_views",
    "limit_bytes",
    "list_cache",
    "new_array",
    "parse_size",
    "row_slices",
    "scratch_array",
    "store_path",
    "take_rows",
    "trim_cache",
]
