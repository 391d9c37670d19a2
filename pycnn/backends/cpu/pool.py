"""Pooling of the CPU engine."""

from __future__ import annotations

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense
from pycnn.shape import Padding, Pair, Pool2dShape

Shape4 = tuple[int, int, int, int]


def max_pool2d_fwd(
    x: np.ndarray,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    ceil_mode: bool,
    return_indices: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The largest value of each window and, if asked, where it is, as a flat index into the plane."""
    out = _out_size(x.shape, kernel, stride, padding, dilation, ceil_mode)
    return _cpu.max_pool2d_fwd(dense(x), kernel, stride, padding, dilation, out, return_indices)


def max_pool2d_bwd(
    dy: np.ndarray,
    indices: np.ndarray,
    x_shape: Shape4,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
) -> np.ndarray:
    """dx: each window's gradient, added in scan order to the pixel that was its maximum."""
    return _cpu.plane_add(dense(dy), dense(indices), x_shape)


def plane_take(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """y[n, c, p, q] = x[n, c] at the flat index indices[n, c, p, q], or 0 where that is -1."""
    return _cpu.plane_take(dense(x), dense(indices))


def avg_pool2d_fwd(
    x: np.ndarray,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> np.ndarray:
    """The sum of each window over its divisor."""
    out = _out_size(x.shape, kernel, stride, padding, (1, 1), ceil_mode)
    return _cpu.avg_pool2d_fwd(dense(x), kernel, stride, padding, out, count_include_pad, divisor_override)


def avg_pool2d_bwd(
    dy: np.ndarray,
    x_shape: Shape4,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> np.ndarray:
    """dx: each window's gradient over its divisor, added to all its pixels."""
    return _cpu.avg_pool2d_bwd(dense(dy), x_shape, kernel, stride, padding, count_include_pad, divisor_override)


def adaptive_avg_pool2d_fwd(x: np.ndarray, out_size: Pair) -> np.ndarray:
    """The mean of each window; window i of n covers pixels floor(i*size/n) up to ceil((i + 1)*size/n)."""
    return _cpu.adaptive_avg_pool2d_fwd(dense(x), out_size)


def adaptive_avg_pool2d_bwd(dy: np.ndarray, x_shape: Shape4) -> np.ndarray:
    """dx: each window's gradient over its size, added to all its pixels."""
    return _cpu.adaptive_avg_pool2d_bwd(dense(dy), x_shape)


def adaptive_max_pool2d_fwd(
    x: np.ndarray, out_size: Pair, return_indices: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """The largest value of each adaptive window and, if asked, where it is."""
    return _cpu.adaptive_max_pool2d_fwd(dense(x), out_size, return_indices)


def adaptive_max_pool2d_bwd(dy: np.ndarray, indices: np.ndarray, x_shape: Shape4) -> np.ndarray:
    """dx: each window's gradient, added in scan order to the pixel that was its maximum."""
    return _cpu.plane_add(dense(dy), dense(indices), x_shape)


def _out_size(
    x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, ceil_mode: bool
) -> Pair:
    shape = Pool2dShape.of(x_shape, kernel, stride, padding, dilation, ceil_mode)
    return shape.P, shape.Q
