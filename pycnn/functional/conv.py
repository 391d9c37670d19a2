"""Convolution and transposed convolution, differentiable any number of times.

The three passes are bilinear in their two arrays, and the gradients of each are the other two:

    y  = fprop(x, w)       dx = dgrad(dy, w)          dw = wgrad(dy, x)
    dx = dgrad(dy, w)      d(dy) = fprop(g, w)        dw = wgrad(dy, g)
    dw = wgrad(dy, x)      d(dy) = fprop(x, g)        dx = dgrad(dy, g)

The way of a call, one file a step: `Conv2d.forward` here records it; `pycnn.ops.conv` checks the arguments, builds the
shape and finds the backend by the array; `pycnn.backends.cpu.conv` has `pycnn.algorithms` choose and calls
csrc/bindings/conv.cpp (or winograd.cpp), which calls the kernel in csrc/cpu/kernels/conv_direct.cpp, conv_im2col.cpp or
winograd.cpp.  The way back begins at `Conv2d.backward`, whose two gradients take the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import ops
from pycnn.functional._arrays import fused, of_one_image
from pycnn.functional.linear import ChannelSum
from pycnn.functional.shaping import pad
from pycnn.graph import Function, is_grad_enabled
from pycnn.ops.conv_transpose import transposed
from pycnn.shape import PASSES

__all__ = ["Conv2d", "Conv2dDgrad", "Conv2dWgrad", "ConvTranspose2d", "conv2d", "conv_transpose2d"]

Array = Any
IntPair = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]
Algo = str | dict[str, str]
Options = dict[str, dict[str, Any]]  # by pass: the algorithm; accuracy and precision if the call said


class Conv2d(Function):
    """y = fprop(x, w) + b.  In all three, `how` is stride, padding, dilation, groups and the options by pass."""

    @staticmethod
    def forward(ctx: Any, x: Array, w: Array, b: Array | None, *how: Any) -> Array:
        y = ops.conv2d_fprop(x, w, b, *how[:4], **how[4]["fprop"])
        ctx.x_shape, ctx.w_shape, ctx.how = tuple(x.shape), tuple(w.shape), how
        dx, dw = ctx.needs_input_grad[:2]
        ctx.b_dtype = None if b is None else b.dtype
        ctx.save(x if dw else None, w if dx else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, w = ctx.saved
        need_x, need_w, need_b = ctx.needs_input_grad[:3]
        dx = Conv2dDgrad.apply(dy, w, ctx.x_shape, *ctx.how) if need_x else None
        if need_w and need_b and not is_grad_enabled():  # one kernel reads dy for both
            how = ctx.how
            options = {**how[4]["wgrad"], "bias": True, "bias_dtype": ctx.b_dtype}
            both = ops.conv2d_wgrad(dy._data, x._data, ctx.w_shape, *how[:4], **options)
            return dx, *map(fused, both), None, None, None, None, None
        dw = Conv2dWgrad.apply(dy, x, ctx.w_shape, *ctx.how) if need_w else None
        db = ChannelSum.apply(dy, ctx.b_dtype) if need_b else None
        return dx, dw, db, None, None, None, None, None


class Conv2dDgrad(Function):
    """dx = dgrad(dy, w): the gradient of a convolution's input."""

    @staticmethod
    def forward(ctx: Any, dy: Array, w: Array, x_shape: tuple[int, ...], *how: Any) -> Array:
        ctx.w_shape, ctx.how = tuple(w.shape), how
        ddy, dw = ctx.needs_input_grad[:2]
        ctx.save(dy if dw else None, w if ddy else None)
        return ops.conv2d_dgrad(dy, w, x_shape, *how[:4], **how[4]["dgrad"])

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        dy, w = ctx.saved
        need_dy, need_w = ctx.needs_input_grad[:2]
        ddy = Conv2d.apply(g, w, None, *ctx.how) if need_dy else None
        dw = Conv2dWgrad.apply(dy, g, ctx.w_shape, *ctx.how) if need_w else None
        return ddy, dw, None, None, None, None, None, None


