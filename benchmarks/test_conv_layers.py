"""The lecture networks' convolution layers under pytest-benchmark: ``pytest benchmarks``.

Every algorithm of the CPU engine that can run a layer, and the NumPy row, in one group a layer and pass.  What is timed
is the public operator; what it returns is held against the float64 oracle first.  `pycnn bench` times the same problems
with its contestants taking turns.
"""

import numpy as np
import pytest

from pycnn import ops
from pycnn.backends import cpu, reference
from pycnn.bench import numpy_rows
from pycnn.shape import Problem
from pycnn.testing import Operands, error_bound, every_pass, float_operands, layers, run

NUMPY = {"fprop": numpy_rows.fprop, "dgrad": numpy_rows.dgrad, "wgrad": numpy_rows.wgrad}
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
    shape = problem.shape
    operands = float_operands(problem, bias=False)
    left, right = operands.left, operands.right
    rest = (shape.stride, shape.padding, shape.dilation, shape.groups)
    calls = {
        "fprop": lambda: ops.conv2d_fprop(left, right, None, *rest, algo=algo),
        "dgrad": lambda: ops.conv2d_dgrad(left, right, shape.x_shape, *rest, algo=algo),
        "wgrad": lambda: ops.conv2d_wgrad(left, right, shape.w_shape, *rest, algo=algo),
    }
    numpy_row = NUMPY[problem.operator]
    call = (lambda: numpy_row(left, right, shape)) if algo == "numpy" else calls[problem.operator]
    y64 = run(reference, problem, Operands(left.astype(np.float64), right.astype(np.float64)), "auto")
    assert np.abs(call() - y64).max() <= error_bound(problem, operands, y64, "auto" if algo == "numpy" else algo)
    benchmark.group = str(problem)
    benchmark.extra_info["flops"] = shape.flops
    benchmark.pedantic(call, rounds=5, iterations=1, warmup_rounds=1)
