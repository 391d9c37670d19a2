"""Group, instance, layer and root-mean-square normalisation: all of them of groups of neighbouring channels.

The backward runs one fused kernel; when it is itself recorded (create_graph) it is written out in Tensor operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import autograd, ops
from pycnn.functional._arrays import expect_arrays, fused
from pycnn.functional.norm import batch_norm, update_running
from pycnn.graph import Function, Variable, is_grad_enabled
from pycnn.ops._checks import flag, number
from pycnn.shape import whole

__all__ = ["group_norm", "instance_norm", "layer_norm", "rms_norm"]

Array = Any


class GroupNorm(Function):
    """(y, mean, var) of `ops.group_norm`; mean and var have no gradient of their own."""

    constant_outputs = (1, 2)

    @staticmethod
    def forward(
        ctx: Any, x: Array, weight: Array | None, bias: Array | None, groups: int, eps: float, centred: bool
    ) -> tuple[Array, ...]:
        ctx.how = groups, eps, centred
        ctx.bias_dtype = None if bias is None else bias.dtype
        y, mean, var = ops.group_norm(x, groups, weight, bias, eps, centred)
        ctx.save(x, weight, mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, dy: Any, *_: Any) -> Any:
        x, weight, mean, var = ctx.saved
        groups, eps, centred = ctx.how
        need_x, need_weight, need_bias, *_settings = ctx.needs_input_grad
        dx: Any
        if is_grad_enabled():
            dx, dweight, dbias = _slopes(dy.to(mean.dtype), x.to(mean.dtype), weight, *ctx.how)
        else:
            factor = None if weight is None else weight._data
            arrays = dy._data, x._data, groups, factor, mean._data, var._data
            results = ops.group_norm_backward(*arrays, eps, centred, need_weight or need_bias)
            dx, dweight, dbias = (None if one is None else fused(one) for one in results)
        return (
            dx.to(x.dtype) if need_x else None,
            dweight.to(weight.dtype) if need_weight else None,
            dbias.to(ctx.bias_dtype) if need_bias else None,
            *(None,) * 3,
        )


def _slopes(dy: Any, x: Any, weight: Any, groups: int, eps: float, centred: bool) -> tuple[Any, Any, Any]:
    """The gradients of `GroupNorm` with respect to x, weight and bias, in Tensor operations."""
    rows = (x.shape[0], groups, math.prod(x.shape[1:]) // groups)  # -1 has no meaning without samples
    axes, column = (0, *range(2, x.ndim)), (1, -1, *(1,) * (x.ndim - 2))
    distance = x.reshape(rows)
    if centred:
        distance = distance - distance.mean(2, keepdim=True)
    scale = ((distance * distance).mean(2, keepdim=True) + eps) ** -0.5
    unit = distance * scale
    slope = (dy if weight is None else dy * weight.to(x.dtype).reshape(column)).reshape(rows)
    dx = slope - unit * (slope * unit).mean(2, keepdim=True)
    if centred:
        dx = dx - slope.mean(2, keepdim=True)
    return (dx * scale).reshape(x.shape), (dy * unit.reshape(x.shape)).sum(axes), dy.sum(axes)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Normalise each group of neighbouring channels of each sample to mean 0 and variance 1, then scale and shift it.

        y[n, c, ...] = (x[n, c, ...] - mean[n, g]) / sqrt(var[n, g] + eps) * weight[c] + bias[c]

    Args:
        input: (N, C, ...); a Tensor or an array, float16, bfloat16, float32 or float64.
        num_groups: how many groups the channels make, all of one size.
        weight, bias: (C,), or None for 1 and 0; they may be float32 beside an input of 16 bits.
        eps: added to the (biased) variance.

    Returns:
        y, of input's shape.

    Raises:
        TypeError: not an array, or an unsupported dtype.
        ValueError: wrong shapes, groups that do not divide the channels, or one value a group alone.

    Reference: Wu & He, "Group normalization", ECCV 2018.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.group_norm(np.array([[1.0, 3.0, 5.0, 5.0]]), 2).round(3)
    array([[-1.,  1.,  0.,  0.]])
    """
    _expect(input, weight=weight, bias=bias)
    groups = whole("num_groups", num_groups, 1)
    channels = input.shape[1]
    if channels % groups or not channels:
        raise ValueError(f"num_groups must divide the {channels} channels of input, got {groups}")
    if input.shape[0] * (channels // groups) * math.prod(input.shape[2:]) == 1:
        raise ValueError(f"group_norm needs more than one value a group, got shape {tuple(input.shape)}")
    return GroupNorm.apply(input, weight, bias, groups, number("eps", eps, 0), True)[0]


def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Normalise each channel of each sample to mean 0 and variance 1, then scale and shift it.

        y[n, c, ...] = (x[n, c, ...] - mean[n, c]) / sqrt(var[n, c] + eps) * weight[c] + bias[c]

    Args:
        input: (N, C, ...), at least three dimensions; a Tensor or an array.
        running_mean, running_var: (C,); used without `use_input_stats`, and updated in place with it (unless None):
            running = (1 - momentum) * running + momentum * (the mean over the samples of mean, or of the unbiased
            variance).
        weight, bias: (C,), or None for 1 and 0.
        use_input_stats: normalise by the sample's own statistics.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance.

    Returns:
        y, of input's shape.

    Raises:
        TypeError: as `group_norm`.
        ValueError: wrong shapes, one value a channel, or no running statistics without `use_input_stats`.

    Reference: Ulyanov, Vedaldi & Lempitsky, "Instance normalization", 2016.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.instance_norm(np.array([[[1.0, 3.0], [5.0, 5.0]]])).round(3)
    array([[[-1.,  1.],
            [ 0.,  0.]]])
    """
    _expect(input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    momentum, eps = number("momentum", momentum), number("eps", eps, 0)
    if not flag("use_input_stats", use_input_stats):
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if len(input.shape) < 3:
        raise ValueError(f"input must have at least 3 dimensions (N, C, ...), got shape {tuple(input.shape)}")
    count = math.prod(input.shape[2:])
    if count == 1:
        raise ValueError(f"instance_norm needs more than one value a channel, got shape {tuple(input.shape)}")
    y, mean, var = GroupNorm.apply(input, weight, bias, input.shape[1], eps, True)
    if input.shape[0] and count and not autograd.recomputing():
        for running, value, factor in ((running_mean, mean, 1.0), (running_var, var, count / (count - 1))):
            if running is not None:
                value = value._data if isinstance(value, Variable) else value
                update_running(running, value.mean(0), momentum, factor)
    return y


def layer_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """Normalise the last dimensions of each sample to mean 0 and variance 1, then scale and shift each element.

        y[n, i] = (x[n, i] - mean[n]) / sqrt(var[n] + eps) * weight[i] + bias[i]

    Args:
        input: (..., *normalized_shape); a Tensor or an array, float16, bfloat16, float32 or float64.
        normalized_shape: the sizes of the last dimensions, an int for one.
        weight, bias: of that shape, or None for 1 and 0; they may be float32 beside an input of 16 bits.
        eps: added to the (biased) variance.

    Returns:
        y, of input's shape.

    Raises:
        TypeError: not an array, or an unsupported dtype.
        ValueError: shapes that do not agree.

    Reference: Ba, Kiros & Hinton, "Layer normalization", 2016.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.layer_norm(np.array([[1.0, 3.0], [5.0, 7.0]]), 2).round(3)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    return _rows_norm(input, normalized_shape, weight, bias, number("eps", eps, 0), True)


def rms_norm(input: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    """Divide the last dimensions of each sample by their root mean square, then scale each element.

        y[n, i] = x[n, i] / sqrt(mean of x[n]^2 + eps) * weight[i]

    Args:
        input, normalized_shape, weight: as in `layer_norm`.
        eps: None for the distance from 1 to the next number of input's dtype.

    Returns, Raises: as `layer_norm`.

    Reference: Zhang & Sennrich, "Root mean square layer normalization", 2019.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.rms_norm(np.array([[3.0, 4.0]]), 2, eps=0.0).round(4)
    array([[0.8485, 1.1314]])
    """
    expect_arrays(input=input)
    if eps is None:
        eps = float(np.finfo(input.dtype).eps) if input.dtype in (np.float32, np.float64) else _half_eps(input.dtype)
    return _rows_norm(input, normalized_shape, weight, None, number("eps", eps, 0), False)


def _half_eps(dtype: Any) -> float:
    return 2.0**-7 if str(dtype).endswith("bfloat16") else 2.0**-10


def _rows_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any, bias: Any, eps: float, centred: bool
) -> Any:
    _expect(input, 1, weight=None, bias=None)
    sizes = (normalized_shape,) if isinstance(normalized_shape, (int, np.integer)) else tuple(normalized_shape)
    shape = tuple([whole(f"normalized_shape[{i}]", size, 0) for i, size in enumerate(sizes)])
    given = tuple(input.shape)
    if not shape or given[-len(shape) :] != shape:
        raise ValueError(f"normalized_shape must be the sizes of input's last dimensions, {given}, got {shape}")
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None:
            expect_arrays(**{name: array})
            if tuple(array.shape) != shape:
                raise ValueError(f"{name} must have shape {shape}, one value an element, got {tuple(array.shape)}")
    if math.prod(shape) == 0:
        return input.reshape(given)
    weight, bias = (None if one is None else one.reshape(-1) for one in (weight, bias))
    rows = input.reshape(math.prod(given[: -len(shape)]), math.prod(shape))
    return GroupNorm.apply(rows, weight, bias, 1, eps, centred)[0].reshape(given)


def _expect(input: Any, least: int = 2, **channels: Any) -> None:
    """Arrays, an input of enough dimensions, and one value a channel in what has any."""
    expect_arrays(input=input, **{name: array for name, array in channels.items() if array is not None})
    if len(input.shape) < least:
        layout = "(N, C, ...)" if least > 1 else "(..., normalized_shape)"
        raise ValueError(f"input must have at least {least} dimensions {layout}, got shape {tuple(input.shape)}")
    for name, array in channels.items():
        if array is not None and tuple(array.shape) != (input.shape[1],):
            sizes = tuple(array.shape)
            raise ValueError(f"{name} must have shape ({input.shape[1]},), one value a channel, got {sizes}")
