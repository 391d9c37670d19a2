"""The operators that PyTorch is given, ``torch.ops.pycnn.*``: arguments spelled out, as its dispatcher passes them.

`padding` of a convolution is (top, bottom, left, right), every other pair (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from pycnn import ops
from pycnn.torch._register import bilinear, empty, images_folded, linear_pair, operator

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "channel_affine",
    "conv2d",
    "conv_transpose2d",
    "linear",
    "max_pool2d",
    "relu",
]

Pair = Sequence[int]


# -------------------------------------------------------------------------------- convolution and matrix products


def _conv2d_shape(x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int, algo: str) -> Pair:
    torch._check(x.ndim == 4 and w.ndim == 4, lambda: f"x and w must have 4 dimensions, got {x.shape} and {w.shape}")
    torch._check(x.shape[1] == w.shape[1] * groups, lambda: f"w {w.shape} does not fit x {x.shape} in {groups} groups")
    sides = padding[0] + padding[1], padding[2] + padding[3]
    return (
        x.shape[0],
        w.shape[0],
        *[(x.shape[2 + i] + sides[i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in range(2)],
    )


def _transposed_shape(
    x: Any, w: Any, stride: Pair, padding: Pair, output_padding: Pair, groups: int, dilation: Pair, algo: str
) -> Pair:
    torch._check(x.ndim == 4 and w.ndim == 4, lambda: f"x and w must have 4 dimensions, got {x.shape} and {w.shape}")
    torch._check(x.shape[1] == w.shape[0], lambda: f"w {w.shape} does not fit x {x.shape}")
    sides = padding[0] + padding[1], padding[2] + padding[3]
    return (
        x.shape[0],
        w.shape[1] * groups,
        *[
            (x.shape[2 + i] - 1) * stride[i] - sides[i] + dilation[i] * (w.shape[2 + i] - 1) + output_padding[i] + 1
            for i in range(2)
        ],
    )


def _with_algo(function: Any) -> Any:
    """Of `pycnn.ops`, with the last of its positional arguments as `algo`."""
    return lambda *given: function(*given[:-1], algo=given[-1])


conv2d = bilinear(
    "conv2d",
    "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups, str algo",
    *(_with_algo(one) for one in (ops.conv2d_fprop, ops.conv2d_dgrad, ops.conv2d_wgrad)),
    y_shape=_conv2d_shape,
)

conv_transpose2d = bilinear(
    "conv_transpose2d",
    "SymInt[] stride, SymInt[] padding, SymInt[] output_padding, SymInt groups, SymInt[] dilation, str algo",
    *(_with_algo(one) for one in (ops.conv_transpose2d_fprop, ops.conv_transpose2d_dgrad, ops.conv_transpose2d_wgrad)),
    y_shape=_transposed_shape,
)


def _linear_shape(x: Any, w: Any) -> Pair:
    torch._check(x.shape[1] == w.shape[1], lambda: f"w {w.shape} does not fit x {x.shape}")
    return x.shape[0], w.shape[0]


linear = bilinear(
    "linear",
    "",
    ops.linear,
    lambda dy, w, _: ops.gemm(dy, w),
    lambda dy, x, _: ops.gemm(dy, x, trans_a=True),
    y_shape=_linear_shape,
)


# ---------------------------------------------------------------------------------------------------------- pooling


def _pooled(x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool) -> Pair:
    sizes = []
    for i in range(2):
        room = x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1
        size = (room + (stride[i] - 1 if ceil_mode else 0)) // stride[i] + 1
        if ceil_mode and (size - 1) * stride[i] >= x.shape[2 + i] + padding[i]:
            size -= 1  # a window that would begin in the padding behind the image
        sizes.append(size)
    return x.shape[0], x.shape[1], *sizes


avg_pool2d = linear_pair(
    "avg_pool2d",
    "SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, bool ceil_mode, bool count_include_pad, "
    "SymInt? divisor_override",
    ops.avg_pool2d,
    ops.avg_pool2d_backward,
    lambda x, kernel, stride, padding, ceil_mode, *_: _pooled(x, kernel, stride, padding, (1, 1), ceil_mode),
)

adaptive_avg_pool2d = linear_pair(
    "adaptive_avg_pool2d",
    "SymInt[] output_size",
    ops.adaptive_avg_pool2d,
    lambda dy, x_shape, _: ops.adaptive_avg_pool2d_backward(dy, x_shape),
    lambda x, output_size: (*x.shape[:2], *output_size),
)


def _save_max(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, *ctx.how = inputs
    ctx.x_shape = x.shape
    ctx.save_for_backward(output[1])


def _max_slopes(ctx: Any, dy: torch.Tensor, _: Any) -> Any:
    return _to_maxima(dy, ctx.saved_tensors[0], ctx.x_shape, *ctx.how), *(None,) * len(ctx.how)


def _save_indices(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, indices, ctx.x_shape, *ctx.how = inputs
    ctx.save_for_backward(indices)


def _to_maxima_slopes(ctx: Any, g: torch.Tensor) -> Any:
    return _from_maxima(g, ctx.saved_tensors[0], ctx.x_shape, *ctx.how), *(None,) * (2 + len(ctx.how))


def _from_maxima_slopes(ctx: Any, dy: torch.Tensor) -> Any:
    return _to_maxima(dy, ctx.saved_tensors[0], ctx.x_shape, *ctx.how), *(None,) * (2 + len(ctx.how))


_MAX_HOW = "SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, SymInt[] dilation, bool ceil_mode"

max_pool2d = operator(
    f"max_pool2d(Tensor x, {_MAX_HOW}) -> (Tensor, Tensor)",
    ops.max_pool2d,
    lambda x, *how: (empty(x, _pooled(x, *how)), empty(x, _pooled(x, *how), torch.int64)),
    _max_slopes,
    _save_max,
    images_folded,
)

# dx from dy, and back: what lies at the maxima of another array, by their indices.
_to_maxima = operator(
    f"max_pool2d_backward(Tensor dy, Tensor indices, SymInt[] x_shape, {_MAX_HOW}) -> Tensor",
    ops.max_pool2d_backward,
    lambda dy, indices, x_shape, *how: empty(dy, x_shape),
    _to_maxima_slopes,
    _save_indices,
    partial(images_folded, images=2, sizes=2),
)

_from_maxima = operator(
    f"max_pool2d_take(Tensor x, Tensor indices, SymInt[] x_shape, {_MAX_HOW}) -> Tensor",
    lambda x, indices, *_: ops.plane_take(x, indices),
    lambda x, indices, *_: empty(x, indices.shape),
    _from_maxima_slopes,
    _save_indices,
    partial(images_folded, images=2, sizes=2),
)


# ------------------------------------------------------------------------------------- normalisation and activation


def _save_norm(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, bias, ctx.eps = inputs
    _, mean, var = output
    ctx.save_for_backward(x, weight, mean, var)
    ctx.b_dtype = None if bias is None else bias.dtype


def _norm_slopes(ctx: Any, dy: torch.Tensor, *_: Any) -> Any:
    x, weight, mean, var = ctx.saved_tensors
    need_x, need_weight, need_bias, _ = ctx.needs_input_grad
    if torch.is_grad_enabled():  # the walk back is differentiated: written out, so that torch does it
        dx, dweight, dbias = _norm_written_out(dy.to(mean.dtype), x.to(mean.dtype), weight, ctx.eps)
    else:
        dx, dweight, dbias = _to_norm(dy, x, weight, mean, var, ctx.eps)
    return (
        dx.to(x.dtype) if need_x else None,
        dweight.to(weight.dtype) if need_weight else None,
        dbias.to(ctx.b_dtype) if need_bias else None,
        None,
    )


def _norm_written_out(dy: Any, x: Any, weight: Any, eps: float) -> tuple[Any, Any, Any]:
    axes, column = (0, 2, 3), (1, -1, 1, 1)
    centred = x - x.mean(axes, keepdim=True)
    scale = (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    normal = centred * scale
    dbias, dweight = dy.sum(axes), (dy * normal).sum(axes)
    count = x.numel() // x.shape[1]
    dx = scale * (dy - dbias.reshape(column) / count - normal * (dweight.reshape(column) / count))
    return dx if weight is None else dx * weight.to(x.dtype).reshape(column), dweight, dbias


def _unrounded(x: torch.Tensor) -> torch.dtype:
    return torch.float32 if x.dtype.itemsize == 2 else x.dtype


batch_norm = operator(
    "batch_norm(Tensor x, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor, Tensor)",
    ops.batch_norm,
    lambda x, weight, bias, eps: (
        empty(x, x.shape),
        empty(x, (x.shape[1],), _unrounded(x)),
        empty(x, (x.shape[1],), _unrounded(x)),
    ),
    _norm_slopes,
    _save_norm,
)

_to_norm = operator(
    "batch_norm_backward(Tensor dy, Tensor x, Tensor? weight, Tensor mean, Tensor var, float eps) "
    "-> (Tensor, Tensor, Tensor)",
    ops.batch_norm_backward,
    lambda dy, x, weight, mean, var, eps: (
        empty(dy, x.shape),
        *[empty(dy, mean.shape, mean.dtype if weight is None else weight.dtype) for _ in range(2)],
    ),
)


def _save_affine(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])


def _affine_slopes(ctx: Any, dy: torch.Tensor) -> Any:
    x, scale = ctx.saved_tensors
    need_x, need_scale, need_shift = ctx.needs_input_grad
    axes = (0, *range(2, dy.ndim))
    dx = channel_affine(dy, scale, torch.zeros_like(scale)) if need_x else None
    dscale = (dy.to(scale.dtype) * x.to(scale.dtype)).sum(axes) if need_scale else None
    return dx, dscale, dy.sum(axes, dtype=scale.dtype) if need_shift else None


channel_affine = operator(
    "channel_affine(Tensor x, Tensor scale, Tensor shift) -> Tensor",
    ops.channel_affine,
    lambda x, scale, shift: empty(x, x.shape),
    _affine_slopes,
    _save_affine,
    images_folded,
)


def _save_relu(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(output)


def _relu_slopes(ctx: Any, dy: torch.Tensor) -> Any:
    return (_to_relu(dy, ctx.saved_tensors[0].detach()),)


def _save_relu_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[1])


def _relu_gradient_slopes(ctx: Any, g: torch.Tensor) -> Any:
    return _to_relu(g, ctx.saved_tensors[0]), None


relu = operator("relu(Tensor x) -> Tensor", ops.relu, lambda x: empty(x, x.shape), _relu_slopes, _save_relu)

_to_relu = operator(
    "relu_backward(Tensor dy, Tensor y) -> Tensor",
    ops.relu_backward,
    lambda dy, y: empty(dy, dy.shape),
    _relu_gradient_slopes,
    _save_relu_gradient,
)
