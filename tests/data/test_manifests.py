"""Manifests: columns, splits, labels, missing files, boxes, groups, and one sentence a mistake."""

from __future__ import annotations

import json
import signal
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import class_notes, decode, load_table
from headstart.data.listed import grouping
from headstart.data.listed.columns import ChosenColumns
from headstart.data.listed.sheets import named_label
from headstart.data.sources import load_unlabelled_or_labelled
from headstart.errors import DataError, UsageError
from headstart.records import UNLABELLED

SIZE = (20, 10)


def plant(root, *names, size=SIZE):
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number % 256, 7, 7)).save(file, "PNG")
    return root


def write(file, *lines, encoding="utf-8"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return file


def refusal_of(data, **options):
    with pytest.raises(UsageError) as caught:
        load_table(data, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labels_of(table):
    return [table.label_of(row) for row in range(len(table))]


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """Four images 'img/0.png' ... and the present folder above them."""
    monkeypatch.chdir(tmp_path)
    return plant(tmp_path, *(f"img/{number}.png" for number in range(4)))


def rows(*cells):
    return [f"img/{number}.png,{cell}" for number, cell in enumerate(cells)]


def test_nameless_columns_are_passed_over(pets):
    write(pets / "m.csv", ",path,label,,", "0,img/0.png,a,,", "1,img/1.png,b,,")
    assert load_table("m.csv").class_names == ("a", "b")


def test_one_file_under_two_spellings_is_a_double(pets):
    write(pets / "m.csv", "path,label", "img/0.png,a", f"{pets / 'img' / '0.png'},b")
    assert "a second time, after line 2" in refusal_of("m.csv")


def test_every_column(pets):
    write(
        pets / "pets.csv",
        "File,Class,group,Split,hospital,note",
        *("img/3.png,dog,g2,TEST,A,x", "img/0.png,cat,g1,train,A,y"),
        *("img/1.png,dog,g1,Training,B,z", "img/2.png,,,train,B,"),
    )
    table = load_table("pets.csv")
    assert table.name == "pets"
    assert table.paths == ("img/0.png", "img/1.png", "img/2.png", "img/3.png")
    assert table.splits == ("train", "train", "train", "test")
    assert labels_of(table) == ["cat", "dog", "", "dog"]
    assert table.labels.tolist() == [0, 1, UNLABELLED, 1]
    assert table.groups == ("g1", "g1", "", "g2")
    assert table.sources == ("A", "B", "B", "A")
    assert table.boxes is None
    assert table.notes == ("1 row has no label and is left aside.",)
    assert table.labelled().paths == ("img/0.png", "img/1.png", "img/3.png")
    assert table.labelled().labelled().labels.tolist() == [0, 1, 1]
    assert decode(table.read(3), "x.png")[0].getpixel((0, 0)) == (3, 7, 7)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "semicolons", "bom"])
def test_every_format_gives_the_same_table(pets, kind):
    cells = [(f"img/{n}.png", label) for n, label in enumerate(["Ram C/V", "犬", "犬", "Ram C/V"])]
    ending = {"semicolons": "csv", "bom": "csv"}.get(kind, kind)
    file = pets / f"pets.{ending}"
    if kind == "parquet":
        pa = pytest.importorskip("pyarrow")
        columns = {"path": [path for path, _ in cells], "label": [label for _, label in cells]}
        pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), file)
    elif kind == "jsonl":
        write(file, *(json.dumps({"path": path, "label": label}) for path, label in cells))
    else:
        separator = {"tsv": "\t", "semicolons": ";"}.get(kind, ",")
        lines = [separator.join(row) for row in [("path", "label"), *cells]]
        write(file, *lines, encoding="utf-8-sig" if kind == "bom" else "utf-8")
    table = load_table(file)
    assert table.class_names == ("Ram C/V", "犬")
    assert labels_of(table) == ["Ram C/V", "犬", "犬", "Ram C/V"]


@pytest.mark.parametrize("kind", ["bars", "utf-16", "utf-16-le-bom", "said", "said in quotes"])
def test_what_spreadsheets_write(pets, kind):
    lines = ["path,label", *rows("a,", "b", "a", "b")]
    lines[1] = lines[1].rstrip(",")
    if kind == "bars":
        lines = [line.replace(",", "|") for line in lines]
    if kind.startswith("said"):
        # More commas than semicolons in the header: only the first line tells.
        lines = ["path;label;x,y,z", *(f"{line.replace(',', ';')};1,2,3" for line in lines[1:])]
        lines.insert(0, "sep=;" if kind == "said" else '"SEP=;"')
    encoding = {"utf-16": "utf-16", "utf-16-le-bom": "utf-16-le"}.get(kind, "utf-8")
    if encoding == "utf-16-le":
        lines[0] = f"\ufeff{lines[0]}"
    file = write(pets / "m.csv", *lines, encoding=encoding)
    assert labels_of(load_table(file)) == ["a", "b", "a", "b"]


def test_lines_keep_their_numbers_behind_a_said_separator(pets):
    write(pets / "m.csv", "sep=;", "path;label", "img/0.png;a", ";b")
    assert refusal_of("m.csv").startswith("Line 4 of")


