"""The audit's pass on the way of a run's own: one decoding for both but of large JPEGs.

What the audit needs of a picture (`headstart.audit.fingerprints`) goes into its stores while the
run's features are computed; the audit then finds it there. Pixels and embeddings are the same as in
an audit of its own, to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from headstart.audit.fingerprints import (
    IDENTITY,
    WORDS,
    fixed_execution,
    fixed_network,
    record_key,
)
from headstart.data.boxes import Box
from headstart.data.preparing import Order, PreparedPicture
from headstart.data.views import WHOLE
from headstart.features import FeatureStore
from headstart.features.passes import identity
from headstart.inference import FeatureExtractor, ImageSource
from headstart.inference.extractor import Extractor, Views
from headstart.records import Bytes8, ImageFacts

Kept = tuple[str, ImageFacts, bytes, Bytes8 | None]


class JointExtractor(FeatureExtractor):
    """A run's extractor that does the audit's pass too."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        """Share the network that `extractor` has placed."""
        Extractor.__init__(
            self, extractor.preprocessing, extractor.num_features, extractor.batch_size
        )
        self.network, self.execution = extractor.network, extractor.execution
        self.module, self.engine = extractor.module, extractor.engine
        self.smallest_batch, self.lag = extractor.smallest_batch, extractor.lag
        self.normalisation = extractor.normalisation
        self.plain = extractor
        self.auditing = FeatureExtractor(fixed_network(), fixed_execution())
        same = identity(self.auditing) == identity(extractor)
        second = None if same else self.auditing.preprocessing
        self.order = Order(preprocessing=self.preprocessing, fingerprint=True, second=second)
        self._kept: list[Kept] = []

    def keep(self, picture: PreparedPicture, box: Box | None) -> None:
        """Keep what the audit needs until the next batch is done; called by several threads."""
        key = record_key(picture.facts, box)
        self._kept.append((key, picture.facts, picture.record, picture.second))

    def extract_views(
        self,
        source: ImageSource,
        rows: Sequence[int],
        views: Views,
        *,
        isolated: bool | None = None,
    ) -> Iterator[tuple[list[int], list[ImageFacts], npt.NDArray[np.float16]]]:
        """As of any extractor; the audit's stores are filled on the way.

        Pictures whose whole features are known were audited with those.

        Raises:
            StorageError: the disk is full; what was stored before stays.
        """
        if WHOLE not in views:
            yield from self.plain.extract_views(source, rows, views, isolated=isolated)
            return
        embeddings = FeatureStore(identity(self.auditing), self.auditing.num_features)
        fingerprints = FeatureStore(IDENTITY, WORDS)
        try:
            for batch in super().extract_views(source, rows, views, isolated=isolated):
                self._store(embeddings, fingerprints)
                yield batch
        finally:
            embeddings.close()
            fingerprints.close()

    def _store(self, embeddings: FeatureStore, fingerprints: FeatureStore) -> None:
        begun = time.perf_counter()
        kept = [self._kept.pop() for _ in range(len(self._kept))]  # others append meanwhile
        if self.order.second is not None:
            known = embeddings.known(sorted({key for key, *_ in kept}))  # by another network's run
            fresh = [entry for entry in kept if entry[0] not in known]
            pixels = [second for *_, second in fresh if second is not None]
            if pixels:
                values = self.auditing.forward(torch.from_numpy(np.stack(pixels)))
                embeddings.put((k, v, f) for (k, f, *_), v in zip(fresh, values, strict=True))
        words = ((k, np.frombuffer(r, dtype=np.float16), f) for k, f, r, _ in kept)
        fingerprints.put(words)
        self.audit_s += time.perf_counter() - begun
