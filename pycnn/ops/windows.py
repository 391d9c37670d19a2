"""Raw operators on windows of images: side by side, and summed back."""

from __future__ import annotations

from collections.abc import Sequence

from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import expect_image, flag, integer
from pycnn.shape import Pair, check_elements, pair

IntPair = int | Sequence[int]


def unfold2d(
    x: Array,
    kernel_size: IntPair,
    stride: IntPair,
    before: IntPair,
    dilation: IntPair,
    out: IntPair,
    rows_first: bool = False,
) -> Array:
    """The elements of every window of `x`, side by side.

        y[n, (c*R + r)*S + s, p, q] = x[n, c, p*stride_h - before_h + r*dilation_h, ...], 0 outside the image

    Args:
        x: (N, C, H, W); float16, bfloat16, float32 or float64.
        kernel_size, stride, dilation: of the windows, an int or a pair (height, width).
        before: how far the first window starts outside the image; less than 0: inside it.
        out: how many windows there are, (P, Q).
        rows_first: whether the rows of windows come before the taps.

    Returns:
        (N, C*R*S, P, Q), or (N, P, C*R*S, Q) with `rows_first`.

    Raises:
        TypeError: not an array, an unsupported dtype, or a setting that is no int.
        ValueError: a wrong rank, or a setting out of range.

    >>> import numpy as np
    >>> unfold2d(np.arange(4.0).reshape(1, 1, 2, 2), (1, 2), 1, (0, 1), 1, (2, 2))[0, :, 0]
    array([[0., 0.],
           [0., 1.]])
    """
    call = Call(x=x)
    (x,) = call.arrays
    expect_image("x", x.shape)
    first = flag("rows_first", rows_first)
    kernel, count = pair("kernel_size", kernel_size, 1), pair("out", out, 1)
    check_elements("the output", (*x.shape[:2], *kernel, *count))
    how = kernel, pair("stride", stride, 1), _offsets(before), pair("dilation", dilation, 1), count
    return call.back(call.backend.unfold2d(x, *how, first))


def fold2d(y: Array, size: IntPair, kernel_size: IntPair, stride: IntPair, before: IntPair, dilation: IntPair) -> Array:
    """The sum of the windows' elements at each pixel, tap by tap: the transpose of `unfold2d`.

        dx[n, c, h, w] = sum over r, s, p, q with h = p*stride_h - before_h + r*dilation_h (w likewise) of
            y[n, (c*R + r)*S + s, p, q]

    Args:
        y: (N, C*R*S, P, Q).
        size: (H, W).
        kernel_size, stride, before, dilation: as in `unfold2d`.

    Returns:
        (N, C, H, W).

    Raises:
        TypeError, ValueError: as `unfold2d`; also channels that are no whole windows.

    >>> import numpy as np
    >>> fold2d(np.ones((1, 2, 1, 2)), (1, 3), (1, 2), 1, 0, 1)
    array([[[[1., 2., 1.]]]])
    """
    call = Call(y=y)
    (y,) = call.arrays
    expect_image("y", y.shape)
    kernel, pixels = pair("kernel_size", kernel_size, 1), pair("size", size, 1)
    if y.shape[1] % (kernel[0] * kernel[1]):
        raise ValueError(f"y must have a multiple of {kernel[0]}*{kernel[1]} channels, got shape {tuple(y.shape)}")
    check_elements("the output", (*y.shape[:2], *pixels))
    how = kernel, pair("stride", stride, 1), _offsets(before), pair("dilation", dilation, 1)
    return call.back(call.backend.fold2d(y, pixels, *how))


def _offsets(before: IntPair) -> Pair:
    rows, columns = before if isinstance(before, (tuple, list)) else (before, before)
    return integer("before[0]", rows), integer("before[1]", columns)
