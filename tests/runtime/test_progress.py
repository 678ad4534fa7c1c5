"""Progress: an estimate of the time left that is right from the first one on."""

import logging

import pytest

import pipeline.runtime.progress as compute
from pipeline.runtime.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so; a line at every step."""
    now = [0.0]
    monkeypatch.setattr(compute.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Progress, "seconds_between_lines", -1.0)
    return now


def estimates(caplog, clock, *, total, seconds):
    """Return (true, told) of each estimate, for items that end at these seconds."""
    found = []
    with caplog.at_level(logging.INFO), Progress("work", total=total) as bar:
        for moment in seconds:
            clock[0] = moment
            caplog.clear()
            bar.advance()
            told = caplog.records[-1].getMessage()
            if "to go" in told:
                found.append((seconds[-1] - moment, float(told.split(", ")[1].split(" s")[0])))
    return found


def test_the_first_estimate_leaves_out_loading_and_compiling(caplog, clock):
    """A minute before the first step, then a step a second."""
    found = estimates(caplog, clock, total=600, seconds=[60.0 + i for i in range(600)])
    true, told = found[0]
    assert told == pytest.approx(true, rel=0.05)
    assert len(found) > 500


@pytest.mark.parametrize("workers", [2, 8])
def test_the_first_estimate_of_many_workers_is_not_off_by_their_number(caplog, clock, workers):
    """Theirs come at once, at a minute each."""
    seconds = sorted(60.0 * (i // workers + 1) + 0.01 * (i % workers) for i in range(20 * workers))
    found = estimates(caplog, clock, total=20 * workers, seconds=seconds)
    for true, told in found[:-workers]:
        assert 0.45 * true <= told <= 2 * true


def test_nothing_is_told_while_nothing_tells_it(caplog, clock):
    with caplog.at_level(logging.INFO), Progress("work", total=3) as bar:
        clock[0] = 30.0
        bar.advance()
    assert caplog.records[-1].getMessage().strip() == "work 1/3"
