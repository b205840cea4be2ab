"""Successive halving against the full grid, its count of epochs, and what it may not look at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from headstart.errors import DataError, UsageError
from headstart.heads import (
    FitPlan,
    HalvedSettings,
    MlpHistory,
    MlpSettings,
    draw_settings,
    fit_mlps,
    fit_winners,
    successive_halving,
)
from headstart.heads.multilayer import halving
from headstart.heads.multilayer.halving import FIGURES, Rung, rungs
from headstart.heads.multilayer.steps import DivergedError

NOTHING = MlpHistory(**dict.fromkeys(FIGURES, torch.zeros(0, 0)))
BASE = MlpSettings(hidden=(16,), epochs=20, batch_size=16, dropout=0.0)


def make_folds(rows: int = 120) -> dict[str, Tensor]:
    """Three classes around centres, three folds, an inner part in each."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % 3
    features = torch.eye(6)[labels] * 2 + torch.randn(rows, 6, generator=generator)
    fold = torch.arange(rows) // 3 % 3
    learns = torch.stack([fold != k for k in range(3)])
    inner = learns & (torch.rand(3, rows, generator=generator) < 0.25)
    return {"features": features, "labels": labels, "learns": learns.float(), "inner": inner}


def clear_cut() -> list[MlpSettings]:
    """27 settings, of which one learns within 20 epochs; it is neither the first nor the last."""
    rates = torch.logspace(-7, -5, 27, dtype=torch.float64).tolist()
    rates[16] = 0.01
    return [MlpSettings(**(vars(BASE) | {"lr": rate})) for rate in rates]


def halve(folds: dict[str, Tensor], candidates: list[MlpSettings], **kwargs) -> HalvedSettings:
    return successive_halving(
        folds["features"], folds["labels"], folds["learns"], folds["inner"], 3, candidates,
        seed=0, **kwargs,
    )  # fmt: skip


def full_grid(folds: dict[str, Tensor], candidates: list[MlpSettings]) -> tuple[Tensor, Tensor]:
    """(F, S) lowest inner loss of every setting after all its epochs, and (F, S) its epoch."""
    fits = [
        fit_mlps(
            folds["features"],
            folds["labels"],
            folds["learns"] * ~folds["inner"],
            3,
            settings,
            seed=0,
            plan=FitPlan(score_rows=folds["inner"]),
        )
        for settings in candidates
    ]
    losses = torch.stack([fit.history.held_loss.amin(1) for fit in fits], 1)
    return losses, torch.stack([fit.best_epoch for fit in fits], 1)


def test_it_chooses_like_the_full_grid_for_a_quarter_of_the_epochs():
    """On a clear-cut problem; the winner's loss and epoch are those of the grid; epochs counted."""
    folds, candidates = make_folds(), clear_cut()
    told = []
    found = halve(folds, candidates, on_epoch=lambda done, total: told.append((done, total)))
    losses, epochs = full_grid(folds, candidates)
    assert found.winner.tolist() == losses.argmin(1).tolist() == [16, 16, 16]
    torch.testing.assert_close(found.loss[:, 16], losses[:, 16])
    torch.testing.assert_close(found.winning_epochs, epochs[:, 16])
    torch.testing.assert_close(found.history.held_loss.amin(1), losses[:, 16])
    assert found.num_epochs == 3 * (27 * 1 + 9 * 3 + 3 * 7 + 1 * 20)
    assert found.num_full_epochs == 3 * 27 * 20 >= 4 * found.num_epochs
    assert told[-1] == (found.num_epochs, found.num_epochs)
    assert found.final == (16, int(found.winning_epochs.median()))


