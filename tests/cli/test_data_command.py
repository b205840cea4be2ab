"""`headstart data preview`: the picture, the policy, and one sentence for a mistake."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import headstart.cli.app as app
from headstart import api


def run(monkeypatch, capsys, *arguments):
    """Exit code, standard output and standard error of one command."""
    monkeypatch.setattr("sys.argv", ["headstart", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        app.main()
    streams = capsys.readouterr()
    return caught.value.code, streams.out, streams.err


def test_preview_draws_and_tells_the_policy(colour_folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "deep" / "seen.png"
    given = ("data", "preview", colour_folder, "--num", 3, "--image-size", 32, "--out", out)
    code, text, _ = run(monkeypatch, capsys, *given)
    assert code == 0
    assert "mini: 32 x 32 px, squash (the whole picture, shape not kept)" in text
    assert f"{out} (3 images)" in text
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        first = np.asarray(picture.convert("RGB"))
    run(monkeypatch, capsys, *given)
    assert np.array_equal(first, np.asarray(Image.open(out).convert("RGB")))


def test_one_image_with_its_box_and_notes(colour_folder, tmp_path, monkeypatch, capsys):
    manifest = colour_folder / "m.csv"
    lines = ["path,label,patient_id,bbox", "red/00.png,Red,p,0 0 24 40", "blue/00.png,red,q,"]
    manifest.write_text("\n".join(lines))
    code, text, _ = run(
        *(monkeypatch, capsys, "data", "preview", manifest, "--image", "red/00.png"),
        *("--image-size", 32, "--out", tmp_path / "seen.png", "--json"),
    )
    assert code == 0
    result = json.loads(text)
    assert result["images"] == ["red/00.png"]
    assert result["policy"].startswith("mini: cropped to its box, then 32 x 32 px")
    assert any("differ only in case" in note for note in result["notes"])
    assert any("patient_id" in note for note in result["notes"])
    orange = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB")) == (0xD5, 0x5E, 0x00)
    assert orange.all(axis=2).sum() > 200


@pytest.mark.parametrize(
    ("options", "clause"),
    [
        (["--image", "red/99.png"], "is none of the 36 images"),
        (["--num", "0"], "`num` must be between 1 and 40"),
        (["--group-by", "patient"], "names no column"),
        (["--columns", "label"], "must be MEANING=COLUMN"),
        (["--model", "minni"], "Did you mean 'mini'"),
    ],
)
def test_a_mistake_is_one_sentence(colour_folder, tmp_path, monkeypatch, capsys, options, clause):
    out = tmp_path / "seen.png"
    given = ("data", "preview", colour_folder, "--out", out, *options)
    code, text, error = run(monkeypatch, capsys, *given)
    assert (code, text) == (2, "")
    assert clause in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_preview_of_pixels_and_of_the_python_side(tmp_path):
    result = api.preview("digits", out=tmp_path / "d.png", num=1, image_size=32)
    assert len(result["images"]) == 1
    assert (tmp_path / "d.png").stat().st_size > 1000