def test_bytes_that_are_no_utf_16(pets):
    (pets / "m.csv").write_bytes(b"\xff\xfep\x00a")
    assert "begins like UTF-16, but is none from byte 4 on" in refusal_of("m.csv")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, '{"a":' + "[" * 900])
def test_json_nested_too_deeply(pets, content):
    write(pets / "m.jsonl", '{"path": "img/0.png", "label": "a"}', content)
    assert "Line 2 of `--data m.jsonl` is" in refusal_of("m.jsonl")


def test_lists_within_json_are_read_as_deep_as_may_be(pets):
    deep = "[" * 950 + "1" + "]" * 950
    write(pets / "m.jsonl", f'{{"path": "img/0.png", "label": "a", "x": {deep}}}')
    assert "nested too deeply" in refusal_of("m.jsonl")


def test_rows_in_another_order_give_the_same_table(pets):
    lines = rows("a,g1", "b,g2", "a,g3", "b,g4")
    one = load_table(write(pets / "one.csv", "path,label,group", *lines))
    two = load_table(write(pets / "two.csv", "path,label,group", *lines[::-1]))
    assert (one.paths, one.groups) == (two.paths, two.groups)
    np.testing.assert_array_equal(one.labels, two.labels)


def test_numbers_are_one_label_however_they_are_stored(pets):
    lines = [{"path": f"img/{n}.png", "label": label} for n, label in enumerate([3, 3.0, "3", 4])]
    file = write(pets / "m.jsonl", *map(json.dumps, lines))
    assert load_table(file).class_names == ("3", "4")


def test_columns_by_name(pets):
    write(pets / "m.csv", "image_id,finding,patient_id,label", *rows("a,p1,u", "b,p2,u", "a,p1,v"))
    wanted = "path=image_id, label=finding,group=patient_id"
    table = load_table("m.csv", columns=wanted)
    assert labels_of(table) == ["a", "b", "a"]
    assert table.groups == ("p1", "p2", "p1")
    same = load_table("m.csv", columns={"path": "image_id", "label": "finding"})
    assert same.groups is None
    assert same.notes == (
        "The column 'patient_id' may name groups; --group-by patient_id keeps them together.",
    )


def test_root_only_and_plain_names_below(pets):
    plant(pets, "full/train/a_x/1.png", "full/test/a_x/1.png", "crop/train/a_x/1.png")
    write(
        pets / "m.csv",
        "file,class,split,there",
        *("1.png,A,train,1", "1.png,A,test,1", "9.png,B,train,0", "../img/0.png,B,train,yes"),
    )
    table = load_table("m.csv", columns="root=full,only=there")
    assert table.paths == ("full/train/a_x/1.png", "img/0.png", "full/test/a_x/1.png")
    assert table.splits == ("train", "train", "test")
    assert "is there 2 times below" in refusal_of("m.csv", columns="only=there")
    assert "root=nowhere does not exist" in refusal_of("m.csv", columns="root=nowhere")


def test_rows_without_a_split_are_learnt_from(pets):
    write(pets / "m.csv", "path,label,set", *rows("a,", "b,train", "a,test", "b,"))
    assert load_table("m.csv").splits == ("train", "train", "train", "test")


@pytest.mark.parametrize(
    ("lines", "clause"),
    [
        ([], "`--data m.csv` is empty. It needs a header"),
        (["path,label"], "has a header and no row to take"),
        (["path,kind", *rows("a")], "has no label column: its columns are 'path', 'kind'"),
        (["where,label", *rows("a")], "has no path column"),
        (["path,label,label", *rows("a,b")], "has two columns named 'label'"),
        (["path,label", *rows("a,b,c")], "Line 2 of `--data m.csv` has 4 cells, its header 2"),
        (["path,label", 'img/0.png,"a'], "is damaged"),
        (["path,label", ",a"], "Line 2 of `--data m.csv` names no image: its 'path' is empty"),
        (["path,label", *rows("a", "a")], "holds one class only, 'a'"),
        (["path,label", *rows("", " ")], "holds no image with a label"),
        (["path,label", f"{'x' * 5000},a"], "names 1 of 1 images that are not there"),
        (["path,label", *rows("a", "b"), "img/0.png,a"], "Line 4 of `--data m.csv` names 'img/0."),
        (["path,label,split", *rows("a,train", "b,held")], "the split 'held' is neither train"),
        (["path,label,split", *rows("a,val", "b,test")], "holds no training images"),
        (
            ["path,label,split", *rows("otter,train", "b,train", "Otter,test")],
            "The test split of `--data m.csv` holds the class 'Otter', which the training images",
        ),
    ],
)
def test_one_sentence_for_each_mistake(pets, lines, clause):
    write(pets / "m.csv", *lines)
    message = refusal_of("m.csv")
    assert clause in message
    assert message.endswith((".", "split=", "COLUMN."))


def test_missing_files_are_counted_and_named(pets):
    gone = [f"img/gone{n}.png,a" for n in range(5)]
    write(pets / "m.csv", "path,label", *rows("a", "b"), *gone)
    message = refusal_of("m.csv")
    assert "names 5 of 7 images that are not there: 'img/gone0.png', 'img/gone1.png'" in message
    assert "and 2 more" in message


