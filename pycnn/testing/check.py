"""One call that proves one algorithm of one backend on one convolution problem."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np

from pycnn import backends
from pycnn.custom.dispatch import answering
from pycnn.custom.registry import stands_for
from pycnn.memory_format import wants_channels_last
from pycnn.shape import Problem
from pycnn.testing.regimes import (
    Operands,
    dtype_of,
    error_bound,
    exact_operands,
    float_operands,
    is_exact,
    magnitudes,
    oracle,
    run,
    split_operands,
)

__all__ = ["channels_last", "check_conv2d", "laid_out", "scattered"]


def check_conv2d(backend: str | ModuleType, problem: Problem | str, algo: str = "auto", seed: int = 0) -> None:
    """Assert everything a convolution pass promises, on integer operands, on normal ones and on non-negative ones.

    - exact regime: direct, im2col, F(2x2, 3x3) and F(3x3, 2x2) equal the oracle, rounded once to 16 bits where the
      operands have 16, and so does every algorithm on operands that are not contiguous (the others within their bound);
    - split regime: products of split operands equal the oracle on integers of 20 bits;
    - float regime: the error stays under `pycnn.testing.regimes.error_bound`;
    - the result is a fresh contiguous array of the right shape and dtype, channels-last where the algorithm reads such
      operands as they are and they are, the inputs keep their bytes, and a second run gives the same bits.

    Args:
        backend: a name ("reference", "cpu", ...) or a module that has the backends' functions.
        problem: a `Problem` or its string; in a dtype that the backend's own functions take.  With layout nhwc the
            operands are channels-last.
        algo: a family, a variant or, where `backend` is a name, a registered kernel, by name.  "auto" is checked as
            whatever `conv2d_choose` says it takes, a kernel as the algorithm that it is `bound` to.

    Raises:
        AssertionError: naming the backend, problem and algorithm.  ValueError if the algorithm cannot run the problem.

    >>> check_conv2d("cpu", "n1c3h8w8_k4r3s3_st1pd1dl1g1_wgrad", "im2col")
    """
    module = answering(backends.get(backend), algo) if isinstance(backend, str) else backend
    problem = Problem.parse(problem) if isinstance(problem, str) else problem
    chosen = stands_for(algo)
    own = chosen != algo  # a registered kernel: reads dense arrays, and a bias would hide where its result lies
    if algo == "auto":
        last = (problem.layout == "nhwc",) if module.__name__.endswith((".cuda", ".sim")) else ()
        chosen, _ = module.conv2d_choose(problem.operator, problem.shape, dtype_of(problem), *last)
    where = f"{module.__name__} {problem} algo={algo} ({chosen})"
    # What reads 16 bytes of channels at a time takes no other layout; `auto` takes another algorithm.
    chunks = chosen.startswith("im2col_tensor") and not ("strided" in chosen or "wide" in chosen)
    vectors = chunks and algo != "auto" and not own

    exact = exact_operands(problem, chosen, seed, not own)
    y64 = oracle(problem, exact)
    # A variant that divides by more than powers of two is held to its bound on integers too.
    bound = 0.0 if is_exact(chosen) else error_bound(problem, exact, y64, chosen)
    _check(module, problem, exact, algo, y64, bound, f"{where}, integers")
    if not vectors:
        _check(module, problem, scattered(exact), algo, y64, bound, f"{where}, integers, not contiguous")
    if chosen.startswith(("im2col_tensor_3xtf32", "im2col_tensor_3xfp16")):
        for side in ("left", "right"):
            split = split_operands(problem, side, seed)
            _check(module, problem, split, algo, oracle(problem, split), 0.0, f"{where}, {side} of 20 bits")

    normal = float_operands(problem, seed + 1, not own)
    largest = oracle(problem, magnitudes(normal))
    y64 = oracle(problem, normal)
    _check(module, problem, normal, algo, y64, error_bound(problem, normal, y64, chosen, largest), f"{where}, normal")
    bound = error_bound(problem, normal, largest, chosen, largest)
    _check(module, problem, magnitudes(normal), algo, largest, bound, f"{where}, non-negative")


def scattered(operands: Operands) -> Operands:
    """The same values behind awkward strides: `left` channels-last, `right` a reversed view with gaps."""
    left = np.ascontiguousarray(operands.left.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    n, c, h, w = operands.right.shape
    room = np.full((n, c + 1, h, 2 * w), np.nan, operands.right.dtype)
    right = room[::-1, 1:, :, ::-2]
    right[...] = operands.right
    return replace(operands, left=left, right=right)


def laid_out(problem: Problem, operands: Operands) -> Operands:
    """Dense operands in the problem's layout."""
    if problem.layout == "nchw":
        return operands
    return replace(operands, left=channels_last(operands.left), right=channels_last(operands.right))


def _check(
    module: ModuleType, problem: Problem, operands: Operands, algo: str, y64: np.ndarray, bound: float, where: str
) -> None:
    if operands.left.flags.c_contiguous:
        operands = laid_out(problem, operands)
    before = [None if array is None else array.tobytes() for array in (operands.left, operands.right, operands.b)]
    y = run(module, problem, operands, algo)
    again = run(module, problem, operands, algo)
    after = [None if array is None else array.tobytes() for array in (operands.left, operands.right, operands.b)]
    assert before == after, f"{where}: an input was modified"
    assert y.shape == y64.shape, f"{where}: shape {y.shape}, expected {y64.shape}"
    assert y.dtype == operands.left.dtype, f"{where}: dtype {y.dtype}, expected {operands.left.dtype}"
    # In 16 bits some read channels-last arrays as they are, and `auto` takes one of them where others would copy.
    may = algo == "auto" or y.dtype.itemsize == 2
    as_they_are = "im2col_tensor" in where or (may and not y.flags.c_contiguous)
    last = as_they_are and any(map(wants_channels_last, (operands.left, operands.right)))
    dense = y.transpose(0, 2, 3, 1) if last else y
    assert dense.flags.c_contiguous, f"{where}: the result is not contiguous as it should be, strides {y.strides}"
    assert not any(np.shares_memory(y, a) for a in (operands.left, operands.right, again)), f"{where}: memory shared"
    assert y.tobytes() == again.tobytes(), f"{where}: two runs differ in {int((y != again).sum())} elements"
    if y.size == 0:
        return
    expected = y64.astype(y.dtype).astype(np.float64) if bound == 0 else y64  # rounded once
    with np.errstate(invalid="ignore"):
        errors = np.where(y == expected, 0.0, np.abs(y.astype(np.float64) - expected))
    errors[np.isnan(errors)] = np.inf
    worst = np.unravel_index(int(np.argmax(errors)), errors.shape)
    wrong, exactly = int((errors > bound).sum()), " (must be exact)" if bound == 0 else ""
    assert errors[worst] <= bound, (
        f"{where}: at {tuple(map(int, worst))} got {y[worst]}, expected {expected[worst]}; {wrong} of {y.size} "
        f"elements are wrong: an error of {errors[worst]:.3g} exceeds the bound {bound:.3g}{exactly}"
    )


def channels_last(array: np.ndarray) -> np.ndarray:
    """The same values, neighbouring channels side by side."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
