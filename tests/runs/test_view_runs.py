"""Runs with views and with answers averaged over mirror images: honest, repeatable, everywhere."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import on_cpu, tiny_network
from pictures import COLOURS, paint
from PIL import Image
from test_job import FIGURES, figures, rows, settings

import headstart
from headstart.cli.app import main
from headstart.data import load_table
from headstart.errors import BundleError, ResumeError, UsageError
from headstart.features import extract_features
from headstart.files import digest_file, read_json, write_json
from headstart.inference import FeatureExtractor
from headstart.progress import Progress
from headstart.runs import RunSettings, plan_job, run_job
from headstart.runs.files.predictions import write_predictions
from headstart.runs.fitting.logistic import LogisticFitting
from headstart.runs.fitting.mlp import MlpFitting
from headstart.runs.fitting.task import Clock, Task
from headstart.runs.parts.dividing import split_table
from headstart.runs.views import RunViews, announced, read_views, wanted_views

BOTH = {"views": "flip,crops:2", "tta": "flip"}
MLP = {"head": "mlp", "hidden": "16", "epochs": 4, "lr": 0.01, "batch_size": 8}


class Told(Progress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def hard_folder(tmp_path_factory):
    """Three classes told by a corner that is lit, so that mirror images differ; noisy."""
    folder = tmp_path_factory.mktemp("corners")
    for number, name in enumerate(("left", "right", "top")):
        for i in range(14):
            generator = np.random.default_rng(100 * number + i)
            pixels = generator.integers(60, 180, (44, 48, 3))
            place = [(slice(0, 44), slice(0, 12)), (slice(0, 44), slice(36, 48)),
                     (slice(0, 10), slice(0, 48))][number]  # fmt: skip
            pixels[place] += 40 * (i % 3 > 0)
            path = folder / name / f"{i:02d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def averaged(hard_folder, tmp_path_factory):
    """A finished run with both, in a store of its own."""
    place = tmp_path_factory.mktemp("averaged")
    patch = pytest.MonkeyPatch()
    patch.setenv("HEADSTART_CACHE", str(place / "cache"))
    progress = Told()
    result = run_job(settings(hard_folder, place / "run", **BOTH), progress=progress)
    patch.undo()
    return result, progress.notes


def task_of(folder, tmp_path, **changes):
    """A task as a run makes it, on the tiny network."""
    chosen = settings(folder, tmp_path / "out", **changes)
    table = load_table(str(folder))
    split = split_table(table, folds=3, test_fraction=0.2, seed=0)
    extractor = FeatureExtractor(tiny_network(), on_cpu(), 16)
    wanted = wanted_views(chosen, split, len(table))
    features = extract_features(table, extractor, progress=Progress(), views=wanted)
    views = read_views(chosen, table, features, split, extractor, Progress())
    return Task(
        settings=chosen, table=table, features=features, split=split, extractor=extractor,
        folder=tmp_path, clock=Clock(), progress=Progress(), views=views,
    )  # fmt: skip


def test_folds_never_split_the_views_of_an_image(hard_folder, tmp_path):
    task = task_of(hard_folder, tmp_path, **BOTH)
    images, views = len(task.split.train), 4
    assert task.num_views == views
    assert task.fit_features.shape == (images * views, 12)
    weights = task.fold_weights().view(3, views, images)
    assert torch.equal(weights.gt(0).all(1), weights.gt(0).any(1)), "all views or none"
    scored = torch.from_numpy(task.split.fold)[None] == torch.arange(3)[:, None]
    assert torch.equal(weights.sum(1), (~scored).float()), "an image counts once"
    inner = task.fit_inner
    assert torch.equal(inner.chooses[:, :images], torch.from_numpy(task.split.inner))
    assert not inner.chooses[:, images:].any(), "whole pictures choose"
    left_out = inner.left_out.view(3, views, images)
    assert torch.equal(left_out.all(1), left_out.any(1))
    assert torch.equal(left_out.any(1), torch.from_numpy(task.split.inner))
    assert not bool((inner.left_out & (task.fold_weights() == 0)).any())


def test_inner_folds_leave_out_all_views_of_what_chooses(hard_folder, tmp_path):
    task = task_of(hard_folder, tmp_path, **BOTH)
    images = len(task.split.train)
    fold = task.split.fold
    within = np.where(fold == np.arange(3)[:, None], -1, np.arange(images) % 2)
    inner = replace(task, split=replace(task.split, inner_fold=within)).penalty_inner
    assert inner.chooses.shape == (3, 2, 4 * images)
    left_out = inner.left_out.view(3, 2, 4, images)
    assert torch.equal(left_out.all(2), left_out.any(2))
    assert torch.equal(inner.chooses[..., :images], left_out[:, :, 0])
    assert not inner.chooses[..., images:].any()
    assert torch.equal(left_out[:, :, 0].sum(1), torch.from_numpy(within >= 0).long())


@pytest.mark.parametrize(
    "more",
    [{"inner_folds": 3, "num_penalties": 4}, {**MLP, "tune": 3}],
    ids=["inner-folds", "tune"],
)
def test_views_go_with_every_way_to_choose(hard_folder, tmp_path, more):
    plain = run_job(settings(hard_folder, tmp_path / "plain", learning_curve=False, **more))
    chosen = {"learning_curve": False, **BOTH, **more}
    found = run_job(settings(hard_folder, tmp_path / "views", **chosen))
    again = run_job(settings(hard_folder, tmp_path / "again", **chosen))
    assert figures(found.out) == figures(again.out)
    assert (found.out / "splits.csv").read_bytes() == (plain.out / "splits.csv").read_bytes()
    assert found.record["splits"]["digest"] == plain.record["splits"]["digest"]
    losses = [(run.out / "history.csv").read_bytes() for run in (plain, found)]
    assert losses[0] != losses[1], "learnt from other rows"


def test_rows_are_the_views_of_their_images(hard_folder, tmp_path):
    task = task_of(hard_folder, tmp_path, **BOTH)
    images = len(task.split.train)
    rows = task.fit_features.reshape(4, images, 12)
    assert np.array_equal(rows[0], task.learnt_features)
    assert np.array_equal(rows[1], task.answering(task.split.train)[:, 1]), "the mirror images"
    assert np.array_equal(task.fit_labels.view(4, images).numpy(), [task.learnt_labels] * 4)


def test_a_fold_does_not_see_the_views_of_what_it_scores(hard_folder, tmp_path):
    """Whatever stands in the views of a fold's images, its head stays the same."""
    task = task_of(hard_folder, tmp_path, views="flip,crops:2")
    before = LogisticFitting(task)
    before.fit_folds()
    learnt = task.views.learnt.copy()
    learnt[task.split.fold == 1] += 3
    changed = LogisticFitting(replace(task, views=RunViews(learnt=learnt), folder=tmp_path / "2"))
    changed.fit_folds()
    moved = (before.fit.coef - changed.fit.coef).norm(dim=(1, 2)) / before.fit.coef.norm(dim=(1, 2))
    assert moved[1] < 0.05, "another way to the same optimum, within the tolerance"
    assert min(moved[0], moved[2]) > 0.5


