"""Make `import torchvision` work where its compiled part does not fit the installed torch.

The wheel of torchvision on the package index is built for CUDA. Beside a CPU build of torch its
C++ library cannot load, and the import dies with "operator torchvision::nms does not exist"
while it describes operators that were never defined. Models and transforms need none of them.

`install` puts a finder in front of the import system, which costs nothing until somebody asks
for torchvision. Then the ordinary import is tried; on that very error the two operators get
their schemas, without a kernel, and the import runs again. A native torchvision never gets there.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[object] = []  # the schemas live as long as their library object


class _RetryingLoader(importlib.abc.Loader):
    """Runs torchvision's own loader, and once more with the operators defined."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.loader.exec_module(module)
        except RuntimeError as error:
            if "operator torchvision::" not in str(error):
                raise
            for name in [n for n in sys.modules if n.startswith("torchvision.")]:
                del sys.modules[name]
            _define_operators()
            self.loader.exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Answers for the name `torchvision` only."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RetryingLoader(spec.loader)
        return spec


def _define_operators() -> None:
    import torch

    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in OPERATORS:
        library.define(operator + SCHEMA)
    _libraries.append(library)


def install() -> None:
    """Put the finder in front, once a process; imports neither torch nor torchvision."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
