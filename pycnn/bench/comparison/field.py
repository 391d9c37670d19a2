"""The contestants in their processes, and what one cell of them gives: checked first, then raced.

Everybody, pycnn too, computes in a process of its own that stands still while others have their turn.  One that fails
is told so in its score, and starts anew with the next cell.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pycnn import _cpu
from pycnn.bench.comparison.assignments import Assignment, assignment
from pycnn.bench.comparison.cells import FIRST, MEMORY, STARTED, Cell
from pycnn.bench.comparison.results import Outcome, Score
from pycnn.bench.peers import Factory
from pycnn.bench.processes import PeerProcess
from pycnn.bench.tasks import Work
from pycnn.bench.timing import Racer, Timing, race

__all__ = ["Field", "versions"]

ROUNDS = 5
_NETWORK = 5  # times the seconds of a layer
_CALM = 0.9  # of the peak
_STEADY = 0.2  # a contestant's spread
_AGAIN = 2
_PROBES = 4  # some milliseconds each, of which the best counts: the first wakes the threads
_VISITS = {FIRST: 3, MEMORY: 1}
_CACHES = ("PYCNN_CACHE_DIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")
_PACKAGES = ("torch", "onnxruntime", "openvino", "ncnn", "pnnx", "mnn")


def versions() -> dict[str, str]:
    """The versions of the peers' packages, of those that are installed."""
    found = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


class Field:
    """A process for each contestant, until the end of the ``with`` block.

    Args:
        ours: pycnn's own ways, by name.
        peers: everybody else's; see `pycnn.bench.peers.find_peers`.
        threads: for each.
        peak: FLOP/s of multiply-adds that the machine gives when nobody else is at work.
    """

    def __init__(self, ours: Mapping[str, Factory], peers: Mapping[str, Factory], threads: int, peak: float) -> None:
        self._factories = {**ours, **peers}
        self._ours = frozenset(ours)
        self._threads = threads
        self._peak = peak
        self._processes: dict[str, PeerProcess] = {}

    def __enter__(self) -> Field:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._processes):
            self._end(name)

    def measure(self, cell: Cell, seconds: float = 0.1) -> Outcome:
        """Check, then time, every contestant in one cell.

        Where the probe or a contestant's spread says that somebody else was at work, the race is run again, up to three
        times in all; of each contestant the race counts in which it was fastest, of the probe the calmest.

        Args:
            cell: what to do.
            seconds: time to spend on each contestant, roughly; on a network five times that.
        """
        with tempfile.TemporaryDirectory() as folder:
            given = assignment(cell, Path(folder))
            if cell.section in STARTED:
                probe, scores = self._started(cell, given, Path(folder))
            else:
                probe, scores = self._raced(given, seconds if cell.problem is not None else _NETWORK * seconds)
        return Outcome(
            cell.section,
            cell.name,
            cell.batch,
            given.problem,
            given.flops,
            given.algo,
            probe,
            datetime.now(UTC).isoformat(timespec="seconds"),
            scores,
        )

    def _raced(self, given: Assignment, seconds: float) -> tuple[list[float], list[Score]]:
        """What the probe found before each round, and the scores, of contestants that take turns."""
        scores = {score.name: score for name in self._factories for score in self._judged(name, given)}
        racing = {name: _Turns(self._processes[name]) for name, score in scores.items() if score.error is not None}
        if given.timed is not None:
            for turns in racing.values():
                turns.prepare(given.timed)
        probe, timings = self._race(racing, seconds)
        for _ in range(_AGAIN):
            steady = all(timing.spread <= _STEADY for timing in timings.values())
            if steady and min(probe) >= _CALM * self._peak:
                break
            other, again = self._race(racing, seconds)
            probe = max(probe, other, key=min)
            timings = {name: min(timings[name], timing, key=_median) for name, timing in again.items()}
        for name, turns in racing.items():
            if turns.failure:
                self._end(name)
                scores[name] = replace(scores[name], counts=False, note=turns.failure)
            else:
                scores[name] = replace(scores[name], timing=timings[name])
        return probe, list(scores.values())

    def _started(self, cell: Cell, given: Assignment, folder: Path) -> tuple[list[float], list[Score]]:
        """The same of contestants that start anew for each figure, their caches empty."""
        for name in list(self._processes):
            self._end(name)
        for factory in self._factories.values():
            getattr(factory, "make_ready", lambda folder: None)(folder)
        probe: list[float] = []
        scores: dict[str, Score] = {}
        figures: dict[str, list[float]] = {}
        taking_part = dict(self._factories)
        for visit in range(_VISITS[cell.section]):
            probe.append(_probe())
            for name, factory in list(taking_part.items()):
                environment = {variable: str(folder / f"caches-{visit}-{name}") for variable in _CACHES}
                try:
                    with PeerProcess(name, factory, self._threads, environment) as process:
                        figure, y = _figure(process, cell.section, given.task)
                except ChildProcessError as error:
                    scores[name] = Score(name, name in self._ours, note=str(error))
                    del taking_part[name]
                    continue
                if figure is None:
                    del taking_part[name]
                    continue
                figures.setdefault(name, []).append(figure)
                scores[name] = self._score(name, y, given)
        for name, score in scores.items():
            if score.error is not None:
                scores[name] = replace(score, timing=Timing.of(figures[name]))
        return probe, list(scores.values())

    def _race(self, racing: Mapping[str, _Turns], seconds: float) -> tuple[list[float], dict[str, Timing]]:
        """What the probe found before each round, and the timings."""
        probe: list[float] = []
        timings = race(
            [Racer(name, name, turns) for name, turns in racing.items()],
            seconds,
            ROUNDS,
            lambda: probe.append(_probe()),
        )
        return probe, timings

    def _judged(self, name: str, given: Assignment) -> list[Score]:
        """The score of a contestant before the race; none if it cannot do this."""
        ours = name in self._ours
        try:
            if name not in self._processes:
                factory = self._factories[name]
                environment = getattr(factory, "environment", None)
                self._processes[name] = PeerProcess(name, factory, self._threads, environment)
            process = self._processes[name]
            if name not in process.prepare(given.task):
                return []
            y = process.result(name)
        except ChildProcessError as error:
            self._end(name)
            return [Score(name, ours, note=str(error))]
        return [self._score(name, y, given)]

    def _score(self, name: str, y: np.ndarray, given: Assignment) -> Score:
        ours = name in self._ours
        return _score(name, ours, y, given.y64, given.allowed if ours else given.peers_allowed)

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.close()


