"""How much slower than the best measured what `auto` takes is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn.calibration.measure import Sample

__all__ = ["NEAR", "Pick", "Regret", "regret"]

NEAR = 1.15  # up to here a choice counts as good


@dataclass(frozen=True)
class Pick:
    """What was taken for one sample, and how it did.

    Attributes:
        ratio: its time, divided by the least measured; 1 is the best there is.
    """

    sample: Sample
    taken: str
    best: str
    ratio: float


@dataclass(frozen=True)
class Regret:
    """The picks of some samples, at least one, the worst first."""

    picks: tuple[Pick, ...]

    @property
    def median(self) -> float:
        """The median ratio."""
        return float(np.median([pick.ratio for pick in self.picks]))

    @property
    def high(self) -> float:
        """The ratio that 9 of 10 do not pass."""
        return float(np.percentile([pick.ratio for pick in self.picks], 90))

    @property
    def share(self) -> float:
        """The share with a ratio of `NEAR` at most."""
        return sum(pick.ratio <= NEAR for pick in self.picks) / len(self.picks)

    @property
    def total(self) -> float:
        """The time of all that was taken, divided by that of the best."""
        taken = sum(pick.sample.seconds[pick.taken] for pick in self.picks)
        return taken / sum(pick.sample.seconds[pick.best] for pick in self.picks)

    def of(self, operator: str) -> Regret | None:
        """The picks of one pass; None if there is none."""
        picks = tuple(pick for pick in self.picks if pick.sample.operator == operator)
        return Regret(picks) if picks else None

    def as_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return {
            "problems": len(self.picks),
            "median": round(self.median, 4),
            "90th percentile": round(self.high, 4),
            f"share within {NEAR}": round(self.share, 4),
            "worst": round(self.picks[0].ratio, 4),
            "total": round(self.total, 4),
        }


def regret(samples: Sequence[Sample], choose: Callable[[Sample], str]) -> Regret | None:
    """The regret of a choice.

    Args:
        samples: measured times.  One with nothing to choose from is left out, and one where it is not certain how long
            the taken or the best took.
        choose: the algorithm taken for one.

    Returns:
        None where no sample is left.
    """
    picks = []
    for sample in samples:
        taken = choose(sample)
        best = min(sample.seconds, key=sample.seconds.__getitem__)
        if len(sample.seconds) > 1 and sample.certain(taken) and sample.certain(best):
            picks.append(Pick(sample, taken, best, sample.seconds[taken] / sample.seconds[best]))
    return Regret(tuple(sorted(picks, key=lambda pick: -pick.ratio))) if picks else None
