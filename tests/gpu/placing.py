"""Where the tests of this folder compute.

A CUDA GPU, unless HEADSTART_TEST_DEVICE names another device: with `cpu` the same tests run on a
processor, which checks the tests themselves.
"""

from __future__ import annotations

import os

import pytest
import torch

DEVICE = os.environ.get("HEADSTART_TEST_DEVICE", "cuda")
ON_GPU = DEVICE == "cuda"
LACKING = ON_GPU and not torch.cuda.is_available()

ON_DEVICE = [pytest.mark.gpu, pytest.mark.skipif(LACKING, reason="no CUDA device")]
"""`pytestmark` of every module of this folder."""

needs_gpu = pytest.mark.skipif(not ON_GPU or LACKING, reason="no CUDA device")
"""For tests that mean nothing on a processor."""