def test_bytes_that_are_no_utf_8(pets):
    write(pets / "m.csv", "path,label", "img/0.png,été", encoding="latin-1")
    assert "is not UTF-8: line 2 holds the byte 0xe9. Save it as UTF-8." in refusal_of("m.csv")


def test_damaged_parquet_and_json(pets):
    pytest.importorskip("pyarrow")
    write(pets / "m.parquet", "no parquet")
    assert "is no readable Parquet file" in refusal_of("m.parquet")
    write(pets / "m.jsonl", '{"path": "img/0.png", "label": "a"}', "{")
    assert "Line 2 of `--data m.jsonl` is not JSON" in refusal_of("m.jsonl")


@pytest.mark.parametrize(
    ("columns", "clause"),
    [
        ("label", "must be MEANING=COLUMN"),
        ("label=kind,path=path,label=label", "says 'label' 2 times"),
        ("Label=kind,label=kind", "says 'label' 2 times"),
        ("box=kind:xxyy", "must give the form of a box as one of xyxy, xywh, got 'xxyy'"),
        ("split=label", "the split 'u' is neither train, val nor test"),
        ("lable=kind", "knows no 'lable'. Did you mean 'label'?"),
        ("label=knd", "has no column 'knd'. Did you mean 'kind'?"),
        ("label=", "has no label column"),
        ("box=kind path", "must name one column or four"),
    ],
)
def test_columns_that_cannot_be(pets, columns, clause):
    write(pets / "m.csv", "path,kind,label", *rows("a,u", "b,v"))
    assert clause in refusal_of("m.csv", columns=columns)


BOX_HEADERS = ["x1,y1,x2,y2", "xmin,ymin,xmax,ymax", "rel_x1,rel_y1,rel_x2,rel_y2", "bbox"]


@pytest.mark.parametrize("header", BOX_HEADERS)
def test_boxes_become_shares(pets, header):
    pixels = not header.startswith("rel")
    first, second = ("5,2,15,10", "0,0,20,10") if pixels else ("0.25,0.2,0.75,1", "0,0,1,1")
    if header == "bbox":
        first, second = first.replace(",", " "), '"[0, 0, 20, 10]"'
    empty = "" if header == "bbox" else ",,,"
    write(pets / "m.csv", f"path,label,{header}", *rows(f"a,{first}", f"b,{second}", f"a,{empty}"))
    table = load_table("m.csv")
    np.testing.assert_allclose(table.boxes[:2], [[0.25, 0.2, 0.75, 1], [0, 0, 1, 1]])
    assert table.box_of(0) == (0.25, 0.2, 0.75, 1.0)
    assert table.box_of(2) is None
    assert table.take([2, 0]).box_of(1) == (0.25, 0.2, 0.75, 1.0)


BOX_NOTE = "The boxes of the column 'bbox' are read as left, top, right, bottom (x1 y1 x2 y2)"


@pytest.mark.parametrize(
    ("wanted", "box", "noted"),
    [
        (None, (0.1, 0.2, 0.5, 0.6), True),
        ("box=bbox", (0.1, 0.2, 0.5, 0.6), True),
        ("box=bbox:xyxy", (0.1, 0.2, 0.5, 0.6), False),
        ("box=bbox:XYWH", (0.1, 0.2, 0.6, 0.8), False),
        ("box=l t w h:xywh", (0.1, 0.2, 0.6, 0.8), False),
        ("box=", None, False),
    ],
)
def test_boxes_of_one_column_may_be_read_in_two_ways(pets, wanted, box, noted):
    write(pets / "m.csv", "path,label,bbox,l,t,w,h", *rows("a,2 2 10 6,2,2,10,6", "b,,,,,"))
    table = load_table("m.csv", columns=wanted)
    assert table.box_of(0) == (box and pytest.approx(box))
    assert any(note.startswith(BOX_NOTE) for note in table.notes) == noted


def test_boxes_of_a_metadata_file(tmp_path):
    plant(tmp_path, "a/0.png", "b/1.png")
    write(tmp_path / "metadata.csv", "path,bbox", "a/0.png,2 2 10 6", "c/9.png,x")
    table = load_table(tmp_path, columns="box=bbox:xywh")
    assert table.box_of(0) == pytest.approx((0.1, 0.2, 0.6, 0.8))
    assert table.box_of(1) is None
    assert load_table(tmp_path).notes[0].startswith(BOX_NOTE)
    write(tmp_path / "metadata.csv", "path,bbox", "a/0.png,9 2 3 6")
    message = refusal_of(tmp_path)
    assert message.startswith("Line 2 of 'metadata.csv' of")
    assert "--columns box=COLUMN:xywh reads left, top, width, height." in message


@pytest.mark.parametrize("margin", [0.0, 0.1, 1.0])
def test_margins_are_shares_of_the_box_and_stay_inside(pets, margin):
    write(pets / "m.csv", "path,label,bbox", *rows("a,5 2 15 6", "b,"))
    box = load_table("m.csv", crop_margin=margin).box_of(0)
    expected = (0.25 - margin / 2, 0.2 - 0.4 * margin, 0.75 + margin / 2, 0.6 + 0.4 * margin)
    assert box == pytest.approx(np.clip(expected, 0, 1))


