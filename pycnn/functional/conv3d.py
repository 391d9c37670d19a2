"""3-D convolution and transposed convolution, differentiable any number of times, as `pycnn.functional.conv` has them.

The way of a call: `Conv3d.forward` here; `pycnn.ops.conv3d`, which makes it 2-D convolutions; from there as in 2-D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import ops
from pycnn.functional._arrays import expect_arrays, of_one_image
from pycnn.functional.conv import Algo, per_pass
from pycnn.functional.linear import ChannelSum, bias
from pycnn.functional.shaping import pad
from pycnn.graph import Function
from pycnn.ops._checks import expect_rank
from pycnn.shape import whole
from pycnn.spatial import each, sides_of

__all__ = ["Conv3d", "Conv3dDgrad", "Conv3dWgrad", "conv3d", "conv_transpose3d"]

Array = Any
Ints = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


class Conv3d(Function):
    """y = fprop(x, w) + b.  In all three, `how` is stride, padding, dilation, groups and the options by pass."""

    @staticmethod
    def forward(ctx: Any, x: Array, w: Array, b: Array | None, *how: Any) -> Array:
        ctx.x_shape, ctx.w_shape, ctx.how = tuple(x.shape), tuple(w.shape), how
        ctx.b_dtype = None if b is None else b.dtype
        dx, dw = ctx.needs_input_grad[:2]
        ctx.save(x if dw else None, w if dx else None)
        return ops.conv3d_fprop(x, w, b, *how[:4], **how[4]["fprop"])

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, w = ctx.saved
        need_x, need_w, need_b = ctx.needs_input_grad[:3]
        dx = Conv3dDgrad.apply(dy, w, ctx.x_shape, *ctx.how) if need_x else None
        dw = Conv3dWgrad.apply(dy, x, ctx.w_shape, *ctx.how) if need_w else None
        db = ChannelSum.apply(dy, ctx.b_dtype) if need_b else None
        return dx, dw, db, *(None,) * len(ctx.how)


class Conv3dDgrad(Function):
    """dx = dgrad(dy, w): the gradient of a convolution's input, and a transposed convolution."""

    @staticmethod
    def forward(ctx: Any, dy: Array, w: Array, x_shape: tuple[int, ...], *how: Any) -> Array:
        ctx.w_shape, ctx.how = tuple(w.shape), how
        ddy, dw = ctx.needs_input_grad[:2]
        ctx.save(dy if dw else None, w if ddy else None)
        return ops.conv3d_dgrad(dy, w, x_shape, *how[:4], **how[4]["dgrad"])

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        dy, w = ctx.saved
        need_dy, need_w = ctx.needs_input_grad[:2]
        ddy = Conv3d.apply(g, w, None, *ctx.how) if need_dy else None
        dw = Conv3dWgrad.apply(dy, g, ctx.w_shape, *ctx.how) if need_w else None
        return ddy, dw, None, *(None,) * len(ctx.how)


class Conv3dWgrad(Function):
    """dw = wgrad(dy, x): the gradient of a convolution's filters."""

    @staticmethod
    def forward(ctx: Any, dy: Array, x: Array, w_shape: tuple[int, ...], *how: Any) -> Array:
        ctx.x_shape, ctx.how = tuple(x.shape), how
        ddy, dx = ctx.needs_input_grad[:2]
        ctx.save(dy if dx else None, x if ddy else None)
        return ops.conv3d_wgrad(dy, x, w_shape, *how[:4], **how[4]["wgrad"])

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        dy, x = ctx.saved
        need_dy, need_x = ctx.needs_input_grad[:2]
        ddy = Conv3d.apply(x, g, None, *ctx.how) if need_dy else None
        dx = Conv3dDgrad.apply(dy, g, ctx.x_shape, *ctx.how) if need_x else None
        return ddy, dx, None, *(None,) * len(ctx.how)


