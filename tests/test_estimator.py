"""The estimator: scikit-learn's contract, pictures in every form, and the same model as a run."""

from __future__ import annotations

import csv
import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score, train_test_split
from sklearn.utils.class_weight import compute_sample_weight

import headstart
from headstart import ImageClassifier
from headstart.errors import DataError, OutputError, UsageError, WeightsError
from headstart.estimator import head_fits, strategies
from headstart.estimator.choices import Choices
from headstart.estimator.inputs import as_groups, as_images, as_labels
from headstart.heads import HEADS, penalty_path
from headstart.inference import FeatureExtractor
from headstart.progress import Progress

PENALTY = 0.01


def small(**parameters) -> ImageClassifier:
    """An estimator that is quick."""
    return ImageClassifier(**{"image_size": 32, "penalty": PENALTY, **parameters})


@pytest.fixture
def paths(colour_folder) -> list[str]:
    return sorted(str(path) for path in colour_folder.glob("*/*.png"))


@pytest.fixture
def labels(paths) -> list[str]:
    return [path.split("/")[-2] for path in paths]


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """Sizes of the batches that went through a network."""
    sizes: list[int] = []
    forward = FeatureExtractor.forward

    def counted(self, pixels):
        sizes.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(FeatureExtractor, "forward", counted)
    return sizes


def pixels_of(paths: list[str]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def test_cross_validation_pays_one_pass(paths, labels, passes):
    first = cross_val_score(small(penalty=None), paths, labels, cv=3)
    assert sum(passes) == len(paths)
    again = cross_val_score(small(penalty=None), np.array(paths), np.array(labels), cv=3)
    assert sum(passes) == len(paths)
    assert np.array_equal(first, again)
    assert first.mean() > 0.9


def test_grid_search_pays_one_pass(paths, labels, passes):
    grid = {"penalty": [1e-4, 1e-2, 1.0], "class_weights": ["none", "balanced"]}
    search = GridSearchCV(small(), grid, cv=2).fit(paths, labels)
    assert sum(passes) == len(paths)
    assert search.best_params_["penalty"] in grid["penalty"]
    assert search.best_score_ > 0.9
    assert list(search.predict(paths[:3])) == labels[:3]
    assert sum(passes) == len(paths)


def test_pixels_are_remembered_too(paths, labels, passes):
    pixels = pixels_of(paths)
    cross_val_score(small(), pixels, labels, cv=2)
    cross_val_score(small(), [Image.fromarray(image) for image in pixels], labels, cv=2)
    assert sum(passes) == len(paths)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(paths, labels):
    grid = {"penalty": [1e-4, 1e-2]}
    one = GridSearchCV(small(), grid, cv=2).fit(paths, labels)
    two = GridSearchCV(small(), grid, cv=2, n_jobs=2).fit(paths, labels)
    assert np.array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])
    assert np.array_equal(one.predict_proba(paths), two.predict_proba(paths))


def test_without_the_store_the_answers_are_the_same(paths, labels, passes, own_cache):
    kept = small().fit(paths, labels).predict_proba(paths)
    assert sum(passes) == len(paths)
    shutil.rmtree(own_cache / "features")
    computed = small(cache=False).fit(paths, labels).predict_proba(paths)
    assert sum(passes) == 3 * len(paths)
    assert not (own_cache / "features").exists()
    assert np.array_equal(kept, computed)


def test_every_form_of_a_picture_gives_the_same_answer(paths, labels):
    fitted = small().fit(paths, labels)
    expected = fitted.predict_proba(paths)
    pixels = pixels_of(paths)
    forms = {
        "array of paths": np.array(paths),
        "paths": [Path(path) for path in paths],
        "array of Path": np.array([Path(path) for path in paths], dtype=object),
        "column": Column(paths),
        "PIL": [Image.fromarray(image) for image in pixels],
        "open files": [Image.open(path) for path in paths],
        "batch": pixels,
        "arrays": list(pixels),
        "bytes": [Path(path).read_bytes() for path in paths],
        "tuple": tuple(paths),
        "mixed": [paths[0], pixels[1], *map(Image.open, paths[2:])],
    }
    for name, form in forms.items():
        assert np.array_equal(fitted.predict_proba(form), expected), name