class _Turns:
    """The turns of a contestant in a race, until it fails."""

    def __init__(self, process: PeerProcess) -> None:
        self._process = process
        self.failure = ""

    def prepare(self, task: Work) -> None:
        """Hand over what is to be timed."""
        self._attempt(lambda: self._process.prepare(task))

    def __call__(self, seconds: float, untimed: float) -> list[float]:
        """One turn, as `Racer` has it; no times once it has failed."""
        return self._attempt(lambda: self._process.slice(self._process.name, seconds, untimed)) or []

    def _attempt(self, action: Callable[[], Any]) -> Any:
        if self.failure:
            return None
        try:
            return action()
        except ChildProcessError as error:
            self.failure = str(error)
            return None


def _figure(process: PeerProcess, section: str, task: Work) -> tuple[float | None, np.ndarray]:
    """The figure of a process that has just started, None if it cannot do this, and the result."""
    if section == MEMORY:
        figures: dict[str, float] = {name: float(most) for name, most in process.memory(task).items()}
    else:
        figures = {name: process.once(name) for name in process.prepare(task)}
    if process.name not in figures:
        return None, np.empty(0)
    return figures[process.name], process.result(process.name)


def _median(timing: Timing) -> float:
    return timing.median


def _probe() -> float:
    return max(_cpu.measure_fma_peak() for _ in range(_PROBES))


def _score(name: str, ours: bool, y: np.ndarray, y64: np.ndarray, allowed: float) -> Score:
    if y.shape != y64.shape:
        return Score(name, ours, note=f"wrong: a result of shape {y.shape} in place of {y64.shape}")
    scale = float(np.abs(y64).max(initial=0.0)) or 1.0
    error = float(np.abs(y - y64).max(initial=0.0)) / scale
    if not np.isfinite(error):
        return Score(name, ours, note="wrong: a result that is not finite")
    counts = error <= allowed
    return Score(name, ours, error=error, counts=counts, note="" if counts else f"error {error:.1e}")
