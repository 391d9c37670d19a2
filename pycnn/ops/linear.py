"""Raw matrix products on arrays."""

from __future__ import annotations

import math

from pycnn.algorithms import precision_of_call
from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import expect_rank, expect_shape, flag


def linear(x: Array, w: Array, b: Array | None = None, *, precision: str | None = None) -> Array:
    """A fully connected layer: y = x @ w.T + b.

    Args:
        x: (..., in), any number of leading dimensions; float16, bfloat16, float32 or float64.
        w: (out, in), of the same dtype.
        b: (out,), or None; of x's dtype, or float32 beside 16 bits.
        precision: the least exact arithmetic a float32 product may use, "float32", "3xtf32", "3xfp16" or "tf32" as
            in `pycnn.use_precision`; None asks that.

    Returns:
        (..., out).

    Raises:
        TypeError: not an array, an unsupported dtype, or arrays that do not go together.
        ValueError: a wrong rank, feature counts that disagree, or an unknown `precision`.

    >>> import numpy as np
    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]), np.array([0.0, 1.0]))
    array([[11., 18.]])
    """
    if precision is not None:
        with precision_of_call(precision):
            return linear(x, w, b)
    call = Call("b", per_channel=("b",), x=x, w=w, b=b)
    x, w, b = call.arrays
    expect_rank("w", w.shape, 2, "(out, in)")
    if x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ValueError(f"features disagree: x must be (..., {w.shape[1]}) for w {w.shape}, got shape {x.shape}")
    if b is not None:
        expect_shape("b", b.shape, (w.shape[0],), "one value an output, shape")
    lead = x.shape[:-1]
    y = call.backend.linear_fwd(x.reshape(math.prod(lead), x.shape[-1]), w, b)
    return call.back(y.reshape(*lead, w.shape[0]))


def gemm(a: Array, b: Array, trans_a: bool = False, trans_b: bool = False, *, precision: str | None = None) -> Array:
    """The matrix product a' @ b', where ' transposes the one that is asked to be.

    Args:
        a, b: two dimensions each, of one dtype.
        trans_a, trans_b: whether to transpose.
        precision: as in `linear`.

    Returns:
        (rows of a', columns of b').

    Raises:
        TypeError: not arrays, an unsupported dtype, or flags that are not bools.
        ValueError: a wrong rank, inner sizes that disagree, or an unknown `precision`.

    >>> import numpy as np
    >>> gemm(np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]]), trans_a=True)
    array([[11.]])
    """
    if precision is not None:
        with precision_of_call(precision):
            return gemm(a, b, trans_a, trans_b)
    call = Call(a=a, b=b)
    a, b = call.arrays
    expect_rank("a", a.shape, 2, "(rows, columns)")
    expect_rank("b", b.shape, 2, "(rows, columns)")
    trans_a, trans_b = flag("trans_a", trans_a), flag("trans_b", trans_b)
    if a.shape[0 if trans_a else 1] != b.shape[1 if trans_b else 0]:
        raise ValueError(
            f"inner sizes disagree: a {a.shape}{' transposed' * trans_a}, b {b.shape}{' transposed' * trans_b}"
        )
    return call.back(call.backend.gemm(a, b, trans_a, trans_b))
