"""The two things that ``pycnn tune`` does: calibrate a machine, and measure single problems."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pycnn import tuning
from pycnn.calibration import shapes
from pycnn.calibration.fit import fit
from pycnn.calibration.measure import Sample, visited
from pycnn.calibration.regret import Regret, regret
from pycnn.calibration.subjects import Subject, choice
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.tuning import Coefficients, Measured, Table

__all__ = ["Calibration", "calibrate", "coefficients_of", "measure"]

Progress = Callable[[float, str], None]  # the share that is done, and a word on what is being done

_TURN = 0.0015  # seconds of an algorithm's turn while calibrating
_TURN_OF_ONE = 0.01  # and where a single problem is measured
_VISITS_OF_ONE = 3
_SHARES = (0.28, 0.5)  # of the time, after which the first visits end: of the calibration's problems, of the others
_LEAST = (8, 3)  # problems of either that are measured however long it takes
_ENOUGH = 20  # samples from which an algorithm's coefficients are fitted anew


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes:
        table: the coefficients.
        regret: of `auto` by that table, on problems that it was not fitted on; by pass, and "all" together.
        before: the same by the table that was in force before.
        problems: how many shapes it was fitted on.
        uncertain: how many of the held-out problems' passes were left out, since no two turns agreed on their times.
    """

    table: Table
    regret: Mapping[str, Regret]
    before: Mapping[str, Regret]
    problems: int
    uncertain: int


def calibrate(
    subject: Subject,
    seconds: float = 60.0,
    seed: int = 0,
    progress: Progress | None = None,
    calibration: Iterator[Conv2dShape] | None = None,
    held_out: Iterator[Conv2dShape] | None = None,
) -> Calibration:
    """Fit the coefficients of a machine, and see how `auto` does by them on other problems.

    Args:
        subject: whose algorithms.
        seconds: how long to take, roughly.
        seed: of the problems that are held out.
        progress: is told.
        calibration, held_out: the problems, in place of those of `pycnn.calibration.shapes`.
    """
    start = time.perf_counter()

    def done(word: str) -> float:
        share = (time.perf_counter() - start) / seconds
        if progress is not None:
            progress(min(share, 1.0), word)
        return share

    before = tuning.in_force(subject.identity)
    fitted = _first_visits(subject, calibration or shapes.calibration(), (), _SHARES[0], _LEAST[0], done)
    known = {sample.shape for sample in fitted}
    others = _first_visits(subject, held_out or shapes.held_out(seed), known, _SHARES[1], _LEAST[1], done)
    fitted = _again(subject, fitted, done, "calibrating")
    others = _again(subject, others, done, "checking")
    coefficients = coefficients_of(subject, fitted, before)
    table = Table(subject.identity, subject.threads, coefficients)
    found = _regrets(subject, table, others)
    report = {"problems": len(known), "regret": {name: one.as_dict() for name, one in found.items()}}
    here = tuning.kept(subject.identity)
    table = replace(table, measured=here.measured if here else {}, report=report)
    choices = [sample for sample in others if len(sample.seconds) > 1]
    uncertain = len(choices) - (len(found["all"].picks) if found else 0)
    return Calibration(table, found, _regrets(subject, before, others), len(known), uncertain)


def _first_visits(
    subject: Subject,
    problems: Iterator[Conv2dShape],
    without: Collection[Conv2dShape],
    share: float,
    least: int,
    done: Callable[[str], float],
) -> list[Sample]:
    """As many problems as there is time for until `share` of it has gone."""
    samples: list[Sample] = []
    for shape in problems:
        if done("measuring") >= share and len(samples) >= least * len(PASSES):
            break
        if shape not in without:
            samples += [_visit(subject, Sample(operator, shape)) for operator in PASSES]
    return samples


def _again(subject: Subject, samples: Sequence[Sample], done: Callable[[str], float], word: str) -> list[Sample]:
    found = []
    for sample in samples:
        done(word)
        found.append(_visit(subject, sample))
    return found


def _visit(subject: Subject, sample: Sample) -> Sample:
    return visited(subject, sample, subject.works(sample.operator, sample.shape), _TURN)


def _regrets(subject: Subject, table: Table, samples: Sequence[Sample]) -> dict[str, Regret]:
    whole = regret(samples, lambda sample: choice(subject, table, sample.operator, sample.shape))
    if whole is None:
        return {}
    parts = {operator: whole.of(operator) for operator in PASSES}
    return {"all": whole, **{operator: part for operator, part in parts.items() if part is not None}}


def coefficients_of(subject: Subject, samples: Sequence[Sample], before: Table) -> Coefficients:
    """Coefficients of every algorithm, for a table.

    Those with too few samples to be fitted keep what `before` has, times what the machine as a whole was found to be
    slower or faster by on them, or on all, if there are none.

    Args:
        subject: whose algorithms.
        samples: measured times.
        before: the table whose coefficients are kept where there is too little to fit.
    """
    rows: dict[tuple[str, str], list[tuple[Mapping[str, float], float, float]]] = {}
    for sample in samples:
        works = subject.works(sample.operator, sample.shape)
        for name, taken in sample.seconds.items():
            model, work = works[name]
            candidate = tuning.Candidate(name, model, work)
            expected = before.seconds(sample.operator, candidate) if before.calibrated else np.inf
            rows.setdefault((sample.operator, model), []).append((work, taken, taken / expected))
    ratios = [ratio for found in rows.values() for *_, ratio in found if ratio > 0]
    usual = float(np.median(ratios)) if ratios else 1.0
    coefficients: dict[str, dict[str, dict[str, float]]] = {operator: {} for operator in PASSES}
    for operator, models in before.coefficients.items():
        for model, terms in models.items():
            found = rows.get((operator, model), [])
            pace = float(np.median([ratio for *_, ratio in found])) if found else usual
            coefficients[operator][model] = {term: float(f"{value * pace:.4g}") for term, value in terms.items()}
    for (operator, model), found in rows.items():
        if len(found) >= _ENOUGH or model not in coefficients[operator]:
            coefficients[operator][model] = fit([(work, taken) for work, taken, _ in found])
    return coefficients


def measure(
    subject: Subject, problems: Sequence[tuple[str, Conv2dShape]], progress: Progress | None = None
) -> Measured:
    """Times of every algorithm of single problems, for a table.

    Args:
        subject: whose algorithms.
        problems: each a pass and a shape.
        progress: is told.
    """
    samples = [Sample(operator, shape) for operator, shape in problems]
    for number in range(_VISITS_OF_ONE):
        for i, sample in enumerate(samples):
            if progress is not None:
                progress((number + i / len(samples)) / _VISITS_OF_ONE, str(sample.shape))
            names = subject.able(sample.operator, sample.shape)
            samples[i] = visited(subject, sample, names, _TURN_OF_ONE)
    return {
        str(Problem(sample.shape, sample.operator)): {
            name: float(f"{seconds:.4g}") for name, seconds in sample.seconds.items()
        }
        for sample in samples
    }
