"""The NumPy row computes what it is compared with: its results against the oracle, over the problem lists."""

import numpy as np
import pytest

from pycnn.backends import reference
from pycnn.bench import numpy_rows
from pycnn.shape import PASSES, Pool2dShape
from pycnn.testing import every_pass, exact_operands, problems, run

CONV = {"fprop": numpy_rows.fprop, "dgrad": numpy_rows.dgrad, "wgrad": numpy_rows.wgrad}


@pytest.mark.parametrize("problem", every_pass(problems()), ids=str)
def test_convolution_is_exact_on_integers(problem):
    operands = exact_operands(problem, bias=False)
    y = CONV[problem.operator](operands.left, operands.right, problem.shape)
    assert y.dtype == np.float32
    assert y.flags.c_contiguous
    assert np.array_equal(y, run(reference, problem, operands, "auto"))


def test_every_pass_has_a_row():
    assert tuple(CONV) == PASSES


POOLS = [
    ((3, 3), (2, 2), (0, 0, 0, 0), False),
    ((3, 3), (2, 2), (1, 1, 1, 1), False),
    ((3, 3), (2, 2), (0, 0, 0, 0), True),
    ((2, 3), (1, 2), (1, 1, 1, 1), False),
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "ceil_mode"), POOLS)
def test_pooling_matches_the_reference(kernel, stride, padding, ceil_mode):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (2, 3, 10, 11)).astype(np.float32)  # ties on purpose: the first maximum takes the gradient
    shape = Pool2dShape(*x.shape, kernel, stride, padding, ceil_mode=ceil_mode)
    y, indices = reference.max_pool2d_fwd(x, kernel, stride, padding, (1, 1), ceil_mode)
    dy = rng.integers(-9, 9, y.shape).astype(np.float32)
    assert np.array_equal(numpy_rows.max_pool_fwd(x, shape), y)
    dx = reference.max_pool2d_bwd(dy, indices, x.shape, kernel, stride, padding, (1, 1))
    assert np.array_equal(numpy_rows.max_pool_bwd(dy, x, y, shape), dx)
    for count_pad in (True, False):
        y = reference.avg_pool2d_fwd(x, kernel, stride, padding, ceil_mode, count_pad, None)
        near = {"rtol": 1e-6, "atol": 1e-6}  # nine small integers are added and multiplied by a rounded reciprocal
        np.testing.assert_allclose(numpy_rows.avg_pool_fwd(x, shape, count_pad), y, **near)
        dx = reference.avg_pool2d_bwd(dy, x.shape, kernel, stride, padding, ceil_mode, count_pad, None)
        np.testing.assert_allclose(numpy_rows.avg_pool_bwd(dy, shape, count_pad), dx, **near)
