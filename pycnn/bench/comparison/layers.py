"""A pass of a layer as an assignment: normal operands, and the float64 reference's answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pycnn import backends
from pycnn.bench.comparison.cells import Cell
from pycnn.bench.tasks import Task
from pycnn.testing import error_bound, float_operands, oracle

__all__ = ["Assignment", "assignment"]


@dataclass(frozen=True)
class Assignment:
    """What everybody is given in a cell, and what it is judged by.

    Attributes:
        task: what there is to do.
        y64: the right answer.
        allowed: the largest max |y - y64| / max |y64| that pycnn keeps to.
        flops: operations, multiplies and adds, of the direct form.
        algo: what ``algo="auto"`` takes, "" where that is no question.
    """

    task: Task
    y64: np.ndarray
    allowed: float
    flops: int
    algo: str = ""


def assignment(cell: Cell) -> Assignment:
    """The assignment of a cell of a layer."""
    problem = cell.problem
    operands = float_operands(problem, bias=False)
    y64 = oracle(problem, operands)
    scale = float(np.abs(y64).max(initial=0.0)) or 1.0
    return Assignment(
        Task("conv2d", problem.operator, problem.shape, (operands.left, operands.right)),
        y64,
        error_bound(problem, operands, y64, "auto") / scale,
        problem.shape.flops,
        backends.get("cpu").conv2d_choose(problem.operator, problem.shape, np.dtype(np.float32))[0],
    )
