"""Times of a run that was interrupted: what it took in all, or since when they count."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from headstart.report.judging.facts import time_in_all
from headstart.runs.fitting.task import Clock


class Record(SimpleNamespace):
    """A run's record in memory."""

    def update(self, **entries):
        self.record.update(entries)


def interrupted_in(clock, phase, seconds):
    clock.seconds[phase] = seconds
    raise KeyboardInterrupt


def begun(**entries):
    return Record(record={"status": "running", "times": {}, **entries})


def test_what_was_done_before_an_interruption_counts():
    run_file = begun(splits={})
    with pytest.raises(KeyboardInterrupt), Clock().going_on(run_file):
        raise KeyboardInterrupt
    first = Clock(seconds={"network": 1.0})
    with pytest.raises(KeyboardInterrupt), first.going_on(run_file):
        interrupted_in(first, "folds", 3600.0)
    assert run_file.record["times"] == {"network": 1.0, "folds": 3600.0}
    again = Clock(seconds={"network": 0.5})
    with again.going_on(run_file):
        assert again.seconds == {"network": 1.5, "folds": 3600.0}
        assert run_file.record["timing"]
    assert "times_lost" not in run_file.record
    assert not run_file.record["timing"]


def test_a_killed_run_says_since_when_its_times_count():
    killed = begun(timing=True)  # even before its images were split
    with Clock().going_on(killed):
        pass
    assert killed.record["times_lost"]
    assert time_in_all(killed.record) == "since it was resumed"
    fresh = begun()
    with Clock().going_on(fresh):
        pass
    assert time_in_all(fresh.record) == "in all"


def test_a_finished_run_that_is_made_again_starts_at_zero():
    done = begun(splits={}, times={"folds": 9.0, "peak_memory_mib": 99.0})
    done.record["status"] = "finished"
    clock = Clock()
    with clock.going_on(done):
        assert clock.seconds == {}
