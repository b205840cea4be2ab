"""Folders become tables: classes, splits, order, names, and one sentence for each mistake."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from headstart.data.decoding import DecodingError, decode
from headstart.data.sources import load_images, load_table, load_unlabelled_or_labelled
from headstart.errors import DataError
from headstart.records import UNLABELLED


def plant(root, *names):
    """Write a tiny image of its own colour under each name."""
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (number % 256, 7, 7)).save(file, "PNG")
    return root


def refusal_of(data, **options):
    with pytest.raises(DataError) as caught:
        load_table(data, **options)
    return str(caught.value)


@pytest.fixture
def pets(tmp_path):
    return plant(tmp_path / "pets", "dog/1.png", "cat/2.JPG", "cat/1.png", "cat/deep/er/0.webp")


def test_class_folders(pets):
    table = load_table(pets)
    assert table.name == "pets"
    assert table.paths == ("cat/1.png", "cat/2.JPG", "cat/deep/er/0.webp", "dog/1.png")
    assert table.class_names == ("cat", "dog")
    assert table.labels.tolist() == [0, 0, 0, 1]
    assert table.splits == ("",) * 4
    assert table.groups is None
    image, facts = decode(table.read(0), table.paths[0])
    assert image.getpixel((0, 0)) == (2, 7, 7)
    assert facts.path == "cat/1.png"


def test_name_of_the_present_folder(pets, monkeypatch):
    monkeypatch.chdir(pets)
    assert load_table(".").name == "pets"


def test_order_does_not_come_from_the_file_system(tmp_path, monkeypatch):
    root = plant(tmp_path / "d", *(f"{label}/{n}.png" for label in "ab" for n in (10, 9, 1)))
    expected = load_table(root).paths
    assert expected == ("a/1.png", "a/10.png", "a/9.png", "b/1.png", "b/10.png", "b/9.png")
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Reversed)
    assert load_table(root).paths == expected


def test_classes_are_sorted_by_code_point(tmp_path):
    root = plant(tmp_path / "d", "zebra/1.png", "Zebra/1.png", "ähre/1.png", "10/1.png", "9/1.png")
    assert load_table(root).class_names == ("10", "9", "Zebra", "zebra", "ähre")


def test_class_names_are_nfc(tmp_path):
    decomposed = unicodedata.normalize("NFD", "é")
    root = plant(tmp_path / "d", f"{decomposed}/1.png", "a/1.png")
    assert load_table(root).class_names == ("a", "é")


def test_two_spellings_of_one_class_are_refused(tmp_path):
    composed, decomposed = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    root = plant(tmp_path / "d", f"{composed}/1.png", f"{decomposed}/1.png", "a/1.png")
    if len(list(root.iterdir())) < 3:
        pytest.skip("this file system stores both spellings as one folder")
    message = refusal_of(root)
    assert r"'\xe9'" in message
    assert r"'e\u0301'" in message
    assert "differ only in how an accent is stored" in message


def test_loose_images_are_told(pets):
    plant(pets, "loose.png", "other.jpg", "notes.txt")
    assert "2 images lie beside the class folders and take no part" in load_table(pets).notes[-1]


def test_leftovers_and_loose_files_are_passed_over(pets):
    plant(pets, "loose.png", ".hidden/1.png", "__MACOSX/cat/1.png", "cat/.2.png", "cat/._1.png")
    for name in ("metadata.csv", "Thumbs.db", "cat/Thumbs.db", "cat/.DS_Store", "cat/desktop.ini"):
        (pets / name).write_text("x")
    for suffix in ("txt", "csv", "json", "xml", "md", "npy"):
        (pets / "cat" / f"notes.{suffix}").write_text("x")
    assert len(load_table(pets)) == 4


def test_foreign_and_broken_files_are_kept_to_be_named(pets):
    for name in ("a.heic", "b.jpg", "c.dcm", "d.NEF"):
        (pets / "cat" / name).write_text("no image")
    table = load_table(pets)
    assert len(table) == 8
    with pytest.raises(DecodingError, match="not an image"):
        decode(table.read(table.paths.index("cat/b.jpg")), "cat/b.jpg")


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "VALID", "Test")])
def test_split_folders(tmp_path, names):
    train, val, test = names
    root = plant(
        tmp_path / "d",
        *(f"{train}/{label}/{n}.png" for label in ("b", "a") for n in (1, 2)),
        f"{test}/b/1.png",
        f"{val}/a/deep/1.png",
    )
    table = load_table(root)
    assert table.splits == ("train",) * 4 + ("val", "test")
    assert table.paths[-2:] == (f"{val}/a/deep/1.png", f"{test}/b/1.png")
    assert table.class_names == ("a", "b")
    assert table.labels.tolist() == [0, 0, 1, 1, 0, 1]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Testing"])
def test_one_held_out_split_is_enough(tmp_path, name):
    root = plant(tmp_path / "d", "train/a/1.png", "train/b/1.png", f"{name}/a/1.png")
    assert set(load_table(root).splits) == {"train", "test" if name == "Testing" else "val"}


def test_train_may_be_a_class(tmp_path):
    root = plant(tmp_path / "d", "train/1.png", "bus/1.png")
    assert load_table(root).class_names == ("bus", "train")


def test_class_of_the_test_split_that_training_lacks(tmp_path):
    names = ["train/otter/1.png", "train/cat/1.png", "test/Otter/1.png"]
    message = refusal_of(plant(tmp_path / "d", *names))
    assert "The test split of `--data" in message
    assert "holds the class 'Otter', which the training images lack" in message
    assert "Did you mean 'otter'?" in message


def test_two_folders_for_one_split(tmp_path):
    names = ["train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"]
    message = refusal_of(plant(tmp_path / "d", *names))
    assert "holds both 'val' and 'valid' for the val split" in message


def test_images_beside_the_splits(tmp_path):
    root = plant(tmp_path / "d", "train/a/1.png", "train/b/1.png", "test/a/1.png")
    (root / "notes").mkdir()
    assert len(load_table(root)) == 3
    plant(root, "extra/a/1.png")
    assert "images in 'extra', which is neither 'val' nor 'test'" in refusal_of(root)


def test_splits_without_train(tmp_path):
    message = refusal_of(plant(tmp_path / "d", "test/a/1.png", "val/a/1.png"))
    assert "holds 'test' and 'val', which are splits, not classes. Add a folder 'train'." in message


def test_separate_test_folder(pets, tmp_path):
    test = plant(tmp_path / "held", "dog/1.png", "dog/9.png")
    table = load_table(pets, test_data=test)
    assert table.splits == ("train",) * 4 + ("test",) * 2
    assert table.paths[-2:] == ("test/dog/1.png", "test/dog/9.png")
    assert table.labels[-2:].tolist() == [1, 1]
    assert table.name == "pets"


def test_test_folder_inside_the_data_folder_is_no_class(pets):
    plant(pets, "held/dog/1.png")
    table = load_table(pets, test_data=pets / "held")
    assert table.class_names == ("cat", "dog")
    assert table.paths[-1] == "held/dog/1.png"


def test_test_folder_named_twice(tmp_path):
    root = plant(tmp_path / "d", "train/a/1.png", "train/b/1.png", "test/a/1.png")
    plain = load_table(root)
    named = load_table(root, test_data=root / "test")
    assert (named.paths, named.splits) == (plain.paths, plain.splits)


def test_second_test_set_is_refused(tmp_path):
    root = plant(tmp_path / "d", "train/a/1.png", "train/b/1.png", "test/a/1.png")
    other = plant(tmp_path / "other", "a/1.png")
    assert "would be a second test set" in refusal_of(root, test_data=other)
    assert "is the folder of `--data` itself" in refusal_of(root, test_data=root)


def test_test_folder_with_splits_of_its_own(pets, tmp_path):
    other = plant(tmp_path / "other", "train/cat/1.png", "test/cat/1.png")
    message = refusal_of(pets, test_data=other)
    assert "holds 'test' and 'train', which are splits, not classes. Name one of them." in message


def test_nothing_is_not_the_present_folder(pets, monkeypatch):
    monkeypatch.chdir(pets)
    assert refusal_of("") == "`--data` must have a name, got ''. Write '.' for the present folder."
    assert refusal_of(".", test_data="").startswith("`--test-data` must have a name, got ''.")
    for load in (lambda: load_images([""]), lambda: load_unlabelled_or_labelled("", ("cat",))):
        with pytest.raises(DataError, match="must have a name, got ''"):
            load()


def test_a_folder_of_links_to_the_training_images_is_no_test_set(pets, tmp_path):
    held = plant(tmp_path / "held", "dog/9.png", "cat/9.png")
    (held / "cat" / "1.png").symlink_to(pets / "cat" / "1.png")
    message = refusal_of(pets, test_data=held)
    assert "holds 1 of its 3 images in `--data" in message
    assert "as well: 'cat/1.png' is the first." in message


def test_missing_folder_offers_close_names(pets, monkeypatch):
    monkeypatch.chdir(pets.parent)
    assert refusal_of("pest").startswith("`--data pest` does not exist. Did you mean 'pets'?")
    assert "Did you mean 'digits'?" in refusal_of("digit")
    assert "Did you mean 'cat'?" in refusal_of("pets/cta")
    assert (
        "Built-in data sets: digits, mnist, fashion-mnist, cifar10, tiny-imagenet."
        in refusal_of("xyz")
    )
    message = refusal_of("pets", test_data="held")
    assert message == "`--test-data held` does not exist. Check the spelling."


def test_file_instead_of_folder(pets):
    message = refusal_of(pets / "cat" / "1.png")
    assert "1.png` is a file. Name the folder that holds the images, or a manifest" in message


def test_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("void").mkdir()
    assert refusal_of("void") == (
        "`--data void` holds no images. Put the images of each class into a folder of its own."
    )


def test_class_folders_without_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label in "abcdefg":
        Path("d", label).mkdir(parents=True)
    assert refusal_of("d") == (
        "`--data d` holds no images in its 7 class folders, 'a', 'b', 'c', 'd', 'e' and 2 more. "
        "Files with an extension such as .jpg or .png count."
    )
    plant(Path("d"), *(f"{label}/1.png" for label in "abcdef"))
    assert refusal_of("d") == (
        "`--data d` holds no images in 'g'. Add images there, or move the folder elsewhere: "
        "every folder is a class."
    )


def test_one_class_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plant(Path("flowers"), "rose/1.png")
    assert refusal_of("flowers") == (
        "`--data flowers` holds one class only, 'rose'; a classifier needs at least two. "
        "Add a folder of another class."
    )
    plant(Path("split"), "train/rose/1.png", "test/rose/1.png", "test/tulip/1.png")
    assert "'train' of `--data split` holds one class only, 'rose'" in refusal_of("split")


def test_images_without_class_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plant(Path("d"), "b.png", "a.png")
    assert refusal_of("d") == (
        "`--data d` holds 2 images but no class folders. Put the images of each class into a "
        "folder of its own, as in CLASS/a.png."
    )


@pytest.mark.parametrize("inner", ["pack", "pack/pack", "train"])
def test_unpacked_archive_one_level_too_high(tmp_path, monkeypatch, inner):
    monkeypatch.chdir(tmp_path)
    plant(Path("d"), f"{inner}/a/1.png", f"{inner}/b/1.png")
    assert f"Did you mean 'd/{inner}'?" in refusal_of("d")
    assert load_table(f"d/{inner}").class_names == ("a", "b")


def test_links_are_followed_and_loops_end(pets):
    elsewhere = plant(pets.parent / "elsewhere", "x.png", "more/y.png")
    (pets / "dog" / "link.png").symlink_to(elsewhere / "x.png")
    (pets / "dog" / "more").symlink_to(elsewhere / "more")
    (pets / "dog" / "up").symlink_to(pets)
    (pets / "dog" / "more" / "back").symlink_to(pets / "dog")
    (pets / "dog" / "self").symlink_to(pets / "dog" / "self")
    (pets / "dog" / "lost.png").symlink_to(pets / "nowhere.png")
    names = [path for path in load_table(pets).paths if path.startswith("dog/")]
    assert names == ["dog/1.png", "dog/link.png", "dog/lost.png", "dog/more/y.png"]
    table = load_table(pets)
    with pytest.raises(OSError, match=r"nowhere|lost"):
        table.read(table.paths.index("dog/lost.png"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_no_images(pets):
    os.mkfifo(pets / "cat" / "pipe.png")
    assert len(load_table(pets)) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_cannot_be_predicted(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png' is a pipe, socket or device"):
        load_images([tmp_path / "pipe.png"])


@pytest.mark.skipif(os.name == "nt" or not os.supports_bytes_environ, reason="needs byte names")
def test_names_that_are_no_utf_8(pets):
    good = (pets / "dog" / "1.png").read_bytes()
    for name in (b"caf\xe9.png", rb"caf\udce9.png"):
        try:
            with open(os.fsencode(pets / "dog") + b"/" + name, "wb") as file:
                file.write(good)
        except OSError:
            pytest.skip("this file system stores UTF-8 names only")
    table = load_table(pets)
    names = [path for path in table.paths if "caf" in path]
    assert sorted(names) == [r"dog/caf\udce9.png", r"dog/caf\udce9.png~2"]
    assert "\n".join(table.paths).encode("utf-8")
    assert all(table.read(row) == good for row in range(4, 6) if "caf" in table.paths[row])
    assert r"caf\udce9" in refusal_of(os.fsdecode(b"caf\xe9"))


def test_builtin_name_wins_unless_written_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plant(Path("digits"), "a/1.png", "b/1.png")
    assert len(load_table("digits")) == 1797
    assert len(load_table("DIGITS")) == 1797
    for folder in ("./digits", "digits/", str(tmp_path / "digits"), Path("digits")):
        assert load_table(folder).class_names == ("a", "b")
    assert "`--test-data` must go with a folder" in refusal_of("digits", test_data="./digits")


def test_images_to_predict(pets, monkeypatch):
    monkeypatch.chdir(pets)
    plant(Path(), "odd.name")
    table = load_images(["odd.name", "cat", Path("dog/1.png"), "./cat/1.png"])
    assert table.paths == (
        *("odd.name", "cat/1.png", "cat/2.JPG", "cat/deep/er/0.webp"),
        "dog/1.png",
    )
    assert set(table.labels.tolist()) == {UNLABELLED}
    assert table.class_names == ()
    assert table.name == "images"
    assert load_images(["."]).paths[0] == "cat/1.png"
    assert load_images(["cat"]).name == "cat"


def test_images_to_predict_that_are_not_there(pets, monkeypatch):
    monkeypatch.chdir(pets)
    with pytest.raises(DataError, match=r"'cat/1.pgn' does not exist. Did you mean '1.png'"):
        load_images(["cat/1.pgn"])
    with pytest.raises(DataError, match="got nothing"):
        load_images([])
    Path("void").mkdir()
    with pytest.raises(DataError, match="No images to predict: got 'void'"):
        load_images(["void"])


def test_labels_follow_the_names_of_the_bundle(pets):
    plant(pets, "loose.png")
    table = load_unlabelled_or_labelled(pets, ("dog", "bird", "cat"))
    assert table.class_names == ("dog", "bird", "cat")
    assert [table.label_of(row) for row in range(len(table))] == ["cat"] * 3 + ["dog", ""]
    assert table.labels.tolist() == [2, 2, 2, 0, UNLABELLED]


def test_labels_are_matched_after_nfc(tmp_path):
    root = plant(tmp_path / "d", f"{unicodedata.normalize('NFD', 'é')}/1.png")
    assert load_unlabelled_or_labelled(root, ("a", "é")).labels.tolist() == [1]


def test_unknown_subfolders_mean_no_labels(pets):
    for class_names in (("cat",), (), ("Cat", "dog")):
        table = load_unlabelled_or_labelled(pets, class_names)
        assert set(table.labels.tolist()) == {UNLABELLED}
        assert table.class_names == ()
    flat = load_unlabelled_or_labelled(pets / "cat" / "deep" / "er", ("cat",))
    assert (flat.paths, flat.class_names) == (("0.webp",), ())


def test_folder_to_predict_that_is_none(pets, tmp_path):
    (tmp_path / "void").mkdir()
    cases = {
        tmp_path / "gone": "does not exist",
        pets / "cat" / "1.png": "is a file",
        tmp_path / "void": "holds no images",
    }
    for folder, clause in cases.items():
        with pytest.raises(DataError, match=clause):
            load_unlabelled_or_labelled(folder, ("cat",))
