"""Batch normalisation and local response normalisation.

Their backward runs one fused kernel; when it is itself recorded (create_graph) it is written out in Tensor operations.
"""

from __future__ import annotations

import math
from typing import Any

from pycnn import autograd, graph, ops
from pycnn.arrays import is_array, module_of
from pycnn.functional._arrays import composed, expect_arrays, fused
from pycnn.functional.activation import Relu, ReluBackward
from pycnn.functional.linear import ChannelSum
from pycnn.graph import Function, is_grad_enabled
from pycnn.ops._checks import flag, number

__all__ = ["batch_norm", "local_response_norm"]

Array = Any


class BatchNorm(Function):
    """(y, mean, var) with the statistics of the batch itself; mean and var have no gradient of their own."""

    constant_outputs = (1, 2)

    @staticmethod
    def forward(
        ctx: Any, x: Array, weight: Array | None, bias: Array | None, residual: Array | None, eps: float, relu: bool
    ) -> tuple[Array, ...]:
        ctx.eps, ctx.bias_dtype = eps, None if bias is None else bias.dtype
        y, mean, var = ops.batch_norm(x, weight, bias, eps, residual, relu)
        ctx.save(x, weight, mean, var, y if relu else None)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, dy: Any, *_: Any) -> Any:
        x, weight, mean, var, y = ctx.saved
        need_x, need_weight, need_bias, need_residual, *_settings = ctx.needs_input_grad
        if y is not None and (need_residual or is_grad_enabled()):
            dy, y = ReluBackward.apply(dy, y.detach()), None
        dresidual = dy if need_residual else None
        dx: Any
        if is_grad_enabled():
            dx, dweight, dbias = _slopes(dy.to(mean.dtype), x.to(mean.dtype), weight, ctx.eps)
        else:
            slope, given, scale, rectified = (None if one is None else one._data for one in (dy, x, weight, y))
            results = ops.batch_norm_backward(slope, given, scale, mean._data, var._data, ctx.eps, rectified)
            dx, dweight, dbias = map(fused, results)
        dx = dx.to(x.dtype) if need_x else None
        dweight = dweight.to(weight.dtype) if need_weight else None
        return dx, dweight, dbias.to(ctx.bias_dtype) if need_bias else None, dresidual, None, None


def _slopes(dy: Any, x: Any, weight: Any, eps: float) -> tuple[Any, Any, Any]:
    """The gradients of `BatchNorm` with respect to x, weight and bias, in Tensor operations."""
    axes = (0, *range(2, x.ndim))
    column = (1, -1, *(1,) * (x.ndim - 2))
    count = x.numel() // x.shape[1]
    centred = x - x.mean(axes, keepdim=True)
    scale = ((centred * centred).mean(axes, keepdim=True) + eps) ** -0.5
    normal = centred * scale
    dbias, dweight = dy.sum(axes), (dy * normal).sum(axes)
    dx = scale * (dy - dbias.reshape(column) / count - normal * (dweight.reshape(column) / count))
    return dx if weight is None else dx * weight.to(x.dtype).reshape(column), dweight, dbias