def test_fractions_are_shares_unless_one_box_says_otherwise(pets):
    write(pets / "m.csv", "path,label,bbox", *rows("a,0 0 0.5 1", "b,0 0 1 1"))
    assert load_table("m.csv").box_of(0) == (0, 0, 0.5, 1)
    write(pets / "m.csv", "path,label,bbox", *rows("a,0 0 1.5 1", "b,0 0 10 10"))
    assert load_table("m.csv").box_of(0) == (0, 0, 1.5 / 20, 0.1)


@pytest.mark.parametrize(
    ("box", "clause"),
    [
        ("0 0 21 10", "the box 0 0 21 10 reaches outside the picture of 20x10 pixels"),
        ("-1 0 5 5", "the box -1 0 5 5 reaches outside the picture"),
        ("5 5 5 9", "the box 5 5 5 9 is empty in a picture of 20x10 pixels"),
        ("1 2 3", "the box must be four numbers, left, top, right and bottom, got '1 2 3'"),
        ("1 2 3 nan", "the box must be four numbers"),
    ],
)
def test_boxes_that_cannot_be(pets, box, clause):
    write(pets / "m.csv", "path,label,bbox", *rows(f"a,{box}", "b,0 0 20 10"))
    message = refusal_of("m.csv")
    assert message.startswith("Line 2 of `--data m.csv`")
    assert clause in message
    write(pets / "m.csv", "path,label,rel_x1,rel_y1,rel_x2,rel_y2", *rows("a,0,0,1,1.5", "b,,,,"))
    assert "reaches outside the picture, whose sides count as 1" in refusal_of("m.csv")


def test_one_picture_with_two_boxes_is_two_images(pets):
    lines = ["img/0.png,a,0 0 5 5", "img/0.png,b,5 5 9 9", "img/1.png,a,0 0 5 5"]
    table = load_table(write(pets / "m.csv", "path,label,bbox", *lines))
    assert table.paths == ("img/0.png", "img/0.png~2", "img/1.png")
    assert labels_of(table) == ["a", "b", "a"]
    write(pets / "m.csv", "path,label,bbox", *lines, lines[0])
    assert "names 'img/0.png' with the same box a second time" in refusal_of("m.csv")


def test_the_rows_of_one_picture_stay_together(pets):
    (pets / "link.png").symlink_to(pets / "img" / "0.png")
    lines = ["img/0.png,a,0 0 5 5,u", "img/0.png,b,5 5 9 9,u", "img/1.png,a,0 0 5 5,v"]
    lines += ["link.png,b,1 1 5 5,w", "img/2.png,b,,v"]
    write(pets / "m.csv", "path,label,bbox,video", *lines)
    table = load_table("m.csv")
    assert table.groups == ("img/0.png", "img/0.png", "img/1.png", "img/2.png", "img/0.png")
    assert any(
        note.startswith("1 picture stands in several rows with boxes of their own ('img/0.png'")
        for note in table.notes
    )
    torn = load_table("m.csv", group_by="video")
    assert torn.groups == ("u", "u", "v", "v", "w")
    assert "1 picture stands in rows of different groups ('img/0.png'" in torn.notes[1]
    write(pets / "m.csv", "path,label,bbox,group", *lines[:3], lines[4])
    assert not any("picture stands" in note for note in load_table("m.csv").notes)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_pixel_boxes_count_on_the_upright_picture(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (40, 20)).save(tmp_path / f"0.{ending}", exif=exif)
    plant(tmp_path, "1.png")
    write(tmp_path / "m.csv", "path,label,bbox", f"0.{ending},a,0 0 10 10", "1.png,b,")
    table = load_table(tmp_path / "m.csv")
    width, height = decode(table.read(0), table.paths[0])[0].size
    assert (width, height) == ((20, 40) if orientation in (6, 8) else (40, 20))
    assert table.box_of(0) == (0, 0, 10 / width, 10 / height)


def test_unreadable_pictures_keep_their_place_without_a_box(pets):
    (pets / "img" / "0.png").write_text("no image")
    table = load_table(write(pets / "m.csv", "path,label,bbox", *rows("a,0 0 99 99", "b,0 0 9 9")))
    assert table.box_of(0) is None
    assert table.box_of(1) is not None


@pytest.mark.parametrize("margin", [-0.1, 1.1, float("nan")])
def test_margins_that_cannot_be(margin):
    assert "`crop_margin` must be between 0 and 1," in refusal_of("digits", crop_margin=margin)


def test_groups_by_a_column_and_by_the_path(pets):
    write(pets / "m.csv", "path,label,Video", *rows("a,u", "b,v", "a,v", ",w"))
    assert load_table("m.csv", group_by="video").groups == ("u", "v", "v", "w")
    assert load_table("m.csv", group_by=r"[01]|[23]").groups == ("0", "1", "2", "3")
    assert load_table("m.csv", group_by=r"/([01])|/.").groups == ("0", "1", "/2", "/3")
    assert load_table("m.csv", group_by=r"/([01])|/(.)").groups == ("0", "1", "2", "3")
    note = load_table("m.csv", group_by=r"(\d)\.png$").notes[-1]
    assert "gives every image a group of its own" in note


