"""One call that proves what an algorithm does to its sums before it stores them, and one for the bias gradient."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import ModuleType

import numpy as np

from pycnn import backends
from pycnn.backends import reference
from pycnn.shape import Problem
from pycnn.testing.check import channels_last
from pycnn.testing.regimes import Operands, error_bound, exact_operands, is_exact, oracle

__all__ = ["check_bias_gradient", "check_epilogue"]


def check_epilogue(backend: str | ModuleType, problem: Problem | str, algo: str = "auto", seed: int = 0) -> None:
    """Assert that fprop gives relu(scale[k] * sum + b[k] + residual) with any of the four left out.

    The operands are integers and the scales powers of two, so algorithms that are exact there must equal the reference,
    rounded once to 16 bits where the operands have 16.

    Args:
        backend: a name ("reference", "cpu", ...) or a module that has the backends' functions.
        problem: a `Problem` or its string; with layout nhwc x, w and residual are channels-last.
        algo: a family or a variant by name.

    Raises:
        AssertionError: naming the problem, the algorithm and the steps.

    >>> check_epilogue("cpu", "n1c3h8w8_k4r3s3_pd1", "direct")
    """
    module = backends.get(backend) if isinstance(backend, str) else backend
    problem = Problem.parse(problem) if isinstance(problem, str) else problem
    s = problem.shape
    chosen = module.conv2d_choose("fprop", s, problem.dtype)[0] if algo == "auto" else algo
    rng = np.random.default_rng(seed)
    operands = exact_operands(problem, chosen, seed)
    given = (
        rng.choice([-2.0, -1.0, 0.5, 1.0], (s.K,)).astype(problem.dtype),
        operands.b,
        rng.integers(-8, 9, s.y_shape).astype(problem.dtype),
    )
    if problem.layout == "nhwc":
        operands = replace(operands, left=channels_last(operands.left), right=channels_last(operands.right))
        given = (*given[:2], channels_last(given[2]))
    bound = 0.0
    if not is_exact(chosen):  # a scale at most doubles the error of a sum; three more roundings are within the bound
        bound = 2 * error_bound(problem, operands, oracle(problem, operands), chosen)
    for has_scale, has_b, has_residual, relu in product((False, True), repeat=4):
        scale, b, residual = (
            each if wanted else None for each, wanted in zip(given, (has_scale, has_b, has_residual), strict=True)
        )
        arrays = (operands.left, operands.right, b, scale, residual)
        y, expected = (
            one.conv2d_fprop(
                *(left, right, shift, s.stride, s.padding, s.dilation, s.groups),
                algo=by,
                scale=factor,
                residual=rest,
                relu=relu,
            )
            for one, by, (left, right, shift, factor, rest) in (
                (module, algo, arrays),
                (reference, "auto", [None if each is None else each.astype(np.float64) for each in arrays]),
            )
        )
        expected = expected.astype(problem.dtype)
        where = f"{module.__name__} {problem} algo={algo}: {has_scale=} {has_b=} {has_residual=} {relu=}"
        assert y.shape == expected.shape, f"{where}: shape {y.shape}, expected {expected.shape}"
        assert y.dtype == expected.dtype, f"{where}: dtype {y.dtype}"
        wrong = ~(np.abs(y - expected) <= bound)
        assert not wrong.any(), f"{where}: {int(wrong.sum())} of {y.size} elements are wrong"


def check_bias_gradient(backend: str | ModuleType, problem: Problem | str, algo: str = "auto", seed: int = 0) -> None:
    """Assert that wgrad with `bias` gives the bits that it gives without, and the exact bias gradient of integers.

    It is rounded once to 16 bits where the operands have 16.

    >>> check_bias_gradient("cpu", "n1c3h8w8_k4r3s3_pd1_wgrad")
    """
    module = backends.get(backend) if isinstance(backend, str) else backend
    problem = Problem.parse(problem) if isinstance(problem, str) else problem
    s = problem.shape
    operands: Operands = exact_operands(replace(problem, operator="wgrad"), algo, seed)
    arguments = (operands.left, operands.right, s.w_shape, s.stride, s.padding, s.dilation, s.groups)
    dw, db = module.conv2d_wgrad(*arguments, algo=algo, bias=True)
    where = f"{module.__name__} {problem} algo={algo}"
    assert dw.tobytes() == module.conv2d_wgrad(*arguments, algo=algo).tobytes(), f"{where}: dw differs with bias=True"
    assert db.dtype == operands.left.dtype, f"{where}: dtype {db.dtype}"
    expected = reference.channel_sum(operands.left.astype(np.float64)).astype(db.dtype)
    assert np.array_equal(db, expected), f"{where}: db is wrong"