class Conv2dWgrad(Function):
    """dw = wgrad(dy, x): the gradient of a convolution's filters."""

    @staticmethod
    def forward(ctx: Any, dy: Array, x: Array, w_shape: tuple[int, ...], *how: Any) -> Array:
        ctx.x_shape, ctx.how = tuple(x.shape), how
        ddy, dx = ctx.needs_input_grad[:2]
        ctx.save(dy if dx else None, x if ddy else None)
        return ops.conv2d_wgrad(dy, x, w_shape, *how[:4], **how[4]["wgrad"])

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        dy, x = ctx.saved
        need_dy, need_x = ctx.needs_input_grad[:2]
        ddy = Conv2d.apply(x, g, None, *ctx.how) if need_dy else None
        dx = Conv2dDgrad.apply(dy, g, ctx.x_shape, *ctx.how) if need_x else None
        return ddy, dx, None, None, None, None, None, None


class ConvTranspose2d(Function):
    """y = dgrad(x, w) + b of the convolution that `transposed` builds, and its two other passes as gradients."""

    @staticmethod
    def forward(ctx: Any, x: Array, w: Array, b: Array | None, how: tuple[Any, ...], options: Options) -> Array:
        y = ops.conv_transpose2d_fprop(x, w, b, *how, **options["dgrad"])
        ctx.x_shape, ctx.w_shape, ctx.how, ctx.options = tuple(x.shape), tuple(w.shape), how, options
        ctx.b_dtype = None if b is None else b.dtype
        dx, dw = ctx.needs_input_grad[:2]
        ctx.save(x if dw else None, w if dx else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, w = ctx.saved
        need_x, need_w, need_b = ctx.needs_input_grad[:3]
        stride, padding, output_padding, groups, dilation = ctx.how
        shape, missing = transposed(ctx.x_shape, ctx.w_shape, stride, padding, output_padding, dilation, groups)
        how = (shape.stride, shape.padding, shape.dilation, shape.groups, ctx.options)
        dx = dw = None
        if need_x:
            dx = Conv2d.apply(dy, w, None, *how)
            dx = dx[:, :, : ctx.x_shape[2], : ctx.x_shape[3]] if any(missing) else dx
        if need_w:
            x = pad(x, (0, missing[1], 0, missing[0])) if any(missing) else x
            dw = Conv2dWgrad.apply(x, dy, ctx.w_shape, *how)
        return dx, dw, ChannelSum.apply(dy, ctx.b_dtype) if need_b else None, None, None


def conv2d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    algo: Algo = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Any:
    """Convolve `x` with the filters `w`, differentiably.

        y[n, k, p, q] = b[k] + sum over c, r, s of
            x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w] * w[k, c, r, s]

    Args:
        x: input, (N, C, H, W), or one image (C, H, W); a Tensor or an array.
        w: filters, (K, C // groups, R, S), of the same dtype.
        b: bias, (K,), or None; of x's dtype, or float32 beside 16 bits.
        stride, dilation: an int or a pair (height, width), at least 1.
        padding: an int, (h, w), ((top, bottom), (left, right)), (top, bottom, left, right), "same" or "valid".
        groups: number of independent groups of channels.
        algo: "auto", "direct", "im2col", "winograd", the name of a variant or of a kernel of your own (see
            `pycnn.register_conv2d`), for all three passes; or a dict with any of the keys "fprop", "dgrad", "wgrad"
            ("auto" for those left out).
        accuracy: what "auto" may trade in all three passes, "fast" or "strict" as in `pycnn.use_accuracy`; None asks
            that, in each pass when it runs.
        precision: the least exact arithmetic a float32 product may use in all three passes, "float32", "3xtf32",
            "3xfp16" or "tf32" as in `pycnn.use_precision`; None asks that, in each pass when it runs.

    Returns:
        (N, K, P, Q) with P = (H + top + bottom - dilation_h*(R - 1) - 1) // stride_h + 1, without N for one image; a
        Tensor if an argument is one, else an array of the caller's kind.

    Raises:
        TypeError, ValueError: as `pycnn.ops.conv2d_fprop`; also an `algo` with an unknown pass.

    Reference: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, section 2.

    >>> import numpy as np, pycnn
    >>> x = pycnn.Tensor(np.ones((1, 1, 3, 3), np.float32), requires_grad=True)
    >>> pycnn.conv2d(x, np.ones((1, 1, 2, 2), np.float32)).sum().backward()
    >>> x.grad[0, 0]
    tensor([[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]])
    """
    if getattr(x, "ndim", 4) != 4:
        return of_one_image(
            conv2d, x, w, b, stride, padding, dilation, groups, algo=algo, accuracy=accuracy, precision=precision
        )
    return Conv2d.apply(x, w, b, stride, padding, dilation, groups, per_pass(algo, accuracy, precision))


def conv_transpose2d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: IntPair = 1,
    padding: IntPair | Sequence[Sequence[int]] = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    *,
    algo: Algo = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Any:
    """Transposed convolution: the gradient of a convolution with respect to its input, as an operator of its own.

        y[n, k, h, v] = b[k] + sum over c, r, s, p, q with h = p*stride_h - pad_top + r*dilation_h (v likewise) of
            x[n, c, p, q] * w[c, k, r, s]

    Args:
        x: input, (N, C, H, W), or one image (C, H, W); a Tensor or an array.
        w: filters, (C, K // groups, R, S).
        b: bias, (K,), or None; of x's dtype, or float32 beside 16 bits.
        stride, dilation: an int or a pair (height, width), at least 1.
        padding: taken away from each side of the output: an int, (h, w), ((top, bottom), (left, right)) or
            (top, bottom, left, right).
        output_padding: rows and columns added at the bottom and right; less than stride or dilation.
        groups: number of independent groups of channels.
        algo, accuracy, precision: as `conv2d`; the forward pass is "dgrad".

    Returns:
        (N, K, P, Q) with P = (H - 1)*stride_h - top - bottom + dilation_h*(R - 1) + output_padding_h + 1, without N for
        one image.

    Raises:
        TypeError, ValueError: as `pycnn.ops.conv_transpose2d_fprop`; also an `algo` with an unknown pass.

    Reference: Zeiler et al., "Deconvolutional Networks", CVPR 2010; Dumoulin & Visin, 2016, section 4.

    >>> import numpy as np, pycnn
    >>> pycnn.conv_transpose2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), stride=2)[0, 0]
    array([[1., 1., 1., 1.],
           [1., 1., 1., 1.],
           [1., 1., 1., 1.],
           [1., 1., 1., 1.]])
    """
    how = stride, padding, output_padding, groups, dilation
    if getattr(x, "ndim", 4) != 4:
        return of_one_image(conv_transpose2d, x, w, b, *how, algo=algo, accuracy=accuracy, precision=precision)
    return ConvTranspose2d.apply(x, w, b, how, per_pass(algo, accuracy, precision))


_SAME_EVERYWHERE = {name: {key: {"algo": name} for key in PASSES} for name in ("auto", "direct", "im2col", "winograd")}


def per_pass(algo: Algo, accuracy: str | None, precision: str | None) -> Options:
    """What every pass is asked for."""
    given = {"accuracy": accuracy, "precision": precision}
    asked = {name: value for name, value in given.items() if value is not None}
    if isinstance(algo, str):
        common = None if asked else _SAME_EVERYWHERE.get(algo)
        return common or {name: {"algo": algo, **asked} for name in PASSES}
    if not isinstance(algo, dict):
        raise TypeError(f"algo must be a name or a dict of names by pass, got {algo!r}")
    for name in algo:
        if name not in PASSES:
            raise ValueError(f"algo has the unknown pass {name!r}; the passes are {', '.join(PASSES)}")
    return {name: {"algo": algo.get(name, "auto"), **asked} for name in PASSES}