@pytest.mark.parametrize("head", [LogisticFitting, MlpFitting])
def test_views_alike_change_nothing_for_a_head_without_chance(hard_folder, tmp_path, head):
    """Three copies of every picture at a third of its weight are the picture."""
    chosen = MLP if head is MlpFitting else {}
    task = task_of(hard_folder, tmp_path, **chosen)
    whole = task.learnt_features
    copies = replace(
        task, views=RunViews(learnt=np.stack([whole, whole], axis=1)), folder=tmp_path / "copies"
    )
    alone, thrice = head(task).fit_folds(), head(copies).fit_folds()
    if head is LogisticFitting:
        np.testing.assert_allclose(thrice.logits, alone.logits, atol=2e-2)
        assert thrice.chosen == alone.chosen
    else:  # another order of steps: a head of its own, on the same images
        assert thrice.logits.shape == alone.logits.shape
        assert not np.array_equal(thrice.logits, alone.logits)


def test_the_run_tells_and_records_its_views(averaged):
    result, notes = averaged
    assert result.record["views"] == {
        "learnt": "whole, mirrored, 2 crops",
        "answers": "whole, mirrored",
        "smallest_crop_area": 0.6,
    }
    assert result.record["settings"]["views"] == "flip,crops:2"
    told = [note for note in notes if note.startswith("Views")]
    assert told[0].endswith("learnt from whole, mirrored, 2 crops: 4 rows an image")
    assert told[1].endswith("answers are averaged over whole, mirrored")
    learnt, count = len(rows(result.out / "out_of_fold_predictions.csv")), 42
    made = 3 * learnt + count - learnt
    expected = f"{made:,} features beside the whole pictures, {made:,} of them computed now"
    assert told[2].endswith(expected)
    assert read_json(result.out / "model" / "bundle.json")["confidence"]["tta"] == "flip"


