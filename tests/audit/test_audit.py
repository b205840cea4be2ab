"""Planted faults of each kind are found, and what is sound is left in peace."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from headstart import api
from headstart.audit import AuditSettings, audit_table, audit_text, write_audit
from headstart.audit.file_checks import check_files
from headstart.audit.fingerprints import RECORD
from headstart.data import load_table
from headstart.errors import OutputError
from headstart.records import ImageFacts, ImageTable

NUM_PICTURES = 48


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("audit-cache")


@pytest.fixture(autouse=True)
def shared_cache(own_cache, shared_folder, monkeypatch):
    """Tests of this file show the same pictures: each is embedded once."""
    monkeypatch.setenv("HEADSTART_CACHE", str(shared_folder))


@dataclass(frozen=True, kw_only=True)
class Planted:
    path: str
    data: bytes
    label: int
    split: str = ""
    group: str = ""
    source: str = ""


def picture(seed: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    """Large soft patches and some detail, all different."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def sound(count: int = NUM_PICTURES) -> list[Planted]:
    """Two classes without faults; nothing of the file tells the class."""
    return [
        Planted(path=f"{'ab'[i % 2]}/{i:03d}.png", data=encoded(picture(i)), label=i % 2)
        for i in range(count)
    ]


def table_of(planted: list[Planted], folder: Path) -> ImageTable:
    files = []
    for number, entry in enumerate(planted):
        file = folder / f"{number:04d}{Path(entry.path).suffix}"
        file.write_bytes(entry.data)
        files.append(file)
    groups, sources = ([getattr(p, name) for p in planted] for name in ("group", "source"))
    return ImageTable(
        name="planted",
        paths=tuple(entry.path for entry in planted),
        labels=np.array([entry.label for entry in planted], dtype=np.int64),
        class_names=("a", "b"),
        splits=tuple(entry.split for entry in planted),
        groups=tuple(groups) if any(groups) else None,
        sources=tuple(sources) if any(sources) else None,
        files=tuple(files),
    )


def audit_of(planted: list[Planted], folder: Path, **options):
    return audit_table(table_of(planted, folder), **options)


def found(audit, code: str):
    matches = [finding for finding in audit.findings if finding.code == code]
    assert len(matches) == 1, [finding.code for finding in audit.findings]
    return matches[0]


def codes(audit) -> set[str]:
    return {finding.code for finding in audit.findings}


def unit(audit, path: str) -> int:
    return int(audit.linked[audit.table.paths.index(path)])


def test_sound_data_have_no_findings(tmp_path):
    audit = audit_of(sound(), tmp_path)
    assert codes(audit) == set()
    assert len(set(audit.linked)) == NUM_PICTURES
    assert "Nothing suspicious" in audit_text(audit)


def test_reencoded_copy_is_an_exact_duplicate(tmp_path):
    copy = Planted(path="a/zcopy.bmp", data=encoded(picture(4), "BMP"), label=0)
    audit = audit_of([*sound(), copy], tmp_path)
    finding = found(audit, "duplicates-exact")
    assert (finding.severity, finding.count) == ("warning", 1)
    assert finding.paths == ("a/004.png", "a/zcopy.bmp")
    assert unit(audit, "a/zcopy.bmp") == unit(audit, "a/004.png")
    assert len(set(audit.linked)) == NUM_PICTURES
    row, twin = audit.table.paths.index("a/zcopy.bmp"), audit.table.paths.index("a/004.png")
    assert audit.columns["pixel_digest"][row] == audit.columns["pixel_digest"][twin]
    assert audit.columns["duplicate_set"][row] == 0
    assert audit.facts[row].digest != audit.facts[twin].digest
    assert "duplicates-near" not in codes(audit)


CHANGES = {
    "jpeg": lambda image: encoded(image, "JPEG", quality=60),
    "larger": lambda image: encoded(image.resize((120, 96), Image.Resampling.BICUBIC)),
    "brighter": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.15)),
}


