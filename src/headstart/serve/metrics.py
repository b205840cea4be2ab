"""Counters in Prometheus' form, right with several workers.

Where `PROMETHEUS_MULTIPROC_DIR` is set (the parent of several workers does so first) each
process writes its values to files there and `/metrics` of any of them adds them up. What drift
shows in: predicted classes and the share called unknown.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from headstart.records import Predictions

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServiceMetrics:
    """Everything `/metrics` tells."""

    def __init__(self, class_names: Iterable[str] = ()) -> None:
        """Make the counters; names of classes are known once the model is loaded."""
        several = MULTIPROCESS_VARIABLE in os.environ
        self.registry = None if several else CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "headstart_requests", "Requests by route and status.", ["route", "status"],
            registry=registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "headstart_request_seconds", "From the head of a request to the end of its answer.",
            ["route"], buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.refusals = Counter(
            "headstart_refusals", "Requests and images without an answer, by code.", ["code"],
            registry=registry,
        )  # fmt: skip
        self.images = Counter("headstart_images", "Images answered.", registry=registry)
        self.classes = Counter(
            "headstart_predictions", "Images by predicted class.", ["class"], registry=registry
        )
        self.unknown = Counter(
            "headstart_unknown", "Images unlike everything the model has seen.", registry=registry
        )
        self.confidence = Histogram(
            "headstart_confidence", "Probability of the predicted class.",
            buckets=[i / 10 for i in range(1, 11)], registry=registry,
        )  # fmt: skip
        self.decode_seconds = Histogram(
            "headstart_decode_seconds", "Decoding one image, its wait for a process included.",
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.forward_seconds = Histogram(
            "headstart_forward_seconds", "Answering one batch.", buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.batch_images = Histogram(
            "headstart_batch_images", "Images in a batch.", buckets=SIZES, registry=registry
        )
        self.waiting = Gauge(
            "headstart_waiting_images", "Images admitted and not yet answered.",
            multiprocess_mode="livesum", registry=registry,
        )  # fmt: skip
        self.ready = Gauge(
            "headstart_ready_workers", "Workers whose golden prediction matched.",
            multiprocess_mode="livesum", registry=registry,
        )  # fmt: skip
        self.model = Gauge(
            "headstart_model", "The model served; always 1.", ["digest", "engine"],
            multiprocess_mode="livemax", registry=registry,
        )  # fmt: skip
        self.name_classes(class_names)

    def name_classes(self, class_names: Iterable[str]) -> None:
        """Show every class from the beginning, those never predicted with 0."""
        for name in class_names:
            self.classes.labels(name)

    def count_answers(self, predictions: Predictions) -> None:
        """Count what was answered."""
        self.images.inc(len(predictions))
        for name, row in zip(predictions.names, predictions.probabilities, strict=True):
            self.classes.labels(name).inc()
            self.confidence.observe(float(row.max()))
        if predictions.unknown is not None:
            self.unknown.inc(int(predictions.unknown.sum()))

    def text(self) -> bytes:
        """The whole in Prometheus' form."""
        registry = self.registry
        if registry is None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