def test_a_run_without_views_says_nothing_of_them(colour_folder, tmp_path):
    progress = Told()
    result = run_job(settings(colour_folder, tmp_path / "run"), progress=progress)
    assert "views" not in result.record
    assert not [note for note in progress.notes if note.startswith("Views")]


def test_every_caller_answers_as_the_run_did_bit_for_bit(averaged, hard_folder, tmp_path):
    result, _ = averaged
    told = rows(result.out / "predictions.csv")
    classifier = headstart.load(result.out)
    found = classifier.predict([hard_folder / row["path"] for row in told])
    labels = np.array([found.class_names.index(row["true"]) for row in told])
    paths = tuple(row["path"] for row in told)
    write_predictions(tmp_path / "again.csv", replace(found, paths=paths, labels=labels))
    expected = (result.out / "predictions.csv").read_bytes()
    assert (tmp_path / "again.csv").read_bytes() == expected
    # One at a time, from memory, and from pixels that are prepared already, as a service has them.
    for i, row in enumerate(told[:3]):
        alone = classifier.predict((hard_folder / row["path"]).read_bytes())
        assert np.array_equal(alone.probabilities[0], found.probabilities[i])
        np.testing.assert_allclose(alone.outlier_scores[0], found.outlier_scores[i], rtol=1e-12)
    table = load_table(str(hard_folder))
    places = [table.paths.index(row["path"]) for row in told]
    pixels = np.stack([classifier.extractor.prepare(table, place)[1] for place in places])
    squares = classifier.answer_pixels(pixels)
    assert np.array_equal(squares.probabilities, found.probabilities)
    np.testing.assert_allclose(squares.outlier_scores, found.outlier_scores, rtol=1e-12)


def test_nothing_readable_and_nothing_at_all_are_answered_by_nothing(averaged):
    classifier = headstart.load(averaged[0].out)
    found = classifier.predict([b"no picture"])
    assert found.problems[0]
    assert np.isnan(found.probabilities).all()
    size = classifier.extractor.preprocessing.size
    assert len(classifier.answer_pixels(np.zeros((0, size, size, 3), dtype=np.uint8))) == 0


def test_an_answer_is_the_mean_of_the_logits_of_both(averaged, hard_folder):
    classifier = headstart.load(averaged[0].out)
    table = load_table(str(hard_folder))
    pixels = np.stack([classifier.extractor.prepare(table, row)[1] for row in range(9)])
    each = [
        classifier.extractor.forward(torch.from_numpy(p.copy())).astype(np.float64)
        for p in (pixels, pixels[:, :, ::-1])
    ]
    ((weight, bias),) = classifier.head.layers
    logits = np.mean([e @ weight.double().numpy().T + bias.double().numpy() for e in each], axis=0)
    scaled = np.exp(logits / classifier.confidence.temperature)
    expected = scaled / scaled.sum(axis=1, keepdims=True)
    answered = classifier.answer_pixels(pixels).probabilities
    np.testing.assert_allclose(answered, expected, rtol=1e-5)
    plain = np.exp(each[0] @ weight.double().numpy().T + bias.double().numpy())
    assert np.abs(answered - plain / plain.sum(axis=1, keepdims=True)).max() > 1e-3


