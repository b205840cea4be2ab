from __future__ import annotations

import pytest

from headstart.finetune import EpochRecord, verdict, write_tensorboard
from headstart.finetune.records.pictures import augmentation_figure, learning_curves


def story(train, inner, train_accuracy=0.9, inner_accuracy=0.88):
    """A history; `inner` has the start before it."""
    records = []
    for epoch, loss in enumerate(inner):
        trained = epoch > 0
        records.append(
            EpochRecord(
                epoch=epoch,
                phase="full" if trained else "start",
                train_loss=train[epoch - 1] if trained else None,
                train_accuracy=train_accuracy if trained else None,
                inner={"log_loss": loss, "accuracy": inner_accuracy},
            )
        )
    return records


@pytest.mark.parametrize(
    ("history", "best", "words"),
    [
        (story([0.5, 0.3, 0.1], [0.6, 0.5, 0.4, 0.6]), 2, "Overfitting after epoch 2"),
        (story([0.5, 0.3, 0.1], [0.3, 0.5, 0.6, 0.7]), 0, "not better|No epoch was better"),
        (story([0.1, 0.1], [0.6, 0.501, 0.5], 0.99, 0.8), 2, "19 points above"),
        (story([0.5, 0.4], [0.9, 0.6, 0.5]), 2, "Underfitting: the inner loss was still falling"),
        (story([1.2, 1.2], [1.3, 1.2, 1.195], 0.4, 0.45), 2, "only 40%"),
        (story([0.3, 0.3], [0.4, 0.301, 0.3]), 2, "No sign"),
        (story([], [0.4]), 0, "Nothing was trained"),
    ],
    ids=["rising", "start best", "gap", "falling", "low", "fine", "nothing"],
)
def test_the_rule(history, best, words):
    import re

    assert re.search(words, verdict(history, best))


def test_without_an_inner_part_there_is_none():
    record = EpochRecord(epoch=1, phase="full", train_loss=0.2, train_accuracy=1.0)
    assert "No verdict" in verdict([record], 1)


def test_a_row_is_flat():
    row = story([0.5], [0.6, 0.5])[1].row()
    assert row["inner_log_loss"] == 0.5
    assert list(row)[:3] == ["epoch", "phase", "train_loss"]


def test_tensorboard_gets_every_number(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_tensorboard(story([0.5, 0.25], [0.6, 0.5, 0.4]), tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    found = [(event.step, event.value) for event in events.Scalars("train_loss")]
    assert found == [(1, 0.5), (2, 0.25)]


def test_curves_mark_the_change_of_phase_and_the_choice():
    history = story([0.5, 0.3, 0.2, 0.1], [0.6, 0.5, 0.4, 0.35, 0.3])
    history[3:] = [
        EpochRecord(**{**vars(record), "phase": "fine-tuning"}) for record in history[3:]
    ]
    loss, accuracy = learning_curves(history, 4, "title").axes
    lines = {line.get_label(): line for line in loss.lines}
    assert list(lines["training"].get_xdata()) == [1, 2, 3, 4]
    assert list(lines["inner part"].get_ydata()) == [0.6, 0.5, 0.4, 0.35, 0.3]
    assert [line.get_xdata()[0] for line in loss.lines if line.get_linestyle() == ":"] == [2.5]
    assert "full" in {text.get_text() for text in accuracy.texts}


def test_a_picture_of_the_augmentation():
    import torch

    pixels = torch.full((2, 32, 32, 3), 120, dtype=torch.uint8)
    figure = augmentation_figure(pixels, ["a", "b"], "e2", views=3, seed=0)
    assert len(figure.axes) == 2 * 4
