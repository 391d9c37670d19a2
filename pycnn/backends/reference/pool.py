"""Pooling: a loop over the window's taps, or over the adaptive windows, in scan order.

Indices are int64, flat h*W + w within each (n, c) plane, as in PyTorch; -1 where a dilated window lies between the
pixels and holds none of them (its maximum is -inf).  As in PyTorch a NaN wins, the last one of a window.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ._common import Array, Padding, Pair, Window, rounded, wide

Shape4 = tuple[int, int, int, int]
Indices = NDArray[np.int64]


def max_pool2d_fwd(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    ceil_mode: bool,
    return_indices: bool = True,
) -> tuple[Array, Indices | None]:
    """The largest value of each window and where it is (None unless asked for).

    Padding is -inf; of equals the first in scan order wins.
    """
    n, c, h, w = x.shape
    out = _out_size((h, w), kernel, stride, padding, dilation, ceil_mode)
    y = np.full((n, c, *out), -np.inf, x.dtype)
    indices = np.full((n, c, *out), -1, np.int64)
    positions = np.arange(h * w).reshape(h, w)
    for window, pixels in _taps((h, w), out, kernel, stride, padding, dilation):
        value, best, index = x[pixels], y[window], indices[window]
        with np.errstate(invalid="ignore"):
            wins = (index < 0) | (value > best) | np.isnan(value)
        y[window] = np.where(wins, value, best)
        indices[window] = np.where(wins, positions[pixels], index)
    return y, indices if return_indices else None


def max_pool2d_bwd(
    dy: Array, indices: Indices, x_shape: Shape4, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Array:
    """dx: each window's gradient, added in a fixed order to the pixel that was its maximum."""
    return _scatter(dy, indices, x_shape)


def plane_take(x: Array, indices: Indices) -> Array:
    """y[n, c, p, q] = x[n, c] at the flat index indices[n, c, p, q], or 0 where that is -1."""
    n, c, h, w = x.shape
    _expect_inside(indices, h * w)
    if h * w == 0:
        return np.zeros(indices.shape, x.dtype)
    flat = indices.reshape(n, c, indices.shape[2] * indices.shape[3])
    taken = np.take_along_axis(x.reshape(n, c, h * w), np.maximum(flat, 0), axis=2)
    return np.where(flat < 0, x.dtype.type(0), taken).reshape(indices.shape)


