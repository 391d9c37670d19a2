"""Raw 2-D convolution operators on arrays: validate, build the shape, call the backend.  No autograd here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.algorithms import of_call
from pycnn.custom.dispatch import answering
from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import check_algo, expect_shape, flag, shape_of
from pycnn.shape import Conv2dShape, normalize_padding, pair, whole

IntPair = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


def conv2d_fprop(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    algo: str = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
    scale: Array | None = None,
    residual: Array | None = None,
    relu: bool = False,
) -> Array:
    """Convolve `x` with the filters `w` (cross-correlation, as every framework calls it).

        sum[n, k, p, q] = sum over c, r, s of
            x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w] * w[k, c, r, s]
        y = relu(scale[k] * sum + b[k] + residual), each step where it is given

    Batch norm in inference is one scale and one bias a channel: scale = weight / sqrt(var + eps) and
    b = bias - mean * scale, where a bias of the convolution itself is taken off `mean` first.

    Args:
        x: input, (N, C, H, W); float16, bfloat16, float32 or float64.
        w: filters, (K, C // groups, R, S), of the same dtype.
        b: bias, (K,), or None; of x's dtype, or float32 beside 16 bits.
        stride, dilation: an int or a pair (height, width), at least 1.
        padding: an int, (h, w), ((top, bottom), (left, right)), (top, bottom, left, right), "same" or "valid".
        groups: number of independent groups of channels.
        algo: "auto", "direct", "im2col" or "winograd", or the name of a variant (`winograd_f4x4_3x3`, ...) or of a
            kernel of your own (see `pycnn.register_conv2d`).
        accuracy: what "auto" may trade, "fast" or "strict" as in `pycnn.use_accuracy`; None asks that.
        precision: the least exact arithmetic a float32 product may use, "float32", "3xtf32", "3xfp16" or "tf32" as
            in `pycnn.use_precision`; None asks that.
        scale: (K,), or None for 1; dtype as b.
        residual: (N, K, P, Q), or None for 0.
        relu: whether what is negative in the end becomes 0.

    Returns:
        (N, K, P, Q) with P = (H + top + bottom - dilation_h*(R - 1) - 1) // stride_h + 1, of the caller's array kind.

    Raises:
        TypeError: not an array, an unsupported dtype, or mixed dtypes, libraries or devices; a `relu` that is no bool.
        ValueError: a wrong rank, shapes that disagree, an output smaller than 1, or an `algo` that is unknown or
            cannot run this problem (the message says which condition failed), or an unknown `accuracy` or
            `precision`.

    Reference: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, section 2.

    >>> import numpy as np
    >>> conv2d_fprop(np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 3, 3), np.float32), padding=1)[0, 0]
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """
    check_algo(algo)
    relu = flag("relu", relu)
    if accuracy is not None or precision is not None:
        with of_call(accuracy, precision):
            how = (stride, padding, dilation, groups)
            return conv2d_fprop(x, w, b, *how, algo=algo, scale=scale, residual=residual, relu=relu)
    per_channel = ("b", "scale")
    call = Call("b", "scale", "residual", per_channel=per_channel, x=x, w=w, b=b, scale=scale, residual=residual)
    x, w, b, scale, residual = call.arrays
    shape = _shape(x.shape, w.shape, stride, padding, dilation, groups)
    if b is not None:
        expect_shape("b", b.shape, (shape.K,), "one value a filter, shape")
    if scale is not None:
        expect_shape("scale", scale.shape, (shape.K,), "one value a filter, shape")
    if residual is not None:
        expect_shape("residual", residual.shape, shape.y_shape)
    y = answering(call.backend, algo).conv2d_fprop(
        x,
        w,
        b,
        shape.stride,
        shape.padding,
        shape.dilation,
        shape.groups,
        algo=algo,
        scale=scale,
        residual=residual,
        relu=relu,
    )
    return call.back(y)


def conv2d_dgrad(
    dy: Array,
    w: Array,
    x_shape: Sequence[int],
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    algo: str = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Array:
    """Gradient of a convolution with respect to its input.

        dx[n, c, h, w] = sum over k, r, s with h = p*stride_h - pad_top + r*dilation_h (w likewise) of
            dy[n, k, p, q] * w[k, c, r, s]

    Args:
        dy: gradient of the output, (N, K, P, Q).
        w: filters, (K, C // groups, R, S).
        x_shape: (N, C, H, W) of the input; several input sizes give the same output size, so it has to be said.
        stride, padding, dilation, groups, algo, accuracy, precision: as in `conv2d_fprop`.

    Returns:
        dx of shape `x_shape`.

    Raises:
        TypeError, ValueError: as `conv2d_fprop`; also a `dy` whose shape is not the convolution's output.

    >>> import numpy as np
    >>> conv2d_dgrad(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), (1, 1, 3, 3))[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    check_algo(algo)
    if accuracy is not None or precision is not None:
        with of_call(accuracy, precision):
            return conv2d_dgrad(dy, w, x_shape, stride, padding, dilation, groups, algo=algo)
    call = Call(dy=dy, w=w)
    dy, w = call.arrays
    shape = _shape(shape_of("x_shape", x_shape), w.shape, stride, padding, dilation, groups)
    expect_shape("dy", dy.shape, shape.y_shape)
    return call.back(
        answering(call.backend, algo).conv2d_dgrad(
            dy, w, shape.x_shape, shape.stride, shape.padding, shape.dilation, shape.groups, algo=algo
        )
    )


def conv2d_wgrad(
    dy: Array,
    x: Array,
    w_shape: Sequence[int],
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    algo: str = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
    bias: bool = False,
    bias_dtype: Any = None,
) -> Array | tuple[Array, Array]:
    """Gradient of a convolution with respect to its filters, and to its bias if asked for.

        dw[k, c, r, s] = sum over n, p, q of
            dy[n, k, p, q] * x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w]
        db[k] = sum over n, p, q of dy[n, k, p, q]

    Args:
        dy: gradient of the output, (N, K, P, Q).
        x: the input, (N, C, H, W).
        w_shape: (K, C // groups, R, S) of the filters.
        stride, padding, dilation, groups, algo, accuracy, precision: as in `conv2d_fprop`.
        bias: whether db is wanted too.
        bias_dtype: of db: None for dy's, or "float32" beside 16 bits.

    Returns:
        dw of shape `w_shape`; with `bias`, (dw, db) with db of shape (K,).

    Raises:
        TypeError, ValueError: as `conv2d_dgrad`; TypeError for a `bias` that is no bool, or another `bias_dtype`.

    >>> import numpy as np
    >>> conv2d_wgrad(np.ones((1, 1, 2, 2)), np.arange(9.0).reshape(1, 1, 3, 3), (1, 1, 2, 2))[0, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """
    check_algo(algo)
    bias = flag("bias", bias)
    if accuracy is not None or precision is not None:
        with of_call(accuracy, precision):
            how = (stride, padding, dilation, groups)
            return conv2d_wgrad(dy, x, w_shape, *how, algo=algo, bias=bias, bias_dtype=bias_dtype)
    call = Call(dy=dy, x=x)
    dy, x = call.arrays
    dtype = call.dtype_for("bias_dtype", bias_dtype)
    shape = _shape(x.shape, shape_of("w_shape", w_shape), stride, padding, dilation, groups)
    expect_shape("dy", dy.shape, shape.y_shape)
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups)
    found = answering(call.backend, algo).conv2d_wgrad(dy, x, shape.w_shape, *geometry, algo=algo, bias=bias)
    if bias:
        dw, db = found
        return call.back(dw), call.back(db, dtype)
    return call.back(found)


def _shape(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: IntPair,
    padding: Padding,
    dilation: IntPair,
    groups: int,
) -> Conv2dShape:
    if len(w_shape) != 4:
        raise ValueError(f"w must have 4 dimensions (K, C/groups, R, S), got shape {tuple(w_shape)}")
    steps, reach = pair("stride", stride, 1), pair("dilation", dilation, 1)
    sides = normalize_padding(padding, (w_shape[2], w_shape[3]), steps, reach)
    return Conv2dShape.of(tuple(x_shape), tuple(w_shape), steps, sides, reach, whole("groups", groups, 1))
