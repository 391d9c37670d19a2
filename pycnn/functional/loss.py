"""Losses: cross-entropy, negative log-likelihood, mean squared error."""

from __future__ import annotations

import warnings
from typing import Any

from pycnn import ops
from pycnn.arithmetic import Where
from pycnn.arrays import is_array, is_host, module_of
from pycnn.functional._arrays import composed
from pycnn.functional.activation import LogSoftmax
from pycnn.graph import Function, Variable
from pycnn.movement import TakeAlong, sum_like
from pycnn.ops.loss import check_reduction
from pycnn.tensor import Tensor

__all__ = ["cross_entropy", "mse_loss", "nll_loss"]

Array = Any


class Nll(Function):
    """Negative log-likelihood of class indices: linear in x.  `how` is ignore_index and reduction."""

    @staticmethod
    def forward(ctx: Any, x: Array, target: Array, weight: Array | None, *how: Any) -> Array:
        ctx.save(target, weight)
        ctx.how, ctx.x_shape = how, x.shape
        return ops.nll(x, target, weight, *how)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return NllBackward.apply(dy, *ctx.saved, ctx.x_shape, *ctx.how), None, None, None, None


class NllBackward(Function):
    """dx of `Nll`, linear in dy: its own gradient is `Nll` again."""

    @staticmethod
    def forward(ctx: Any, dy: Array, target: Array, weight: Array | None, x_shape: tuple[int, ...], *how: Any) -> Array:
        ctx.save(target, weight)
        ctx.how = how
        return ops.nll_backward(dy, target, weight, x_shape, *how)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return Nll.apply(g, *ctx.saved, *ctx.how), None, None, None, None, None


