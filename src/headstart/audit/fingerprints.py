"""One pass over the pictures: embeddings by a fixed network, and fingerprints of the pixels.

Each picture is decoded once, by the threads that feed the network. The network is always `mini`
at 64 px in float32, whatever a run learns with, so that groups and with them folds never depend
on the backbone. Embeddings and fingerprints stay in the feature store, so that a second audit
reads them, and a run with `mini` at that size in float32 on a processor finds its features there.

A fingerprint is a fixed record of bytes; the store keeps it as the 16-bit words that it keeps of
features, untouched.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePath

import numpy as np
import torch

from headstart.backbones import Network, build_network, find_backbone
from headstart.data.boxes import Box
from headstart.data.decoding import DECODER_VERSION
from headstart.data.fingerprints import FINGERPRINT_VERSION as FINGERPRINT_VERSION
from headstart.data.fingerprints import RECORD as RECORD
from headstart.data.fingerprints import Record as Record
from headstart.data.preparing import Order, PreparedPicture
from headstart.features import FeatureStore, extract_features
from headstart.features.passes import PILLOW_VERSION
from headstart.inference import FeatureExtractor, ImageSource
from headstart.inference.extractor import FEW, TASK_IMAGES
from headstart.limits import usable_cores
from headstart.progress import Progress
from headstart.records import Features, ImageFacts
from headstart.runtime import Execution

NETWORK, IMAGE_SIZE = "mini", 64
IDENTITY = (
    f"fingerprints {FINGERPRINT_VERSION} | decoder {DECODER_VERSION}, pillow {PILLOW_VERSION}"
)

WORDS = RECORD.itemsize // 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Examined:
    """What one pass found.

    Attributes:
        features: embeddings and decoding facts of N images.
        records: (N,) of type `RECORD`; zero where an image is unreadable.
        seconds: wall seconds of the pass.
    """

    features: Features
    records: Record
    seconds: float


def fixed_execution(execution: Execution | None = None) -> Execution:
    """Float32 on the CPU, or on the device of `execution`."""
    if execution is not None and execution.device != "cpu":
        return replace(execution, precision="float32", reason="the audit is always in float32")
    return Execution(
        device="cpu",
        precision="float32",
        channels_last=True,
        threads=torch.get_num_threads(),
        reason="groups must not depend on the machine",
    )


@cache
def fixed_network() -> Network:
    """The network of every audit, built once a process; nobody changes it."""
    return build_network(find_backbone(NETWORK), weights="bundled", image_size=IMAGE_SIZE)


class FingerprintExtractor(FeatureExtractor):
    """The forward path that also keeps a fingerprint of every picture it decodes."""

    def __init__(self, execution: Execution) -> None:
        """Place the fixed network."""
        super().__init__(fixed_network(), execution)
        self.order = Order(preprocessing=self.network.preprocessing, fingerprint=True)
        self.found: dict[str, bytes] = {}

    def keep(self, picture: PreparedPicture, box: Box | None) -> None:
        """Keep the fingerprint."""
        self.found[record_key(picture.facts, box)] = picture.record


def record_key(facts: ImageFacts, box: Box | None) -> str:
    """The key in the feature store: digest of the bytes, ending of the name, box."""
    region = "" if box is None else "@" + ",".join(share.hex() for share in box)
    return facts.digest + PurePath(facts.path).suffix.casefold() + region


def examine(source: ImageSource, execution: Execution, progress: Progress) -> Examined:
    """Embeddings and fingerprints of every image, each computed at most once.

    Raises:
        StorageError: the disk is full; what was stored before stays.
    """
    begun = time.perf_counter()
    extractor = FingerprintExtractor(execution)
    features = extract_features(source, extractor, progress=progress)
    keys = [
        "" if facts.problem else record_key(facts, source.box_of(row))
        for row, facts in enumerate(features.facts)
    ]
    store = FeatureStore(IDENTITY, WORDS, note=progress.note)
    try:
        found = dict(extractor.found)
        wanted = sorted({key for key in keys if key and key not in found})
        found.update({key: vector.tobytes() for key, (vector, _) in store.get(wanted).items()})
        missing = {key: row for row, key in enumerate(keys) if key and key not in found}
        if missing:
            _decode_again(extractor, source, list(missing.values()), progress)
            found.update(extractor.found)
        facts_of = {key: features.facts[row] for row, key in enumerate(keys) if key}
        store.put(
            (key, np.frombuffer(found[key], dtype=np.float16), facts_of[key])
            for key in extractor.found
            if key in facts_of
        )
    finally:
        store.close()
    blank = bytes(RECORD.itemsize)
    records = np.frombuffer(b"".join(found.get(key, blank) for key in keys), dtype=RECORD)
    return Examined(
        features=features, records=records, seconds=round(time.perf_counter() - begun, 3)
    )


def _decode_again(
    extractor: FingerprintExtractor, source: ImageSource, rows: list[int], progress: Progress
) -> None:
    """Have the extractor find the fingerprints of pictures whose embeddings were stored already."""
    parts = [rows[i : i + TASK_IMAGES] for i in range(0, len(rows), TASK_IMAGES)]

    def prepare(part: list[int]) -> None:  # the squares go at once
        extractor.prepare_many(source, part, isolated=len(rows) > FEW)

    with (
        progress.phase("Fingerprints", len(rows)) as advance,
        ThreadPoolExecutor(max(1, usable_cores()), thread_name_prefix="decode") as pool,
    ):
        for part, _ in zip(parts, pool.map(prepare, parts), strict=True):
            advance(len(part))
