"""Pooling, differentiable any number of times.  Average pooling is linear; maximum pooling is, once it has chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import ops
from pycnn.arrays import is_array
from pycnn.functional._arrays import expect_arrays, of_one_image
from pycnn.graph import Function
from pycnn.memory_format import channels_last, wants_channels_last
from pycnn.ops._checks import flag

__all__ = ["adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d"]

Array = Any
IntPair = int | Sequence[int]


class MaxPool2d(Function):
    """y, or (y, indices) if asked; the gradient goes to the chosen pixels."""

    @staticmethod
    def forward(ctx: Any, x: Array, return_indices: bool, *how: Any) -> Any:
        y, indices = ops.max_pool2d(x, *how, return_indices=return_indices or ctx.needs_input_grad[0])
        ctx.save(indices)
        ctx.x_shape, ctx.how = tuple(x.shape), how
        return (y, indices) if return_indices else y

    @staticmethod
    def backward(ctx: Any, dy: Any, _: Any = None) -> Any:
        return MaxPool2dBackward.apply(dy, ctx.saved[0], ctx.x_shape, ctx.how), *(None,) * (1 + len(ctx.how))


class MaxPool2dBackward(Function):
    """dx[n, c, i] = sum of dy[n, c, p, q] over the windows whose maximum lies at i."""

    @staticmethod
    def forward(ctx: Any, dy: Array, indices: Array, x_shape: tuple[int, ...], how: tuple[Any, ...]) -> Array:
        ctx.save(indices)
        ctx.geometry = x_shape, how
        return ops.max_pool2d_backward(dy, indices, x_shape, *how)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return PlaneTake.apply(g, ctx.saved[0], MaxPool2dBackward, ctx.geometry), None, None, None


class AdaptiveMaxPool2d(Function):
    """As `MaxPool2d`, over windows that divide the plane into `out_size`."""

    @staticmethod
    def forward(ctx: Any, x: Array, return_indices: bool, out_size: tuple[int, int]) -> Any:
        wanted = return_indices or ctx.needs_input_grad[0]
        y, indices = ops.adaptive_max_pool2d(x, out_size, return_indices=wanted)
        ctx.save(indices)
        ctx.x_shape = tuple(x.shape)
        return (y, indices) if return_indices else y

    @staticmethod
    def backward(ctx: Any, dy: Any, _: Any = None) -> Any:
        return AdaptiveMaxPool2dBackward.apply(dy, ctx.saved[0], ctx.x_shape), None, None


class AdaptiveMaxPool2dBackward(Function):
    """As `MaxPool2dBackward`, for adaptive windows."""

    @staticmethod
    def forward(ctx: Any, dy: Array, indices: Array, x_shape: tuple[int, ...]) -> Array:
        ctx.save(indices)
        ctx.geometry = (x_shape,)
        return ops.adaptive_max_pool2d_backward(dy, indices, x_shape)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return PlaneTake.apply(g, ctx.saved[0], AdaptiveMaxPool2dBackward, ctx.geometry), None, None


class PlaneTake(Function):
    """y[n, c, p, q] = x[n, c].flat[indices[n, c, p, q]]: the backward of a maximum pooling's backward.

    `opposite` and `geometry` are the Function, and its further arguments, that sends a gradient back to the pixels.
    """

    @staticmethod
    def forward(ctx: Any, x: Array, indices: Array, opposite: type[Function], geometry: tuple[Any, ...]) -> Array:
        ctx.save(indices)
        ctx.opposite, ctx.geometry = opposite, geometry
        return ops.plane_take(x, indices)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return ctx.opposite.apply(dy, ctx.saved[0], *ctx.geometry), None, None, None


def _lies_last(y: Array) -> bool:
    return is_array(y) and wants_channels_last(y)


def _laid_as(last: bool, dy: Any) -> Any:
    """dy as y lay: of one pixel a channel it may have lost that on the way, and dx, far larger, is to lie as x."""
    return dy.contiguous(memory_format=channels_last) if last else dy


class AvgPool2d(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, *how: Any) -> Array:
        y = ops.avg_pool2d(x, *how)
        ctx.x_shape, ctx.how, ctx.last = tuple(x.shape), how, _lies_last(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        dy = _laid_as(ctx.last, dy)
        return AvgPool2dBackward.apply(dy, ctx.x_shape, *ctx.how), *(None,) * len(ctx.how)


class AvgPool2dBackward(Function):
    @staticmethod
    def forward(ctx: Any, dy: Array, x_shape: tuple[int, ...], *how: Any) -> Array:
        ctx.how = how
        return ops.avg_pool2d_backward(dy, x_shape, *how)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return AvgPool2d.apply(g, *ctx.how), None, *(None,) * len(ctx.how)


class AdaptiveAvgPool2d(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, out_size: tuple[int, int]) -> Array:
        y = ops.adaptive_avg_pool2d(x, out_size)
        ctx.x_shape, ctx.last = tuple(x.shape), _lies_last(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return AdaptiveAvgPool2dBackward.apply(_laid_as(ctx.last, dy), ctx.x_shape), None


class AdaptiveAvgPool2dBackward(Function):
    @staticmethod
    def forward(ctx: Any, dy: Array, x_shape: tuple[int, ...]) -> Array:
        ctx.out_size = tuple(dy.shape[2:])
        return ops.adaptive_avg_pool2d_backward(dy, x_shape)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return AdaptiveAvgPool2d.apply(g, ctx.out_size), None


def _of_one(value: Any) -> Any:
    """A list of one number as that number, and an empty one as None: PyTorch takes both."""
    return (value[0] if value else None) if isinstance(value, (tuple, list)) and len(value) < 2 else value


def max_pool2d(
    x: Any,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window.

        y[n, c, p, q] = max over r, s of x[n, c, p*stride_h - pad_h + r*dilation_h, q*stride_w - pad_w + s*dilation_w]

    Args:
        x: (N, C, H, W), or one image (C, H, W); a Tensor or an array.
        kernel_size, stride, padding, dilation: an int or a pair (height, width); `stride` defaults to `kernel_size`,
            `padding` (with -inf) is at most half of it.
        ceil_mode: round the output size up, so that a last, partial window counts.
        return_indices: give (y, indices), int64, flat h*W + w in each plane.

    Returns:
        (N, C, P, Q) with P = (H + 2*pad_h - dilation_h*(R - 1) - 1) // stride_h + 1 (rounded up with `ceil_mode`),
        without N for one image.

    Raises:
        TypeError, ValueError: as `pycnn.ops.max_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    if getattr(x, "ndim", 4) != 4:
        return of_one_image(max_pool2d, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    wanted = flag("return_indices", return_indices)
    sizes = map(_of_one, (kernel_size, stride, padding, dilation))
    return MaxPool2d.apply(x, wanted, *sizes, ceil_mode)


def avg_pool2d(
    x: Any,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Mean of each window.

        y[n, c, p, q] = 1/d * sum over r, s of x[n, c, p*stride_h - pad_h + r, q*stride_w - pad_w + s]

    Args:
        x: (N, C, H, W), or one image (C, H, W); a Tensor or an array.
        kernel_size, stride, padding: an int or a pair (height, width); `stride` defaults to `kernel_size`.
        ceil_mode: round the output size up, so that a last, partial window counts.
        count_include_pad: d counts the padding that the window covers; else only pixels.
        divisor_override: d itself.

    Returns:
        (N, C, P, Q) with P = (H + 2*pad_h - R) // stride_h + 1 (rounded up with `ceil_mode`), without N for one image.

    Raises:
        TypeError, ValueError: as `pycnn.ops.avg_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    sizes = map(_of_one, (kernel_size, stride, padding))
    how = *sizes, ceil_mode, count_include_pad, divisor_override
    return AvgPool2d.apply(x, *how) if getattr(x, "ndim", 4) == 4 else of_one_image(avg_pool2d, x, *how)


def adaptive_avg_pool2d(x: Any, output_size: int | Sequence[int | None] | None) -> Any:
    """Mean of each of P x Q windows that divide the plane; (1, 1) is global average pooling.

        window p covers the rows floor(p*H/P) to ceil((p + 1)*H/P) - 1

    Args:
        x: (N, C, H, W), or one image (C, H, W); a Tensor or an array.
        output_size: (P, Q), or one int for both; None keeps the input's.

    Returns:
        (N, C, P, Q), without N for one image.

    Raises:
        TypeError, ValueError: as `pycnn.ops.adaptive_avg_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.adaptive_avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 1)
    array([[[[7.5]]]])
    """
    if getattr(x, "ndim", 4) != 4:
        return of_one_image(adaptive_avg_pool2d, x, output_size)
    return AdaptiveAvgPool2d.apply(x, _out_size(x, output_size))


def adaptive_max_pool2d(x: Any, output_size: int | Sequence[int | None] | None, return_indices: bool = False) -> Any:
    """Largest element of each of P x Q windows that divide the plane; arguments as `adaptive_avg_pool2d`.

    Returns:
        (N, C, P, Q), without N for one image; with `return_indices` (y, indices), int64, flat h*W + w in each plane.

    Raises:
        TypeError, ValueError: as `pycnn.ops.adaptive_max_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.adaptive_max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 1, return_indices=True)
    (array([[[[15.]]]]), array([[[[15]]]]))
    """
    if getattr(x, "ndim", 4) != 4:
        return of_one_image(adaptive_max_pool2d, x, output_size, return_indices)
    return AdaptiveMaxPool2d.apply(x, flag("return_indices", return_indices), _out_size(x, output_size))


def _out_size(x: Any, output_size: int | Sequence[int | None] | None) -> tuple[Any, Any]:
    expect_arrays(x=x)
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(sizes) != 2:
        raise ValueError(f"output_size must be an int, None or a pair of them, got {output_size!r}")
    return tuple(x.shape[2 + i] if size is None else size for i, size in enumerate(sizes))
