from __future__ import annotations

import pytest
from staged import StagedNet, find_stages, quick

from headstart.backbones import build_network, find_backbone
from headstart.backbones.stages import stage_modules
from headstart.errors import UnknownNameError, UsageError
from headstart.finetune import STRATEGIES, TrainSettings, trainable_plan
from headstart.finetune.strategies import norm_parameters, select_parameters

STAGES = find_stages(StagedNet())
LAST = {"stage3.0.weight", "stage3.1.weight", "stage3.1.bias"}
NORMS = {f"stage{i}.1.{part}" for i in (1, 2, 3) for part in ("weight", "bias")}
EVERYTHING = NORMS | {f"stage{i}.0.weight" for i in (1, 2, 3)}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("all", EVERYTHING),
        ("none", set()),
        ("stages:1", LAST),  # the pooling behind it has no parameters and does not count
        ("stages:3", EVERYTHING),
        ("layers:1", {"stage3.1.weight", "stage3.1.bias"}),
        ("2", LAST),
        ("after:4", LAST),
        ("after:0", EVERYTHING),
        ("layers:0", set()),
    ],
)
def test_words_choose_parameters(words, expected):
    assert select_parameters(STAGES, words) == expected


@pytest.mark.parametrize("words", ["stages:4", "layers:7", "after:7"])
def test_more_than_there_is_is_refused(words):
    with pytest.raises(UsageError, match="at most the"):
        select_parameters(STAGES, words)


def phases(strategy, **changes):
    return trainable_plan(STAGES, quick(strategy=strategy, **changes)).phases


def test_every_strategy_plans():
    learning = {spec.name: [set(p.rates) for p in phases(spec.name)] for spec in STRATEGIES}
    assert learning == {
        "probe": [],
        "partial": [LAST],
        "full": [EVERYTHING],
        "two-stage": [set(), LAST],
        "gradual": [
            set(),
            LAST,
            {name for name in EVERYTHING if not name.startswith("stage1")},
            EVERYTHING,
        ],
        "norm-only": [NORMS],
        "scratch": [EVERYTHING],
    }


def test_frozen_stages_are_those_before_the_first_learning_one():
    assert phases("partial")[0].frozen_stages == ("stage1", "stage2")
    assert phases("norm-only")[0].frozen_stages == ()
    assert phases("two-stage")[0].frozen_stages == ("stage1", "stage2", "stage3", "pool")


def test_rates_fall_from_the_last_stage_to_the_first():
    (phase,) = phases("full", lr=1.0, stage_decay=0.5, head_lr_factor=10.0)
    by_stage = {name.split(".")[0]: rate for name, rate in phase.rates.items()}
    assert by_stage == {"stage3": 1.0, "stage2": 0.5, "stage1": 0.25}
    assert phase.head_rate == 10.0


def test_later_phases_have_their_own_rate_and_epochs():
    head, tuning = phases("two-stage", lr=1e-4, later_lr=1e-5, epochs=(8, 6))
    assert (head.head_rate, tuning.head_rate) == (1e-4, 1e-5)
    assert (head.epochs, tuning.epochs) == (8, 6)
    assert phases("two-stage", lr=1.0)[1].head_rate == pytest.approx(0.1)
    with pytest.raises(UsageError, match=r"two-stage' has 2 \(head, fine-tuning\), got 3 numbers"):
        phases("two-stage", epochs=(8, 6, 4))


def test_frozen_norms_do_not_learn():
    assert set(phases("full", freeze_norms=True)[0].rates) == EVERYTHING - NORMS
    with pytest.raises(UsageError, match="norm-only"):
        phases("norm-only", freeze_norms=True)


def test_the_plan_says_what_trains():
    plan = trainable_plan(STAGES, quick(strategy="partial", trainable="layers:1"))
    shares = {share.stage: (share.num_trainable, share.num_parameters) for share in plan.shares[0]}
    assert shares == {"stage1": (0, 116), "stage2": (0, 228), "stage3": (16, 448)}
    assert "frozen" in plan.describe()
    assert "4% learn" in plan.describe()


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": ()},
        {"epochs": (0,)},
        {"lr": 0.0},
        {"later_lr": -1.0},
        {"trainable": "some"},
        {"optimizer": "lion"},
        {"schedule": "never"},
        {"batch_size": 1},
        {"accumulate": 0},
        {"label_smoothing": 1.0},
        {"dropout": (1.0,)},
        {"dropout": ()},
        {"hidden": (0,)},
        {"average": "mean"},
        {"augmentation": "flip:2"},
        {"lr": float("nan")},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match="`"):
        TrainSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"strategy": "ful"}, {"monitor": "acuracy"}], ids=str)
def test_unknown_names_offer_close_ones(wrong):
    with pytest.raises(UnknownNameError, match="Did you mean"):
        TrainSettings(**wrong)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
def test_a_norm_behind_all_blocks_is_no_last_stage(name):
    """Alone, as the network's last part, it was all that 'partial' taught: 384 numbers of 5 m."""
    network = build_network(find_backbone(name), weights="none", image_size=32)
    stages = stage_modules(network.module, network.spec)
    blocks, norm = [name for name, m in stages.items() if any(True for _ in m.parameters())][-2:]
    assert not {n for n, _ in stages[norm].named_parameters(prefix=norm)} - norm_parameters(stages)
    (phase,) = trainable_plan(stages, TrainSettings(stage_decay=0.5)).phases
    assert {n.partition(".")[0] for n in phase.rates} == {blocks, norm}
    assert len(set(phase.rates.values())) == 1
    gradual = trainable_plan(stages, TrainSettings(strategy="gradual")).phases
    assert set(gradual[1].rates) == set(phase.rates)
    assert gradual[1].name == f"from {blocks}"