def test_a_fold_never_looks_at_what_it_is_scored_on():
    """Other features and labels there leave its losses, its winner and its head as they are."""
    folds = make_folds()
    candidates = list(draw_settings(BASE, 9, fixed=frozenset({"hidden"}), seed=1))
    before = halve(folds, candidates)
    scored = folds["learns"][0] == 0
    changed = dict(folds)
    changed["features"], changed["labels"] = folds["features"].clone(), folds["labels"].clone()
    changed["features"][scored] = 5 - 9 * folds["features"][scored]
    changed["labels"][scored] = 2 - folds["labels"][scored]
    after = halve(changed, candidates)
    # Alone or beside others a sum has another order: to rounding.
    torch.testing.assert_close(after.loss[0], before.loss[0], rtol=1e-4, atol=1e-5)
    assert after.winner[0] == before.winner[0]
    heads = [
        fit_winners(f["features"], f["labels"], f["learns"], 3, found, seed=0)[0]
        for f, found in ((folds, before), (changed, after))
    ]
    for (weight, bias), (other_weight, other_bias) in zip(*heads, strict=True):
        torch.testing.assert_close(weight, other_weight, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(bias, other_bias, rtol=1e-3, atol=1e-4)
    assert (after.loss[1] - before.loss[1]).abs().max() > 1e-2


def test_winners_are_trained_on_the_whole_training_part():
    """With the setting and the epochs of their own fold, from the streams of that fold."""
    folds = make_folds()
    candidates = [BASE, MlpSettings(hidden=(8, 8), epochs=20, batch_size=16)]
    found = HalvedSettings(
        candidates=tuple(candidates), loss=torch.zeros(3, 2), epochs=torch.full((3, 2), 20),
        best_epoch=torch.tensor([[4, 5], [6, 7], [8, 9]]), winner=torch.tensor([0, 1, 0]),
        history=NOTHING, num_epochs=0, num_full_epochs=0,
    )  # fmt: skip
    data = folds["features"], folds["labels"]
    got = fit_winners(*data, folds["learns"], 3, found, seed=0)
    assert [len(layers) for layers in got] == [2, 3, 2]
    for fold, epochs in ((0, 4), (1, 7), (2, 8)):
        plan = FitPlan(epochs=[epochs], numbers=[fold])
        settings = candidates[int(found.winner[fold])]
        alone = fit_mlps(*data, folds["learns"][fold][None], 3, settings, seed=0, plan=plan)
        for (weight, bias), (wanted, wanted_bias) in zip(got[fold], alone.layers(0), strict=True):
            torch.testing.assert_close(weight, wanted, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(bias, wanted_bias, rtol=1e-3, atol=1e-4)


def test_the_final_setting_is_the_one_that_most_folds_keep():
    """Of equals the one with the lower loss; epochs are the lower median of its folds."""
    loss = torch.tensor([[0.5, 0.1, 0.9], [0.4, 0.9, 0.9], [0.9, 0.2, 0.9], [0.3, 0.9, 0.9]])
    best = torch.arange(12).view(4, 3)

    def final(winner: list[int]) -> tuple[int, int]:
        return HalvedSettings(
            candidates=(BASE, BASE, BASE), loss=loss[: len(winner)], best_epoch=best, epochs=best,
            winner=torch.tensor(winner), history=NOTHING, num_epochs=0, num_full_epochs=0,
        ).final  # fmt: skip

    assert final([1, 0, 1, 0]) == (1, 1)
    assert final([0, 0, 1, 0]) == (0, 3)


def test_a_setting_that_diverges_loses_and_all_together_are_told():
    """A rate that is too much is no reason to stop, unless there is nothing else."""
    folds = make_folds()
    wild = MlpSettings(**(vars(BASE) | {"lr": 1e30}))
    found = halve(folds, [wild, BASE, wild])
    assert found.winner.tolist() == [1, 1, 1]
    assert torch.isinf(found.loss[:, [0, 2]]).all()
    with pytest.raises(UsageError, match=r"Training diverged: .*Lower lr"):
        halve(folds, [wild, wild, wild])


def test_a_late_divergence_of_all_that_is_left_is_told(monkeypatch):
    """A setting that was thrown out before is no winner because its early loss is finite."""
    rates = (1e-6, 1e-5, 0.01)
    settings = [MlpSettings(**(vars(BASE) | {"lr": rate})) for rate in rates]
    real = halving.fit_mlps

    def late(*arguments, plan, **options):
        if plan.epochs[0] == BASE.epochs:
            raise DivergedError("Training diverged, late.")
        return real(*arguments, plan=plan, **options)

    monkeypatch.setattr(halving, "fit_mlps", late)
    with pytest.raises(UsageError, match=r"diverged, late"):
        halve(make_folds(), settings)


@pytest.mark.parametrize(
    ("num_settings", "epochs", "wanted"),
    [
        (27, 27, [(27, 1), (9, 3), (3, 9), (1, 27)]),
        (20, 20, [(20, 3), (6, 7), (2, 20)]),
        (2, 5, [(2, 5)]),
        (1, 5, [(1, 5)]),
        (81, 2, [(81, 1), (27, 1), (9, 1), (3, 1), (1, 2)]),
    ],
)
def test_rungs(num_settings, epochs, wanted):
    """A third goes on three times as long."""
    assert rungs(num_settings, epochs) == [Rung(num_settings=n, epochs=r) for n, r in wanted]


def test_drawn_settings_differ_begin_with_the_given_one_and_hang_on_the_seed():
    """What the user fixed stays; more than there are is refused."""
    drawn = draw_settings(BASE, 27, fixed=frozenset({"hidden"}), seed=0)
    assert drawn[0] == BASE
    assert len(set(drawn)) == 27
    assert {settings.hidden for settings in drawn} == {(16,)}
    assert {settings.epochs for settings in drawn} == {20}
    assert all(1e-4 <= settings.lr <= 1e-2 for settings in drawn)
    assert draw_settings(BASE, 27, fixed=frozenset({"hidden"}), seed=0) == drawn
    assert draw_settings(BASE, 27, fixed=frozenset({"hidden"}), seed=1) != drawn
    with pytest.raises(UsageError, match=r"at most the 4 settings .* dropout, hidden, lr are"):
        draw_settings(
            MlpSettings(weight_decay=0.5), 5, fixed=frozenset({"lr", "hidden", "dropout"}), seed=0
        )
    with pytest.raises(UsageError, match=r"`tune` must be between 2 and 200 settings, got 1\."):
        draw_settings(BASE, 1, seed=0)


def test_bad_input_is_named():
    """Epochs that differ, inner rows outside the training part."""
    folds = make_folds()
    with pytest.raises(UsageError, match=r"equal `epochs`, got \[5, 20\]"):
        halve(folds, [BASE, MlpSettings(epochs=5)])
    with pytest.raises(DataError, match="inside the training part"):
        halve(folds | {"inner": ~folds["inner"]}, [BASE, BASE])