@pytest.mark.parametrize(
    ("group_by", "clause"),
    [
        ("vidoe", "names no column. Did you mean 'video'? Columns are 'path', 'label', 'video'"),
        ("a{99999999999}", "must be a column or a regular expression, got 'a{99999999999}'"),
        ("(", "must be a column or a regular expression, got '(': missing )"),
        (
            r"/([0-2])\.",
            "gives no group to 1 of 4 images, which do not match the regular expression",
        ),
        (r"^img", "puts all images into one group, 'img'"),
        ("video", "have nothing in the column 'video': 'img/2.png' is the first"),
    ],
)
def test_groups_that_cannot_be(pets, group_by, clause):
    write(pets / "m.csv", "path,label,video", *rows("a,u", "b,v", "a,", "b,u"))
    assert clause in refusal_of("m.csv", group_by=group_by)


def test_expressions_that_try_too_many_ways_are_ended(pets, monkeypatch):
    before = signal.getsignal(signal.SIGVTALRM)
    monkeypatch.setattr(grouping, "MATCHING_LIMIT_S", 0.1)
    plant(pets, f"{'a' * 60}/0.png")
    write(pets / "m.csv", "path,label", f"{'a' * 60}/0.png,a", *rows("b"))
    message = refusal_of("m.csv", group_by="(a+)+$")
    assert message.startswith("`--group-by (a+)+$` took more than 0.1 s on 2 paths")
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_groups_by_the_path_in_another_thread(pets):
    write(pets / "m.csv", "path,label", *rows("a", "b"))
    with ThreadPoolExecutor(1) as pool:
        table = pool.submit(load_table, pets / "m.csv", group_by=r"(\d)\.png").result()
    assert table.groups == ("0", "1")


def test_builtin_data_are_grouped_by_their_paths():
    table = load_table("digits", group_by=r"/(\d\d)")
    assert len(set(table.groups)) == 18
    assert table.groups[150] == "01"


def test_empty_cells_of_the_group_column(pets):
    write(pets / "m.csv", "path,label,group", *rows("a,u", "b,", "a,v"))
    assert "gives no group to 1 of 3 images, which have an empty cell" in refusal_of("m.csv")


def test_test_data_may_be_a_manifest(pets):
    write(pets / "train.csv", "path,label", *rows("a", "b"))
    write(pets / "held.csv", "path,label", "img/2.png,a")
    table = load_table("train.csv", test_data="held.csv")
    assert table.splits == ("train", "train", "test")
    assert table.paths[-1] == "test/img/2.png"


def test_files_to_learn_from_cannot_be_tested_on(pets):
    write(pets / "train.csv", "path,label", *rows("a", "b", "a", ""))
    (pets / "link.png").symlink_to(pets / "img" / "2.png")
    lines = ["img/1.png,b", "link.png,a", "img/3.png,a"]
    write(pets / "held.csv", "path,label", *lines)
    message = refusal_of("train.csv", test_data="held.csv")
    assert message.startswith(
        "`--test-data held.csv` holds 2 of its 3 images in `--data train.csv` as well: "
        "'img/1.png' is the first."
    )
    write(pets / "held.csv", "path,label", lines[2])
    assert load_table("train.csv", test_data="held.csv").splits.count("test") == 1


def test_numbers_that_look_alike(pets):
    assert class_notes(["1", "1.0", "01", "2", "10", "+7", "7"]) == (
        "Labels '+7' and '7' look like one number and are two classes.",
        "Labels '01' and '1' and '1.0' look like one number and are three classes.",
    )
    assert class_notes(["1", "10", "1.5", "1.5.0", "v1", "0x1"]) == ()
    write(pets / "m.csv", "path,label", *rows("1", "1.0", "01", "2"))
    table = load_table("m.csv")
    assert table.class_names == ("01", "1", "1.0", "2")
    assert "look like one number" in table.notes[0]


def test_words_that_may_stand_for_a_missing_label(pets):
    write(pets / "m.csv", "path,label", *rows("a", "nan", "nan", "N/A"))
    table = load_table("m.csv")
    assert table.class_names == ("N/A", "a", "nan")
    assert table.notes == (
        "3 rows have a label that may stand for a missing one and is taken as a class of that "
        "name: 'N/A' (1), 'nan' (2). Leave the cells empty where there is no label.",
    )


def test_labels_that_look_alike():
    accent = unicodedata.normalize("NFD", "é")
    assert class_notes(["cat", "Cat", "dog", "cat"]) == (
        "Labels 'Cat' and 'cat' differ only in case and are two classes.",
    )
    assert class_notes(["é", accent]) == (
        r"Labels 'e\u0301' and '\xe9' differ only in how an accent is stored and are one class.",
    )
    assert "differ only in spaces and" in class_notes(["red car", "red  car"])[0]
    assert "differ only in normalisation and" in class_notes(["A1", "A\uff11"])[0]
    assert "differ only in case and spaces and are three" in class_notes(["ab", "Ab", "a b"])[0]
    assert class_notes(["cat", "cart"]) == ()


def test_look_alikes_are_noted_and_stay_apart(pets):
    accent = unicodedata.normalize("NFD", "é")
    write(pets / "m.csv", "path,label", *rows("Cat", "cat", "é", accent))
    table = load_table("m.csv")
    assert table.class_names == ("Cat", "cat", "é")
    assert len(table.notes) == 2


