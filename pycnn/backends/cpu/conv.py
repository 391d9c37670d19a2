"""Convolution, its gradients and the bias gradient on the CPU engine."""

from __future__ import annotations

import numpy as np
import numpy.typing

from pycnn import _cpu, algorithms
from pycnn.shape import Conv2dShape

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


def conv2d_fprop(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    algo: str = "auto",
) -> np.ndarray:
    """y = x convolved with w, plus b a filter."""
    shape = Conv2dShape.of(x.shape, w.shape, stride, padding, dilation, groups)
    name = algorithms.resolve(algo, "fprop", shape, x.dtype.name)
    bias = None if b is None else np.ascontiguousarray(b)
    return _cpu.conv2d_fprop(
        name,
        np.ascontiguousarray(x),
        np.ascontiguousarray(w),
        bias,
        shape.y_shape,
        stride,
        padding[::2],
        dilation,
        groups,
    )


def conv2d_dgrad(
    dy: np.ndarray,
    w: np.ndarray,
    x_shape: tuple[int, int, int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    algo: str = "auto",
) -> np.ndarray:
    """dx of `x_shape` from dy and w."""
    shape = Conv2dShape.of(x_shape, w.shape, stride, padding, dilation, groups)
    name = algorithms.resolve(algo, "dgrad", shape, dy.dtype.name)
    return _cpu.conv2d_dgrad(
        name, np.ascontiguousarray(dy), np.ascontiguousarray(w), x_shape, stride, padding[::2], dilation, groups
    )


def conv2d_wgrad(
    dy: np.ndarray,
    x: np.ndarray,
    w_shape: tuple[int, int, int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    algo: str = "auto",
) -> np.ndarray:
    """dw of `w_shape` from dy and x."""
    shape = Conv2dShape.of(x.shape, w_shape, stride, padding, dilation, groups)
    name = algorithms.resolve(algo, "wgrad", shape, dy.dtype.name)
    return _cpu.conv2d_wgrad(
        name, np.ascontiguousarray(dy), np.ascontiguousarray(x), w_shape, stride, padding[::2], dilation, groups
    )


def conv2d_algorithms(operator: str, shape: Conv2dShape, dtype: np.typing.DTypeLike) -> list[tuple[str, str | None]]:
    """Every implementation of `operator`, with the reason why it cannot run this problem, or None."""
    return algorithms.candidates(operator, shape, np.dtype(dtype).name)


def conv2d_choose(operator: str, shape: Conv2dShape, dtype: np.typing.DTypeLike) -> tuple[str, str]:
    """The implementation `auto` takes, and why."""
    return algorithms.choose(operator, shape, np.dtype(dtype).name)


def channel_sum(dy: np.ndarray) -> np.ndarray:
    """Sum over all axes but the second: the gradient of a bias, (C,)."""
    return _cpu.channel_sum(np.ascontiguousarray(dy))
