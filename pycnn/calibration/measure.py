"""Times of all algorithms of a problem: in turns within a visit, in visits that lie apart in time; the least counts.

Other processes disturb in stretches of milliseconds to seconds.  The algorithms of a pass take their turns right after
each other, so that they meet the same stretch, and a problem is visited again after all the others, so that hardly any
is disturbed at every visit.  A turn's time is the median of its calls.  One that was disturbed is longer, never
shorter, so the least of all turns is nearest to what the machine does when it is left alone.
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
_TRIES = 3  # such visits at once, where each ends with somebody else on the machine
_UNTIMED = 0.0005  # seconds of calls before a turn's clock starts
_HOPELESS = 4.0  # one that takes so many times the least is not timed again


@dataclass(frozen=True)
class Sample:
    """One pass of one problem.

    Attributes:
        seconds: the least of each algorithm's turns so far, by its name.
    """

    operator: str
    shape: Conv2dShape
    seconds: Mapping[str, float] = field(default_factory=dict)


def visited(subject: Subject, sample: Sample, names: Iterable[str], turn: float) -> Sample:
    """`sample` after one visit more.

    Args:
        subject: whose algorithms.
        sample: what is known.
        names: the algorithms.
        turn: seconds of each one's turns.
    """
    seconds = dict(sample.seconds)

    def hopeful(name: str) -> bool:
        return seconds.get(name, 0.0) <= _HOPELESS * min(seconds.values(), default=math.inf)

    slices = subject.slices(sample.operator, sample.shape, [name for name in names if hopeful(name)])
    for _ in range(_TRIES):
        subject.wait()
        for _ in range(_ROUNDS):
            for name in filter(hopeful, slices):
                taken = float(np.median(slices[name](turn, _UNTIMED)))
                seconds[name] = min(taken, seconds.get(name, math.inf))
        if subject.alone():
            break
    return Sample(sample.operator, sample.shape, seconds)
