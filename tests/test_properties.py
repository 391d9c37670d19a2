"""Any shape, stride, padding, dilation, number of groups, dtype and layout: the CPU engine against the reference.

Convolutions in the exact regime, every pass and algorithm.  A fast run draws the same examples every time; with
``--slow`` there are a hundred times as many, and others each time (see conftest.py).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from layouts import LAYOUTS

import pycnn
from pycnn import ops
from pycnn.backends import cpu
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.testing import error_bound, exact_operands, is_exact, oracle
from pycnn.testing.regimes import Operands

DTYPES = ("float32", "float64", "float16", "bfloat16")
layouts = st.sampled_from(list(LAYOUTS))


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        importlib.import_module("ml_dtypes")
    return np.dtype(name)


@st.composite
def axes(draw: st.DrawFn, most_taps: int = 5) -> tuple[int, int, int, tuple[int, int], int]:
    """Size, taps, stride, padding of both sides and dilation of one axis, with at least one output."""
    taps, stride, dilation = draw(st.integers(1, most_taps)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    before, after = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    least = max(1, dilation * (taps - 1) + 1 - before - after)
    return (
        draw(st.integers(least, least + draw(st.sampled_from([0, 3, 12, 40])))),
        taps,
        stride,
        (before, after),
        dilation,
    )


@st.composite
def convolutions(draw: st.DrawFn) -> Problem:
    """A convolution; now and then with one channel a group, or with the sizes that Winograd takes."""
    h, r, stride_h, pad_h, dilation_h = draw(axes())
    w, s, stride_w, pad_w, dilation_w = draw(axes())
    if draw(st.booleans()):
        r = s = draw(st.sampled_from([3, 3, 5]))
        stride_h = stride_w = 1
        h, w = (max(size, d * (r - 1) + 1) for size, d in ((h, dilation_h), (w, dilation_w)))
    groups = draw(st.sampled_from([1, 1, 2, 3, 7]))
    c, k = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    if groups > 1:
        c, k = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shape = Conv2dShape(
        draw(st.integers(0, 3)), c * groups, h, w, k * groups, r, s, (stride_h, stride_w), (*pad_h, *pad_w),
        (dilation_h, dilation_w), groups,
    )  # fmt: skip
    return Problem(shape, draw(st.sampled_from(PASSES)), draw(st.sampled_from(DTYPES)))


def _apply(problem: Problem, operands: Operands, algo: str) -> np.ndarray:
    """The problem's pass by the public operators."""
    s = problem.shape
    how: dict[str, Any] = {
        "stride": s.stride, "padding": s.padding, "dilation": s.dilation, "groups": s.groups, "algo": algo,
    }  # fmt: skip
    if problem.operator == "fprop":
        return ops.conv2d_fprop(operands.left, operands.right, operands.b, **how)
    if problem.operator == "dgrad":
        return ops.conv2d_dgrad(operands.left, operands.right, s.x_shape, **how)
    return ops.conv2d_wgrad(operands.left, operands.right, s.w_shape, **how)


@given(convolutions(), layouts, layouts, st.integers(0, 2**32 - 1))
def test_every_algorithm_of_every_convolution_is_exact(problem: Problem, left: str, right: str, seed: int) -> None:
    operands = exact_operands(problem, "winograd", seed)
    exact = oracle(problem, operands)
    laid = replace(operands, left=LAYOUTS[left](operands.left), right=LAYOUTS[right](operands.right))
    before = laid.left.tobytes(), laid.right.tobytes()
    computed = "float64" if problem.dtype == "float64" else "float32"
    able = [name for name, why in cpu.conv2d_algorithms(problem.operator, problem.shape, computed) if why is None]
    for algo in ("auto", "direct", "im2col", *able):
        with pycnn.use_accuracy("strict"):
            result = _apply(problem, laid, algo)
        assert (result.shape, result.dtype) == (exact.shape, _dtype(problem.dtype))
        if is_exact(algo) or algo == "auto":
            np.testing.assert_array_equal(result.astype(np.float64), exact.astype(result.dtype).astype(np.float64))
        elif exact.size:  # a larger tile; what it may be off is written beside its factor
            bound = error_bound(problem, operands, exact, algo)
            assert np.abs(result.astype(np.float64) - exact).max() <= bound
    assert (laid.left.tobytes(), laid.right.tobytes()) == before


