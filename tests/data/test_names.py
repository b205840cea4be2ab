"""A thousand names in every script: one class order everywhere, whatever the locale or the disk."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from headstart.data import load_table

SCRIPTS = (
    *("abc", "ABC", "äöü", "ñçø", "ελλ", "кот", "חתול", "قطة", "گربه", "बिल्ली", "பூனை", "แมว"),
    *(
        "猫",
        "ねこ",
        "ネコ",
        "고양이",
        "კატა",
        "կատու",
        "ድመት",
        "ខ្មែរ",
        "བྱི",
        "🐱",
        "👩‍⚕️",
        "\U0001d518\U0001d52b",
    ),
)
ODD = (
    *("-rf", "--help", "a\nb", "a\tb", "a\\b", "%2F", "$HOME", "`x`", "a;b", "'q'", '"q"', "~"),
    *(
        " spaced ",
        "dot.",
        "=1+1",
        "@x",
        "#",
        "*",
        "\x1b[31mred",
        "a\u202eb",
        "NUL",
        "İ",
        "\u0131",
        "ß",
    ),
    *("CAT", "cat", "Cat", "10", "9", "1e3", "nan", "None", "null", "true", "\u00a0", "e\u0301e"),
)
SHOW = """
import locale, sys
from headstart.data import load_table
locale.setlocale(locale.LC_ALL, "")
table = load_table(__import__("pathlib").Path(sys.argv[1]))
print(ascii((table.class_names, table.paths, table.labels.tolist())))
"""


def names():
    """1,000 names of folders, as bytes, no two alike after NFC."""
    numbered = [f"{word} {number}" for number in range(40) for word in SCRIPTS]
    raw = [name.encode() for name in (*SCRIPTS, *ODD, *numbered)][:998]
    return [*raw, *[b"\xff%d" % i for i in range(998 - len(raw))], b"\xff\xfe", b"caf\xe9"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("names")
    try:
        for number, name in enumerate(names()):
            inside = os.path.join(os.fsencode(place), name)
            os.mkdir(inside)
            Path(os.fsdecode(os.path.join(inside, name + b".png"))).touch()
            if number % 97 == 0:
                Path(os.fsdecode(os.path.join(inside, b"-.jpg"))).touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system has not all of these names")
    return place


def test_every_name_is_a_class_and_can_be_printed(folder):
    table = load_table(folder)
    assert len(table.class_names) == len(names()) == 1000
    assert list(table.class_names) == sorted(table.class_names)
    for name in (*table.class_names, *table.paths):
        assert name.encode()
        assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in name)
    assert {"CAT", "Cat", "cat", "-rf", "a\\nb", "caf\\xe9"} <= {
        name.replace("\\udce9", "\\xe9") for name in table.class_names
    }
    assert unicodedata.normalize("NFC", "e\u0301e") in table.class_names
    assert len(set(table.paths)) == len(table) == 1011


def test_files_are_found_again(folder):
    table = load_table(folder)
    for row, file in enumerate(table.files):
        assert file.is_file()
        assert table.read(row) == b""


def test_every_locale_has_the_same_order(folder):
    table = load_table(folder)
    here = ascii((table.class_names, table.paths, table.labels.tolist()))
    for settings in (
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "7"},
        {"LC_ALL": "POSIX"},
    ):
        done = subprocess.run(
            [sys.executable, "-c", SHOW, str(folder)],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == here, settings


def test_conversion_keeps_every_class(folder, tmp_path):
    import dataclasses
    import io

    from PIL import Image

    from headstart.data.converted import ConversionSettings, convert_table

    stream = io.BytesIO()
    Image.new("L", (2, 2)).save(stream, "PNG")
    table = load_table(folder)
    same = dataclasses.replace(table, files=None, blobs=(stream.getvalue(),) * len(table))
    done = convert_table(same, tmp_path / "out", ConversionSettings())
    assert done.problems == {}
    again = load_table(done.out)
    assert again.class_names == table.class_names
    assert sorted(again.labels) == sorted(table.labels)
