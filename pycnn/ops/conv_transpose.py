"""Raw transposed convolution on arrays: the gradient of a convolution, used as a layer of its own.

Each of its three passes is one of the convolution's, with x and dy in each other's place: fprop is conv2d's dgrad,
dgrad is its fprop, wgrad is its wgrad.  `transposed` builds that convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

from pycnn.algorithms import of_call
from pycnn.arrays import copied
from pycnn.custom.dispatch import answering
from pycnn.memory_format import wants_channels_last
from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import check_algo, expect_rank, expect_shape, shape_of
from pycnn.ops.conv import IntPair, Padding
from pycnn.shape import Conv2dShape, normalize_padding, pair, whole


def conv_transpose2d_fprop(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    *,
    algo: str = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Array:
    """Transposed convolution: every pixel of `x` paints its weighted filters onto the output.

        y[n, k, h, v] = b[k] + sum over c, r, s, p, q with h = p*stride_h - pad_top + r*dilation_h (v likewise) of
            x[n, c, p, q] * w[c, k, r, s]

    Args:
        x: input, (N, C, H, W); float16, bfloat16, float32 or float64.
        w: filters, (C, K // groups, R, S), of the same dtype (PyTorch's order: input channels first).
        b: bias, (K,), or None; of x's dtype, or float32 beside 16 bits.
        stride, dilation: an int or a pair (height, width), at least 1.
        padding: what is cut off each side of the output: an int, (h, w), ((top, bottom), (left, right)) or
            (top, bottom, left, right).
        output_padding: rows and columns added at the bottom and right of the output, because several sizes convolve
            to one; smaller than the stride or the dilation.
        groups: number of independent groups of channels.
        algo, accuracy, precision: as in `conv2d_dgrad`, which computes it.

    Returns:
        (N, K, P, Q) with P = (H - 1)*stride_h - top - bottom + dilation_h*(R - 1) + 1 + output_padding_h.

    Raises:
        TypeError: not an array, an unsupported dtype, or mixed dtypes, libraries or devices.
        ValueError: a wrong rank, channels that disagree, an output smaller than 1, an output padding that is too large,
            or an `algo` that cannot run.

    Reference: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, section 4.

    >>> import numpy as np
    >>> conv_transpose2d_fprop(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), stride=2, padding=((0, 1), (0, 1)))[0, 0]
    array([[1., 1., 1.],
           [1., 1., 1.],
           [1., 1., 1.]])
    """
    check_algo(algo)
    if accuracy is not None or precision is not None:
        with of_call(accuracy, precision):
            return conv_transpose2d_fprop(x, w, b, stride, padding, output_padding, groups, dilation, algo=algo)
    call = Call("b", per_channel=("b",), x=x, w=w, b=b)
    x, w, b = call.arrays
    shape, rest = transposed(x.shape, w.shape, stride, padding, output_padding, dilation, groups)
    if b is not None:
        expect_shape("b", b.shape, (shape.C,), "one value an output channel, shape")
    x = _extended(call, x, rest)
    how = (shape.stride, shape.padding, shape.dilation, shape.groups)
    y = answering(call.backend, algo).conv2d_dgrad(x, w, shape.x_shape, *how, algo=algo)
    if b is not None:
        y = call.backend.channel_affine(y, None, b)
    return call.back(y)


def conv_transpose2d_dgrad(
    dy: Array,
    w: Array,
    x_shape: Sequence[int],
    stride: IntPair = 1,
    padding: Padding = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    *,
    algo: str = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Array:
    """Gradient of a transposed convolution with respect to its input: a plain convolution of `dy`.

        dx[n, c, p, q] = sum over k, r, s of
            dy[n, k, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w] * w[c, k, r, s]

    Args:
        dy: gradient of the output, (N, K, P, Q).
        w: filters, (C, K // groups, R, S).
        x_shape: (N, C, H, W) of the input.
        stride, padding, output_padding, groups, dilation: as in `conv_transpose2d_fprop`.
        algo, accuracy, precision: as in `conv2d_fprop`, which computes it.

    Returns:
        dx of shape `x_shape`.

    Raises:
        TypeError, ValueError: as `conv_transpose2d_fprop`; also a `dy` whose shape is not its output's.

    >>> import numpy as np
    >>> conv_transpose2d_dgrad(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), (1, 1, 2, 2))[0, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    check_algo(algo)
    if accuracy is not None or precision is not None:
        with of_call(accuracy, precision):
            return conv_transpose2d_dgrad(dy, w, x_shape, stride, padding, output_padding, groups, dilation, algo=algo)
    call = Call(dy=dy, w=w)
    dy, w = call.arrays
    shape, rest = transposed(shape_of("x_shape", x_shape), w.shape, stride, padding, output_padding, dilation, groups)
    expect_shape("dy", dy.shape, shape.x_shape)
    how = (shape.stride, shape.padding, shape.dilation, shape.groups)
    dx = answering(call.backend, algo).conv2d_fprop(dy, w, None, *how, algo=algo)
    if any(rest):
        dx = dx[:, :, : shape.P - rest[0], : shape.Q - rest[1]]
        dx = copied(dx, wants_channels_last(dx))
    return call.back(dx)


def conv_transpose2d_wgrad(
    dy: Array,
    x: Array,
    w_shape: Sequence[int],
    stride: IntPair = 1,
    padding: Padding = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    *,
    algo: str = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Array:
    """Gradient of a transposed convolution with respect to its filters.

        dw[c, k, r, s] = sum over n, p, q of
            x[n, c, p, q] * dy[n, k, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w]

    Args:
        dy: gradient of the output, (N, K, P, Q).
        x: the input, (N, C, H, W).
        w_shape: (C, K // groups, R, S) of the filters.
        stride, padding, output_padding, groups, dilation: as in `conv_transpose2d_fprop`.
        algo, accuracy, precision: as in `conv2d_wgrad`, which computes it.

    Returns:
        dw of shape `w_shape`.

    Raises:
        TypeError, ValueError: as `conv_transpose2d_dgrad`.

    >>> import numpy as np
    >>> conv_transpose2d_wgrad(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), (1, 1, 2, 2))[0, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    check_algo(algo)
    if accuracy is not None or precision is not None:
        with of_call(accuracy, precision):
            return conv_transpose2d_wgrad(dy, x, w_shape, stride, padding, output_padding, groups, dilation, algo=algo)
    call = Call(dy=dy, x=x)
    dy, x = call.arrays
    shape, rest = transposed(x.shape, shape_of("w_shape", w_shape), stride, padding, output_padding, dilation, groups)
    expect_shape("dy", dy.shape, shape.x_shape)
    x = _extended(call, x, rest)
    how = (shape.stride, shape.padding, shape.dilation, shape.groups)
    return call.back(answering(call.backend, algo).conv2d_wgrad(x, dy, shape.w_shape, *how, algo=algo))


def transposed(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: IntPair,
    padding: Padding,
    output_padding: IntPair,
    dilation: IntPair,
    groups: int,
) -> tuple[Conv2dShape, tuple[int, int]]:
    """The convolution whose input is y, and the rows and columns of its output that x lacks.

    Output padding first takes back what the bottom and right padding cut off.  What goes beyond that no filter reaches;
    where it is as long as the stride (only possible with a larger dilation) the convolution of y has more output than x
    has pixels, and x is taken to be zero there.
    """
    expect_rank("x", x_shape, 4, "(N, C, H, W)")
    expect_rank("w", w_shape, 4, "(C, K/groups, R, S)")
    groups = whole("groups", groups, 1)
    if x_shape[1] != w_shape[0]:
        raise ValueError(
            f"channels disagree: x has C={x_shape[1]}, w expects {w_shape[0]} (x {tuple(x_shape)}, w {tuple(w_shape)})"
        )
    steps, reach = pair("stride", stride, 1), pair("dilation", dilation, 1)
    extra = pair("output_padding", output_padding, 0)
    if isinstance(padding, str):
        raise ValueError(f"padding of a transposed convolution must be numbers, got {padding!r}")
    sides = list(normalize_padding(padding, (1, 1)))
    size, rest = [], [0, 0]
    for i, name in enumerate(("height", "width")):
        if extra[i] >= max(steps[i], reach[i]):
            raise ValueError(
                f"output_padding must be smaller than the stride or the dilation, got {extra[i]} in {name} with stride "
                f"{steps[i]} and dilation {reach[i]}"
            )
        if x_shape[2 + i] < 1:
            raise ValueError(f"x must have at least one row and column, got shape {tuple(x_shape)}")
        span = reach[i] * (w_shape[2 + i] - 1) + 1
        out = (x_shape[2 + i] - 1) * steps[i] - sides[2 * i] - sides[2 * i + 1] + span + extra[i]
        if out < 1:
            raise ValueError(
                f"the output would be smaller than 1: {name} {out} from x {tuple(x_shape)}, w {tuple(w_shape)}, "
                f"stride {steps}, padding {tuple(sides)}, dilation {reach}"
            )
        beyond = max(extra[i] - sides[2 * i + 1], 0)
        sides[2 * i + 1] = max(sides[2 * i + 1] - extra[i], 0)
        rest[i] = beyond // steps[i]
        size.append(out)
    shape = Conv2dShape.of(
        (x_shape[0], w_shape[1] * groups, size[0], size[1]),
        tuple(w_shape),
        steps,
        (sides[0], sides[1], sides[2], sides[3]),
        reach,
        groups,
    )
    return shape, (rest[0], rest[1])


def _extended(call: Call, x: Array, rest: tuple[int, int]) -> Array:
    return call.backend.pad2d(x, (0, rest[0], 0, rest[1]), 0.0) if any(rest) else x