class BatchNormEval(Function):
    """y = x * scale + shift with scale = weight / sqrt(var + eps) and shift = bias - mean * scale."""

    @staticmethod
    def forward(
        ctx: Any, x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> Array:
        ctx.save(x if any(ctx.needs_input_grad[2:4]) else None, mean, var, weight)
        ctx.eps = eps
        return ops.batch_norm_eval(x, mean, var, weight, bias, eps)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, mean, var, weight = ctx.saved
        need_x, need_mean, need_var, need_weight, need_bias, _ = ctx.needs_input_grad
        inverse = (var + ctx.eps) ** -0.5
        scale = inverse if weight is None else inverse * weight
        dshift: Any = ChannelSum.apply(dy, scale.dtype) if any(ctx.needs_input_grad[1:]) else None
        dx = dvar = dweight = None
        if need_x:
            dx = ChannelAffine.apply(dy, scale, module_of(dy._data).zeros(dy.shape[1], scale.dtype))
        if need_weight or need_var:
            dscale = _product_sum(dy, x, scale.dtype) - mean * dshift
            dweight = dscale * inverse if need_weight else None
            dvar = dscale * scale / (var + ctx.eps) * -0.5 if need_var else None
        return dx, -scale * dshift if need_mean else None, dvar, dweight, dshift if need_bias else None, None


class ChannelAffine(Function):
    """y[n, c, ...] = x[n, c, ...] * scale[c] + shift[c]."""

    @staticmethod
    def forward(ctx: Any, x: Array, scale: Array, shift: Array) -> Array:
        dx, dscale, _ = ctx.needs_input_grad
        ctx.dtypes = scale.dtype, shift.dtype
        ctx.save(x if dscale else None, scale if dx else None)
        return ops.channel_affine(x, scale, shift)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, scale = ctx.saved
        dx, dscale, dshift = ctx.needs_input_grad
        none = module_of(dy._data).zeros(dy.shape[1], scale.dtype) if dx else None
        return (
            ChannelAffine.apply(dy, scale, none) if dx else None,
            _product_sum(dy, x, ctx.dtypes[0]) if dscale else None,
            ChannelSum.apply(dy, ctx.dtypes[1]) if dshift else None,
        )


def _product_sum(dy: Any, x: Any, dtype: Any) -> Any:
    """The sum of dy * x over all axes but the second; in `dtype`, and so are the products."""
    return ChannelSum.apply(dy.to(dtype) * x.to(dtype), dtype)


class LocalResponseNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        ctx.save(x)
        ctx.how = size, alpha, beta, k
        return ops.lrn(x, size, alpha, beta, k)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (x,) = ctx.saved
        size, alpha, beta, k = ctx.how
        if not is_grad_enabled():
            return fused(ops.lrn_backward(dy._data, x._data, *ctx.how)), None, None, None, None
        before, after = size // 2, (size - 1) // 2
        base = k + (alpha / size) * ChannelWindow.apply(x * x, before, after)
        spread = ChannelWindow.apply(dy * x * base ** (-beta - 1.0), after, before)
        return dy * base**-beta - (2.0 * alpha * beta / size) * x * spread, None, None, None, None


class ChannelWindow(Function):
    """y[n, c, ...] = sum of x[n, i, ...] for c - before <= i <= c + after."""

    @staticmethod
    def forward(ctx: Any, x: Array, before: int, after: int) -> Array:
        ctx.reach = before, after
        y = module_of(x).zeros_like(x)
        channels = x.shape[1]
        for step in range(-before, after + 1):
            first, last = max(0, -step), min(channels, channels - step)
            if first < last:
                y[:, first:last] += x[:, first + step : last + step]
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        before, after = ctx.reach
        return ChannelWindow.apply(dy, after, before), None, None


def batch_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    residual: Any = None,
    relu: bool = False,
) -> Any:
    """Normalise each channel to mean 0 and variance 1, then scale and shift it.

        y[n, c, ...] = (x[n, c, ...] - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]

    Args:
        x: (N, C, ...); a Tensor or an array.
        running_mean, running_var: (C,); used without `training`, and updated in place with it (unless None):
            running = (1 - momentum) * running + momentum * (mean, or the unbiased variance).
        weight, bias: (C,), or None for 1 and 0.  They and the running statistics may be float32 beside an x of 16 bits.
        training: use the mean and the biased variance of this batch.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance.
        residual: added to y, of its shape and dtype (inside `pycnn.amp.autocast` it is converted); on the CPU and with
            `training`, in the same pass over memory.
        relu: max(y, 0) at the end, likewise.

    Returns:
        y, of x's shape.

    Raises:
        ValueError: wrong shapes, only one value a channel in training, or no running statistics without it.
        TypeError: a residual of another dtype.

    Reference: Ioffe & Szegedy, "Batch Normalization", ICML 2015.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.batch_norm(np.array([[1.0], [3.0]]), training=True).round(3)
    array([[-1.],
           [ 1.]])
    """
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    expect_arrays(x=x, **{name: array for name, array in given.items() if array is not None})
    training, relu = flag("training", training), flag("relu", relu)
    momentum, eps = number("momentum", momentum), number("eps", eps, 0)
    if len(x.shape) < 2:
        raise ValueError(f"x must have at least 2 dimensions (N, C, ...), got shape {tuple(x.shape)}")
    channels = x.shape[1]
    if channels == 0:
        raise ValueError(f"x must have at least one channel, got shape {tuple(x.shape)}")
    for name, array in given.items():
        if array is not None and tuple(array.shape) != (channels,):
            raise ValueError(f"{name} must have shape ({channels},), one value a channel, got {tuple(array.shape)}")
    if residual is not None:
        expect_arrays(residual=residual)
        if tuple(residual.shape) != tuple(x.shape):
            raise ValueError(f"residual must have x's shape {tuple(x.shape)}, got {tuple(residual.shape)}")
        if residual.dtype != x.dtype:
            if graph.caster.get() is None:
                raise TypeError(f"residual must have x's dtype {x.dtype}, got {residual.dtype}")
            residual = _tensor(residual).to(x.dtype)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm without training needs running_mean and running_var")
        simple = _is_array(x) and all(_is_ready(one, x.dtype) for one in given.values() if one is not None)
        evaluate = BatchNormEval.apply if simple else _with_statistics
        y = evaluate(x, running_mean, running_var, weight, bias, eps)
        y = y if residual is None else y + residual
        return Relu.apply(y) if relu else y
    count = math.prod(x.shape) // channels
    if count == 1:
        raise ValueError(f"batch_norm in training needs more than one value a channel, got shape {tuple(x.shape)}")
    y, mean, var = BatchNorm.apply(x, weight, bias, residual, eps, relu)
    if count and not autograd.recomputing():
        update_running(running_mean, mean, momentum)
        update_running(running_var, var, momentum, count / (count - 1))
    return y