def test_grey_pictures(paths, labels):
    grey = pixels_of(paths)[..., 0]
    fitted = small().fit(grey, labels)
    in_colour = np.repeat(grey[..., None], 3, axis=3)
    assert np.array_equal(fitted.predict_proba(grey), fitted.predict_proba(in_colour))


class Column:
    """A column of a data frame, as far as it matters here."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def to_numpy(self):
        return np.array(self.values, dtype=object)


def test_each_picture_is_answered_for_itself(paths, labels):
    fitted = small(cache=False).fit(paths, labels)
    expected = fitted.predict_proba(paths)
    order = np.random.default_rng(0).permutation(len(paths))
    assert np.array_equal(fitted.predict_proba([paths[i] for i in order]), expected[order])
    alone = np.concatenate([fitted.predict_proba([path]) for path in paths[:4]])
    assert np.array_equal(alone, expected[:4])


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a", "b", "c"], "U"),
        ([10, 2, 33], "i"),
        ([0.0, 1.0, 5.0], "f"),
        (np.array(["x", "yy", "z"], dtype=object), "O"),
        (np.array([7, 8, 9], dtype=object), "i"),
        (np.array([7, np.int64(8), 9.0], dtype=object), "f"),
    ],
    ids=["text", "whole numbers", "floats", "text objects", "number objects", "numbers of kinds"],
)
def test_labels_come_back_as_they_were(paths, names, kind):
    y = np.repeat(names, 12)
    fitted = small().fit(paths, y)
    assert fitted.classes_.dtype.kind == kind
    assert fitted.classes_.tolist() == sorted(set(y.tolist()))
    assert fitted.predict(paths).tolist() == y.tolist()
    assert fitted.score(paths, y.tolist()) == 1
    wrong_at_first = [y[-1], *y[1:]]
    weight = np.arange(36)
    assert fitted.score(paths, wrong_at_first, sample_weight=weight) == 1
    assert fitted.score(paths, wrong_at_first) == pytest.approx(35 / 36)


def test_truth_values_and_two_classes(paths):
    y = np.repeat([True, False, True], 12)
    fitted = small().fit(paths, y)
    logits, probabilities = fitted.decision_function(paths), fitted.predict_proba(paths)
    assert fitted.classes_.tolist() == [False, True]
    assert logits.shape == (36,)
    assert np.array_equal(logits > 0, fitted.predict(paths))
    assert probabilities[:, 1] == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)


def test_probabilities_are_the_softmax_of_the_logits(paths, labels):
    fitted = small().fit(paths, labels)
    logits = fitted.decision_function(paths)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert logits.shape == (36, 3)
    assert fitted.predict_proba(paths) == pytest.approx(expected, abs=1e-6)
    assert fitted.predict_proba(paths).sum(axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("class_weights", "theirs"), [("none", None), ("balanced", "balanced")])
def test_the_head_is_the_logistic_regression_of_scikit_learn(paths, labels, class_weights, theirs):
    paths, labels = paths[8:], labels[8:]  # 4 of the first class, 12 of each other
    fitted = small(penalty=0.1, class_weights=class_weights).fit(paths, labels)
    values = strategies.features_of(
        as_images(paths), fitted.model_.extractor(), cache=True, progress=Progress()
    ).astype(np.float64)
    # The penalty is for features centred and of mean square one over the weighted pictures.
    weight = compute_sample_weight(theirs, labels) / len(labels)
    values -= weight @ values
    values /= np.sqrt((weight @ values**2).mean())
    regression = LogisticRegression(
        C=1 / (0.1 * len(labels)), class_weight=theirs, tol=1e-8, max_iter=1000
    )
    expected = regression.fit(values, labels).predict_proba(values)
    assert fitted.predict_proba(paths) == pytest.approx(expected, abs=2e-3)


def test_the_penalty_is_chosen_from_the_path_of_a_run(paths, labels):
    fitted = small(penalty=None).fit(paths, labels)
    assert fitted.chosen_["penalty"] in penalty_path().tolist()
    assert small().fit(paths, labels).chosen_ == {"penalty": PENALTY}


@pytest.mark.slow
def test_the_same_model_as_a_run(colour_folder, tmp_path):
    run = headstart.run(
        data=colour_folder, out=tmp_path / "run", folds=2, image_size=32, learning_curve=False
    )
    with (tmp_path / "run" / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    part = {row["path"]: row["part"] for row in rows}
    learnt = [path for path, name in part.items() if name == "train"]
    opened = [path for path, name in part.items() if name == "test"]
    assert learnt
    assert opened
    fitted = small(penalty=run.record["choice"]["penalty"]).fit(
        [colour_folder / path for path in learnt], [path.split("/")[0] for path in learnt]
    )
    model = headstart.load(tmp_path / "run")
    expected = model.predict([colour_folder / path for path in opened])
    assert fitted.classes_.tolist() == list(expected.class_names)
    found = fitted.predict_proba([colour_folder / path for path in opened])
    assert found == pytest.approx(expected.probabilities, abs=1e-2)


@pytest.mark.parametrize("head", ["logistic", "mlp"])
def test_a_saved_model_answers_alike_bit_by_bit(paths, labels, tmp_path, head):
    fitted = quick_head(head).fit(paths, labels)
    digest = fitted.save(tmp_path / "made" / "bundle")
    loaded = headstart.load(tmp_path / "made" / "bundle", expect_digest=digest)
    answer = loaded.predict(paths)
    assert np.array_equal(answer.probabilities, fitted.predict_proba(paths))
    assert answer.names == fitted.predict(paths).tolist()
    assert loaded.about["about"]["estimator"]["head"] == head


def quick_head(head: str, **parameters) -> ImageClassifier:
    if head == "mlp":
        parameters = {"penalty": None, "hidden": (16,), "epochs": 4, **parameters}
    return small(head=head, **parameters)


def test_saving_keeps_the_order_of_numbers(paths, tmp_path):
    y = np.repeat([10, 2, 33], 12)
    small().fit(paths, y).save(tmp_path / "bundle")
    assert headstart.load(tmp_path / "bundle").class_names == ("2", "10", "33")


def test_saving_replaces_bundles_only(paths, labels, tmp_path):
    fitted = small().fit(paths, labels)
    first = fitted.save(tmp_path / "bundle")
    assert fitted.save(tmp_path / "bundle") == first
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years")
    with pytest.raises(OutputError, match="something else than a bundle"):
        fitted.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").is_file()
    with pytest.raises(NotFittedError):
        small().save(tmp_path / "other")


@pytest.mark.parametrize("head", ["logistic", "mlp"])
def test_pickles_are_small_and_answer_alike(paths, labels, head):
    fitted = quick_head(head).fit(paths, labels)
    expected = fitted.predict_proba(paths)
    frozen = pickle.dumps(fitted)
    assert len(frozen) < 100_000
    strategies._build.cache_clear()
    assert np.array_equal(pickle.loads(frozen).predict_proba(paths), expected)


def test_clones_are_equal_and_unfitted(paths, labels):
    fitted = small(random_state=3).fit(paths, labels)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(paths)
    assert np.array_equal(copy.fit(paths, labels).predict_proba(paths), fitted.predict_proba(paths))


def test_parameters_set_after_fitting_wait_for_the_next_fit(paths, labels):
    fitted = small().fit(paths, labels)
    expected = fitted.predict_proba(paths)
    fitted.set_params(backbone="resnet50", image_size=64)
    assert np.array_equal(fitted.predict_proba(paths), expected)


def test_other_weights_than_those_of_the_fit_are_refused(paths, labels, tmp_path):
    def write(seed):
        torch.manual_seed(seed)
        state = {k: torch.randn_like(v) * 0.05 if v.is_floating_point() and v.ndim > 1 else v
                 for k, v in plain.items()}  # fmt: skip
        torch.save(state, tmp_path / "weights.pth")

    extractor = strategies.find_extractor(Choices.of(small().get_params()).request)
    plain = extractor.network.module.state_dict()
    write(0)
    fitted = small(weights=tmp_path / "weights.pth").fit(paths, labels)
    expected = fitted.predict_proba(paths)
    write(1)
    with pytest.raises(WeightsError, match="not those this estimator was fitted on"):
        fitted.predict(paths)
    write(0)
    assert np.array_equal(fitted.predict_proba(paths), expected)


def test_random_weights_hang_on_the_seed(paths, labels):
    made = [small(weights="none", random_state=seed).fit(paths, labels) for seed in (0, 1, 1)]
    digests = [estimator.model_.digest for estimator in made]
    assert digests[0] != digests[1]
    assert digests[1] == digests[2]


def test_a_multilayer_head_hangs_on_the_seed(paths, labels):
    made = [quick_head("mlp", random_state=s).fit(paths, labels) for s in (0, 0, 1)]
    first, same, other = (estimator.predict_proba(paths) for estimator in made)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert 1 <= made[0].chosen_["epochs"] <= 4


def test_every_head_can_be_chosen():
    assert sorted(head_fits.HEAD_FITS) == sorted(HEADS.names())


def test_numbers_of_numpy_are_numbers(paths, labels):
    parameters = {"hidden": tuple(np.array([8])), "epochs": np.int64(2), "lr": np.float64(0.01)}
    fitted = quick_head("mlp", **parameters, random_state=np.int64(1), image_size=np.int64(32))
    assert fitted.fit(paths, labels).chosen_["epochs"] in (1, 2)
    assert small(penalty=np.float64(0.1)).fit(paths, labels).chosen_ == {"penalty": 0.1}


def test_groups_stay_together(paths, labels):
    groups = np.array([f"patient {i // 2}" for i in range(36)])
    scores = cross_val_score(
        small(penalty=None),
        paths,
        labels,
        groups=groups,
        cv=GroupKFold(3, shuffle=True, random_state=0),
    )
    assert scores.shape == (3,)
    small(penalty=None).fit(paths, labels, groups=groups)
    examples = head_fits.Examples(
        images=as_images(paths),
        labels=as_labels(labels, 36)[1],
        groups=as_groups(groups, 36),
        num_classes=3,
    )
    held = head_fits.inner_part(Choices.of(small().get_params()), examples)
    assert 0 < held.sum() < 36
    assert not set(groups[held]) & set(groups[~held])


def test_groups_are_routed_to_fit(paths, labels):
    groups = np.arange(36) // 2
    together = np.zeros(36)
    with config_context(enable_metadata_routing=True):
        estimator = small(penalty=None).set_fit_request(groups=True)
        cv = GroupKFold(3, shuffle=True, random_state=0)
        scores = cross_val_score(estimator, paths, labels, params={"groups": groups}, cv=cv)
        assert scores.mean() > 0.9
        with pytest.raises(DataError, match="needs a class with 2 groups"):
            estimator.fit(paths, labels, groups=together)


def test_inside_other_estimators(paths, labels, passes):
    calibrated = CalibratedClassifierCV(small(), cv=2).fit(paths, labels)
    voting = VotingClassifier([("a", small()), ("b", small(penalty=1.0))], voting="soft")
    assert calibrated.score(paths, labels) > 0.9
    assert voting.fit(paths, labels).score(paths, labels) > 0.9
    assert sum(passes) == len(paths)


def test_split_by_scikit_learn(paths, labels):
    train, test, y_train, y_test = train_test_split(
        paths, labels, stratify=labels, random_state=0, test_size=0.25
    )
    assert small().fit(train, y_train).score(test, y_test) > 0.8


def test_unreadable_pictures_are_named(paths, labels, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    missing = tmp_path / "missing.jpg"
    closed = Image.open(io.BytesIO(Path(paths[0]).read_bytes()))
    closed.close()
    bad = [str(broken), str(missing), closed, str(broken)]
    for cache in (True, False):
        with pytest.raises(DataError) as caught:
            small(cache=cache).fit([*paths, *bad], [*labels, *labels[:4]])
        message = str(caught.value)
        assert message.startswith("4 of 40 images of X cannot be read: ")
        assert "broken.jpg (not an image)" in message
        assert "missing.jpg (unreadable file (No such file or directory))" in message
        assert message.endswith("; and 1 more. Repair them or leave them out.")
    with pytest.raises(DataError, match=r"1 of 2 images of X cannot be read: .*broken\.jpg"):
        small().fit(paths, labels).predict([paths[0], broken])


TWO = [np.zeros((8, 8, 3), dtype=np.uint8)] * 2


@pytest.mark.parametrize(
    ("pictures", "told"),
    [
        ("a.jpg", "got one str"),
        (Image.new("RGB", (8, 8)), "got one Image"),
        (TWO[0], r"shape \(8, 8, 3\) and type uint8"),
        (np.zeros((2, 8, 8, 3)), "type float64"),
        (np.zeros((2, 5)), r"shape \(2, 5\)"),
        ([[0.1, 0.2], [0.3, 0.4]], "got list at row 0"),
        ([TWO[0], np.zeros((8, 8, 3))], "float64"),
        ({"a.jpg": 0, "b.jpg": 1}, "got builtins.dict"),
        (3, "got builtins.int"),
        ([], "at least 1 image"),
        (["a.jpg", ""], "an empty one at row 1"),
        (["a.jpg", "a\0b"], r"a null byte at row 1"),
        ([Path("a\0b"), "a.jpg"], r"a null byte at row 0"),
    ],
    ids=[
        "path",
        "PIL",
        "one array",
        "floats",
        "table",
        "lists",
        "float",
        "dict",
        "int",
        "none",
        "empty path",
        "null byte",
        "null byte in a Path",
    ],
)
def test_what_is_no_pictures_is_refused(pictures, told):
    with pytest.raises(UsageError, match=told):
        small().fit(pictures, [0, 1])


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (None, "requires y to be passed"),
        ([0, 1, 1], "each of the 2 images of X, got 3"),
        ([1, 1], "at least 2 classes, got one class, .*1"),
        ([0.0, np.nan], "1 missing labels .* row 1"),
        (["a", None], "1 missing labels .* row 1"),
        ([0.5, 1.5], "continuous"),
        ([0.0, np.inf], "infinity"),
        ([1j, 2j], "Complex data not supported"),
        ([[0, 1], [1, 0]], "in one dimension"),
        (np.array(["a", 1], dtype=object), "got int and str"),
        (["a", float("nan")], "1 missing labels .* row 1"),
        ([None, "a"], "1 missing labels .* row 0"),
        ([True, None], "1 missing labels .* row 1"),
        (("a", np.datetime64("NaT")), "1 missing labels .* row 1"),
        (["a", 1], "got int and str"),
        ([True, "x"], "got bool and str"),
        ([True, 2], "got bool and int"),
        ([b"a", "b"], "got bytes and str"),
    ],
    ids=[
        "none",
        "length",
        "single",
        "NaN",
        "None",
        "continuous",
        "infinite",
        "complex",
        "2d",
        "mixed",
        "NaN among text",
        "None before text",
        "None after truth",
        "NaT in a tuple",
        "mixed list",
        "truth and text",
        "truth and numbers",
        "bytes and text",
    ],
)
def test_what_are_no_labels_is_refused(y, told):
    with pytest.raises(UsageError, match=told):
        small().fit(TWO, y)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"strategy": "magic"}, "`strategy` must be one of probe.*, got 'magic'"),
        ({"strategy": None}, "`strategy` must be a name"),
        ({"backbone": 50}, "`backbone` must be a name"),
        ({"head": "forest"}, "Unknown head 'forest'"),
        ({"penalty": 0}, "`penalty` must be a positive number"),
        ({"penalty": "strong"}, "`penalty` must be a positive number"),
        ({"class_weights": "heavy"}, "`class_weights` must be"),
        ({"random_state": None}, "`random_state` must be a whole number"),
        ({"random_state": -1}, "`random_state` must be a whole number"),
        ({"image_size": 4.5}, "`image_size` must be a whole number"),
        ({"image_size": 4}, "`image_size` must be between"),
        (
            {"layers": "auto"},
            "`layers` must be names of stages or a number.*Let GridSearchCV choose",
        ),
        ({"layers": 2.5}, "`layers` must be names of stages as in"),
        ({"layers": 0}, "`layers` must be auto, a number"),
        ({"layers": "layer1"}, "mini has no stage 'layer1'"),
        ({"device": "abacus"}, "`device` must be one of"),
        ({"precision": "float8"}, "`precision` must be one of"),
        ({"epochs": 3}, "`epochs` means nothing to the logistic head"),
        ({"head": "mlp"}, "`penalty` means nothing to the mlp head"),
        ({"head": "mlp", "penalty": None, "hidden": ("wide",)}, "must have numbers"),
        ({"head": "mlp", "penalty": None, "epochs": 2.5}, "must have numbers, and whole ones"),
        ({"weights": None}, "`weights` must be one of"),
        ({"weights": "nowhere.pth"}, "nowhere.pth' does not exist"),
        ({"head": "mlp", "penalty": None, "dropout": 1}, "`dropout` must be"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(map(str, value)),
)
def test_bad_parameters_are_told_by_fit(parameters, told):
    estimator = small(**parameters)
    with pytest.raises(UsageError, match=told):
        estimator.fit(TWO, [0, 1])


def test_names_are_matched_without_regard_to_case(paths, labels, tmp_path):
    names = {"backbone": "MINI", "strategy": "Probe", "class_weights": "Balanced"}
    fitted = small(**names, head="Logistic").fit(paths, labels)
    plain = small(class_weights="balanced").fit(paths, labels)
    assert np.array_equal(fitted.predict_proba(paths), plain.predict_proba(paths))
    assert fitted.model_.request == plain.model_.request
    multilayer = small(head="Mlp", penalty=None, hidden=(8,), epochs=1).fit(paths, labels)
    assert multilayer.model_.head.kind == "mlp"
    assert fitted.get_params()["backbone"] == "MINI"  # a constructor's parameter stays as given
    assert fitted.save(tmp_path / "a") == plain.save(tmp_path / "b")


def test_a_bundle_tells_the_parameters_of_its_fit(paths, labels, tmp_path):
    fitted = small(random_state=3).fit(paths, labels)
    fitted.set_params(backbone="resnet50", random_state=4).save(tmp_path / "bundle")
    told = headstart.load(tmp_path / "bundle").about["about"]["estimator"]
    assert (told["backbone"], told["random_state"]) == ("mini", 3)


def test_layers_are_a_parameter_to_search(paths, labels, tmp_path):
    """A number, NumPy's too, and names are the same; the bundle answers alike."""
    search = GridSearchCV(small(), {"layers": [None, 2]}, cv=2).fit(paths, labels)
    assert search.best_params_["layers"] in (None, 2)
    named = small(layers="Stage3, head").fit(paths, labels)
    assert named.model_.head.num_inputs == 160 + 384
    counted = small(layers=np.int64(2)).fit(paths, labels)
    assert np.array_equal(counted.predict_proba(paths), named.predict_proba(paths))
    counted.save(tmp_path / "bundle")
    model = headstart.load(tmp_path / "bundle")
    assert list(model.network.layers) == ["stage3", "head"]
    assert np.array_equal(model.predict(paths).probabilities, named.predict_proba(paths))


