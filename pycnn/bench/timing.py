"""Fair timing: contestants take turns, the median counts, and the spread is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Timing", "race"]


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant: the median, the quartiles around it, and how many runs they come from."""

    median: float
    low: float
    high: float
    runs: int

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median: the noise of this figure."""
        return (self.high - self.low) / 2 / self.median


def race(
    contestants: Mapping[str, Callable[[], object]], seconds: float = 0.1, least: int = 5, most: int = 200
) -> dict[str, Timing]:
    """Time each contestant; they run in turn, so that a busy moment of the machine meets all of them.

    Args:
        contestants: what to call, by name.  Each runs once before the clock starts.
        seconds: time to spend on each, roughly.
        least, most: bounds on the number of timed runs of each.

    Returns:
        A `Timing` by name.
    """
    once = {}
    for name, run in contestants.items():
        run()
        once[name] = _clock(run)
    rounds = {name: int(min(max(seconds / max(first, 1e-9), least), most)) for name, first in once.items()}
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(max(rounds.values(), default=0)):
        for name, run in contestants.items():
            # Slow contestants run seldom, spread evenly over the whole race.
            if len(taken[name]) * max(rounds.values()) <= turn * rounds[name]:
                taken[name].append(_clock(run))
    return {name: _timing(times) for name, times in taken.items()}


def _clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _timing(times: list[float]) -> Timing:
    low, median, high = np.percentile(times, [25, 50, 75])
    return Timing(float(median), float(low), float(high), len(times))
