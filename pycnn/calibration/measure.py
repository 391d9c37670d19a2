"""Times of all algorithms of a problem: in turns within a visit, in visits that lie apart in time; the least counts.

Other processes disturb in stretches of milliseconds to seconds.  The algorithms of a pass take their turns right after
each other, so that they meet the same stretch, and a problem is visited again after all the others, so that hardly any
is disturbed at every visit.  A turn's time is the median of its calls.  One that was disturbed is longer, never
shorter, so the least of all turns is nearest to what the machine does when it is left alone; and since hardly two are
disturbed alike, an algorithm takes turns until two agree on the least.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pycnn.calibration.subjects import Subject
from pycnn.shape import Conv2dShape

__all__ = ["Sample", "visited"]

_ROUNDS = 2  # turns of each algorithm in a visit
_MORE = 4  # and more of those that no two agree on
_ALIKE = 1.08  # two agree, if one is not so many times the other
_UNTIMED = 0.0005  # seconds of calls before a turn's clock starts
_HOPELESS = 4.0  # one that certainly takes so many times the least is not timed again


@dataclass(frozen=True)
class Sample:
    """One pass of one problem.

    Attributes:
        seconds: the least of each algorithm's turns so far, by its name.
        next_least: the next to that, where there are two.
    """

    operator: str
    shape: Conv2dShape
    seconds: Mapping[str, float] = field(default_factory=dict)
    next_least: Mapping[str, float] = field(default_factory=dict)

    def certain(self, name: str) -> bool:
        """Whether two turns agree on an algorithm's least."""
        return self.next_least.get(name, math.inf) <= _ALIKE * self.seconds.get(name, 0.0)


def visited(subject: Subject, sample: Sample, names: Iterable[str], turn: float) -> Sample:
    """`sample` after one visit more.

    Args:
        subject: whose algorithms.
        sample: what is known.
        names: the algorithms.
        turn: seconds of each one's turns.
    """
    seconds, next_least = dict(sample.seconds), dict(sample.next_least)
    sample = Sample(sample.operator, sample.shape, seconds, next_least)

    def hopeless(name: str) -> bool:
        return sample.certain(name) and seconds[name] > _HOPELESS * min(seconds.values())

    slices = subject.slices(sample.operator, sample.shape, [name for name in names if not hopeless(name)])
    for number in range(_ROUNDS + _MORE):
        waiting = [name for name in slices if not hopeless(name) and (number < _ROUNDS or not sample.certain(name))]
        if waiting and number % _ROUNDS == 0:
            subject.wait()
        for name in waiting:
            taken = float(np.median(slices[name](turn, _UNTIMED)))
            known = (*(each[name] for each in (seconds, next_least) if name in each), taken)
            seconds[name], next_least[name] = (*sorted(known), math.inf)[:2]
    return sample
