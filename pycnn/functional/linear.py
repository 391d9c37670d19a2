"""Matrix products, the fully connected layer, and the sum over all but the channels that is a bias's gradient."""

from __future__ import annotations

from typing import Any

from pycnn import ops
from pycnn.functional._arrays import expect_arrays
from pycnn.graph import Function
from pycnn.movement import Expand

__all__ = ["ChannelSum", "Gemm", "bias", "linear"]

Array = Any


class ChannelSum(Function):
    """s[c] = sum of x[n, c, ...] over n and everything behind c, in `dtype`."""

    @staticmethod
    def forward(ctx: Any, x: Array, dtype: Any) -> Array:
        ctx.shape, ctx.dtype = tuple(x.shape), x.dtype
        return ops.channel_sum(x, dtype)

    @staticmethod
    def backward(ctx: Any, ds: Any) -> Any:
        shape = ctx.shape
        return Expand.apply(ds.to(ctx.dtype).reshape(shape[1], *(1,) * (len(shape) - 2)), shape), None


class Bias(Function):
    """y[n, c, ...] = x[n, c, ...] + b[c]."""

    @staticmethod
    def forward(ctx: Any, x: Array, b: Array) -> Array:
        ctx.b_dtype = b.dtype
        return ops.channel_affine(x, None, b)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        dx, db = ctx.needs_input_grad
        return dy if dx else None, ChannelSum.apply(dy, ctx.b_dtype) if db else None


class Gemm(Function):
    """c = a' @ b' where ' transposes if asked."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array, trans_a: bool, trans_b: bool, precision: str | None) -> Array:
        da, db = ctx.needs_input_grad[:2]
        ctx.save(a if db else None, b if da else None)
        ctx.how = trans_a, trans_b, precision
        return ops.gemm(a, b, trans_a, trans_b, precision=precision)

    @staticmethod
    def backward(ctx: Any, dc: Any) -> Any:
        a, b = ctx.saved
        trans_a, trans_b, precision = ctx.how
        da = db = None
        if ctx.needs_input_grad[0]:
            da = Gemm.apply(*((b, dc, trans_b, True) if trans_a else (dc, b, False, not trans_b)), precision)
        if ctx.needs_input_grad[1]:
            db = Gemm.apply(*((dc, a, True, trans_a) if trans_b else (a, dc, not trans_a, False)), precision)
        return da, db, None, None, None


class Linear(Function):
    """y = x @ w.T + b for a matrix x."""

    @staticmethod
    def forward(ctx: Any, x: Array, w: Array, b: Array | None, precision: str | None) -> Array:
        dx, dw = ctx.needs_input_grad[:2]
        ctx.save(x if dw else None, w if dx else None)
        ctx.precision, ctx.b_dtype = precision, None if b is None else b.dtype
        return ops.linear(x, w, b, precision=precision)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, w = ctx.saved
        dx, dw, db = ctx.needs_input_grad[:3]
        return (
            Gemm.apply(dy, w, False, False, ctx.precision) if dx else None,
            Gemm.apply(dy, x, True, False, ctx.precision) if dw else None,
            ChannelSum.apply(dy, ctx.b_dtype) if db else None,
            None,
        )


def linear(x: Any, w: Any, b: Any = None, *, precision: str | None = None) -> Any:
    """Fully connected layer.

        y[..., k] = b[k] + sum over c of x[..., c] * w[k, c]

    Args:
        x: (..., C); a Tensor or an array.
        w: (K, C), of the same dtype.
        b: (K,), or None; of x's dtype, or float32 beside 16 bits.
        precision: the least exact arithmetic a float32 product may use, forward and backward, "float32", "3xtf32",
            "3xfp16" or "tf32" as in `pycnn.use_precision`; None asks that, in each product when it runs.

    Returns:
        (..., K).

    Raises:
        TypeError: not an array, an unsupported dtype, or mixed dtypes or libraries.
        ValueError: shapes that do not agree, or an unknown `precision`.

    >>> import numpy as np, pycnn
    >>> pycnn.linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([5.0]))
    array([[16.]])
    """
    expect_arrays(x=x, w=w)
    if len(x.shape) == 2:
        return Linear.apply(x, w, b, precision)
    if not x.shape:
        raise ValueError("x must have at least one dimension, (..., C)")
    rows = 1
    for size in x.shape[:-1]:
        rows *= size
    return Linear.apply(x.reshape(rows, x.shape[-1]), w, b, precision).reshape(*x.shape[:-1], w.shape[0])


def bias(x: Any, b: Any) -> Any:
    """Add one number a channel: y[n, c, ...] = x[n, c, ...] + b[c].

    Args:
        x: (N, C, ...); a Tensor or an array.
        b: (C,), of x's dtype, or float32 beside 16 bits.

    Raises:
        ValueError: a b of another shape.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.bias(np.zeros((1, 2)), np.array([1.0, 2.0]))
    array([[1., 2.]])
    """
    expect_arrays(x=x, b=b)
    if len(x.shape) < 2 or tuple(b.shape) != (x.shape[1],):
        raise ValueError(f"b must have one value a channel of x, got b {tuple(b.shape)} for x {tuple(x.shape)}")
    return Bias.apply(x, b)
