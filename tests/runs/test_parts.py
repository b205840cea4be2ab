"""Parts of a table: drawn, given by the data, or given back from a file."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.errors import DataError, UsageError
from headstart.records import ImageTable, Predictions
from headstart.runs.files.outputs import write_splits
from headstart.runs.judging.evaluation import evaluate_folds
from headstart.runs.parts.dividing import group_codes, split_table, units_of
from headstart.runs.parts.given import apply_splits, read_splits
from headstart.runs.settings.splits import check_split_settings, parse_folds, parse_ratio

NAMES = ("badger", "fox")
# What a name may hold and a file of cells could stumble over, half a surrogate pair among it.
TRAPS = "ab/,;\"'\n\r=+-@\t\\ é\u2028\x85\udc80"


def table_of(count=40, **columns):
    """Alternating classes; a pixel an image."""
    paths = tuple(columns.pop("paths", (f"{i:03d}.png" for i in range(count))))
    columns.setdefault("splits", ("",) * len(paths))
    return ImageTable(
        name="zoo",
        paths=paths,
        labels=np.arange(len(paths)) % 2,
        class_names=NAMES,
        pixels=np.zeros((len(paths), 1, 1), dtype=np.uint8),
        **columns,
    )


def split(table, **changes):
    return split_table(table, **{"folds": 4, "test_fraction": 0.2, "seed": 0, **changes})


def written(folder, *lines, header="path,part,fold"):
    path = folder / "given.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def same(one, other):
    """Every array of two splits."""
    for name in ("train", "test", "fold", "inner"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    paths=st.lists(st.text(TRAPS, min_size=1, max_size=6), min_size=16, max_size=30, unique=True)
)
def test_a_split_given_back_is_the_same(tmp_path, paths):
    """Whatever the names: test part, folds and inner parts; also without the fold column."""
    table = table_of(paths=paths, groups=tuple("=" + p for p in paths))
    first = split(table, folds=3)
    write_splits(tmp_path, table, first)
    given_back = apply_splits(table, read_splits(tmp_path), table)
    assert given_back.paths == table.paths
    again = split(given_back, splits=str(tmp_path / "splits.csv"))
    same(again, first)
    assert (again.scheme, again.num_folds) == ("given", 3)
    lines = list(csv.reader((tmp_path / "splits.csv").open(newline="", encoding="utf-8")))
    bare = tmp_path / "bare.csv"
    with bare.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([line[0], line[4]] for line in lines)
    same(split(apply_splits(table, read_splits(bare), table), folds=3, splits=str(bare)), first)


def test_a_file_by_hand_needs_no_neutral_cells(tmp_path):
    """Names as they are, parts in other words, folds by any number, an image left aside."""
    table = table_of(paths=["=a", "-b", "c", "d", "e", "f", "g", "h", "i", "j", "k"])
    path = written(
        tmp_path, "=a,TRAIN,3", "-b,training,3", "c,train,7.0", "d,train,7", "k,unused,",
        *(f"{name},train,{3 if name in 'ef' else 7}" for name in "efgh"), "i,Test,", "j,test,",
    )  # fmt: skip
    given_back = apply_splits(table, read_splits(path), table)
    assert given_back.notes == (f"1 images are left aside, as `--splits {path}` says.",)
    assert "k" not in given_back.paths
    found = split(given_back, splits=str(path))
    np.testing.assert_array_equal(found.fold, [0, 0, 1, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(found.test, [8, 9])
    assert found.origin == f"`--splits {path}`, test part"


def test_images_that_became_unreadable_do_not_matter(tmp_path):
    """The file was checked against all images; what decoding took away is gone from its part."""
    table = table_of()
    write_splits(tmp_path, table, first := split(table))
    given_back = apply_splits(table, read_splits(tmp_path), table)
    rows = np.delete(np.arange(40), [3, first.test[0]])
    found = split(given_back.take(rows), splits=str(tmp_path))
    assert set(rows[found.test]) == set(first.test[1:])
    fold_of = dict(zip(first.train.tolist(), first.fold.tolist(), strict=True))
    assert [fold_of[r] for r in rows[found.train].tolist()] == found.fold.tolist()


ALL = [f"{i:03d}.png,{'test' if i < 8 else 'train'},{'' if i < 8 else i // 4}" for i in range(40)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (ALL[:-2], r"says nothing of 2 of 40 images, as in '038\.png'\. Add a line for each; the "),
        ([*ALL, "0400.png,train,2"], r"names 1 images that 'zoo' lacks, as in '0400\.png'\. Did "
         r"you mean '0"),
        ([line.replace(".png", ".jpg") for line in ALL], r"names none of the 40 images of 'zoo'"),
        ([*ALL, "039.png,test,"], r"names '039\.png' twice and differently, in line 41 \(train\)"),
        (["a.png,tarin,1"], r"Line 2 of .* the part 'tarin' is none of train, val, test, calib"),
        (["a.png,train,first"], r"the fold 'first' is no whole number from 1 on\. Correct it\."),
        ([line.replace("test", "train") for line in ALL], r"names no test image, so nothing"),
        ([line.replace("train", "test") for line in ALL], r"names test images only"),
        ([*ALL[:-1], "039.png,train,"], r"gives a fold to 31 of 32 images .* as '039\.png'\."),
        ([line[:14] + "1" for line in ALL], r"into one fold"),
        ([line[:-1] + str(int(line[2]) % 2) if "train" in line else line for line in ALL],
         r"the fold '0' is no whole number"),
        ([line[:14] + str(int(line[2]) % 2 + 1) if "train" in line else line for line in ALL],
         r"all images of 'badger' to learn from are in the fold '1'\. .* leave the fold column"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(tmp_path, lines, message):
    """What is wrong, of what, and what to do."""
    path = written(tmp_path, *lines)
    with pytest.raises(DataError, match=message):
        split(apply_splits(table_of(), read_splits(path), table_of()), splits=str(path))


def test_a_file_of_other_labels_or_columns_is_refused(tmp_path):
    """And one that is not there."""
    path = written(tmp_path, *(f"{i:03d}.png,fox,train" for i in range(40)),
                   header="path,label,part")  # fmt: skip
    with pytest.raises(DataError, match=r"another label to 20 of 40 .*'000\.png' is 'fox' there"):
        apply_splits(table_of(), read_splits(path), table_of())
    with pytest.raises(DataError, match=r"must have the columns path and part, got path, set\."):
        read_splits(written(tmp_path, "a,b", header="path,set"))
    with pytest.raises(DataError, match=r"names no image\. It needs a line for each"):
        read_splits(written(tmp_path))
    with pytest.raises(DataError, match=r"none\.csv` cannot be read: No such file"):
        read_splits(tmp_path / "none.csv")


def test_a_sample_is_held_against_all_images(tmp_path):
    """With --max-images the file may name the others too."""
    table = table_of()
    write_splits(tmp_path, table, split(table))
    sample = table.take(np.arange(10, 40))
    assert len(apply_splits(sample, read_splits(tmp_path), table)) == 30


def test_a_given_file_and_other_wishes_exclude_each_other(tmp_path):
    """A ratio; folds by a scheme where the file names folds."""
    path = written(tmp_path, *ALL)
    table = apply_splits(table_of(groups=("a",) * 40), read_splits(path), table_of())
    with pytest.raises(UsageError, match=r"`ratio` 80/20 would draw a test part, but one is given"):
        split(table_of(splits=table.splits), splits=str(path), ratio="80/20")
    with pytest.raises(DataError, match=r"so does --folds leave-one-group-out\. Leave one out\."):
        split(table_of(splits=table.splits), splits=str(path), folds="leave-one-group-out")


def test_a_ratio_of_three_is_test_part_and_choosing_part():
    """70/15/15 of 1,000: 150 to test on; each fold chooses on 15/85 of what it learns from."""
    found = split(table_of(1000), ratio="70/15/15", folds=5)
    assert len(found.test) == 150
    np.testing.assert_array_equal(found.inner.sum(axis=1), 5 * [120])
    assert found.notes[0].startswith("The val share of 70/15/15 is 17.6 % of what each fold")
    two = split(table_of(1000), ratio="0.85/0.15", folds=5)
    np.testing.assert_array_equal(two.test, found.test)
    np.testing.assert_array_equal(two.inner.sum(axis=1), 5 * [136])
    assert two.notes == ()


@pytest.mark.parametrize("text", ["70/15/10", "70/30/0", "100", "7/3", "a/b", "-20/120", "nan/1"])
def test_a_ratio_that_cannot_be_is_refused(text):
    """Not adding up is a slip, not a wish to be guessed."""
    with pytest.raises(UsageError, match=rf"as in 80/20 .*70/15/15 .*got '{text}'\. Correct"):
        parse_ratio(text)


@pytest.mark.parametrize(
    ("value", "found"), [(5, 5), ("7", 7), ("leave-one-group-out",) * 2, (np.int64(3), 3)]
)
def test_folds_are_a_number_or_a_scheme(value, found):
    """Text from the command line, numbers from Python."""
    assert parse_folds(value) == found


@pytest.mark.parametrize("value", ["leave-one-out", "", "1", 1, 2.5, "-3"])
def test_folds_that_cannot_be_are_refused(value):
    """With what may stand there."""
    with pytest.raises(UsageError, match=r"`folds` must be (a number, leave-one-gr|at least 2)"):
        parse_folds(value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratio": "80/20", "splits": "s.csv"}, r"80/20 says .*, and so does --splits\. Leave one"),
        ({"ratio": "80/20", "test_fraction": 0.3}, r"so does --test-fraction\. Leave one out\."),
        ({"ratio": "80/30"}, r"got '80/30'"),
        ({"test_fraction": 1.0}, r"between 0 and 1, got 1\.0\. The usual value is 0\.2\."),
        ({"folds": "many"}, r"got 'many'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    """Before any image is looked at."""
    good = {"folds": "5", "test_fraction": 0.2, "ratio": None, "splits": None}
    check_split_settings(**good)
    check_split_settings(**good | {"ratio": "70/15/15"})
    with pytest.raises(UsageError, match=message):
        check_split_settings(**good | changes)


def test_linked_images_stay_together_and_none_linked_changes_nothing():
    """Codes of the audit instead of groups."""
    table = table_of()
    linked = np.arange(40)
    same(split(table, linked=linked), split(table))
    linked[[0, 11, 25]] = 0
    linked[[2, 31]] = 2
    for seed in range(10):
        found = split(table, linked=linked, seed=seed)
        side = np.full(40, -1)
        side[found.train] = found.fold
        assert len(set(side[[0, 11, 25]])) == len(set(side[[2, 31]])) == 1
    with pytest.raises(DataError, match=r"smallest class's 3 independent images, got 4\. Lower"):
        split(table, linked=np.arange(40) // 10)


def test_a_leaking_test_part_is_an_error_unless_allowed():
    """Groups of the data, and what an audit found beyond them."""
    given_parts = ("test",) * 10 + ("train",) * 30
    linked = np.arange(40)
    linked[[3, 12]] = 3
    table = table_of(splits=given_parts)
    message = (
        r"1 of 10 test images \(the data's own test part\) belong together .* '003\.png' with "
        r"'012\.png': .* --allow-leaks"
    )
    with pytest.raises(DataError, match=message):
        split(table, linked=linked)
    assert split(table, linked=linked, allow_leaks=True).leaks == 1
    assert split(table).leaks == 0
    names = tuple("p3" if i in (3, 12) else f"q{i}" for i in range(40))
    with pytest.raises(DataError, match=message):
        split(replace(table, groups=names))


def test_leaking_folds_of_a_file_are_an_error_unless_allowed(tmp_path):
    """Two images of one unit in two folds of the file."""
    path = written(tmp_path, *ALL)
    table = apply_splits(table_of(), read_splits(path), table_of())
    linked = np.arange(40)
    linked[[9, 30]] = 9
    with pytest.raises(DataError, match=r"The folds of .* part 2 of 32 images .*'009\.png' from"):
        split(table, splits=str(path), linked=linked)
    found = split(table, splits=str(path), linked=linked, allow_leaks=True)
    assert (found.leaks, found.fold_leaks) == (0, 2)


def test_each_group_makes_a_fold():
    """By name; duplicates across two groups make one of them."""
    groups = tuple("abcdef"[i // 10] for i in range(60))
    table = replace(table_of(60, groups=groups), labels=np.arange(60) // 5 % 2)
    found = split(table, folds="leave-one-group-out", test_fraction=0.1)
    learnt = table.take(found.train)
    assert found.num_folds == len(found.fold_names) == 5
    assert found.folds_in_words == "5 folds by leave-one-group-out"
    assert [found.fold_names[k] for k in found.fold] == list(learnt.groups)
    linked = group_codes(table).copy()
    linked[linked == 1] = 2
    joined = split(table, folds="leave-one-group-out", test_fraction=0.1, linked=linked)
    assert "b + c" in joined.fold_names
    with pytest.raises(DataError, match=r"needs groups, and the data name none\. Name them by "):
        split(table_of(), folds="leave-one-group-out")


def test_pure_groups_are_left_out_with_a_note():
    """A patient has one class: what a fold's own figures can say is said."""
    groups = tuple(f"p{i % 12}" for i in range(60))  # i % 12 decides i % 2
    table = table_of(60, groups=groups)
    found = split(table, folds="leave-one-group-out")
    assert found.notes[0].startswith(f"{found.num_folds} of {found.num_folds} folds score no image")
    learnt = table.take(found.train)
    probabilities = np.full((len(learnt), 2), 0.5, dtype=np.float32)
    figures = evaluate_folds(
        Predictions(
            paths=learnt.paths,
            class_names=NAMES,
            probabilities=probabilities,
            labels=learnt.labels,
            problems=("",) * len(learnt),
        ),
        found.fold,
        seed=0,
        groups=group_codes(learnt),
    )
    assert figures["num_folds"] == found.num_folds