def update_running(running: Any, value: Any, momentum: float, factor: float = 1.0) -> None:
    """running = (1 - momentum) * running + momentum * factor * value, in place; nothing where there is none."""
    if running is None:
        return
    array, given = (one._data if isinstance(one, graph.Variable) else one for one in (running, value))
    array *= 1 - momentum
    array += given * (momentum * factor)
    if isinstance(running, graph.Variable):
        running._versions.version += 1


def _is_array(one: Any) -> bool:
    return is_array(one._data if isinstance(one, graph.Variable) else one)


def _is_ready(one: Any, dtype: Any) -> bool:
    """Whether the operators take it, one value a channel, as it is beside an x of `dtype`."""
    return _is_array(one) and (one.dtype == dtype or (dtype.itemsize == 2 and one.dtype == "float32"))


@composed
def _with_statistics(x: Any, mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> Any:
    if all(_is_ready(one, x.dtype) for one in (mean, var, weight, bias) if one is not None):
        return BatchNormEval.apply(x, mean, var, weight, bias, eps)
    scale = (_tensor(var) + eps) ** -0.5
    if weight is not None:
        scale = scale * weight
    shift = -scale * mean
    if bias is not None:
        shift = shift + bias
    return ChannelAffine.apply(x, scale.to(x.dtype), shift.to(x.dtype))


def _tensor(value: Any) -> Any:
    return value if isinstance(value, graph.Variable) else graph.wrap(value)


def local_response_norm(x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """Divide each element by what its neighbours in `size` adjacent channels amount to.

        y[n, c, ...] = x[n, c, ...] / (k + alpha/size * sum of x[n, i, ...]^2)^beta
            for c - size//2 <= i <= c + (size - 1)//2

    Args:
        x: (N, C, ...); a Tensor or an array.
        size: channels in a window, at least 1.
        alpha, beta, k: the constants.  As in PyTorch alpha is divided by `size`; the paper does not divide.

    Raises:
        TypeError, ValueError: as `pycnn.ops.lrn`.

    Reference: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
    NeurIPS 2012, section 3.3.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.local_response_norm(np.ones((1, 2, 1)), 1, alpha=1.0, beta=1.0)[0, :, 0]
    array([0.5, 0.5])
    """
    return LocalResponseNorm.apply(x, size, number("alpha", alpha), number("beta", beta), number("k", k))
