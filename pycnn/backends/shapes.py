"""No arithmetic: every forward operator gives zeros of the right shape, which take no memory.

For finding out what a network's layers look like, in no time and without the memory its activations would take.  The
results are read-only views of a single zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.resampling import Taps
from pycnn.shape import Conv2dShape, Padding, Pair, Pool2dShape

__all__ = [
    "activation_fwd",
    "adaptive_avg_pool2d_fwd",
    "adaptive_max_pool2d_fwd",
    "add",
    "avg_pool2d_fwd",
    "batch_norm_eval",
    "channel_affine",
    "concat",
    "conv2d_dgrad",
    "conv2d_fprop",
    "dropout",
    "fold2d",
    "gemm",
    "group_norm_fwd",
    "linear_fwd",
    "log_softmax_fwd",
    "lrn_fwd",
    "max_pool2d_fwd",
    "pad2d",
    "relu_fwd",
    "resample",
    "roi_max",
    "sample_fwd",
    "sigmoid_fwd",
    "softmax_fwd",
    "tanh_fwd",
    "unfold2d",
]

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


def _zeros(shape: Sequence[int], dtype: Any) -> Array:
    return np.broadcast_to(np.zeros((), dtype), tuple(shape))


def _like(x: Array, *settings: object) -> Array:
    """An operator whose result has its first argument's shape."""
    return _zeros(x.shape, x.dtype)


activation_fwd = add = batch_norm_eval = channel_affine = dropout = lrn_fwd = relu_fwd = sigmoid_fwd = tanh_fwd = _like
log_softmax_fwd = softmax_fwd = _like


def conv2d_fprop(
    x: Array,
    w: Array,
    b: Array | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    algo: str = "auto",
    scale: Array | None = None,
    residual: Array | None = None,
    relu: bool = False,
) -> Array:
    """Zeros of (N, K, P, Q)."""
    return _zeros(Conv2dShape.of(x.shape, w.shape, stride, padding, dilation, groups).y_shape, x.dtype)


def conv2d_dgrad(
    dy: Array,
    w: Array,
    x_shape: Shape,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    algo: str = "auto",
) -> Array:
    """Zeros of `x_shape`: the forward pass of a transposed convolution."""
    return _zeros(x_shape, dy.dtype)


def max_pool2d_fwd(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    ceil_mode: bool,
    return_indices: bool = True,
) -> tuple[Array, Array | None]:
    """Zeros of (N, C, P, Q), twice if indices are asked for."""
    shape = Pool2dShape.of(x.shape, kernel, stride, padding, dilation, ceil_mode).y_shape
    return _zeros(shape, x.dtype), _zeros(shape, np.int64) if return_indices else None


def avg_pool2d_fwd(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Array:
    """Zeros of (N, C, P, Q)."""
    return _zeros(Pool2dShape.of(x.shape, kernel, stride, padding, (1, 1), ceil_mode).y_shape, x.dtype)


def adaptive_avg_pool2d_fwd(x: Array, out_size: Pair) -> Array:
    """Zeros of (N, C, *out_size)."""
    return _zeros((*x.shape[:2], *out_size), x.dtype)


def adaptive_max_pool2d_fwd(x: Array, out_size: Pair, return_indices: bool = True) -> tuple[Array, Array | None]:
    """Zeros of (N, C, *out_size), twice if indices are asked for."""
    shape = (*x.shape[:2], *out_size)
    return _zeros(shape, x.dtype), _zeros(shape, np.int64) if return_indices else None


def gemm(a: Array, b: Array, trans_a: bool, trans_b: bool) -> Array:
    """Zeros of (gemm_m, gemm_n)."""
    return _zeros((a.shape[trans_a], b.shape[not trans_b]), a.dtype)


def linear_fwd(x: Array, w: Array, b: Array | None) -> Array:
    """Zeros of (rows, out)."""
    return _zeros((x.shape[0], w.shape[0]), x.dtype)


def group_norm_fwd(
    x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float, centred: bool = True
) -> tuple[Array, Array, Array]:
    """Zeros of x's shape, and of (N, groups) twice."""
    statistics = _zeros((x.shape[0], groups), x.dtype)
    return _like(x), statistics, statistics


def pad2d(x: Array, padding: Padding, value: float) -> Array:
    """Zeros of the padded size."""
    top, bottom, left, right = padding
    return _zeros((*x.shape[:2], x.shape[2] + top + bottom, x.shape[3] + left + right), x.dtype)


def concat(arrays: Sequence[Array], axis: int) -> Array:
    """Zeros of the joined size."""
    shape = list(arrays[0].shape)
    shape[axis] = sum(array.shape[axis] for array in arrays)
    return _zeros(shape, arrays[0].dtype)


def unfold2d(x: Array, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, out: Pair, rows_first: bool) -> Array:
    """Zeros of (N, C*R*S, *out), or with rows first."""
    n, taps = x.shape[0], x.shape[1] * kernel[0] * kernel[1]
    return _zeros((n, out[0], taps, out[1]) if rows_first else (n, taps, *out), x.dtype)


def fold2d(y: Array, size: Pair, kernel: Pair, stride: Pair, before: Pair, dilation: Pair) -> Array:
    """Zeros of (N, C, *size)."""
    return _zeros((y.shape[0], y.shape[1] // (kernel[0] * kernel[1]), *size), y.dtype)


def resample(x: Array, rows: Taps | None, columns: Taps | None) -> Array:
    """Zeros of the new size."""
    *outer, h, w = x.shape
    return _zeros((*outer, h if rows is None else rows.out, w if columns is None else columns.out), x.dtype)


def sample_fwd(x: Array, image: Array, index: Array, weight: Array) -> Array:
    """Zeros of (R, C, P)."""
    return _zeros((index.shape[0], x.shape[1], index.shape[2]), x.dtype)


def roi_max(x: Array, image: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    """Zeros of (R, C, P, Q), twice."""
    shape = (image.shape[0], x.shape[1], rows.shape[1], columns.shape[1])
    return _zeros(shape, x.dtype), _zeros(shape, np.int64)
