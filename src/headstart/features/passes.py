"""One pass: the features of a table, read from the store or computed once and stored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from headstart.data.decoding import DECODER_VERSION, digest_of
from headstart.features.store import FeatureStore
from headstart.inference import FeatureExtractor, ImageSource
from headstart.progress import Progress
from headstart.records import Features, ImageFacts

VIEW = "whole"


def identity(extractor: FeatureExtractor) -> str:
    """Everything but the image that decides its features, readable."""
    network = extractor.network
    return " | ".join(
        [
            network.spec.name,
            network.digest,
            network.preprocessing.key,
            f"decoder {DECODER_VERSION}",
            VIEW,
            extractor.key,
        ]
    )


def store_keys(source: ImageSource, rows: Sequence[int]) -> dict[int, str]:
    """The key of each row: digest of its bytes, the ending of its name, and its box if it has one.

    The ending belongs to it because decoding looks at it: camera files are told by it, and a wrong
    one is noted. The box stands there bit by bit: one file with two boxes is two pictures. A row
    that cannot be read has no key.
    """
    found = {}
    for row in rows:
        try:
            digest = digest_of(source.read(row))
        except OSError:
            continue
        box = source.box_of(row)
        region = "" if box is None else "@" + ",".join(share.hex() for share in box)
        found[row] = digest + PurePath(source.paths[row]).suffix.casefold() + region
    return found


def extract_features(
    source: ImageSource,
    extractor: FeatureExtractor,
    *,
    progress: Progress,
    store: FeatureStore | None = None,
) -> Features:
    """Features of every image, each computed at most once.

    Args:
        source: the images.
        extractor: network and device.
        progress: gets one step an image.
        store: where features are kept; None opens the user's.

    Raises:
        StorageError: the disk is full; what was stored before stays.
    """
    begun = time.perf_counter()
    own = store is None
    store = store or FeatureStore(identity(extractor), extractor.network.num_features)
    try:
        return _fill(source, extractor, progress, store, begun)
    finally:
        if own:
            store.close()


def _fill(
    source: ImageSource,
    extractor: FeatureExtractor,
    progress: Progress,
    store: FeatureStore,
    begun: float,
) -> Features:
    count = len(source)
    values = np.zeros((count, extractor.network.num_features), dtype=np.float16)
    facts: list[ImageFacts | None] = [None] * count
    key_by_row = store_keys(source, range(count))
    known = store.get(sorted(set(key_by_row.values())))
    for row, key in key_by_row.items():
        if key in known:
            vector, record = known[key]
            values[row] = vector
            facts[row] = replace(record, path=source.paths[row])
    read_s = time.perf_counter() - begun
    first_of: dict[str, int] = {}  # identical files go through the network once
    for row, key in key_by_row.items():
        if facts[row] is None:
            first_of.setdefault(key, row)
    unread = [row for row in range(count) if row not in key_by_row]
    rows = sorted([*first_of.values(), *unread])
    with progress.phase(f"Features by {extractor.network.spec.name}", len(rows)) as advance:
        for batch, batch_facts, batch_values in extractor.extract(source, rows, isolated=True):
            fresh = []
            for row, record, vector in zip(batch, batch_facts, batch_values, strict=True):
                values[row], facts[row] = vector, record
                if not record.problem and row in key_by_row:
                    fresh.append((key_by_row[row], vector, record))
            store.put(fresh)
            advance(len(batch))
    for row, key in key_by_row.items():
        if facts[row] is None:
            twin = first_of[key]
            values[row] = values[twin]
            facts[row] = replace(facts[twin], path=source.paths[row])  # type: ignore[type-var]
    complete = tuple(record for record in facts if record is not None)
    return Features(
        values=values,
        facts=complete,
        good=np.array([not record.problem for record in complete], dtype=bool),
        computed=len(rows),
        seconds={
            "read": round(read_s, 3),
            "compute": round(time.perf_counter() - begun - read_s, 3),
        },
    )
