"""Table, tests and recommendation from answers alone."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.comparison import corrected_resampled_t, holm, mcnemar_exact
from headstart.errors import ResumeError
from headstart.statistics import wilson
from headstart.studies import answers as answers_file
from headstart.studies.answers import Answers, read_answers, write_answers
from headstart.studies.judging import check_pictures, judge
from headstart.studies.measuring import resident_peak_mib
from headstart.studies.pareto import comparison_figure, side_steps
from headstart.studies.writing import comparison_text, p_value, told, write_files

M, FOLDS = 60, 3


def made(wrong: int, repeats: int = 1, groups: bool = False, seed: int = 0) -> Answers:
    """Answers of which the first `wrong` are wrong in every repetition."""
    generator = np.random.default_rng(seed)
    labels = np.arange(M) % 2
    predicted = np.tile(labels, (repeats, 1))
    predicted[:, :wrong] = 1 - predicted[:, :wrong]
    folds = np.stack([generator.permutation(np.arange(M) % FOLDS) for _ in range(repeats)])
    return Answers(
        paths=tuple(f"{i}.png" for i in range(M)),
        labels=labels,
        groups=np.arange(M) // 4 if groups else None,
        folds=folds,
        predicted=predicted,
    )


def cost(name: str, training: float, ms: float = 5.0, split: str = "s") -> dict:
    return {
        "name": name, "model": "mini", "strategy": "probe", "image_size": 32, "weights": "bundled",
        "split": split, "pass_s": 1.0, "pass_is": "measured", "training_s": training,
        "prediction_ms": ms, "parameters": 100, "peak_memory_mib": None, "memory_of": "the process",
        "interrupted": False, "macro_f1": {"value": 0.5, "low": 0.4, "high": 0.6},
    }  # fmt: skip


def judged(counts, trainings, repeats=None, fast="training", **options):
    repeats = repeats or [1] * len(counts)
    answers = [made(w, r, **options) for w, r in zip(counts, repeats, strict=True)]
    costs = [cost(f"c{i}", t, ms=10.0 * (i + 1)) for i, t in enumerate(trainings)]
    return judge(costs, answers, fast=fast, seed=0)


def test_the_quickest_within_noise_is_recommended():
    found = judged([20, 2, 3, 4], [0.0, 9.0, 4.0, 1.0])
    advice = found["recommendation"]
    assert advice["best"] == "c1"
    assert advice["chosen"] == "c3"  # c0 is quicker and truly worse
    assert advice["within_noise"] == ["c1", "c2", "c3"]
    assert "5.0 times faster in feature pass and training." in advice["reason"]
    assert [row["name"] for row in found["table"]] == ["c1", "c2", "c3", "c0"]
    assert judged([20, 2, 3, 4], [0.0] * 4, fast="prediction")["recommendation"]["chosen"] == "c1"


def test_tests_of_pairs_are_those_of_the_comparison_room():
    found = judged([10, 4, 2], [1.0, 1.0, 1.0])
    rights = [made(w).right[0] for w in (10, 4, 2)]
    raw = [mcnemar_exact(rights[i], rights[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert [pair["sign_flip_p"] for pair in found["pairs"]] == pytest.approx(raw)
    assert [pair["sign_flip_p_holm"] for pair in found["pairs"]] == pytest.approx(holm(raw))
    assert found["pairs"][0]["difference"]["value"] == pytest.approx(-6 / M)
    interval = wilson(M - 2, M)
    assert found["table"][0]["accuracy"]["low"] == pytest.approx(interval.low)


def test_only_repetitions_that_all_have_are_compared():
    found = judged([3, 5, 6], [1.0, 1.0, 1.0], repeats=[3, 3, 1])
    assert found["repeats_compared"] == 1
    assert [pair["repeats"] for pair in found["pairs"]] == [3, 1, 1]
    first, second = made(3, 3), made(5, 3)
    differences = first.fold_accuracies(3) - second.fold_accuracies(3)
    assert differences.shape == (3 * FOLDS,)
    wanted = corrected_resampled_t(differences, test_fraction=1 / FOLDS)
    assert found["pairs"][0]["t_p"] == pytest.approx(wanted.p_value)
    assert found["table"][0]["repeats_std"] == pytest.approx(0.0, abs=1e-12)


def test_groups_are_drawn_whole():
    alone, grouped = judged([16, 8], [1.0, 1.0]), judged([16, 8], [1.0, 1.0], groups=True)
    assert grouped["num_groups"] == 15
    assert grouped["pairs"][0]["sign_flip_p"] == pytest.approx(0.5)  # two groups differ
    assert alone["pairs"][0]["sign_flip_p"] == pytest.approx(2 * 0.5**8)


@pytest.mark.parametrize("what", ["folds", "images", "split"])
def test_other_folds_are_refused(what):
    first, second = made(3), made(4, seed=1 if what == "folds" else 0)
    if what == "images":
        second = Answers(
            paths=("other.png", *second.paths[1:]), labels=second.labels, groups=None,
            folds=second.folds, predicted=second.predicted,
        )  # fmt: skip
    costs = [cost("a", 1.0), cost("b", 1.0, split="t" if what == "split" else "s")]
    with pytest.raises(ResumeError, match="not scored on the same images and folds"):
        judge(costs, [first, second], fast="training", seed=0)


def test_answers_survive_their_file(tmp_path):
    for groups in (False, True):
        before = made(7, 2, groups=groups)
        write_answers(tmp_path, before)
        after = read_answers(tmp_path)
        assert after.paths == before.paths
        assert np.array_equal(after.predicted, before.predicted)
        assert np.array_equal(after.folds, before.folds)
        assert (after.groups is None) == (not groups)
    (tmp_path / answers_file.FILE).write_text("path,true,group\n")
    with pytest.raises(ResumeError, match="missing or damaged"):
        read_answers(tmp_path)


def record_of(found) -> dict:
    test = {"opened": [], "test_all": False, "stamp": "", "figures": {}}
    return {**found, "locked": "now", "test": test}


def test_files_say_it_plainly(tmp_path):
    record = record_of(judged([20, 2, 3], [0.0, 9.0, 4.0], repeats=[3, 3, 3]))
    write_files(tmp_path, record)
    text = comparison_text(record)
    assert text.startswith("Recommended: c2\n")
    assert "a heuristic" in text
    assert "mean of 3 repetitions" in text
    lines = (tmp_path / "comparison.csv").read_text().splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("c1,")
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_candidates_at_one_time_stand_side_by_side():
    steps = side_steps([1.0, 5.0, 5.0, 5.0], logarithmic=False)
    assert steps[0] == 0.0
    assert steps[1] < steps[2] < steps[3]
    assert steps[2] == 0.0
    assert side_steps([1.0, 10.0, 100.0], logarithmic=True) == [0.0, 0.0, 0.0]
    figure = comparison_figure(judged([3], [1.0])["table"], "c0")
    assert len(figure.axes) == 2


def test_words_of_figures():
    figure = {"value": 0.5, "low": None, "high": None}
    assert told(figure) == "0.500"
    assert told({"value": -0.012, "low": -0.02, "high": 0.03}, scale=100, places=1, sign="+") == (
        "-1.2 [-2.0, +3.0]"
    )
    assert [p_value(p) for p in (None, 0.0001, 0.25)] == ["not defined", "< 0.001", "0.250"]
    assert resident_peak_mib(["VmPeak: 1 kB", "VmHWM:\t  2048 kB"]) == 2.0


def test_a_comparison_from_before_a_setting_had_its_default():
    """Newer settings count as their defaults; what was said then stays, other values differ."""
    from headstart.runs import RunSettings
    from headstart.studies.comparing import with_defaults

    asked = RunSettings(data="digits", out="x", alpha=0.1).compared()
    old = {name: value for name, value in asked.items() if name not in ("alpha", "sets")}
    compared = {"repeats": 3, "candidates": {"mini-probe": old}}
    assert with_defaults(compared)["candidates"]["mini-probe"] == asked
    other = RunSettings(data="digits", out="x", alpha=0.2).compared()
    assert with_defaults(compared)["candidates"]["mini-probe"] != other


def test_candidates_of_an_earlier_version_have_no_digest_of_their_pictures():
    old, new = {"name": "a"}, {"name": "b", "data": "x"}
    check_pictures([old])
    check_pictures([old, new])
    check_pictures([new, old])
    with pytest.raises(ResumeError, match="changed between the candidates 'b' and 'c'"):
        check_pictures([new, new | {"name": "c", "data": "y"}])