def test_each_source_makes_a_fold():
    """Named; groups in two sources are refused; so are sources that are the label."""
    sources = tuple("ABC"[i // 2 % 3] for i in range(60))
    table = table_of(60, sources=sources)
    found = split(table, folds="leave-one-source-out")
    assert [found.fold_names[k] for k in found.fold] == [sources[row] for row in found.train]
    linked = np.arange(60)
    pair = found.train[[0, np.flatnonzero(found.fold == 1)[0]]]
    linked[pair] = pair[0]
    with pytest.raises(DataError, match=r"Folds by source part 2 of .* images from others that "):
        split(table, folds="leave-one-source-out", linked=linked, test_fraction=0.02)
    with pytest.raises(
        DataError, match=r"the data do not say\. Name the column by --columns source"
    ):
        split(table_of(), folds="leave-one-source-out")
    confounded = table_of(60, sources=tuple("AB"[i % 2] for i in range(60)))
    with pytest.raises(DataError, match="Source and label coincide: every image of 'badger'"):
        split(confounded, folds="leave-one-source-out")


def test_images_without_a_group_are_groups_of_their_own():
    """Not one group of all that nothing is known of."""
    table = table_of(6, groups=("", "p", "", "p", "q", ""))
    codes = group_codes(table)
    assert len(set(codes.tolist())) == 5
    assert codes[1] == codes[3]
    assert units_of(table_of(6), np.arange(6)) is None


def test_parts_of_the_data_win_over_a_fraction():
    """test; else val; with both, val is learnt from."""
    both = table_of(splits=("test",) * 8 + ("val",) * 8 + ("train",) * 24)
    assert split(both).test.tolist() == list(range(8))
    only = table_of(splits=("val",) * 8 + ("train",) * 32)
    assert split(only).origin == "the data's own val part"
    with pytest.raises(DataError, match=r"is given: the data's own test part\. Leave --ratio out"):
        split(both, ratio="80/20")
