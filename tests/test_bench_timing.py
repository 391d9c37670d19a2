"""Fair turns: what a slice times and what it does not, who runs when, what the median is over.  The clock is a fake."""

from functools import partial
from types import SimpleNamespace

import pytest

from pycnn.bench import timing
from pycnn.bench.gpu import _TorchCall
from pycnn.bench.timing import Racer, Timing, race, timed_slice


class Clock:
    """A clock that only moves when a contestant says so."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.order = []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def call(self, name, *seconds):
        """A call that takes these numbers of seconds in its runs, the last again and again."""
        left = list(seconds)

        def run():
            self.order.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run

    def racer(self, name, *seconds, pool="ours"):
        return Racer(name, pool, partial(timed_slice, self.call(name, *seconds)))


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_the_untimed_part_is_filled_and_then_the_slice_is_filled(clock):
    taken = timed_slice(clock.call("short", 0.0025, 0.001, 0.002), 0.011, 0.003)
    assert taken == pytest.approx([0.002] * 6)
    assert len(clock.order) == 2 + 6


def test_one_call_goes_untimed_at_least(clock):
    assert timed_slice(clock.call("middling", 0.007, 0.006), 0.01, 0) == pytest.approx([0.006] * 3)
    assert len(clock.order) == 1 + 3  # and a short slice has three that are timed


def test_a_call_that_fills_the_slice_is_timed_once(clock):
    assert timed_slice(clock.call("long", 0.09, 0.05), 0.01, 0.02) == pytest.approx([0.05])
    assert len(clock.order) == 2


def test_a_very_long_call_is_the_whole_slice(clock):
    assert timed_slice(clock.call("endless", 0.1, 0.05), 0.01, 0.02) == pytest.approx([0.1])
    assert len(clock.order) == 1


def test_contestants_take_turns_slice_by_slice(clock):
    found = race([clock.racer("a", 0.002), clock.racer("b", 0.02)], seconds=0.04, rounds=4)
    assert clock.order == ["a"] * 4 + (["a"] * (1 + 5) + ["b"] * 2) * 4
    assert (found["a"].runs, found["b"].runs) == (4 * 5, 4 * 1)


def test_threads_that_slept_get_time_to_arrive():
    asked = []
    racers = [
        Racer(name, pool, lambda seconds, untimed, name=name: asked.append((name, untimed)) or [seconds])
        for name, pool in (("a", "ours"), ("b", "ours"), ("c", "theirs"), ("d", "theirs"))
    ]
    race(racers, rounds=2)
    assert asked == [("a", 0.01), ("b", 0.001), ("c", 0.01), ("d", 0.001)] * 2


def test_each_contestant_gets_the_time_it_was_promised(clock):
    found = race([clock.racer("quick", 0.001), clock.racer("slow", 0.0025)], seconds=0.08, rounds=4)
    assert (found["quick"].runs, found["slow"].runs) == (80, 32)
    assert found["quick"] == Timing(pytest.approx(0.001), pytest.approx(0.001), pytest.approx(0.001), 80)


def test_the_figure_is_over_the_calls_of_all_turns():
    turns = iter([[1.0, 4.0], [5.0], [3.0, 1.0, 2.0]])
    found = race([Racer("one", "ours", lambda seconds, untimed: next(turns))], rounds=3)["one"]
    assert (found.low, found.median, found.high, found.runs) == (1.25, 2.5, 3.75, 6)
    assert found.spread == pytest.approx(1.25 / 2.5)


def test_nobody_to_race():
    assert race([]) == {}


def test_cudnns_calls_are_all_started_before_one_is_waited_for():
    order = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            pass

        def elapsed_time(self, end):
            return 2.0  # milliseconds

    cuda = SimpleNamespace(Event=Event, synchronize=lambda: order.append("wait"))
    call = _TorchCall(SimpleNamespace(cuda=cuda), lambda: order.append("call"))
    assert call.slice(0.011, 0) == [0.002] * 6
    assert order == ["call"] * 3 + ["wait"] + ["call"] * 6 + ["wait"]
