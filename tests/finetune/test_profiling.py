"""Where the seconds went: exclusive, complete, and without any influence on the result."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import chain

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from staged import EXECUTION, colourful, quick, staged_network
from test_tuning import equal_weights

from headstart.errors import UsageError
from headstart.finetune import fit_network, plan_network, preparing
from headstart.finetune.records.pictures import plan_figure
from headstart.finetune.records.profiling import Stopwatch, added

DATA = colourful()


def test_spans_are_exclusive_and_add_up(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(time, "process_time", lambda: 0.5)
    watch = Stopwatch()
    with watch.span("outer"):  # 0
        with watch.span("inner"):  # 1
            pass  # 2
        with watch.span("inner"), watch.span("innermost"):  # 3, 4
            pass  # 5, 6
    assert {name: span.wall for name, span in watch.spans.items()} == {
        "outer": 3.0, "inner": 3.0, "innermost": 1.0,
    }  # fmt: skip
    assert [span.calls for span in watch.spans.values()] == [1, 2, 1]
    assert all(span.cpu == 0 for span in watch.spans.values())
    twice = added([watch.spans, watch.spans])
    assert (twice["inner"].wall, twice["inner"].calls) == (6.0, 4)
    assert watch.spans["inner"].wall == 3.0


def test_an_error_closes_its_spans():
    watch = Stopwatch()
    with pytest.raises(ValueError, match="x"), watch.span("outer"), watch.span("inner"):
        raise ValueError("x")
    with watch.span("next"):
        pass
    assert not watch._open
    assert watch.spans["next"].calls == 1


def test_the_parts_of_a_training_are_its_time():
    settings = quick(strategy="partial", augmentation="flip:0.5", profile=True)
    tuned = fit_network(staged_network(), DATA, settings, execution=EXECUTION)
    calls = {name: span.calls for name, span in tuned.profile.items()}
    steps = 2 * 3  # two epochs of 21 images in batches of 8
    assert calls["forward"] == calls["backward"] == calls["optimizer"] == calls["augment"] == steps
    assert calls["inner part"] == 3
    assert calls["checkpoint"] == 3
    assert whole_of(tuned) <= tuned.seconds
    # A busy machine may take the processor away between two parts: one quiet training is enough.
    again = (fit_network(staged_network(), DATA, settings, execution=EXECUTION) for _ in range(5))
    assert any(whole_of(each) > 0.5 * each.seconds for each in chain([tuned], again))


def whole_of(tuned):
    return sum(span.wall for span in tuned.profile.values())


def test_a_cached_training_reads_and_recomputes_nothing():
    tuned = fit_network(staged_network(), DATA, quick(strategy="partial"), execution=EXECUTION)
    assert tuned.profile["freeze-point cache, filled"].calls == 1
    assert tuned.profile["freeze-point cache, read"].calls == 2 * 3 + 3 * 1


def test_a_profile_changes_nothing_and_may_be_asked_for_on_the_way(tmp_path):
    settings = quick(strategy="full")
    fit_network(staged_network(), DATA, settings, execution=EXECUTION, checkpoint_dir=tmp_path)
    again = fit_network(
        staged_network(),
        DATA,
        replace(settings, profile=True),
        execution=EXECUTION,
        checkpoint_dir=tmp_path,
    )
    plain = fit_network(staged_network(), DATA, settings, execution=EXECUTION)
    assert equal_weights(again, plain)


def test_the_figure_says_what_trains():
    network = staged_network()
    plan = plan_network(network, quick(strategy="two-stage", trainable="stages:2", lr=0.01))
    figure = plan_figure(plan, "staged")
    FigureCanvasAgg(figure).draw()
    head, tuning = figure.axes
    assert "backbone: rests" in head.get_title()
    assert "backbone: 676 of 792 learn (85%)" in tuning.get_title()
    bars = [bar.get_width() for bar in tuning.patches]
    assert bars[:3] == pytest.approx([0, 228 / 792, 448 / 792])
    assert bars[3:] == pytest.approx([116 / 792, 0, 0])
    assert "100% at 0.001" in tuning.texts[1].get_text()


def test_compilation_without_a_compiler_is_refused(monkeypatch):
    from torch._inductor import cpp_builder, exc

    def missing():
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    with pytest.raises(UsageError, match="torch finds no C"):
        preparing.check_compiler()
    with pytest.raises(UsageError, match="`compile` must be left out"):
        fit_network(
            staged_network(), DATA, quick(strategy="full", compile=True), execution=EXECUTION
        )
    assert torch.is_grad_enabled()
