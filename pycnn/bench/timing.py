"""Fair timing: contestants take turns of some milliseconds, the median counts, and the spread is told.

A turn is a slice: the contestant is called without a clock first, so that its threads are awake and its operands and
code are in the caches, then again and again with one.  Single calls in turn would time everyone on caches that the
others have filled, beside threads of theirs that still look for work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["ROUNDS", "Racer", "Timing", "race", "timed_slice"]

ROUNDS = 3
_LEAST = 3  # timed calls in a slice
_ARRIVE = 0.01  # seconds of calls until the system has spread the threads of a process over the cores again
_WARM = 0.001  # the same where its threads are at work already: for caches alone
_LONG = 0.1  # seconds of a call in which a cold start, about a millisecond in all, is lost


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant: the median, the quartiles around it, and how many runs they come from."""

    median: float
    low: float
    high: float
    runs: int

    @staticmethod
    def of(figures: Sequence[float]) -> Timing:
        """Of these, one at least."""
        low, median, high = np.percentile(figures, [25, 50, 75])
        return Timing(float(median), float(low), float(high), len(figures))

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median: the noise of this figure."""
        return (self.high - self.low) / 2 / self.median


@dataclass(frozen=True)
class Racer:
    """Who takes turns.

    Attributes:
        name: what its `Timing` is found by.
        pool: whose threads it uses, as a name.
        slice: one turn of so many seconds after so many untimed ones, roughly; returns the seconds of each timed call.
    """

    name: str
    pool: str
    slice: Callable[[float, float], list[float]]


def timed_slice(call: Callable[[], object], seconds: float, untimed: float) -> list[float]:
    """One turn of `call`: the seconds of each timed call.

    Calls go untimed for `untimed` seconds, one at least; then they are timed, `seconds` long and at least three, or one
    where that already fills the turn.  A call of a tenth of a second or more is timed at once and is the whole turn.
    """
    first = _clock(call)
    if first >= _LONG:
        return [first]
    total = first
    while total < untimed:
        total += _clock(call)
    taken = [_clock(call)]
    total = taken[0]
    while total < seconds or (len(taken) < _LEAST and taken[0] < seconds):
        taken.append(_clock(call))
        total += taken[-1]
    return taken


def race(
    racers: Sequence[Racer],
    seconds: float = 0.1,
    rounds: int = ROUNDS,
    between: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time each racer; they run slice by slice in turn, so that a busy moment of the machine meets all of them.

    Args:
        racers: who takes part.
        seconds: time to spend on each, roughly.
        rounds: turns of each.
        between: what is called before each round.

    Returns:
        A `Timing` by name, over the calls of all turns; none for a racer whose turns gave no times.
    """
    taken: dict[str, list[float]] = {racer.name: [] for racer in racers}
    at_work = ""
    for _ in range(rounds):
        between()
        for racer in racers:
            untimed = _WARM if racer.pool == at_work else _ARRIVE
            taken[racer.name] += racer.slice(seconds / rounds, untimed)
            at_work = racer.pool
    return {name: Timing.of(times) for name, times in taken.items() if times}


def _clock(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
