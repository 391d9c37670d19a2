"""Convolution as the textbook writes it: seven loops over Python numbers, to check the oracle on tiny shapes.

Nothing is shared with `pycnn.backends.reference`: no padding buffer, no slices, no matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from pycnn.shape import Padding, Pair

__all__ = ["conv2d_dgrad_loops", "conv2d_fprop_loops", "conv2d_wgrad_loops"]


def conv2d_fprop_loops(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> np.ndarray:
    """y of a convolution, one multiply-add at a time in float64; arguments as the backends take them.

    >>> x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3))
    >>> conv2d_fprop_loops(x, w, None, (1, 1), (0, 0, 0, 0), (1, 1), 1)
    array([[[[9.]]]])
    """
    y_shape = _y_shape(x.shape, w.shape, stride, padding, dilation)
    y = np.zeros(y_shape)
    if b is not None:
        y += np.asarray(b, np.float64).reshape(1, -1, 1, 1)
    for out, weight, pixel in _terms(x.shape, w.shape, y_shape, stride, padding, dilation, groups):
        y[out] += float(x[pixel]) * float(w[weight])
    return y


def conv2d_dgrad_loops(
    dy: np.ndarray,
    w: np.ndarray,
    x_shape: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """dx of a convolution, one multiply-add at a time in float64.

    >>> conv2d_dgrad_loops(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 2)), (1, 1, 1, 2), (1, 1), (0, 0, 0, 0), (1, 1), 1)
    array([[[[1., 1.]]]])
    """
    dx = np.zeros(x_shape)
    for out, weight, pixel in _terms(x_shape, w.shape, dy.shape, stride, padding, dilation, groups):
        dx[pixel] += float(dy[out]) * float(w[weight])
    return dx


def conv2d_wgrad_loops(
    dy: np.ndarray,
    x: np.ndarray,
    w_shape: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """dw of a convolution, one multiply-add at a time in float64.

    >>> conv2d_wgrad_loops(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 2)), (1, 1, 1, 2), (1, 1), (0, 0, 0, 0), (1, 1), 1)
    array([[[[1., 1.]]]])
    """
    dw = np.zeros(w_shape)
    for out, weight, pixel in _terms(x.shape, w_shape, dy.shape, stride, padding, dilation, groups):
        dw[weight] += float(dy[out]) * float(x[pixel])
    return dw


def _y_shape(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: Pair, padding: Padding, dilation: Pair
) -> tuple[int, ...]:
    """Counts the places where the filter fits, instead of using the formula that is under test."""
    n, _, h, width = x_shape
    k, _, r, s = w_shape
    top, bottom, left, right = padding
    rows = [i for i in range(-top, h + bottom, stride[0]) if i + dilation[0] * (r - 1) < h + bottom]
    columns = [j for j in range(-left, width + right, stride[1]) if j + dilation[1] * (s - 1) < width + right]
    return n, k, len(rows), len(columns)


def _terms(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Every product of the convolution, as the indices of y, w and x that meet in it."""
    k_per_group, c_per_group = w_shape[0] // groups, w_shape[1]
    for n, k, p, q in product(*map(range, y_shape)):
        for c, r, s in product(*map(range, w_shape[1:])):
            h = p * stride[0] - padding[0] + r * dilation[0]
            w = q * stride[1] - padding[2] + s * dilation[1]
            if 0 <= h < x_shape[2] and 0 <= w < x_shape[3]:
                yield (n, k, p, q), (k, c, r, s), (n, k // k_per_group * c_per_group + c, h, w)
