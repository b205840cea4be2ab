"""The house: imports point down only, the public surface is what it is, nothing loads early."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import paint_colours

import headstart

SOURCE = Path(headstart.__file__).parent

# Tier of every room; a room may import from lower tiers, and on its own only itself.
TIERS = {
    "errors": 0, "registry": 0, "records": 0, "runtime": 0, "files": 0, "progress": 0,
    "limits": 0,
    "torchvision_remedy": 0,
    "heads": 1, "metrics": 1, "statistics": 1, "splitting": 1, "plots": 1, "data": 1,
    "backbones": 1, "calibration": 1, "conformal": 1, "outliers": 1, "comparison": 1,
    "inference": 2, "features": 2,
    "bundle": 3, "audit": 3, "finetune": 3,
    "runs": 4,
    "studies": 5, "export": 5,
    "report": 6, "serve": 6,
    "recipes": 7,
    "api": 8, "survey": 8, "estimator": 8,
    "studio": 9, "cli": 9, "__main__": 9,
}  # fmt: skip
# Arrows on one tier.
SIDEWAYS = {
    ("features", "inference"),
    ("statistics", "metrics"),
    ("calibration", "metrics"), ("calibration", "statistics"),
    ("conformal", "statistics"), ("outliers", "statistics"), ("comparison", "statistics"),
    ("api", "survey"), ("__main__", "cli"), ("cli", "studio"),
    ("registry", "errors"),
    ("runtime", "errors"), ("runtime", "limits"),
    ("files", "errors"),
}  # fmt: skip
NUMERIC = {
    *("heads", "metrics", "statistics", "splitting"),
    *("calibration", "conformal", "outliers", "comparison"),
}
NUMERIC_MAY_IMPORT = NUMERIC | {"errors", "registry", "records"}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "headstart":
                names = [alias.name for alias in node.names]
                rooms.update(parts[1:2] or [n for n in names if n in TIERS])
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            rooms.update(n[1] for n in names if n[0] == "headstart" and len(n) > 1)
    return rooms


MODULES = sorted(p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    room = room_of(path)
    assert room in TIERS, f"give the room '{room}' a tier"
    for other in imported_rooms(path) - {room}:
        below = TIERS[other] < TIERS[room]
        assert below or (room, other) in SIDEWAYS, f"{room} must not import {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_numeric_rooms_know_only_numbers(path):
    if room_of(path) in NUMERIC:
        assert imported_rooms(path) <= NUMERIC_MAY_IMPORT
        assert "logging" not in path.read_text()


def test_public_surface():
    assert sorted(headstart.__all__) == ["ImageClassifier", "__version__", "load", "run"]
    for name in headstart.__all__:
        assert getattr(headstart, name)
    with pytest.raises(AttributeError):
        headstart.nothing  # noqa: B018


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import headstart", "import headstart.cli.app"])
def test_nothing_heavy_loads_early(code):
    heavy = {"torch", "torchvision", "timm", "sklearn", "matplotlib", "numpy", "scipy", "PIL"}
    assert not heavy & loaded_after(code)


def loaded_by(*words: str) -> set[str]:
    """Modules that a command has loaded when it ends."""
    code = (
        "import sys\n"
        "from headstart.cli import main\n"
        f"sys.argv[1:] = {[str(word) for word in words]}\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
    )
    return loaded_after(code)


def test_commands_load_no_more_than_they_need(tmp_path):
    """Each of these takes up to seconds of a start; an audit's trees load scikit-learn."""
    data, run = paint_colours(tmp_path / "colours"), tmp_path / "run"
    unneeded = {"timm", "torchvision", "sklearn", "pandas", "scipy.stats", "torch._dynamo"}
    loaded = loaded_by("run", "--data", data, "--audit", "none", "--image-size", "32", "--out", run)
    assert not unneeded & loaded
    assert (run / "report.html").exists()
    unneeded |= {"matplotlib", "jinja2", "headstart.audit", "headstart.runs.job"}
    loaded = loaded_by("predict", run, data / "red" / "00.png")
    assert not unneeded & loaded
    assert "headstart.bundle.classifier" in loaded


def test_modules_and_functions_keep_their_size():
    for path in MODULES:
        text = path.read_text()
        assert text.count("\n") <= 600, f"{path} is too long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                documented = (ast.get_docstring(node) or "").count("\n")
                size = node.end_lineno - node.lineno + 1 - documented
                assert size <= 60, f"{path}:{node.lineno} {node.name} has {size} lines"


def test_test_files_have_names_of_their_own():
    """pytest takes two files of one name in two folders for the same module."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