def test_mirrored_pictures_get_the_same_answer(averaged, hard_folder):
    """Mean over a picture and its mirror image: what is mirrored first changes nothing."""
    classifier = headstart.load(averaged[0].out)
    table = load_table(str(hard_folder))
    pixels = np.stack([classifier.extractor.prepare(table, row)[1] for row in range(9)])
    turned = np.ascontiguousarray(pixels[:, :, ::-1])
    first, second = classifier.answer_pixels(pixels), classifier.answer_pixels(turned)
    assert np.array_equal(first.probabilities, second.probabilities)
    assert np.array_equal(first.outlier_scores, second.outlier_scores)


def test_symmetric_pictures_are_answered_as_without_averaging(tmp_path):
    folder = tmp_path / "symmetric"
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(12):
            path = folder / name / f"{i:02d}.png"
            paint(path, colour, seed=100 * number + i, size=32)
            pixels = np.asarray(Image.open(path))[:, :32].copy()
            pixels[:, 16:] = pixels[:, 15::-1]
            Image.fromarray(pixels).save(path)
    run_job(settings(folder, tmp_path / "plain"))
    run_job(settings(folder, tmp_path / "averaged", tta="flip"))
    assert figures(tmp_path / "plain") == figures(tmp_path / "averaged")


def test_the_same_seed_gives_the_same_run_and_a_second_computes_nothing(
    averaged, hard_folder, tmp_path, monkeypatch
):
    result, _ = averaged
    again = run_job(settings(hard_folder, tmp_path / "again", **BOTH))
    assert figures(again.out) == figures(result.out), "in a store of its own"
    progress = Told()
    monkeypatch.setattr(FeatureExtractor, "extract_views", None)  # nothing may be computed
    third = run_job(settings(hard_folder, tmp_path / "third", **BOTH), progress=progress)
    assert figures(third.out) == figures(result.out)
    assert any(", 0 of them computed now" in note for note in progress.notes)


@pytest.mark.parametrize("more", [{}, MLP], ids=["logistic", "mlp"])
def test_a_killed_run_goes_on_to_the_same_figures(hard_folder, tmp_path, monkeypatch, more):
    chosen = {**BOTH, **more}
    finished = run_job(settings(hard_folder, tmp_path / "whole", **chosen))
    fitting = MlpFitting if more else LogisticFitting

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "fit_final", stop)
    with pytest.raises(KeyboardInterrupt):
        run_job(settings(hard_folder, tmp_path / "run", **chosen))
    monkeypatch.undo()
    with pytest.raises(ResumeError, match="views was 'flip,crops:2', now 'flip'"):
        run_job(settings(hard_folder, tmp_path / "run", **{**chosen, "views": "flip"}), resume=True)
    with pytest.raises(ResumeError, match="tta was 'flip', now None"):
        run_job(settings(hard_folder, tmp_path / "run", **{**chosen, "tta": None}), resume=True)
    monkeypatch.setattr(fitting, "_fit_and_keep", stop)
    resumed = run_job(settings(hard_folder, tmp_path / "run", **chosen), resume=True)
    assert figures(resumed.out) == figures(finished.out)


def test_averaging_and_views_change_answers_of_pictures_that_differ(
    averaged, hard_folder, tmp_path
):
    plain = run_job(settings(hard_folder, tmp_path / "plain"))
    flipped = run_job(settings(hard_folder, tmp_path / "views", views="flip"))
    names = ("out_of_fold_predictions.csv", "predictions.csv")
    for name in names:
        found = [(run / name).read_bytes() for run in (plain.out, flipped.out, averaged[0].out)]
        assert len(set(found)) == 3
    assert FIGURES[-3] == "splits.csv"
    kept = [(run / "splits.csv").read_bytes() for run in (plain.out, flipped.out, averaged[0].out)]
    assert len(set(kept)) == 1, "the folds are the same"


