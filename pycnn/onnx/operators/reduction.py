"""Reductions.  The axes were an attribute, and became an input with opset 13 (ReduceSum) or 18."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.onnx.operators._common import Value, axes_of, host, ints, is_tensor, on_host, permute, tensor_of
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor

Reduce = Callable[[Value, tuple[int, ...], bool], Value]


def _register(name: str, function: Reduce, since: int = 18, nothing: Callable[[Value], Value] | None = None) -> None:
    """`function` as an operator; `nothing` is what it makes of its input where it is told to reduce no axis at all."""

    def by_attribute(x: Value, *, axes: tuple[int, ...] | None = None, keepdims: int = 1) -> Value:
        return function(x, axes_of(axes, x.ndim) or tuple(range(x.ndim)), bool(keepdims))

    def by_input(
        x: Value, axes: np.ndarray | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Value:
        which = axes_of(ints(axes), x.ndim)
        if not which and noop_with_empty_axes:
            return function(x.reshape((*x.shape, 1)), (x.ndim,), False) if nothing is None else nothing(x)
        return function(x, which or tuple(range(x.ndim)), bool(keepdims))

    operator(name, since=1)(by_attribute)
    operator(name, since=since, host=(1,))(by_input)


def _sum(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    if is_tensor(x):
        return x.sum(axes, keepdims) if axes else x
    return x.sum(axis=axes, keepdims=keepdims, dtype=x.dtype)


def _mean(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    count = math.prod([x.shape[axis] for axis in axes])
    if is_tensor(x):
        return _sum(x, axes, keepdims) / count
    total = x.sum(axis=axes, keepdims=keepdims)
    return np.trunc(total / count).astype(x.dtype)  # of whole numbers a whole one


def _extreme(largest: bool) -> Reduce:
    def extreme(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
        if math.prod([x.shape[axis] for axis in axes]) == 0:  # of nothing: the least, or the largest, that there is
            shape = np.empty(x.shape).sum(axis=axes, keepdims=keepdims).shape
            return np.full(shape, _bound(x.dtype, not largest), x.dtype)
        if is_tensor(x):
            return (x.amax if largest else x.amin)(axes, keepdims) if axes else x
        return (np.max if largest else np.min)(x, axis=axes, keepdims=keepdims)

    return extreme


def _bound(dtype: np.dtype[Any], largest: bool) -> Any:
    if dtype.kind in "iu":
        return np.iinfo(dtype).max if largest else np.iinfo(dtype).min
    return largest if dtype.kind == "b" else math.inf if largest else -math.inf


def _prod(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    if not is_tensor(x):
        return np.prod(x, axis=axes, keepdims=keepdims, dtype=x.dtype)
    if not axes:
        return x
    kept = [i for i in range(x.ndim) if i not in axes]
    shape = tuple(size if i in kept else 1 for i, size in enumerate(x.shape))
    rest = permute(x, (*kept, *axes)).reshape((math.prod(shape), -1 if math.prod(x.shape) else 0))
    while rest.shape[1] > 1:  # halves multiplied with each other, so that it is differentiated as products are
        half = rest.shape[1] // 2
        product = rest[:, :half] * rest[:, half : 2 * half]
        rest = product if rest.shape[1] == 2 * half else F.cat([product, rest[:, 2 * half :]], 1)
    if rest.shape[1] == 0:
        rest = tensor_of(np.ones((rest.shape[0], 1), x.dtype), x)
    return rest.reshape(shape if keepdims else tuple(x.shape[i] for i in kept))


def _log(x: Value, like: Value) -> Value:
    return x.log() if is_tensor(x) else np.log(x).astype(like.dtype)


def _log_sum_exp(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    """Of what is left when the largest is taken off: e to the power of it overflows otherwise."""
    if not is_tensor(x):
        return np.log(np.exp(x.astype(np.float64)).sum(axis=axes, keepdims=keepdims)).astype(x.dtype)
    if not x.numel():
        return _sum(x, axes, keepdims).log()
    most = host(x.amax(axes, True)) if axes else host(x)
    largest = tensor_of(np.where(np.isfinite(most), most, 0).astype(x.dtype), x)
    shifted = _sum((x - largest).exp(), axes, keepdims).log()
    return shifted + largest.reshape(shifted.shape)


def _l1(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return _sum(abs(x), axes, keepdims)


def _sum_square(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return _sum(x * x, axes, keepdims)


def _l2(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    total = _sum_square(x, axes, keepdims)
    return total.sqrt() if is_tensor(total) else np.sqrt(total).astype(x.dtype)


def _log_sum(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return _log(_sum(x, axes, keepdims), x)


def _itself(x: Value) -> Value:
    return x


_register("ReduceSum", _sum, 13, _itself)
_register("ReduceMean", _mean, nothing=_itself)
_register("ReduceMax", _extreme(True), nothing=_itself)
_register("ReduceMin", _extreme(False), nothing=_itself)
_register("ReduceProd", _prod, nothing=_itself)
_register("ReduceL1", _l1)
_register("ReduceL2", _l2)
_register("ReduceSumSquare", _sum_square)
_register("ReduceLogSum", _log_sum)
_register("ReduceLogSumExp", _log_sum_exp, nothing=_itself)


@operator("Det")
def determinant(x: Tensor) -> Value:
    return on_host("Det", lambda array: np.linalg.det(array).astype(array.dtype), x)