def test_names_of_any_script_and_with_slashes(pets):
    labels = ["Ram C/V Cargo Van", "می‌خواهم", "a\u3000b", '"x\ny"']
    table = load_table(write(pets / "m.csv", "path,label", *rows(*labels)))
    assert labels_of(table) == [*labels[:3], r"x\ny"]


def test_finished_models_take_the_test_part_of_a_manifest(pets):
    write(pets / "m.csv", "path,label,split", *rows("a,train", "b,test", "a,test", ",test"))
    table = load_unlabelled_or_labelled("m.csv", ("b", "a", "c"))
    assert table.class_names == ("b", "a", "c")
    assert labels_of(table) == ["b", "a", ""]
    assert load_unlabelled_or_labelled("m.csv", ("a", "z")).class_names == ()
    write(pets / "m.csv", "f,l,bbox,video", *rows("a,5 2 15 6,1", "a,,2"))
    wanted = {"columns": "path=f,label=l", "group_by": "video", "crop_margin": 0.5}
    table = load_unlabelled_or_labelled("m.csv", ("a", "b"), **wanted)
    assert table.groups == ("1", "2")
    assert table.box_of(0) == pytest.approx((0, 0, 1, 0.8))


@pytest.fixture
def wards(tmp_path):
    """Class folders with a metadata file: a row too many, an image without a row."""
    plant(tmp_path, "well/0.png", "well/1.png", "ill/2.png", "ill/3.png")
    write(
        tmp_path / "metadata.csv",
        "path,patient_id,origin,label",
        *("well/0.png,p0,A,x", "well/1.png,p1,A,y", "ill\\2.png,p0,B,z", "ill/9.png,p9,B,z"),
    )
    return tmp_path


def test_metadata_adds_columns_to_class_folders(wards):
    table = load_table(wards)
    assert table.class_names == ("ill", "well")
    assert table.sources == ("B", "", "A", "A")
    assert table.groups is None
    assert "'patient_id' may name groups" in " ".join(table.notes)
    message = refusal_of(wards, group_by="patient_id")
    assert "gives no group to 1 of 4 images" in message
    assert "'ill/3.png' is the first" in message
    (wards / "ill" / "3.png").unlink()
    assert load_table(wards, group_by="patient_id").groups == ("p0", "p0", "p1")
    assert "class folders are the labels" in refusal_of(wards, columns="label=patient_id")


@pytest.mark.parametrize("word", ["root=well", "only=origin", "split=origin"])
def test_words_that_mean_nothing_beside_class_folders(wards, word):
    message = refusal_of(wards, columns=word)
    assert f"beside class folders, got '{word.split('=')[0]}'" in message


def test_splits_beside_class_folders_are_noted(wards):
    write(wards / "metadata.csv", "path,split", "well/0.png,test")
    assert "The column 'split' of 'metadata.csv' is not used" in load_table(wards).notes[0]


def test_folders_that_are_no_classes_are_noted(tmp_path):
    for root, count in (("crop", 3), ("full", 2)):
        plant(tmp_path / root, *(f"train/x/{number}.png" for number in range(count)))
    lines = ["0.png,Acura,1", "1.png,Fiat,yes", "2.png,Fiat,"]
    file = write(tmp_path / "metadata.csv", "file,class_name,Full", *lines)
    (note,) = load_table(tmp_path).notes
    assert note.endswith(
        "What is learnt are the 2 folders, not the labels in its column 'class_name'; did you mean "
        f"--data {file} --columns root=crop or root=full,only=Full?"
    )
    for columns, count in (("root=crop", 3), ("root=full,only=Full", 2)):
        table = load_table(file, columns=columns)
        assert (len(table), table.class_names) == (count, ("Acura", "Fiat"))


@pytest.mark.parametrize("content", [b"x", b"", b"\xe9\xff", b"path,label\nelse.png,a\n"])
def test_metadata_that_cannot_be_used_does_no_harm(wards, content):
    (wards / "metadata.csv").write_bytes(content)
    table = load_table(wards)
    assert len(table) == 4
    assert "'metadata.csv' is not used" in table.notes[0]


@pytest.mark.parametrize("layout", ["flat", "below", "split", "prefixed"])
def test_hugging_face_image_folders(tmp_path, layout):
    header = "file_name,label"
    if layout == "split":
        for split in ("train", "test"):
            plant(tmp_path / split, "0.png", "1.png")
            write(tmp_path / split / "metadata.csv", header, "0.png,a", "1.png,b")
    else:
        folders = {"flat": ("", ""), "below": ("i/", "i/"), "prefixed": ("train/", "test/")}[layout]
        names = [f"{folders[0]}0.png", f"{folders[0]}1.png", f"{folders[1]}2.png"]
        plant(tmp_path, *names)
        lines = [f"{name},{label}" for name, label in zip(names, "aba", strict=True)]
        write(tmp_path / "metadata.csv", header, *lines)
    table = load_table(tmp_path)
    assert table.class_names == ("a", "b")
    splits = {"split": ["train"] * 2 + ["test"] * 2, "prefixed": ["train"] * 2 + ["test"]}
    assert list(table.splits) == splits.get(layout, [""] * 3)
    assert all(Path(file).is_file() for file in table.files)