def test_an_older_bundle_answers_from_the_whole_picture(hard_folder, tmp_path):
    run = run_job(settings(hard_folder, tmp_path / "run"))
    pictures = [hard_folder / row["path"] for row in rows(run.out / "predictions.csv")]
    expected = headstart.load(run.out).predict(pictures)
    about = read_json(run.out / "model" / "bundle.json")
    assert about["schema_version"] == 5
    del about["confidence"]["tta"]
    rewrite(run.out / "model", {**about, "schema_version": 3})
    older = headstart.load(run.out).predict(pictures)
    assert np.array_equal(older.probabilities, expected.probabilities)


@pytest.mark.parametrize("tta", ["crops:4", "", 3, ["flip"]])
def test_a_bundle_that_averages_otherwise_is_refused(averaged, tmp_path, tta):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (averaged[0].out / "model").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    about = read_json(folder / "bundle.json")
    about["confidence"]["tta"] = tta
    rewrite(folder, about)
    with pytest.raises(BundleError):
        headstart.load(folder)


def rewrite(folder, about):
    """Another `bundle.json`, listed as it is."""
    write_json(folder / "bundle.json", about)
    files = {n: digest_file(folder / n) for n in ("bundle.json", "weights.safetensors")}
    write_json(folder / "manifest.json", {"sha256": files})


def test_the_plan_counts_every_view(hard_folder, tmp_path):
    plain = plan_job(settings(hard_folder, tmp_path / "a"))
    plan = plan_job(settings(hard_folder, tmp_path / "b", **BOTH))
    assert plain.num_passes == 42
    assert plan.num_passes == 42 + 2 * plan.num_train + 42
    run_job(settings(hard_folder, tmp_path / "run", views="flip"))
    after = plan_job(settings(hard_folder, tmp_path / "b", **BOTH))
    assert after.num_known == 42 + plan.num_train
    assert after.num_passes + after.num_known == plan.num_passes


def test_sideways_pictures_and_much_memory_are_told():
    chosen = RunSettings(data="digits", out="x", views="flip,crops:4", tta="flip")
    lines = announced(chosen, ["cxr-pneumonia"], 60_000, 1280)
    assert lines[0].endswith("6 rows an image (2.6 GiB while a head is fitted)")
    assert [line.split(" mirrors pictures")[0] for line in lines[2:]] == [
        "`--views flip`", "`--tta flip`",
    ]  # fmt: skip
    assert "'cxr' in 'cxr-pneumonia' says that left and right may mean something" in lines[2]
    assert not announced(replace(chosen, views=None, tta=None), ["cxr"], 60_000, 1280)
    crops = announced(replace(chosen, views="crops:2", tta=None), ["cxr"], 100, 1280)
    assert crops == ["learnt from whole, 2 crops: 3 rows an image"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--views", "turn"], "`views` must be a list of flip and crops:1 to crops:64"),
        (["--tta", "crops:4"], "`tta` must be flip"),
        (["--views", "flip", "--strategy", "partial"], "`views` is of the strategy 'probe'"),
        (["--tta", "flip", "--strategy", "full"], "`tta` is of the strategy 'probe'"),
    ],
)
def test_bad_values_are_one_sentence(options, said, tmp_path, capsys, monkeypatch):
    words = ["headstart", "run", "--data", "digits", "--out", str(tmp_path / "run"), *options]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_a_python_caller_is_told_of_types():
    with pytest.raises(UsageError, match="`views` must be text"):
        RunSettings(data="digits", out="x", views=4)


def test_papers_mention_views(averaged, tmp_path):
    from headstart.report import write_report

    out = averaged[0].out
    write_report([out], with_images=False)
    card = (out / "model_card.md").read_text()
    assert "Learnt from: whole, mirrored, 2 crops of each image; answers are averaged over" in card
    page = (out / "report.html").read_text()
    assert "learnt from whole, mirrored, 2 crops; answers of whole, mirrored" in page
    with (out / "claim.csv").open(newline="") as file:
        claims = {line["item"]: line["answer"] for line in csv.DictReader(file)}
    assert "every answer rests on whole, mirrored" in claims["9"]
    assert json.loads((out / "run.json").read_text())["views"]["answers"] == "whole, mirrored"