def conv3d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    algo: Algo = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Any:
    """Convolve the volumes `x` with the filters `w`, differentiably.

        y[n, k, o, p, q] = b[k] + sum over c, t, r, s of w[k, c, t, r, s] * x[n, c, d, h, v] with
            d = o*stride_d - front + t*dilation_d, h = p*stride_h - top + r*dilation_h, v = q*stride_w - left + ...

    Args:
        x: input, (N, C, D, H, W), or one volume (C, D, H, W); a Tensor or an array.
        w: filters, (K, C // groups, T, R, S), of the same dtype.
        b: bias, (K,), or None; of x's dtype, or float32 beside 16 bits.
        stride, dilation: an int or three (depth, height, width), at least 1.
        padding: an int, three, ((front, back), (top, bottom), (left, right)), these six in a row, "same" or "valid".
        groups: number of independent groups of channels.
        algo, accuracy, precision: of the 2-D convolutions that compute it, as `pycnn.conv2d` has them.

    Returns:
        (N, K, O, P, Q) with O = (D + front + back - dilation_d*(T - 1) - 1) // stride_d + 1, without N for one volume.

    Raises:
        TypeError, ValueError: as `pycnn.conv2d`.

    Reference: Ji et al., "3D Convolutional Neural Networks for Human Action Recognition", PAMI 2013.

    >>> import numpy as np, pycnn
    >>> pycnn.conv3d(np.ones((1, 1, 3, 3, 3)), np.ones((1, 1, 2, 3, 3))).ravel()
    array([18., 18.])
    """
    expect_arrays(x=x, w=w)
    how = stride, padding, dilation, groups
    if len(x.shape) != 5:
        options: dict[str, Any] = {"algo": algo, "accuracy": accuracy, "precision": precision}
        return of_one_image(conv3d, x, w, b, *how, spatial=3, **options)
    return Conv3d.apply(x, w, b, *how, per_pass(algo, accuracy, precision))


def conv_transpose3d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: Ints = 1,
    padding: int | Sequence[int] | Sequence[Sequence[int]] = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    algo: Algo = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Any:
    """Transposed convolution of volumes: the gradient of a convolution with respect to its input, as an operator.

    Args:
        x: input, (N, C, D, H, W), or one volume (C, D, H, W); a Tensor or an array.
        w: filters, (C, K // groups, T, R, S).
        b: bias, (K,), or None; of x's dtype, or float32 beside 16 bits.
        stride, dilation: an int or three (depth, height, width), at least 1.
        padding: taken away from each side of the output: an int, three, a pair for each axis, or six.
        output_padding: added behind, below and right; less than stride or dilation.
        groups: number of independent groups of channels.
        algo, accuracy, precision: as `conv3d`; the forward pass is "dgrad".

    Returns:
        (N, K, O, P, Q) with O = (D - 1)*stride_d - front - back + dilation_d*(T - 1) + output_padding_d + 1, without N
        for one volume.

    Raises:
        TypeError, ValueError: as `pycnn.conv_transpose2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.conv_transpose3d(np.ones((1, 1, 2, 1, 1)), np.ones((1, 1, 3, 1, 1)), stride=(2, 1, 1)).ravel()
    array([1., 1., 2., 1., 1.])
    """
    expect_arrays(x=x, w=w)
    if len(x.shape) != 5:
        how = stride, padding, output_padding, groups, dilation
        return of_one_image(
            conv_transpose3d, x, w, b, *how, spatial=3, algo=algo, accuracy=accuracy, precision=precision
        )
    expect_rank("w", w.shape, 5, "(C, K/groups, T, R, S)")
    if x.shape[1] != w.shape[0]:
        raise ValueError(
            f"channels disagree: x has C={x.shape[1]}, w expects {w.shape[0]} (x {tuple(x.shape)}, w {tuple(w.shape)})"
        )
    if isinstance(padding, str):
        raise ValueError(f"padding of a transposed convolution must be numbers, got {padding!r}")
    steps, reach = each("stride", stride, 1, 3), each("dilation", dilation, 1, 3)
    extra, sides = each("output_padding", output_padding, 0, 3), list(sides_of(padding, (1,) * 3, (1,) * 3, (1,) * 3))
    size, missing = [], []
    for i in range(3):
        if extra[i] >= max(steps[i], reach[i]):
            raise ValueError(
                f"output_padding must be smaller than the stride or the dilation, got {extra[i]} in axis {i} with "
                f"stride {steps[i]} and dilation {reach[i]}"
            )
        span = reach[i] * (w.shape[2 + i] - 1) + 1
        size.append((x.shape[2 + i] - 1) * steps[i] - sides[2 * i] - sides[2 * i + 1] + span + extra[i])
        # It first takes back what the padding cut off behind.  What goes beyond that no filter reaches; where it is as
        # long as the stride, the convolution of y has more output than x has voxels, and x is zero there.
        missing.append(max(extra[i] - sides[2 * i + 1], 0) // steps[i])
        sides[2 * i + 1] = max(sides[2 * i + 1] - extra[i], 0)
    if min(size) < 1 or 0 in x.shape[1:]:
        raise ValueError(
            f"the output would be smaller than 1: {tuple(size)} from x {tuple(x.shape)}, w {tuple(w.shape)}"
        )
    if any(missing):
        x = pad(x, (0, missing[2], 0, missing[1], 0, missing[0]))
    y_shape = (x.shape[0], w.shape[1] * whole("groups", groups, 1), *size)
    options = per_pass(algo, accuracy, precision)
    y = Conv3dDgrad.apply(x, w, y_shape, steps, tuple(sides), reach, groups, options)
    return y if b is None else bias(y, b)