def test_training_that_diverges_is_told_by_fit(paths, labels):
    with pytest.raises(UsageError, match=r"Training diverged: .* Lower lr"):
        quick_head("mlp", lr=1e300).fit(paths, labels)


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_a_head_that_is_not_finite_is_never_kept(paths, labels, tmp_path, monkeypatch, value):
    fitted = small().fit(paths, labels)
    fitted.model_.head.layers[0][0][0, 0] = value
    with pytest.raises(UsageError, match=r"logistic head .* not finite"):
        fitted.save(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    broken = fitted.model_.head
    monkeypatch.setitem(head_fits.HEAD_FITS, "logistic", lambda *_: broken)
    with pytest.raises(UsageError, match=r"logistic head .* not finite"):
        small().fit(paths, labels)


def test_too_few_pictures_to_choose_on():
    pictures = [np.full((8, 8, 3), level, dtype=np.uint8) for level in (0, 255)]
    with pytest.raises(DataError, match="needs a class with 2 images"):
        small(penalty=None).fit(pictures, [0, 1])
    assert small().fit(pictures, [0, 1]).predict(pictures).tolist() == [0, 1]


def test_groups_of_another_length_are_refused():
    with pytest.raises(UsageError, match="`groups` must name a group for each of the 2 images"):
        small().fit(TWO, [0, 1], groups=[1])


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (["p", float("nan")], "`groups` .* 1 missing groups"),
        (["1", 1], "`groups` .* got int and str"),
    ],
    ids=["missing", "mixed"],
)
def test_groups_that_would_be_merged_are_refused(groups, told):
    with pytest.raises(UsageError, match=told):
        small().fit(TWO, [0, 1], groups=groups)


def test_saving_leaves_a_folder_alone_that_only_looks_like_a_bundle(paths, labels, tmp_path):
    fitted = small().fit(paths, labels)
    place = tmp_path / "site"
    fitted.save(place)
    fitted.save(place)  # a bundle is replaced
    (place / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="holds something else than a bundle"):
        fitted.save(place)
    assert (place / "mine.txt").exists()
    other = tmp_path / "public"
    other.mkdir()
    (other / "manifest.json").write_text('{"name": "my page"}')
    with pytest.raises(OutputError, match="holds something else than a bundle"):
        fitted.save(other)
    assert [path.name for path in other.iterdir()] == ["manifest.json"]