class Mse(Function):
    """mean of (a - b)^2, of arrays of one shape and dtype."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        ctx.save(a, b)
        error = a - b
        return module_of(error).asarray((error * error).sum() / error.dtype.type(error.size))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        a, b = ctx.saved
        da = (a - b) * (dy * (2.0 / a.numel()))
        need_a, need_b = ctx.needs_input_grad
        return da if need_a else None, -da if need_b else None


class SquaredError(Function):
    """(a - b)^2, broadcast."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        error = a - b
        ctx.save(a, b)
        return module_of(error).asarray(error * error)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        a, b = ctx.saved
        da = 2.0 * (a - b) * dy
        need_a, need_b = ctx.needs_input_grad
        return sum_like(da, a) if need_a else None, sum_like(-da, b) if need_b else None


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Negative log-likelihood of `target` under softmax(`input`).

        l[n] = -sum over c of weight[c] * t[n, c] * log_softmax(input)[n, c]
        t = (1 - label_smoothing) * (one-hot or given probabilities) + label_smoothing / C

    Args:
        input: scores, (N, C, ...) or (C,); a Tensor or an array.
        target: class indices, (N, ...), ints; or probabilities of input's shape.
        weight: (C,), or None for 1.
        ignore_index: targets of this index count for nothing (class indices only).
        reduction: "mean" (divided by the sum of weight[target]; with probabilities by the number of targets), "sum" or
            "none".
        label_smoothing: 0 to 1.

    Returns:
        a scalar, or the losses (N, ...) for "none".

    Raises:
        TypeError: indices that are not integers.
        ValueError: shapes that do not agree, an unknown reduction, smoothing outside [0, 1].
        IndexError: a class index outside [0, C).

    >>> import numpy as np, pycnn
    >>> pycnn.functional.cross_entropy(np.zeros((1, 2)), np.array([1]))
    array(0.69314718)
    """
    if not label_smoothing and _plain(input, target, weight):
        return ops.nll(ops.log_softmax(input, 1), target, None, ignore_index, reduction)
    return _cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing)


@composed
def _cross_entropy(
    input: Any, target: Any, weight: Any, ignore_index: int, reduction: str, label_smoothing: float
) -> Any:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie between 0 and 1, got {label_smoothing}")
    check_reduction(reduction)
    target = _tensor(target)
    axis = 1 if input.ndim > 1 else 0
    if input.ndim == 0:
        raise ValueError("input must be (N, C, ...) or (C,), got a scalar")
    logp = LogSoftmax.apply(input, axis)
    if target.dtype.kind in "fV":
        return _soft(logp, target, _checked_weight(weight, input.shape[axis]), axis, reduction, label_smoothing)
    return _hard(logp, target, weight, ignore_index, reduction, label_smoothing)


def nll_loss(input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> Any:
    """Negative log-likelihood of class indices: l[n] = -weight[target[n]] * input[n, target[n]].

    Args, Returns, Raises: as `cross_entropy`, with log-probabilities as `input` and indices as `target`.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.nll_loss(np.array([[-2.0, -1.0]]), np.array([0]))
    array(2.)
    """
    if _plain(input, target, weight):
        return ops.nll(input, target, None, ignore_index, reduction)
    return _nll_loss(input, target, weight, ignore_index, reduction)


@composed
def _nll_loss(input: Any, target: Any, weight: Any, ignore_index: int, reduction: str) -> Any:
    check_reduction(reduction)
    if input.ndim == 0:
        raise ValueError("input must be (N, C, ...) or (C,), got a scalar")
    return _hard(input, _tensor(target), weight, ignore_index, reduction, 0.0)


@composed
def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """Squared error (input - target)^2, reduced by "mean", "sum" or "none".

    Warns where the two shapes differ and broadcasting would hide it.

    Args:
        input, target: of one shape; Tensors or arrays.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: an unknown reduction.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.mse_loss(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    array(2.)
    """
    check_reduction(reduction)
    target = _tensor(target)
    if input.shape != target.shape:
        warnings.warn(
            f"mse_loss: input has shape {input.shape} and target {target.shape}; they are broadcast", stacklevel=3
        )
    elif reduction == "mean" and input.dtype == target.dtype and input.dtype.char in "fd" and input.numel():
        return Mse.apply(input, target)
    return reduced(SquaredError.apply(input, target), reduction)


def _plain(input: Any, target: Any, weight: Any) -> bool:
    """Whether the raw operators take these as they are: arrays, scores by class, and whole classes."""
    return (
        weight is None
        and is_array(input)
        and is_array(target)
        and input.ndim > 1
        and input.dtype.char in "fd"
        and target.dtype.kind in "iu"
    )


def _hard(logp: Any, target: Any, weight: Any, ignore_index: int, reduction: str, smoothing: float) -> Any:
    if target.dtype.kind not in "iu":
        raise TypeError(f"target must hold class indices (integers), got dtype {target.dtype}")
    single = logp.ndim == 1
    if single:
        logp, target = logp.unsqueeze(0), target.reshape(1)
    classes = logp.shape[1]
    expected = (logp.shape[0], *logp.shape[2:])
    if target.shape != expected:
        raise ValueError(f"target must have shape {expected} for an input of {logp.shape}, got {target.shape}")
    weight = _checked_weight(weight, classes)
    if not smoothing:
        if weight is not None and weight.dtype != logp.dtype:
            weight = weight.detach().to(logp.dtype)
        loss = Nll.apply(logp, target, weight, ignore_index, reduction)
        return loss.squeeze(0) if single and reduction == "none" else loss
    indices = target._data
    counted = indices != ignore_index
    module = module_of(indices)
    wrong = counted & ((indices < 0) | (indices >= classes))
    if is_host(indices) and wrong.any():
        raise IndexError(f"target holds the class {indices[wrong].flat[0]}, but there are classes 0 to {classes - 1}")
    safe = module.where(counted & ~wrong, indices, 0)
    factor = counted.astype(logp.dtype)
    if not is_host(indices):  # asking would mean waiting for the GPU: such a target makes the loss NaN
        factor = module.where(wrong, factor.dtype.type("nan"), factor)
    if weight is not None:
        factor = factor * weight._data.astype(logp.dtype)[safe]
    nothing = logp.dtype.type(0)  # an ignored row counts for nothing even where it holds infinities or the mean is 0/0
    picked = Where.apply(counted, TakeAlong.apply(logp, module.expand_dims(safe, 1), 1).squeeze(1), nothing)
    column = (1, -1, *(1,) * (logp.ndim - 2))
    weighted = logp if weight is None else logp * weight.reshape(column)
    even = -Where.apply(counted, weighted.sum(1), nothing)
    loss = -(picked * factor) * (1.0 - smoothing) + even * (smoothing / classes)
    if reduction == "mean":
        return loss.sum() / module.asarray(factor.sum(dtype=module.float64), dtype=logp.dtype)
    return reduced(loss.squeeze(0) if single else loss, reduction)


def _soft(logp: Any, target: Any, weight: Any, axis: int, reduction: str, smoothing: float) -> Any:
    if target.shape != logp.shape:
        raise ValueError(f"target probabilities must have input's shape {logp.shape}, got {target.shape}")
    classes = logp.shape[axis]
    if smoothing:
        target = target * (1.0 - smoothing) + smoothing / classes
    terms = target * logp
    if weight is not None:
        terms = terms * weight.reshape((1, -1, *(1,) * (logp.ndim - 2)) if axis else (-1,))
    loss = -terms.sum(axis)
    if reduction == "mean":
        return loss.sum() / (logp.numel() // classes)
    return reduced(loss, reduction)


def reduced(loss: Any, reduction: str) -> Any:
    """The losses' mean, their sum, or they themselves."""
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def _checked_weight(weight: Any, classes: int) -> Any:
    if weight is None:
        return None
    weight = _tensor(weight)
    if weight.shape != (classes,):
        raise ValueError(f"weight must have shape ({classes},), one value a class, got {weight.shape}")
    return weight


def _tensor(value: Any) -> Any:
    return value if isinstance(value, Variable) else Tensor(value)
