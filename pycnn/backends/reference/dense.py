"""Matrix products, activations and softmax."""

from __future__ import annotations

import numpy as np

from ._common import Array, rounded, wide


def gemm(a: Array, b: Array, trans_a: bool, trans_b: bool) -> Array:
    """a' @ b', where ' transposes if asked."""
    with np.errstate(all="ignore"):
        return rounded((wide(a).T if trans_a else wide(a)) @ (wide(b).T if trans_b else wide(b)), a.dtype)


def linear_fwd(x: Array, w: Array, b: Array | None) -> Array:
    """x (N, in) times w (out, in) transposed, plus b (out,)."""
    with np.errstate(all="ignore"):
        y = wide(x) @ wide(w).T
        return rounded(y if b is None else y + wide(b), x.dtype)


def relu_fwd(x: Array) -> Array:
    """max(x, 0); NaN stays."""
    return np.asarray(np.maximum(x, x.dtype.type(0)), order="C")


def relu_bwd(dy: Array, y: Array) -> Array:
    """dy where y is not <= 0 (a NaN lets the gradient through, as in PyTorch)."""
    return np.asarray(np.where(y <= 0, dy.dtype.type(0), dy), order="C")


def tanh_fwd(x: Array) -> Array:
    """tanh(x)."""
    return rounded(np.tanh(wide(x)), x.dtype)


def tanh_bwd(dy: Array, y: Array) -> Array:
    """dy * (1 - y^2)."""
    y64 = wide(y)
    with np.errstate(all="ignore"):
        return rounded(wide(dy) * (1 - y64 * y64), dy.dtype)


def sigmoid_fwd(x: Array) -> Array:
    """1 / (1 + exp(-x)), with the exponential of a negative number on both sides, so that it never overflows."""
    x64 = wide(x)
    with np.errstate(under="ignore"):
        small = np.exp(-np.abs(x64))
        return rounded(np.where(x64 < 0, small, 1.0) / (1 + small), x.dtype)


def sigmoid_bwd(dy: Array, y: Array) -> Array:
    """dy * y * (1 - y)."""
    y64 = wide(y)
    with np.errstate(all="ignore"):
        return rounded(wide(dy) * y64 * (1 - y64), dy.dtype)


def softmax_fwd(x: Array, axis: int) -> Array:
    """exp(x - max) over its sum along `axis`."""
    with np.errstate(all="ignore"):
        exponentials = np.exp(_below_max(x, axis))
        return rounded(exponentials / exponentials.sum(axis=axis, keepdims=True), x.dtype)


def softmax_bwd(dy: Array, y: Array, axis: int) -> Array:
    """y * (dy - sum of dy*y along `axis`)."""
    dy64, y64 = wide(dy), wide(y)
    with np.errstate(all="ignore"):
        return rounded(y64 * (dy64 - (dy64 * y64).sum(axis=axis, keepdims=True)), dy.dtype)


def log_softmax_fwd(x: Array, axis: int) -> Array:
    """x - max - log of the sum of exp(x - max) along `axis`."""
    below = _below_max(x, axis)
    with np.errstate(all="ignore"):
        return rounded(below - np.log(np.exp(below).sum(axis=axis, keepdims=True)), x.dtype)


def log_softmax_bwd(dy: Array, y: Array, axis: int) -> Array:
    """dy - exp(y) * sum of dy along `axis`."""
    dy64 = wide(dy)
    with np.errstate(all="ignore"):
        return rounded(dy64 - np.exp(wide(y)) * dy64.sum(axis=axis, keepdims=True), dy.dtype)


def _below_max(x: Array, axis: int) -> np.ndarray:
    x64 = wide(x)
    with np.errstate(invalid="ignore"):
        return x64 - x64.max(axis=axis, keepdims=True, initial=-np.inf)