@pytest.fixture
def cars(tmp_path):
    """Stanford Cars as published: both parts use the same file names."""
    classes = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"]
    write(tmp_path / "names.csv", *classes)
    write(tmp_path / "anno_train.csv", "00001.jpg,2,1,18,9,2", "00002.jpg,0,0,20,10,1")
    write(tmp_path / "anno_test.csv", "00001.jpg,0,0,10,10,1")
    return tmp_path


@pytest.mark.parametrize(
    ("train", "test"),
    [("cars_train/cars_train", "cars_test"), ("car_data/train/Ram C-V", "car_data/test/Hummer")],
)
def test_stanford_cars_as_published(cars, train, test):
    plant(cars, f"{train}/00001.jpg", f"{train}/00002.jpg", f"{test}/00001.jpg")
    table = load_table(cars)
    assert labels_of(table) == [
        "Ram C/V Cargo Van Minivan 2012",
        *["AM General Hummer SUV 2000"] * 2,
    ]
    assert table.splits == ("train", "train", "test")
    assert table.paths == (f"{train}/00001.jpg", f"{train}/00002.jpg", f"{test}/00001.jpg")
    np.testing.assert_allclose(table.boxes, [[0.1, 0.1, 0.9, 0.9], [0, 0, 1, 1], [0, 0, 0.5, 1]])


def test_columns_do_not_go_with_stanford_cars(cars):
    assert "which have no header. Leave it out." in refusal_of(cars, columns="label=x")


def test_stanford_cars_with_faults(cars):
    plant(cars, "cars_train/00001.jpg", "cars_train/00002.jpg")
    message = refusal_of(cars)
    assert "names 1 of 3 images that are not there: 'test/00001.jpg'" in message
    write(cars / "anno_train.csv", "00001.jpg,2,1,18,9,3")
    assert "the class must be a number from 1 to 2" in refusal_of(cars)
    write(cars / "anno_train.csv", "00001.jpg,2,1,18,9")
    assert "Line 1 of 'anno_train.csv' must be image, left, top" in refusal_of(cars)


def test_stanford_cars_of_the_pack(pack):
    manifest = pack("cars") / "metadata.csv"
    table = load_table(manifest, columns="root=full,only=full", crop_margin=0.05)
    assert (len(table), len(table.class_names)) == (597, 20)
    assert set(table.splits) == {"train", "test"}
    assert not np.isnan(table.boxes).any()


def test_columns_go_with_manifests_only():
    with pytest.raises(DataError, match="must go with a manifest; 'digits' has none"):
        load_table("digits", columns="label=x")


def test_numbers_count_names_even_where_a_name_is_a_number():
    names = ["0", "1", "10", "2"]  # as Hugging Face sorts folders
    assert [named_label(n, names, "x") for n in (0, 1, 2, 3, -1)] == ["0", "1", "10", "2", ""]
    assert named_label("10", names, "x") == "10"  # a text is a name first
    with pytest.raises(DataError, match="none of the 4 classes"):
        named_label(4, names, "x")


@pytest.mark.parametrize(
    ("cell", "taken"),
    [("0.0", False), ("0", False), ("-0.0", False), ("1.0", True), ("yes", True), ("no", False)],
)
def test_a_zero_says_no_however_it_is_written(cell, taken):
    assert ChosenColumns(only="P").takes({"P": cell}) is taken


def test_two_rows_that_say_two_things_of_a_picture_are_refused(tmp_path):
    plant(tmp_path, "a/0.png", "b/1.png")
    lines = ("path,bbox,note", "a/0.png,2 2 10 6,x", "a/0.png,2 2 10 6,y", "b/1.png,0 0 4 4,z")
    write(tmp_path / "metadata.csv", *lines)
    assert load_table(tmp_path, columns="box=bbox:xywh").box_of(1) is not None  # the same twice
    write(tmp_path / "metadata.csv", *lines, "b/1.png,1 1 4 4,z")
    with pytest.raises(DataError, match=r"two things of 'b/1.png' \(line 4 and line 5\)"):
        load_table(tmp_path, columns="box=bbox:xywh")


def test_a_test_folder_is_read_by_the_same_columns(tmp_path):
    for part in ("learn", "test"):
        plant(tmp_path / part, "a/0.png", "a/2.png", "b/1.png", "b/3.png")
        cells = [
            f"{name},2 2 10 6,{part}{name}" for name in ("a/0.png", "a/2.png", "b/1.png", "b/3.png")
        ]
        write(tmp_path / part / "metadata.csv", "path,region,who", *cells)
    table = load_table(
        tmp_path / "learn", test_data=str(tmp_path / "test"), columns="box=region:xywh,group=who"
    )
    assert table.splits.count("test") == 4
    for row in range(len(table)):
        assert table.box_of(row) == pytest.approx((0.1, 0.2, 0.6, 0.8))


def test_columns_of_a_folder_to_predict_are_refused(tmp_path):
    plant(tmp_path, "a/0.png")
    with pytest.raises(DataError, match="`columns` must go with a manifest"):
        load_unlabelled_or_labelled(str(tmp_path), ("a",), columns="box=x")


