"""The lecture networks' convolution layers under pytest-benchmark: ``pytest benchmarks``.

Every algorithm of the CPU engine that can run a layer, and the NumPy row, in one group a layer and pass.  What is timed
is the public operator; what it returns is held against the float64 oracle first.  `pycnn bench` times the same problems
with its contestants taking turns.
"""

import time

import numpy as np
import pytest

from pycnn.backends import cpu
from pycnn.bench.cases import conv_call
from pycnn.bench.numpy_rows import numpy_call
from pycnn.bench.tasks import Task
from pycnn.shape import Problem
from pycnn.testing import error_bound, every_pass, float_operands, layers, oracle

REST = 0.15  # seconds that the oracle's BLAS threads need to fall asleep: until then they keep a core busy
PROBLEMS = every_pass(layers("lenet5", "alexnet", "vgg16", "resnet50"))


def contestants(problem: Problem) -> list[str]:
    """The algorithms that can run the problem, and NumPy."""
    known = cpu.conv2d_algorithms(problem.operator, problem.shape, np.dtype(problem.dtype))
    return [name for name, reason in known if reason is None] + ["numpy"]


@pytest.mark.parametrize(
    ("problem", "algo"),
    [pytest.param(p, algo, id=f"{p}-{algo}") for p in PROBLEMS for algo in contestants(p)],
)
def test_layer(benchmark, problem, algo):
    operands = float_operands(problem, bias=False)
    task = Task("conv2d", problem.operator, problem.shape, (operands.left, operands.right))
    call = numpy_call(task) if algo == "numpy" else conv_call(task, algo)
    y64 = oracle(problem, operands)
    assert np.abs(call() - y64).max() <= error_bound(problem, operands, y64, "auto" if algo == "numpy" else algo)
    benchmark.group = str(problem)
    benchmark.extra_info["flops"] = problem.shape.flops
    time.sleep(REST)
    benchmark.pedantic(call, rounds=5, iterations=1, warmup_rounds=2)
