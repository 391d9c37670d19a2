"""The NumPy row of the benchmark: convolution and pooling as a careful NumPy user writes them.

float32 throughout, whole batches at once, the heavy work in BLAS: columns are copied out of a strided view and
multiplied by the filters (Chellapilla, Puri & Simard, "High performance convolutional neural networks for document
processing", 2006).  Pooling loops over the few taps of the window and works on whole planes.  This is what the speed-up
column divides by; correctness is judged elsewhere, against `backends.reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pycnn.bench.tasks import Call, Task
from pycnn.shape import Conv2dShape, Pool2dShape

__all__ = ["avg_pool_bwd", "avg_pool_fwd", "dgrad", "fprop", "max_pool_bwd", "max_pool_fwd", "numpy_call", "wgrad"]


def _padded(x: np.ndarray, padding: tuple[int, int, int, int], value: float = 0.0) -> np.ndarray:
    if not any(padding):
        return x
    top, bottom, left, right = padding
    n, c, h, w = x.shape
    out = np.full((n, c, h + top + bottom, w + left + right), value, x.dtype)
    out[:, :, top : top + h, left : left + w] = x
    return out


def _tap(size: int, start: int, stride: int) -> slice:
    """Where one tap of the window finds its `size` inputs."""
    return slice(start, start + stride * (size - 1) + 1, stride)


def _taps(shape: Conv2dShape | Pool2dShape, r: int, s: int) -> tuple[slice, slice]:
    return (
        _tap(shape.P, r * shape.dilation[0], shape.stride[0]),
        _tap(shape.Q, s * shape.dilation[1], shape.stride[1]),
    )


def _columns(x: np.ndarray, shape: Conv2dShape) -> np.ndarray:
    """x as (N, groups, C/groups * R * S, P * Q): a strided view for a 1x1 stride-1 filter, else a copy."""
    n, groups = shape.N, shape.groups
    rows = shape.C // groups * shape.R * shape.S
    if (shape.R, shape.S, shape.stride) == (1, 1, (1, 1)) and not any(shape.padding):
        return x.reshape(n, groups, rows, shape.P * shape.Q)
    x = _padded(x, shape.padding)
    batch, channel, height, width = x.strides
    view = np.lib.stride_tricks.as_strided(
        x,
        (n, shape.C, shape.R, shape.S, shape.P, shape.Q),
        (
            batch,
            channel,
            height * shape.dilation[0],
            width * shape.dilation[1],
            height * shape.stride[0],
            width * shape.stride[1],
        ),
        writeable=False,
    )
    return view.reshape(n, groups, rows, shape.P * shape.Q)


def fprop(x: np.ndarray, w: np.ndarray, shape: Conv2dShape) -> np.ndarray:
    """y = w @ columns(x), one matrix product an image and group."""
    filters = w.reshape(shape.groups, shape.K // shape.groups, -1)
    return np.matmul(filters, _columns(x, shape)).reshape(shape.y_shape)


def dgrad(dy: np.ndarray, w: np.ndarray, shape: Conv2dShape) -> np.ndarray:
    """dx = the columns w^T @ dy, added back tap by tap."""
    filters = w.reshape(shape.groups, shape.K // shape.groups, -1).transpose(0, 2, 1)
    gradients = dy.reshape(shape.N, shape.groups, shape.K // shape.groups, shape.P * shape.Q)
    columns = np.matmul(filters, gradients).reshape(shape.N, shape.C, shape.R, shape.S, shape.P, shape.Q)
    top, bottom, left, right = shape.padding
    if (shape.R, shape.S, shape.stride) == (1, 1, (1, 1)) and not any(shape.padding):
        return columns.reshape(shape.x_shape)
    dx = np.zeros((shape.N, shape.C, shape.H + top + bottom, shape.W + left + right), dy.dtype)
    for r in range(shape.R):
        for s in range(shape.S):
            dx[(..., *_taps(shape, r, s))] += columns[:, :, r, s]
    return np.ascontiguousarray(dx[:, :, top : top + shape.H, left : left + shape.W])


def wgrad(dy: np.ndarray, x: np.ndarray, shape: Conv2dShape) -> np.ndarray:
    """dw = dy @ columns(x)^T, summed over the images."""
    gradients = dy.reshape(shape.N, shape.groups, shape.K // shape.groups, shape.P * shape.Q)
    columns = _columns(x, shape).transpose(0, 1, 3, 2)
    dw = np.matmul(gradients, columns)
    return (dw[0] if shape.N == 1 else dw.sum(axis=0)).reshape(shape.w_shape)


def _room(shape: Pool2dShape) -> tuple[int, int, int, int]:
    """Padding, with what `ceil_mode` reaches beyond the bottom and the right."""
    top, _, left, _ = shape.padding
    reach_h = (shape.P - 1) * shape.stride[0] + shape.dilation[0] * (shape.kernel[0] - 1) + 1
    reach_w = (shape.Q - 1) * shape.stride[1] + shape.dilation[1] * (shape.kernel[1] - 1) + 1
    return top, max(reach_h - shape.H - top, 0), left, max(reach_w - shape.W - left, 0)


def _windows(shape: Pool2dShape) -> list[tuple[slice, slice]]:
    return [_taps(shape, r, s) for r in range(shape.kernel[0]) for s in range(shape.kernel[1])]


def max_pool_fwd(x: np.ndarray, shape: Pool2dShape) -> np.ndarray:
    """The maximum of the window, tap by tap over whole planes."""
    x = _padded(x, _room(shape), -np.inf)
    first, *others = _windows(shape)
    y = x[(..., *first)].copy()
    for tap in others:
        np.maximum(y, x[(..., *tap)], out=y)
    return y


def max_pool_bwd(dy: np.ndarray, x: np.ndarray, y: np.ndarray, shape: Pool2dShape) -> np.ndarray:
    """dx: each dy goes to the first element of its window that equals the maximum."""
    room = _room(shape)
    x = _padded(x, room, -np.inf)
    dx = np.zeros_like(x)
    waiting = np.ones(y.shape, bool)
    for tap in _windows(shape):
        found = waiting & (x[(..., *tap)] == y)
        dx[(..., *tap)] += np.where(found, dy, 0)
        waiting &= ~found
    return np.ascontiguousarray(dx[:, :, room[0] : room[0] + shape.H, room[2] : room[2] + shape.W])


def _share(shape: Pool2dShape, count_pad: bool, dtype: np.dtype) -> np.ndarray:
    """One over how many elements each window counts, (P, Q): the overhang of `ceil_mode` never, padding if asked."""
    counts = []
    for axis, size in enumerate((shape.H, shape.W)):
        before, after = shape.padding[2 * axis : 2 * axis + 2]
        begin = np.arange((shape.P, shape.Q)[axis]) * shape.stride[axis] - before
        end = np.minimum(begin + shape.kernel[axis], size + after)
        counts.append(end - begin if count_pad else np.minimum(end, size) - np.maximum(begin, 0))
    return (1 / np.outer(*counts)).astype(dtype)


def avg_pool_fwd(x: np.ndarray, shape: Pool2dShape, count_pad: bool = True) -> np.ndarray:
    """The mean of the window."""
    x = _padded(x, _room(shape))
    first, *others = _windows(shape)
    y = x[(..., *first)].copy()
    for tap in others:
        y += x[(..., *tap)]
    y *= _share(shape, count_pad, x.dtype)
    return y


def avg_pool_bwd(dy: np.ndarray, shape: Pool2dShape, count_pad: bool = True) -> np.ndarray:
    """dx: each dy spread evenly over its window."""
    room = _room(shape)
    dx = np.zeros((shape.N, shape.C, shape.H + room[0] + room[1], shape.W + room[2] + room[3]), dy.dtype)
    share = dy * _share(shape, count_pad, dy.dtype)
    for tap in _windows(shape):
        dx[(..., *tap)] += share
    return np.ascontiguousarray(dx[:, :, room[0] : room[0] + shape.H, room[2] : room[2] + shape.W])


_ROWS: dict[tuple[str, str], Callable[..., Any]] = {
    ("conv2d", "fprop"): fprop,
    ("conv2d", "dgrad"): dgrad,
    ("conv2d", "wgrad"): wgrad,
    ("max_pool2d", "forward"): max_pool_fwd,
    ("max_pool2d", "backward"): max_pool_bwd,
    ("avg_pool2d", "forward"): avg_pool_fwd,
    ("avg_pool2d", "backward"): avg_pool_bwd,
}


def numpy_call(task: Task) -> Call:
    """`task` as a function without arguments."""
    row = partial(_ROWS[task.op, task.operator], *task.arrays, task.shape)
    return partial(row, task.count_pad) if task.op == "avg_pool2d" else row
