"""Windows of images as columns, and columns added up to images: each is the other's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import ops
from pycnn.functional._arrays import expect_arrays, of_one_image
from pycnn.graph import Function
from pycnn.ops._checks import expect_image, expect_rank
from pycnn.shape import Pair, pair

__all__ = ["Fold2d", "Unfold2d", "fold", "unfold"]

Array = Any
IntPair = int | Sequence[int]


class Unfold2d(Function):
    """y[n, c, r, s, p, q] = the pixel of tap (r, s) of window (p, q); `how` is window, stride, before and dilation."""

    @staticmethod
    def forward(ctx: Any, x: Array, out: Pair, *how: Pair) -> Array:
        kernel, stride, before, dilation = how
        ctx.size, ctx.how = tuple(x.shape[2:]), how
        return ops.unfold2d(x, kernel, stride, before, dilation, out)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return Fold2d.apply(dy, ctx.size, *ctx.how), None, *(None,) * len(ctx.how)


class Fold2d(Function):
    """dx = every element of a window added to its pixel."""

    @staticmethod
    def forward(ctx: Any, y: Array, size: Pair, *how: Pair) -> Array:
        ctx.out, ctx.how = tuple(y.shape[2:]), how
        return ops.fold2d(y, size, *how)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return Unfold2d.apply(g, ctx.out, *ctx.how), None, *(None,) * len(ctx.how)


def unfold(x: Any, kernel_size: IntPair, dilation: IntPair = 1, padding: IntPair = 0, stride: IntPair = 1) -> Any:
    """Every window of an image as a column (im2col).

        y[n, (c*R + r)*S + s, p*Q + q] = x[n, c, p*stride_h - pad_h + r*dilation_h, q*stride_w - pad_w + s*dilation_w]

    Args:
        x: (N, C, H, W), or one image (C, H, W); a Tensor or an array.  Padding counts as 0.
        kernel_size, dilation, padding, stride: an int or a pair (height, width).

    Returns:
        (N, C*R*S, P*Q) with P = (H + 2*pad_h - dilation_h*(R - 1) - 1) // stride_h + 1, without N for one image.

    Raises:
        TypeError: not an array, an unsupported dtype, or a setting that is no int.
        ValueError: a wrong rank, a setting out of range, or no window that fits.

    Reference: Chellapilla et al., "High Performance Convolutional Neural Networks for Document Processing", 2006.

    >>> import numpy as np, pycnn
    >>> pycnn.unfold(np.arange(6.0).reshape(1, 1, 2, 3), (2, 2))[0]
    array([[0., 1.],
           [1., 2.],
           [3., 4.],
           [4., 5.]])
    """
    expect_arrays(x=x)
    if len(x.shape) != 4:
        return of_one_image(unfold, x, kernel_size, dilation, padding, stride)
    expect_image("x", x.shape)
    how, out = _windows(tuple(x.shape[2:]), kernel_size, dilation, padding, stride)
    y = Unfold2d.apply(x, out, *how)
    return y.reshape(*y.shape[:2], out[0] * out[1])


def fold(
    x: Any,
    output_size: IntPair,
    kernel_size: IntPair,
    dilation: IntPair = 1,
    padding: IntPair = 0,
    stride: IntPair = 1,
) -> Any:
    """Columns of windows added up to images (col2im): the transpose of `unfold`, summed in a fixed order.

        y[n, c, h, w] = sum over r, s, p, q with h = p*stride_h - pad_h + r*dilation_h (w likewise) of
            x[n, (c*R + r)*S + s, p*Q + q]

    Args:
        x: (N, C*R*S, P*Q), or of one image (C*R*S, P*Q); a Tensor or an array.
        output_size: (H, W), or one int for both.
        kernel_size, dilation, padding, stride: as `unfold`.

    Returns:
        (N, C, H, W), without N for one image.

    Raises:
        TypeError, ValueError: as `unfold`; also columns that are not those of such images.

    >>> import numpy as np, pycnn
    >>> pycnn.fold(np.ones((1, 4, 2)), (2, 3), (2, 2))[0, 0]
    array([[1., 2., 1.],
           [1., 2., 1.]])
    """
    expect_arrays(x=x)
    if len(x.shape) == 2:
        y = fold(x.reshape(1, *x.shape), output_size, kernel_size, dilation, padding, stride)
        return y.reshape(*y.shape[1:])
    expect_rank("x", x.shape, 3, "(N, C*R*S, P*Q)")
    size = pair("output_size", output_size, 1)
    how, out = _windows(size, kernel_size, dilation, padding, stride)
    n, taps, columns = x.shape
    window = how[0][0] * how[0][1]
    if taps < 1 or taps % window:
        raise ValueError(f"x must have a multiple of {window} rows, the elements of a window, got {taps}")
    if columns != out[0] * out[1]:
        raise ValueError(
            f"x must have {out[0]}*{out[1]} columns, the windows of an image of {size[0]} x {size[1]}, got {columns}"
        )
    return Fold2d.apply(x.reshape(n, taps, *out), size, *how)


def _windows(
    size: tuple[int, ...], kernel_size: IntPair, dilation: IntPair, padding: IntPair, stride: IntPair
) -> tuple[tuple[Pair, Pair, Pair, Pair], Pair]:
    """Window, stride, padding and dilation as pairs, and how many windows there are."""
    window, steps = pair("kernel_size", kernel_size, 1), pair("stride", stride, 1)
    sides, reach = pair("padding", padding, 0), pair("dilation", dilation, 1)
    out = []
    for i, name in enumerate(("height", "width")):
        room = size[i] + 2 * sides[i] - reach[i] * (window[i] - 1) - 1
        if room < 0:
            raise ValueError(
                f"no window fits: {name} {size[i]} with padding {sides[i]} on both sides is less than the reach of "
                f"{reach[i] * (window[i] - 1) + 1}"
            )
        out.append(room // steps[i] + 1)
    return (window, steps, sides, reach), (out[0], out[1])