def avg_pool2d_fwd(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Array:
    """The sum of each window over its divisor: its size inside the padded image, or without the padding."""
    size = x.shape[2:]
    out = _out_size(size, kernel, stride, padding, (1, 1), ceil_mode)
    image = wide(x)
    y = np.zeros((*x.shape[:2], *out))
    with np.errstate(all="ignore"):
        for window, pixels in _taps(size, out, kernel, stride, padding, (1, 1)):
            y[window] += image[pixels]
        y /= _divisors(size, out, kernel, stride, padding, count_include_pad, divisor_override)
    return rounded(y, x.dtype)


def avg_pool2d_bwd(
    dy: Array,
    x_shape: Shape4,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Array:
    """dx: each window's gradient over its divisor, added to all its pixels."""
    size, out = x_shape[2:], dy.shape[2:]
    dx = np.zeros(x_shape)
    with np.errstate(all="ignore"):
        share = wide(dy) / _divisors(size, out, kernel, stride, padding, count_include_pad, divisor_override)
        for window, pixels in _taps(size, out, kernel, stride, padding, (1, 1)):
            dx[pixels] += share[window]
    return rounded(dx, dy.dtype)


def adaptive_avg_pool2d_fwd(x: Array, out_size: Pair) -> Array:
    """The mean of each window; window i of n covers pixels floor(i*size/n) up to ceil((i + 1)*size/n)."""
    image = wide(x)
    y = np.empty((*x.shape[:2], *out_size))
    with np.errstate(all="ignore"):
        for p, rows in enumerate(_adaptive_windows(x.shape[2], out_size[0])):
            for q, columns in enumerate(_adaptive_windows(x.shape[3], out_size[1])):
                y[:, :, p, q] = image[:, :, rows, columns].mean(axis=(2, 3))
    return rounded(y, x.dtype)


def adaptive_avg_pool2d_bwd(dy: Array, x_shape: Shape4) -> Array:
    """dx: each window's gradient over its size, added to all its pixels."""
    gradient = wide(dy)
    dx = np.zeros(x_shape)
    with np.errstate(all="ignore"):
        for p, rows in enumerate(_adaptive_windows(x_shape[2], dy.shape[2])):
            for q, columns in enumerate(_adaptive_windows(x_shape[3], dy.shape[3])):
                pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
                dx[:, :, rows, columns] += gradient[:, :, p : p + 1, q : q + 1] / pixels
    return rounded(dx, dy.dtype)


def adaptive_max_pool2d_fwd(x: Array, out_size: Pair, return_indices: bool = True) -> tuple[Array, Indices | None]:
    """The largest value of each adaptive window and where it is, chosen and returned as by `max_pool2d_fwd`."""
    n, c, h, w = x.shape
    indices = np.empty((n, c, *out_size), np.int64)
    positions = np.arange(h * w).reshape(h, w)
    for p, rows in enumerate(_adaptive_windows(h, out_size[0])):
        for q, columns in enumerate(_adaptive_windows(w, out_size[1])):
            pixels = positions[rows, columns].ravel()
            values = x[:, :, rows, columns].reshape(n, c, pixels.size)
            nan = np.isnan(values)
            last_nan = pixels.size - 1 - np.argmax(nan[:, :, ::-1], axis=2)
            indices[:, :, p, q] = pixels[np.where(nan.any(axis=2), last_nan, np.argmax(values, axis=2))]
    return plane_take(x, indices), indices if return_indices else None


def adaptive_max_pool2d_bwd(dy: Array, indices: Indices, x_shape: Shape4) -> Array:
    """dx: each window's gradient, added in a fixed order to the pixel that was its maximum."""
    return _scatter(dy, indices, x_shape)


def _scatter(dy: Array, indices: Indices, x_shape: Shape4) -> Array:
    n, c, h, w = x_shape
    _expect_inside(indices, h * w)
    plane = np.arange(n * c).reshape(n, c, 1, 1)
    found = indices >= 0
    target = (plane * (h * w) + indices)[found]
    with np.errstate(all="ignore"):
        dx = np.bincount(target, weights=wide(dy)[found], minlength=n * c * h * w)
    return rounded(dx.astype(np.float64, copy=False).reshape(x_shape), dy.dtype)


def _expect_inside(indices: Indices, pixels: int) -> None:
    """IndexError, as every backend raises it, unless all are positions in a plane of so many pixels, or -1."""
    if indices.size and not (indices.min() >= -1 and indices.max() < pixels):
        raise IndexError("indices must be flat positions inside their plane, or -1")


def _out_size(
    size: tuple[int, ...], kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, ceil_mode: bool
) -> Pair:
    out = []
    for axis in range(2):
        before, after = padding[2 * axis : 2 * axis + 2]
        free = size[axis] + before + after - dilation[axis] * (kernel[axis] - 1) - 1
        steps = -(-free // stride[axis]) if ceil_mode else free // stride[axis]
        if ceil_mode and steps * stride[axis] >= size[axis] + before:  # it would start beyond the image
            steps -= 1
        out.append(steps + 1)
    return out[0], out[1]


def _reach(size: int, out: int, offset: int, stride: int) -> tuple[slice, slice] | None:
    """Which of `out` windows, `stride` apart, find a pixel at `offset` from their corner, and which pixels."""
    first = max(0, -(offset // stride))
    stop = min(out, (size - 1 - offset) // stride + 1)
    if first >= stop:
        return None
    start = first * stride + offset
    return slice(first, stop), slice(start, start + (stop - first - 1) * stride + 1, stride)


def _taps(
    size: tuple[int, ...], out: tuple[int, ...], kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Iterator[tuple[Window, Window]]:
    """For each tap, in scan order: the index of the windows that have a pixel there, and of those pixels."""
    for r in range(kernel[0]):
        rows = _reach(size[0], out[0], r * dilation[0] - padding[0], stride[0])
        for s in range(kernel[1]):
            columns = _reach(size[1], out[1], s * dilation[1] - padding[2], stride[1])
            if rows is not None and columns is not None:
                yield (..., rows[0], columns[0]), (..., rows[1], columns[1])


def _divisors(
    size: tuple[int, ...],
    out: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    count_include_pad: bool,
    divisor_override: int | None,
) -> np.ndarray:
    """(P, Q) divisors; a window that hangs over the padded image's edge counts only what is inside it."""
    if divisor_override is not None:
        return np.full(out, float(divisor_override))
    counts = []
    for axis in range(2):
        before, after = padding[2 * axis : 2 * axis + 2]
        start = np.arange(out[axis]) * stride[axis] - before
        stop = np.minimum(start + kernel[axis], size[axis] + after)
        if not count_include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, size[axis])
        counts.append((stop - start).astype(np.float64))
    return np.multiply.outer(counts[0], counts[1])


def _adaptive_windows(size: int, out: int) -> list[slice]:
    return [slice(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