@pytest.mark.parametrize(
    "change",
    ["jpeg", *(pytest.param(name, marks=pytest.mark.slow) for name in ("larger", "brighter"))],
)
def test_changed_copy_is_a_near_duplicate(tmp_path, change):
    copies = [
        Planted(path=f"a/zcopy{i}.png", data=CHANGES[change](picture(i)), label=i % 2)
        for i in (4, 7)
    ]
    audit = audit_of([*sound(), *copies], tmp_path)
    assert found(audit, "duplicates-near").count == 4
    for i in (4, 7):
        assert unit(audit, f"a/zcopy{i}.png") == unit(audit, f"{'ab'[i % 2]}/{i:03d}.png")
    assert len(set(audit.linked)) == NUM_PICTURES


def test_mirrored_copy_is_at_least_a_suspect(tmp_path):
    data = encoded(picture(4).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    audit = audit_of([*sound(), Planted(path="a/zcopy.png", data=data, label=0)], tmp_path)
    rows = {audit.table.paths.index(path) for path in ("a/004.png", "a/zcopy.png")}
    assert {audit.pairs[0].first, audit.pairs[0].second} == rows
    assert audit.pairs[0].bits == 0


def test_copies_with_other_labels_are_named(tmp_path):
    exact = Planted(path="b/zexact.bmp", data=encoded(picture(4), "BMP"), label=1)
    near = Planted(path="b/znear.png", data=CHANGES["jpeg"](picture(6)), label=1)
    audit = audit_of([*sound(), exact, near], tmp_path)
    assert found(audit, "labels-exact").paths == ("a/004.png", "b/zexact.bmp")
    assert "'a/004.png (a)', 'b/zexact.bmp (b)'" in found(audit, "labels-exact").message
    assert set(found(audit, "labels-near").paths) == {"a/006.png", "b/znear.png"}


def test_leaks_across_the_split_are_errors(tmp_path):
    planted = [replace(entry, split="train" if i < 32 else "test", group=f"g{i}")
               for i, entry in enumerate(sound())]  # fmt: skip
    planted[40] = replace(planted[40], group="g3")
    exact = Planted(path="test/exact.bmp", data=encoded(picture(4), "BMP"), label=0, split="test")
    near = Planted(path="test/near.png", data=CHANGES["jpeg"](picture(7)), label=1, split="test")
    audit = audit_of([*planted, exact, near], tmp_path)
    assert {f.code for f in audit.errors} == {"leak-exact", "leak-near", "leak-groups"}
    assert found(audit, "leak-exact").paths == ("test/exact.bmp",)
    assert "'test/exact.bmp' and 'a/004.png'" in found(audit, "leak-exact").message
    assert found(audit, "leak-near").paths == ("test/near.png",)
    assert found(audit, "leak-groups").paths == ("a/040.png",)
    assert audit.findings[0].severity == "error"


def test_a_clean_split_leaks_nothing(tmp_path):
    planted = [replace(e, split="train" if i < 32 else "test") for i, e in enumerate(sound())]
    assert audit_of(planted, tmp_path).errors == ()


def test_val_is_the_test_part_where_there_is_no_other(tmp_path):
    planted = [replace(e, split="train" if i < 32 else "val") for i, e in enumerate(sound())]
    copy = Planted(path="val/copy.bmp", data=encoded(picture(4), "BMP"), label=0, split="val")
    assert found(audit_of([*planted, copy], tmp_path), "leak-exact").severity == "error"
    with_test = [*planted, copy, Planted(path="t/1.png", data=encoded(picture(99)), label=0,
                                         split="test")]  # fmt: skip
    assert audit_of(with_test, tmp_path).errors == ()


def test_groups_are_units_and_those_in_two_classes_are_named(tmp_path):
    planted = [replace(entry, group=f"p{i // 4}") for i, entry in enumerate(sound())]
    audit = audit_of(planted, tmp_path)
    assert found(audit, "groups-mixed").count == NUM_PICTURES // 4
    assert len(set(audit.linked)) == NUM_PICTURES // 4
    assert unit(audit, "a/000.png") == unit(audit, "b/003.png") != unit(audit, "a/004.png")


def test_a_near_duplicate_joins_two_groups(tmp_path):
    planted = [replace(entry, group=f"p{i}") for i, entry in enumerate(sound())]
    copy = Planted(path="a/z.png", data=CHANGES["jpeg"](picture(4)), label=0, group="p10")
    audit = audit_of([*planted, copy], tmp_path)
    assert unit(audit, "a/z.png") == unit(audit, "a/004.png") == unit(audit, "a/010.png")


def test_source_that_is_the_label_cannot_be_separated(tmp_path):
    planted = [replace(entry, source=f"clinic {entry.label}") for entry in sound()]
    finding = found(audit_of(planted, tmp_path), "sources-coincide")
    assert "'a' and 'b' share no source" in finding.message
    assert "no grouping can separate them" in finding.message


def test_source_that_hints_at_the_label(tmp_path):
    planted = [
        replace(entry, source=f"clinic {entry.label if i % 12 else 1 - entry.label}")
        for i, entry in enumerate(sound())
    ]
    assert "sources-associated" in codes(audit_of(planted, tmp_path))
    even = [replace(entry, source=f"clinic {i // 2 % 2}") for i, entry in enumerate(sound())]
    assert "sources-associated" not in codes(audit_of(even, tmp_path))


def compressed(entry: Planted, number: int) -> Planted:
    data = encoded(picture(number), "JPEG", quality=90 if entry.label else 40)
    return replace(entry, data=data, path=entry.path.replace("png", "jpg"))


def grey(entry: Planted, number: int) -> Planted:
    return replace(entry, data=encoded(picture(number).convert("L"))) if entry.label else entry


def framed(entry: Planted, number: int) -> Planted:
    pixels = np.asarray(picture(number)).copy()
    if entry.label:
        pixels[:6] = pixels[-6:] = 255
        pixels[:, :6] = pixels[:, -6:] = 255
    return replace(entry, data=encoded(Image.fromarray(pixels)))


@pytest.mark.parametrize(
    ("spoil", "code", "told"),
    [
        pytest.param(compressed, "label-file-facts", "100%", marks=pytest.mark.slow),
        (grey, "label-file-facts", ""),
        (framed, "label-border", "outer sixteenth"),
    ],
    ids=["quality", "mode", "frame"],
)
def test_labels_that_the_file_gives_away(tmp_path, spoil, code, told):
    planted = [spoil(entry, i) for i, entry in enumerate(sound())]
    finding = found(audit_of(planted, tmp_path), code)
    assert finding.severity == "warning"
    assert told in finding.message


def test_files_that_are_not_what_they_seem(tmp_path):
    several = [picture(200), picture(201)]
    animated = encoded(several[0], "GIF", save_all=True, append_images=several[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    planted = [
        *sound(24),
        Planted(path="a/empty.png", data=b"", label=0),
        Planted(path="a/text.jpg", data=b"not a picture", label=0),
        Planted(path="b/cut.png", data=encoded(picture(0))[:900], label=1),
        Planted(path="a/named.jpg", data=encoded(picture(202)), label=0),
        Planted(path="b/moving.gif", data=animated, label=1),
        Planted(path="a/lying.jpg", data=encoded(picture(203), "JPEG", exif=exif), label=0),
        Planted(path="b/blank.png", data=encoded(Image.new("RGB", (60, 48), (5, 5, 5))), label=1),
        Planted(path="b/blank2.png", data=encoded(Image.new("RGB", (90, 48), (9, 5, 5))), label=1),
        Planted(path="b/little.png", data=encoded(picture(204, (20, 20))), label=1),
    ]
    audit = audit_of(planted, tmp_path)
    unreadable = found(audit, "unreadable")
    assert set(unreadable.paths) == {"a/empty.png", "a/text.jpg", "b/cut.png"}
    assert "empty file: 1" in unreadable.message
    assert found(audit, "wrong-extension").paths == ("a/named.jpg",)
    assert found(audit, "animated").paths == ("b/moving.gif",)
    assert found(audit, "turned").paths == ("a/lying.jpg",)
    assert set(found(audit, "blank").paths) == {"b/blank.png", "b/blank2.png"}
    assert found(audit, "small").paths == ("b/little.png",)
    assert unit(audit, "b/blank.png") != unit(audit, "b/blank2.png")
    assert unit(audit, "a/empty.png") != unit(audit, "a/text.jpg")  # unread is not alike
    assert audit.summary["files"]["problems"]["empty file"] == 1
    assert audit.summary["num_readable"] == len(planted) - 3


def test_imbalance_and_tiny_classes_count_units(tmp_path):
    planted = [replace(e, label=0) for e in sound()]
    few = [
        Planted(path=f"b/{i}.png", data=encoded(picture(300)), label=1, group="one")
        for i in range(8)
    ]
    audit = audit_of([*planted, *few], tmp_path)
    assert "'b (1)'" in found(audit, "classes-tiny").message
    assert "6 to 1" in found(audit, "imbalance").message


def test_the_order_of_the_rows_is_no_matter(tmp_path):
    extra = [
        Planted(path="a/z1.bmp", data=encoded(picture(4), "BMP"), label=1),
        Planted(path="a/z2.png", data=CHANGES["jpeg"](picture(7)), label=0),
        Planted(path="a/z3.png", data=CHANGES["brighter"](picture(7)), label=0),
    ]
    table = table_of([*sound(), *extra], tmp_path)
    order = np.random.default_rng(0).permutation(len(table))
    first, second = audit_table(table), audit_table(table.take(order))
    assert np.array_equal(first.linked[order], second.linked)
    assert [f.message for f in first.findings] == [f.message for f in second.findings]
    assert first.summary["shortcuts"] == second.summary["shortcuts"] != []
    for name, column in first.columns.items():
        assert tuple(column[i] for i in order) == second.columns[name]


def test_a_second_audit_is_equal_and_reads_the_store(tmp_path, monkeypatch):
    table = table_of(sound(24), tmp_path)
    first = audit_table(table)

    def refuse(self, source, row):
        raise AssertionError("decoded again")

    monkeypatch.setattr("headstart.audit.fingerprints.FingerprintExtractor.prepare_views", refuse)
    second = audit_table(table, first.facts)
    assert without_times(first.summary) == without_times(second.summary)
    assert np.array_equal(first.linked, second.linked)


def test_fingerprints_are_made_where_only_embeddings_are_stored(tmp_path, own_cache, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(own_cache))
    table = table_of(sound(24), tmp_path)
    first = audit_table(table)
    stores = sorted((own_cache / "features").glob("*.sqlite"), key=lambda f: f.stat().st_size)
    for file in (own_cache / "features").glob(f"{stores[0].name}*"):
        file.unlink()  # the smaller of the two holds the fingerprints
    assert audit_table(table).columns == first.columns


def without_times(summary: dict) -> dict:
    return {name: value for name, value in summary.items() if name != "seconds"}


def test_two_boxes_of_one_file_are_two_pictures(tmp_path):
    table = table_of([*sound(24), *(replace(e, path=f"z/{e.path}") for e in sound(4))], tmp_path)
    boxes = np.full((28, 4), np.nan)
    boxes[24:26] = (0.0, 0.0, 0.5, 0.5)
    boxes[26] = (0.0, 0.0, 1.0, 1.0)
    audit = audit_table(replace(table, boxes=boxes))
    exact = {(pair.first, pair.second) for pair in audit.pairs if pair.kind == "exact"}
    assert exact == {(2, 26), (3, 27)}
    assert "cropped to its box" in audit_text(audit)


def test_unlabelled_images_can_be_audited(tmp_path):
    table = table_of(sound(24), tmp_path)
    bare = replace(table, labels=np.full(24, -1), class_names=())
    assert audit_table(bare).summary["classes"] == {}


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_very_few_images_are_no_obstacle(tmp_path, count):
    assert len(audit_of(sound(count), tmp_path).linked) == count


def test_files_of_the_audit(tmp_path):
    copy = Planted(path="b/zc$py.bmp", data=encoded(picture(4), "BMP"), label=1)
    audit = audit_of([*sound(), copy], tmp_path)
    folder = tmp_path / "out"
    write_audit(folder, audit)
    stored = json.loads((folder / "audit.json").read_text())
    assert stored["findings"][0]["code"] == audit.findings[0].code
    assert stored["pairs"][0]["second"] == "b/zc$py.bmp"
    assert "WARNING  duplicates-exact" in (folder / "audit.txt").read_text()
    assert Image.open(folder / "duplicates.png").width > 300
    write_audit(folder, audit_of(sound(), tmp_path))
    assert not (folder / "duplicates.png").exists()


def test_the_largest_group_is_kept(tmp_path):
    copies = [
        Planted(path=f"a/z{i}.jpg", data=encoded(picture(4), "JPEG", quality=50 + 5 * i), label=0)
        for i in range(8)
    ]
    audit = audit_of([*sound(), *copies], tmp_path, settings=AuditSettings(largest_group=4))
    assert np.bincount(audit.linked).max() == 4
    assert "as large as allowed" in found(audit, "duplicates-near").message


@pytest.mark.slow
def test_digits_are_not_merged():
    table = load_table("digits")
    audit = audit_table(table.take(np.arange(0, len(table), 4)))
    assert len(set(audit.linked)) > 0.99 * len(audit.table)
    assert audit.errors == ()


def test_a_scan_without_a_window_is_named():
    facts = [
        ImageFacts(path="a/1.dcm", format="DICOM", width=64, height=64, treatment=treatment)
        for treatment in ("no window, 12 bits to 8", "window 400 at 40")
    ]
    table = ImageTable(
        name="scans", paths=("a/1.dcm", "a/2.dcm"), labels=np.zeros(2, dtype=np.int64),
        class_names=("a",), splits=("", ""), blobs=(b"", b""),
    )  # fmt: skip
    found = {f.code: f for f in check_files(table, facts, np.zeros(2, dtype=RECORD))}
    assert found["dicom-window"].count == 1
    assert "set a window" in found["dicom-window"].message


def test_every_image_stands_in_images_csv_and_words_are_explained(tmp_path):
    planted = [*sound(12), Planted(path="a/empty.png", data=b"", label=0)]
    audit = audit_of(planted, tmp_path)
    write_audit(tmp_path / "out", audit)
    with (tmp_path / "out" / "images.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {entry.path for entry in planted}
    assert [path for path, row in rows.items() if row["problem"]] == ["a/empty.png"]
    text = (tmp_path / "out" / "audit.txt").read_text()
    assert "perceptual hash: 64 yes-or-no answers" in text


def test_an_audit_replaces_nothing_but_an_audit(colour_folder, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        api.audit(colour_folder, out=out)
    (out / "run.json").write_text("{}")
    with pytest.raises(OutputError, match="holds other files than an audit's"):
        api.audit(colour_folder, out=out)
    manifest = tmp_path / "images.csv"
    manifest.write_text(
        "path,label\n"
        + "\n".join(f"{path},{path.parent.name}" for path in sorted(colour_folder.glob("*/*.png")))
    )
    before = manifest.read_text()
    with pytest.raises(OutputError, match="holds other files"):
        api.audit(manifest, out=tmp_path)
    assert manifest.read_text() == before