def test_a_finished_model_sees_the_boxes_of_class_folders(tmp_path):
    """Boxes and groups of metadata.csv, as when the model learnt; they were passed over."""
    names = [f"{kind}/{number}.png" for kind in "ab" for number in range(2)]
    for name in names:
        plant(tmp_path, name)
    cells = [f"{name},2 2 10 6,p{i // 2}" for i, name in enumerate(names)]
    write(tmp_path / "metadata.csv", "path,bbox,patient", *cells)
    given = {"columns": "box=bbox:xywh", "group_by": "patient"}
    table = load_unlabelled_or_labelled(str(tmp_path), ("b", "a"), crop_margin=0.1, **given)
    assert table.labels.tolist() == [1, 1, 0, 0]
    assert table.groups == ("p0", "p0", "p1", "p1")
    assert table.notes == ()
    learnt = load_table(tmp_path, crop_margin=0.1, **given)
    assert [table.box_of(i) for i in range(4)] == [learnt.box_of(i) for i in range(4)]
    assert table.box_of(0) is not None
    write(tmp_path / "metadata.csv", "path,bbox,patient", *cells[:3], "b/1.png,2 2 10 6,")
    with pytest.raises(DataError, match="gives no group to 1 of 4 images"):
        load_unlabelled_or_labelled(str(tmp_path), ("b", "a"), **given)
    one = [cell.rpartition(",")[0] + ",p0" for cell in cells]
    write(tmp_path / "metadata.csv", "path,bbox,patient", *one)  # nothing is split here
    assert set(load_unlabelled_or_labelled(str(tmp_path), ("b", "a"), **given).groups) == {"p0"}
    with pytest.raises(DataError, match="puts all images into one group"):
        load_table(tmp_path, **given)


def test_shares_that_a_rounding_took_outside_are_cut(pets):
    write(pets / "m.csv", "path,label,x1,y1,x2,y2", *rows("a,0.2,0.2,0.8,0.8", "b,0.5,0,1.0003,1"))
    table = load_table("m.csv")
    assert table.box_of(0) == (0.2, 0.2, 0.8, 0.8)
    assert table.box_of(1) == (0.5, 0, 1, 1)
    write(
        pets / "m.csv", "path,label,rel_x1,rel_y1,rel_x2,rel_y2", *rows("a,-0.0002,0,1,1", "b,,,,")
    )
    assert load_table("m.csv").box_of(0) == (0, 0, 1, 1)


def test_shares_among_pixels_are_no_crop_of_one_pixel(pets):
    write(pets / "m.csv", "path,label,bbox", *rows("a,0.2 0.2 0.8 0.8", "b,0 0 10 10"))
    assert "is smaller than a pixel of a picture of 20x10" in refusal_of("m.csv")


def test_a_home_of_nobody_and_a_name_that_is_too_long_are_sentences(pets):
    assert "the home of nobody known here" in refusal_of("~nobody-of-that-name/flowers")
    assert "cannot be looked at" in refusal_of("x" * 5000)


def test_labels_beside_folders_that_are_other_ones_are_told(pets):
    plant(pets / "d", "part1/a.png", "part1/b.png", "part2/c.png", "part2/d.png")
    lines = ["part1/a.png,cat", "part1/b.png,dog", "part2/c.png,cat", "part2/d.png,dog"]
    write(pets / "d" / "metadata.csv", "file_name,label", *lines)
    told = " ".join(load_table("d").notes)
    assert "What is learnt are the 2 folders, not the 2 labels in the column 'label'" in told
    same = [line.replace("cat", "x").replace("dog", "x") if "part1" in line else line[:-3] + "y"
            for line in lines]  # fmt: skip
    write(pets / "d" / "metadata.csv", "file_name,label", *same)
    assert "What is learnt" not in " ".join(load_table("d").notes)


def test_images_without_a_row_are_told_where_rows_say_something(pets):
    plant(pets / "d", "cat/a.PNG", "cat/b.png", "dog/c.png", "dog/d.png")
    lines = ["cat/a.png,0,0,5,5", "cat/b.png,0,0,5,5", "dog/c.png,0,0,5,5", "dog/d.png,0,0,5,5"]
    write(pets / "d" / "metadata.csv", "file_name,x1,y1,x2,y2", *lines)
    told = " ".join(load_table("d").notes)
    assert "'metadata.csv' has no row for 1 of 4 images, whose 'x1', 'y1'" in told
    assert "1 of its rows name no image" in told


def test_metadata_inside_of_split_folders_are_read(pets):
    plant(pets / "d", *(f"{split}/{name}.png" for split in ("train", "test")
                        for name in ("cat/a", "cat/b", "dog/c", "dog/d")))  # fmt: skip
    for split in ("train", "test"):
        lines = [f"cat/a.png,{split}1", "cat/b.png,2", "dog/c.png,3", f"dog/d.png,{split}4"]
        write(pets / "d" / split / "metadata.csv", "file_name,group", *lines)
    table = load_table("d")
    found = dict(zip(table.paths, table.groups, strict=True))
    assert (found["train/cat/a.png"], found["test/dog/d.png"]) == ("train1", "test4")
    assert table.labelled().class_names == ("cat", "dog")
