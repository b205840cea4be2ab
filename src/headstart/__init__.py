"""Headstart: from a folder of labelled pictures to a tested image classifier.

    import headstart

    run = headstart.run(data="flowers/", out="runs/flowers")
    predictions = headstart.load("runs/flowers").predict(["a.jpg", "b.jpg"])
    classifier = headstart.ImageClassifier(backbone="mini").fit(paths, labels)  # scikit-learn's way

Importing the package costs milliseconds: torch and everything behind it load on first use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from headstart import torchvision_remedy

if TYPE_CHECKING:
    from headstart.api import load, run
    from headstart.estimator import ImageClassifier

__all__ = ["ImageClassifier", "__version__", "load", "run"]
__version__ = "0.1.0"

torchvision_remedy.install()
# Read by OpenMP when torch loads it. Threads that wait by spinning stand in each other's way as
# soon as another program computes (10 times slower beside one busy process); threads that sleep at
# once wake too late. A short spin is as quick as a long one alone and keeps its pace in company.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Read by cuBLAS at its first call; without it a product's sum may take another order every time.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def __getattr__(name: str) -> Any:
    """Load the public functions when they are first asked for (PEP 562)."""
    if name in ("load", "run"):
        from headstart import api

        return getattr(api, name)
    if name == "ImageClassifier":
        from headstart.estimator import ImageClassifier

        return ImageClassifier
    raise AttributeError(f"module 'headstart' has no attribute '{name}'")


def __dir__() -> list[str]:
    """The public names."""
    return __all__
