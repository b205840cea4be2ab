"""One bundle and one service for most tests of the service."""

from __future__ import annotations

import pytest
from live import running, settings_for, write_bundle


@pytest.fixture(scope="session")
def served_bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="session")
def live(served_bundle):
    """With small limits, so that going beyond them is cheap."""
    small = {
        "max_files": 4,
        "max_file_bytes": 60_000,
        "max_request_bytes": 150_000,
        "body_timeout_s": 1.5,
        "header_timeout_s": 1.0,
        "max_connections": 20,
    }
    with running(
        settings_for(served_bundle, requests=small, window_ms=2, queue_images=64)
    ) as service:
        yield service
