"""The CPU engine on a published problem: every pass, every algorithm that must be exact, and what `auto` takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pycnn import algorithms, ops
from pycnn.backends import cpu
from pycnn.shape import Problem
from pycnn.testing import error_factor, is_exact
from pycnn.testing.regimes import Operands, run

from .check import EXACT, PASSES, operands, prove, terms
from .lists import Published

# Multiply-adds up to which every algorithm runs; beyond, these: `auto`, and the families that always can.
_EVERY_ALGORITHM = 1 << 30

# A fifth of what the machine has stays free for others; beside x, w and y there are their second copies in this check,
# an image or two in float64, and explicit columns.
_COPIES = 2.5


@dataclass
class Report:
    """What was looked at: how often each algorithm was right, and what was wrong, in words."""

    right: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def look(problem: Published, report: Report, seed: int = 0) -> None:
    """Add a problem's three passes to `report`."""
    room = 0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if _COPIES * problem.bytes > room:
        report.left_out[problem.text] = (
            f"x, w and y take {problem.bytes / 2**30:.0f} GiB: more than there is memory for"
        )
        return
    for operator in PASSES:
        for algo, wrong in _answers(problem, operator, seed):
            if wrong is None:
                report.right[algo] = report.right.get(algo, 0) + 1
            else:
                report.wrong.append(f"{problem.text}_{operator} algo={algo}: {wrong}")


def _answers(problem: Published, operator: str, seed: int) -> Iterator[tuple[str, str | None]]:
    """Algorithms that ran, and what was wrong with each one's result, or None."""
    if len(problem.axes) == 3:
        given = operands(problem, operator, seed=seed)
        wrong = prove(problem, operator, given, seed)
        for algo in ("auto", "direct", "im2col"):
            yield f"{algo}, 3-D", wrong(_volumes(problem, operator, given, algo))
        return
    asked = Problem.parse(f"{problem.text}_{operator}")
    able = [name for name, reason in algorithms.candidates(operator, asked.shape, "float32") if reason is None]
    given = operands(problem, operator, seed=seed)
    wrong = prove(problem, operator, given, seed)
    with algorithms.accuracy_of_call("strict"):
        names = ["auto", *filter(is_exact, able)]
        if problem.macs > _EVERY_ALGORITHM:
            taken = algorithms.choose(operator, asked.shape, "float32")[0]
            families = {
                name: algorithms.resolve(name, operator, asked.shape, "float32") for name in ("direct", "im2col")
            }
            names = ["auto", *(name for name in families.values() if name != taken)]
        for algo in names:
            yield algo, wrong(run(cpu, asked, Operands(*given), algo))
    taken = algorithms.choose(operator, asked.shape, "float32")[0]
    if not is_exact(taken):
        # Its error is to be less than a half, so that rounding to integers leaves nothing: see `allowed_error`.
        least = 0.4 * 2.0**24 / (error_factor(taken) * np.sqrt(terms(problem, operator)))
        given = operands(problem, operator, min(EXACT, int(least)), seed)
        wrong = prove(problem, operator, given, seed)
        yield f"{taken}, rounded", wrong(np.rint(run(cpu, asked, Operands(*given), "auto")))


def _volumes(problem: Published, operator: str, given: tuple[np.ndarray, np.ndarray], algo: str) -> np.ndarray:
    """A pass of three axes, by the public operators."""
    how = {
        "stride": tuple(axis.stride for axis in problem.axes),
        "padding": tuple((axis.front, axis.back) for axis in problem.axes),
        "dilation": tuple(axis.dilation for axis in problem.axes),
        "groups": problem.groups,
        "algo": algo,
        "accuracy": "strict",
    }
    if operator == "fprop":
        return ops.conv3d_fprop(*given, **how)
    if operator == "dgrad":
        return ops.conv3d_dgrad(*given, problem.x_shape, **how)
    return ops.conv3d_wgrad(*given, problem.w_shape, **how)
