"""A finished model on other pictures: which of them are scored, and which it has seen."""

from __future__ import annotations

import shutil

import pytest
from pictures import COLOURS, paint

from headstart.api import evaluate
from headstart.progress import Progress
from headstart.runs import RunSettings, run_job


class Listening(Progress):
    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


def others(folder, count, seed):
    """New pictures of every colour."""
    for name, colour in COLOURS.items():
        for i in range(count):
            paint(folder / name / f"{i}.png", colour, seed=seed + i)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run and the pictures it was made from; the tests leave both as they are."""
    place = tmp_path_factory.mktemp("made")
    others(place / "colours", 12, seed=0)
    settings = RunSettings(
        data=str(place / "colours"), out=str(place / "run"), folds=3, image_size=32
    )
    with pytest.MonkeyPatch.context() as patch:  # older than the cache of a single test
        patch.setenv("HEADSTART_CACHE", str(place / "cache"))
        return run_job(settings).out, place / "colours"


@pytest.fixture
def run(made):
    return made[0]


@pytest.fixture
def colours(made):
    return made[1]


def evaluated(model, data):
    """The only part's figures, and what was told meanwhile."""
    progress = Listening()
    (figures,) = evaluate(model, data, progress=progress).values()
    return figures, "\n".join(progress.notes)


def test_the_images_it_learnt_from_are_counted_and_warned_of(run, colours):
    figures, told = evaluated(run, colours)
    assert (figures["num_images"], figures["num_learnt_from"]) == (36, 30)
    assert "learnt from 30 of these 36 images" in told


def test_contents_tell_what_was_learnt_and_not_names(run, colours, tmp_path):
    for number, file in enumerate(sorted(colours.rglob("*.png"))):
        copy = tmp_path / "copy" / file.parent.name / f"renamed{number}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    assert evaluated(run, tmp_path / "copy")[0]["num_learnt_from"] == 30
    others(tmp_path / "new", 12, seed=4000)  # the names it learnt from, other pictures
    assert evaluated(run, tmp_path / "new")[0]["num_learnt_from"] == 0


def test_new_pictures_bring_no_warning(run, tmp_path):
    others(tmp_path / "new", 2, seed=500)
    figures, told = evaluated(run, tmp_path / "new")
    assert (figures["num_images"], figures["num_learnt_from"]) == (6, 0)
    assert "Warning" not in told


def test_a_bundle_away_from_its_run_cannot_tell(run, colours, tmp_path):
    shutil.copytree(run / "model", tmp_path / "away" / "model")
    figures, told = evaluated(tmp_path / "away" / "model", colours)
    assert figures["num_learnt_from"] is None
    assert "Warning" not in told


@pytest.mark.parametrize(
    ("parts", "scored"), [(("train", "val"), "val"), (("train", "val", "test"), "test")]
)
def test_of_split_data_only_what_was_held_out_is_scored(run, colours, tmp_path, parts, scored):
    root = tmp_path / "split"
    shutil.copytree(colours, root / "train")
    for number, part in enumerate(parts[1:], start=1):
        others(root / part, number, seed=700 + 10 * number)
    figures, told = evaluated(run, root)
    assert figures["num_images"] == 3 * parts.index(scored)
    assert figures["num_learnt_from"] == 0
    assert "Warning" not in told
