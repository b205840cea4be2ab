from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.errors import UsageError
from headstart.finetune import POLICIES, STEPS, Augmenter, flip_note, flips_sideways
from headstart.finetune.batches.augmentation import parse_policy

PIXELS = torch.from_numpy(
    np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3)).astype(np.uint8)
)


def augmented(policy, rows=range(6), *, seed=0, fold=0, view=0):
    chosen = list(rows)
    return Augmenter(policy, seed)(PIXELS[chosen], chosen, fold=fold, view=view)


@pytest.mark.parametrize("policy", [*POLICIES.names(), *STEPS.names()])
def test_shape_type_and_input_are_kept(policy):
    before = PIXELS.clone()
    changed = augmented(policy)
    assert changed.shape == PIXELS.shape
    assert changed.dtype == torch.uint8
    assert torch.equal(PIXELS, before)
    assert torch.equal(changed, PIXELS) == (policy == "none")


@pytest.mark.parametrize("policy", ["e2", "randaugment", "erasing"])
def test_an_image_changes_the_same_alone_and_in_any_batch(policy):
    together = augmented(policy)
    for row in (5, 0, 3):
        assert torch.equal(augmented(policy, [row])[0], together[row])


@pytest.mark.parametrize("key", ["seed", "fold", "view"])
def test_every_key_draws_anew(key):
    assert not torch.equal(augmented("e1"), augmented("e1", **{key: 1}))


def test_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    first = torch.rand(4)
    torch.manual_seed(3)
    augmented("e2")
    assert torch.equal(torch.rand(4), first)


def test_flip_in_closed_form():
    assert torch.equal(augmented("flip"), PIXELS.flip(2))
    assert torch.equal(augmented("vflip"), PIXELS.flip(1))
    assert torch.equal(augmented("flip:0"), PIXELS)


def test_steps_are_applied_in_order():
    brighter_first = augmented("brightness-contrast:0.5,blur")
    blurred_first = augmented("blur,brightness-contrast:0.5")
    assert not torch.equal(brighter_first, blurred_first)


def test_a_probability_is_a_frequency():
    pixels = PIXELS[:1].expand(400, -1, -1, -1)
    changed = Augmenter("flip:0.3", 0)(pixels, range(400), fold=0, view=0)
    share = (changed != pixels).flatten(1).any(1).float().mean()
    assert 0.22 < float(share) < 0.38


def test_neighbouring_moves_are_one_map():
    assert len(Augmenter("e1", 0).steps) == 2
    assert len(Augmenter("rotate:5:0.5,shift:0.1", 0).steps) == 2
    assert len(Augmenter("rotate:5,rotate:5", 0).steps) == 2


@pytest.mark.parametrize("policy", ["flip:0.5:0.5", "rotate:x", "blur:2", "rotate:-5", "e2:3"])
def test_impossible_steps_are_refused(policy):
    with pytest.raises(UsageError):
        parse_policy(policy)


@pytest.mark.parametrize("policy", ["hue:0.9", "shift:1.5", "zoom:1", "flip,zoom:1.2,rotate:5",
                                    "randaugment:31"])  # fmt: skip
def test_an_impossible_amount_is_one_sentence(policy):
    name = next(step.split(":")[0] for step in policy.split(",") if ":" in step)
    with pytest.raises(UsageError, match=f"'{name}' of `augmentation` must have a possible amount"):
        Augmenter(policy, 0)


def test_xrays_keep_left_and_right():
    assert not flips_sideways("xray")
    assert flips_sideways("e1")


@pytest.mark.parametrize(
    ("policy", "names", "word"),
    [
        ("light", ["flowers", "cxr-covid3"], "cxr"),
        ("flip:0.5", ["X-ray/normal"], "xray"),
        ("e1", ["Chest_CT"], "chest"),
        ("light", ["roses", "lettered"], None),  # whole words only
        ("xray", ["cxr-covid3"], None),
        ("none", ["mnist"], None),
    ],
)
def test_a_mirrored_picture_of_two_sides_is_said(policy, names, word):
    note = flip_note(policy, names)
    assert (note is None) == (word is None)
    assert word is None or f"'{word}'" in note
