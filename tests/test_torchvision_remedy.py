"""The import hook: only for torchvision, only on that very error, in a process of its own."""

import subprocess
import sys
import textwrap


def run_python(code: str, *paths: str) -> str:
    script = f"import sys\nsys.path[:0] = {list(paths)!r}\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fake_torchvision(folder, body: str) -> str:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(textwrap.dedent(body))
    (package / "part.py").write_text("")
    return str(folder)


def test_models_and_transforms_work():
    code = """
        import headstart
        import torchvision, torch
        from torchvision.transforms import v2
        out = v2.Resize(8)(torch.zeros(3, 16, 16))
        print(tuple(out.shape), torchvision.models.resnet18().fc.out_features)
    """
    assert run_python(code).strip() == "(3, 8, 8) 1000"


def test_defines_the_operators_and_tries_again(tmp_path):
    # An operator that nothing defined makes the same error as a wheel built for CUDA.
    body = """
        import torch, torchvision.part
        if not hasattr(torch, "tries"):
            torch.tries = 1
            raise RuntimeError("operator torchvision::nms does not exist")
        torch.ops.torchvision.nms.default
        works = True
    """
    code = "import headstart, torchvision; print(torchvision.works)"
    assert run_python(code, fake_torchvision(tmp_path, body)).strip() == "True"


def test_another_error_passes(tmp_path):
    code = """
        import headstart
        try:
            import torchvision
        except RuntimeError as error:
            print(error, "torchvision" in sys.modules)
    """
    place = fake_torchvision(tmp_path, "raise RuntimeError('something else')")
    assert run_python(code, place).strip() == "something else False"


def test_a_working_torchvision_is_left_alone(tmp_path):
    code = """
        import headstart, torchvision
        print(torchvision.fine, "torch" in sys.modules)
    """
    assert run_python(code, fake_torchvision(tmp_path, "fine = 1")).strip() == "1 False"