@dataclass(frozen=True)
class _Transposed:
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    how: dict[str, Any]


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> _Transposed:
    lists: tuple[list[int], ...] = ([], [], [], [], [])
    sides: list[int] = []
    for _ in range(2):
        size, window, stride, dilation = (draw(st.integers(1, most)) for most in (9, 5, 4, 3))
        extra = draw(st.integers(0, max(stride, dilation) - 1))
        whole = (size - 1) * stride + dilation * (window - 1) + 1 + extra
        before = draw(st.integers(0, min(3, whole - 1)))
        sides += [before, draw(st.integers(0, min(3, whole - 1 - before)))]
        for into, value in zip(lists, (size, window, stride, dilation, extra), strict=True):
            into.append(value)
    sizes, taps, strides, dilations, extras = lists
    groups = draw(st.sampled_from([1, 1, 2, 5]))
    n, c, k = draw(st.integers(0, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    how = {
        "stride": tuple(strides), "padding": tuple(sides), "output_padding": tuple(extras), "groups": groups,
        "dilation": tuple(dilations),
    }  # fmt: skip
    return _Transposed((n, c * groups, *sizes), (c * groups, k, *taps), how)


def _by_reference(function: Callable[..., Any], *arrays: np.ndarray, **how: Any) -> Any:
    with pycnn.use_backend("reference"):
        return function(*(array.astype(np.float64) for array in arrays), **how)


def _integers(seed: int, dtype: str, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(_dtype(dtype))


@given(
    transposed_convolutions(), st.sampled_from(DTYPES), layouts, layouts, st.sampled_from(("auto", "direct", "im2col"))
)
def test_transposed_convolutions_are_exact(problem: _Transposed, dtype: str, left: str, right: str, algo: str) -> None:
    x, w = _integers(1, dtype, *problem.x_shape), _integers(2, dtype, *problem.w_shape)
    bias = _integers(3, dtype, problem.w_shape[1] * problem.how["groups"])
    y64 = _by_reference(ops.conv_transpose2d_fprop, x, w, bias, **problem.how)
    dy = _integers(4, dtype, *y64.shape)
    dx64 = _by_reference(ops.conv_transpose2d_dgrad, dy, w, x_shape=problem.x_shape, **problem.how)
    dw64 = _by_reference(ops.conv_transpose2d_wgrad, dy, x, w_shape=problem.w_shape, **problem.how)
    how = {**problem.how, "algo": algo, "accuracy": "strict"}
    one, other = LAYOUTS[left], LAYOUTS[right]
    for result, exact in (
        (ops.conv_transpose2d_fprop(one(x), other(w), bias, **how), y64),
        (ops.conv_transpose2d_dgrad(one(dy), other(w), problem.x_shape, **how), dx64),
        (ops.conv_transpose2d_wgrad(one(dy), other(x), problem.w_shape, **how), dw64),
    ):
        assert result.dtype == x.dtype
        np.testing.assert_array_equal(result.astype(np.float64), exact.astype(result.dtype).astype(np.float64))


@st.composite
def pools(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    lists: tuple[list[int], ...] = ([], [], [], [], [])
    for _ in range(2):
        window, stride, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 2))
        side = draw(st.integers(0, window // 2))
        least = max(1, dilation * (window - 1) + 1 - 2 * side)
        size = draw(st.integers(least, least + 20))
        for into, value in zip(lists, (size, window, stride, side, dilation), strict=True):
            into.append(value)
    sizes, windows, strides, sides, dilations = lists
    how = {
        "kernel_size": tuple(windows),
        "stride": tuple(strides),
        "padding": tuple(sides),
        "ceil_mode": draw(st.booleans()),
    }
    return (draw(st.integers(0, 3)), draw(st.integers(1, 9)), *sizes), how | {"dilation": tuple(dilations)}


@given(pools(), st.sampled_from(DTYPES), layouts, layouts)
def test_maxima_and_their_gradients_are_exact(
    problem: tuple[tuple[int, ...], dict[str, Any]], dtype: str, left: str, right: str
) -> None:
    x_shape, how = problem
    x = _integers(5, dtype, *x_shape)  # few values, so many ties
    y64, indices64 = _by_reference(ops.max_pool2d, x, **how)
    y, indices = ops.max_pool2d(LAYOUTS[left](x), **how)
    np.testing.assert_array_equal(y.astype(np.float64), y64)
    np.testing.assert_array_equal(indices, indices64)
    dy = _integers(6, dtype, *y.shape)
    dx64 = _by_reference(lambda dy: ops.max_pool2d_backward(dy, indices64, x_shape, **how), dy)
    dx = ops.max_pool2d_backward(LAYOUTS[right](dy), LAYOUTS[left](indices), x_shape, **how)
    np.testing.assert_array_equal(dx.astype(np.float64), dx64.astype(dx.dtype).astype(np.float64))


@given(pools(), st.sampled_from(("float32", "float64")), st.booleans(), layouts)
def test_means_and_their_gradients_are_right(
    problem: tuple[tuple[int, ...], dict[str, Any]], dtype: str, include: bool, layout: str
) -> None:
    x_shape, how = problem
    how = {key: value for key, value in how.items() if key != "dilation"} | {"count_include_pad": include}
    x = _integers(7, dtype, *x_shape)
    y64 = _by_reference(ops.avg_pool2d, x, **how)
    y = ops.avg_pool2d(LAYOUTS[layout](x), **how)
    # The sums are exact; a reciprocal and its product round twice each.
    np.testing.assert_allclose(y, y64, rtol=2 * float(np.finfo(dtype).eps), atol=0)
    dy = _integers(8, dtype, *y.shape)
    dx64 = _by_reference(ops.avg_pool2d_backward, dy, x_shape=x_shape, **how)
    dx = ops.avg_pool2d_backward(LAYOUTS[layout](dy), x_shape, **how)
    # At most 25 means of at most 3 are added.
    np.testing.assert_allclose(dx, dx64, rtol=0, atol=25 * 25 * 3 * float(np.finfo(dtype).eps))


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 9), st.integers(1, 40)),
    st.sampled_from(("float32", "float64")),
    layouts,
    layouts,
    st.integers(1, 9),
)
def test_normalisations_are_right(shape: tuple[int, ...], dtype: str, left: str, right: str, size: int) -> None:
    rng = np.random.default_rng(9)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    one, other = LAYOUTS[left], LAYOUTS[right]
    # Of some 1440 values a channel, of magnitude 1, sums round by some 50 eps, and the gradients cancel a digit more;
    # one value alone has no variance, and 1 / sqrt(eps) multiplies roundings by 300.
    few = 300 if shape[0] * shape[2] * shape[3] < 4 else 1
    limit = 2000 * few * float(np.finfo(dtype).eps)
    pairs = [
        (ops.lrn(one(x), size), _by_reference(ops.lrn, x, size=size)),
        (ops.lrn_backward(one(dy), other(x), size), _by_reference(ops.lrn_backward, dy, x, size=size)),
    ]
    found = ops.batch_norm(one(x), other(weight), bias)
    expected = _by_reference(ops.batch_norm, x, weight, bias)
    pairs += zip(found, expected, strict=True)
    mean, var = (statistic.astype(dtype) for statistic in expected[1:])
    found = ops.batch_norm_backward(one(dy), other(x), weight, mean, var)
    pairs += zip(found, _by_reference(ops.batch_norm_backward, dy, x, weight, mean, var), strict=True)
    for result, exact in pairs:
        assert result.dtype == x.dtype
        np.testing.assert_allclose(result, exact, rtol=limit, atol=limit)
