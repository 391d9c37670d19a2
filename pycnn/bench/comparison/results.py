"""Who is ahead in each cell and by how much; the file that keeps the cells of one run or of several."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from pycnn._files import replacing
from pycnn.bench.comparison.cells import MEMORY
from pycnn.bench.machine import Machine
from pycnn.bench.timing import Timing

__all__ = ["LARGEST_ERROR", "Comparison", "Outcome", "Score", "Standing", "contestants", "standings"]

LARGEST_ERROR = 1e-3  # max |y - y64| / max |y64| from which on a peer is shown but not counted


@dataclass(frozen=True)
class Score:
    """One contestant's figures in one cell.

    Attributes:
        name: the contestant.
        ours: whether it is pycnn.
        timing: its seconds, in the section "memory" its bytes; or None.
        error: max |y - y64| / max |y64|; None where the result was of another shape or not finite.
        counts: whether it is right enough to be the best of the cell.
        note: why it has no timing or does not count, else "".
    """

    name: str
    ours: bool
    timing: Timing | None = None
    error: float | None = None
    counts: bool = False
    note: str = ""

    @property
    def median(self) -> float:
        """Of its timing; infinite without one."""
        return math.inf if self.timing is None else self.timing.median


@dataclass(frozen=True)
class Outcome:
    """Everything measured of one cell.

    Attributes:
        section, name, batch: the cell's.
        problem: its layer as a problem string.
        flops: of the direct form of the pass.
        algo: what ``algo="auto"`` takes.
        probe: multiply-adds of the machine in FLOP/s, measured before each round of the race.
        when: the time, UTC.
        scores: every contestant that can do the cell.
    """

    section: str
    name: str
    batch: int
    problem: str
    flops: int
    algo: str
    probe: list[float]
    when: str
    scores: list[Score]

    @property
    def key(self) -> str:
        """What tells the cell from all others."""
        return f"{self.section} {self.name} b{self.batch}"

    @property
    def unit(self) -> str:
        """What figures of this section are read in: "ms" or "MiB"."""
        return "MiB" if self.section == MEMORY else "ms"

    def shown(self, score: Score) -> str:
        """A score's median in that unit."""
        value = score.median / 2**20 if self.section == MEMORY else score.median * 1e3
        return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"

    def share(self, peak: float) -> float | None:
        """Our best's operations a second, as the direct form counts them, as a share of `peak`; None for no layer."""
        return self.flops / self.ours.median / peak if self.ours is not None and self.problem else None

    @property
    def ours(self) -> Score | None:
        """Our fastest that counts, or None."""
        return self._fastest(True)

    @property
    def best(self) -> Score | None:
        """The fastest peer that counts, or None."""
        return self._fastest(False)

    def _fastest(self, ours: bool) -> Score | None:
        found = [score for score in self.scores if score.ours == ours and score.counts and score.timing is not None]
        return min(found, key=lambda score: score.median, default=None)

    @property
    def ratio(self) -> float | None:
        """The best peer's time, or memory, over ours: above 1 we are ahead.  None where one of them is missing."""
        return None if self.ours is None or self.best is None else self.best.median / self.ours.median


@dataclass(frozen=True)
class Standing:
    """How a section ended.

    Attributes:
        section: its name.
        cells: how many have a ratio.
        mean: the geometric mean of the ratios.
        ahead: in how many of them we are.
        worst: the cell with the smallest ratio.
    """

    section: str
    cells: int
    mean: float
    ahead: int
    worst: Outcome


def standings(outcomes: Iterable[Outcome]) -> list[Standing]:
    """The standing of each section, in order of appearance; sections without any ratio are left out."""
    by_section: dict[str, list[tuple[float, Outcome]]] = {}
    for outcome in outcomes:
        if outcome.ratio is not None:
            by_section.setdefault(outcome.section, []).append((outcome.ratio, outcome))
    return [
        Standing(
            section,
            len(found),
            geometric_mean([ratio for ratio, _ in found]),
            sum(ratio > 1 for ratio, _ in found),
            min(found, key=lambda pair: pair[0])[1],
        )
        for section, found in by_section.items()
    ]


@dataclass(frozen=True)
class Comparison:
    """A machine, the versions of whoever ran on it, and the outcomes.

    Attributes:
        versions: of the peers' packages, by name.
    """

    machine: Machine
    versions: dict[str, str]
    outcomes: list[Outcome]

    def merged(self, earlier: Comparison) -> Comparison:
        """These outcomes and those of `earlier` whose cells are not among them, in `earlier`'s order.

        Raises ValueError if `earlier` is of another machine, instruction set or number of threads.
        """
        for what in ("processor", "isa", "threads"):
            before, now = getattr(earlier.machine, what), getattr(self.machine, what)
            if before != now:
                raise ValueError(f"the cells so far are of {what} {before}, these of {now}: choose another --out")
        cells = {outcome.key: outcome for outcome in (*earlier.outcomes, *self.outcomes)}
        return Comparison(self.machine, {**earlier.versions, **self.versions}, list(cells.values()))

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> Comparison:
        """Read what `save` wrote.  Raises ValueError for any other file, OSError if there is none."""
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return Comparison(Machine(**data["machine"]), data["versions"], list(map(_outcome, data["outcomes"])))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} holds no comparison: {error}") from error


def _outcome(values: dict[str, Any]) -> Outcome:
    return Outcome(**{**values, "scores": list(map(_score, values["scores"]))})


def _score(values: dict[str, Any]) -> Score:
    timing = values["timing"]
    return Score(**{**values, "timing": None if timing is None else Timing(**timing)})


def contestants(outcomes: Sequence[Outcome]) -> list[str]:
    """Everybody who has a score, ours first, in order of appearance."""
    names = {score.name: score.ours for outcome in outcomes for score in outcome.scores}
    return sorted(names, key=lambda name: not names[name])
