"""Gathering and scattering, sorting, and where the largest are."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.movement import PutItem, SetItem, TakeAlong
from pycnn.onnx.operators._common import Value, axis_of, host, is_tensor, on_host
from pycnn.onnx.operators.shape import like_index, taken
from pycnn.onnx.registry import operator


def _counted_from_front(index: np.ndarray, size: int) -> np.ndarray:
    """An index in which negative ones count from the end.  Raises IndexError for one that is nowhere."""
    if index.size and not (-size <= index.min() and index.max() < size):
        raise IndexError(f"index {index.min()} to {index.max()} of a dimension of {size}")
    return np.where(index < 0, index + size, index).astype(np.int64)


@operator("Gather", host=(1,))
def gather(x: Value, indices: np.ndarray, *, axis: int = 0) -> Value:
    axis = axis_of(axis, x.ndim)
    return taken(x, _counted_from_front(indices, x.shape[axis]), axis)


@operator("GatherElements", host=(1,))
def gather_elements(x: Value, indices: np.ndarray, *, axis: int = 0) -> Value:
    axis = axis_of(axis, x.ndim)
    index = _counted_from_front(indices, x.shape[axis])
    whole = tuple(size if i == axis else index.shape[i] for i, size in enumerate(x.shape))
    if whole != tuple(x.shape):  # the other axes of x may be longer
        x = x[tuple(slice(0, size) for size in whole)]
    return TakeAlong.apply(x, like_index(index, x), axis) if is_tensor(x) else np.take_along_axis(x, index, axis)


@operator("GatherND", host=(1,))
def gather_nd(x: Value, indices: np.ndarray, *, batch_dims: int = 0) -> Value:
    return x[_nd_index(x, indices, batch_dims)]


def _nd_index(x: Value, indices: np.ndarray, batch_dims: int = 0) -> tuple[Any, ...]:
    """The index that vectors in the last dimension of `indices` stand for."""
    batch = np.ogrid[tuple(slice(size) for size in indices.shape[:batch_dims])] if batch_dims else []
    more = indices.ndim - 1 - batch_dims
    parts = [one.reshape(one.shape + (1,) * more) for one in batch]
    for i in range(indices.shape[-1]):
        parts.append(_counted_from_front(indices[..., i], x.shape[batch_dims + i]))
    return tuple(like_index(one, x) for one in parts)


def _elements_index(x: Value, indices: np.ndarray, axis: int) -> tuple[Any, ...]:
    parts = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    parts[axis] = _counted_from_front(indices, x.shape[axis])
    return tuple(like_index(one, x) for one in parts)


@operator("Scatter", "ScatterElements", host=(1,))
def scatter_elements(x: Value, indices: np.ndarray, updates: Value, *, axis: int = 0, reduction: str = "none") -> Value:
    index = _elements_index(x, indices, axis_of(axis, x.ndim))
    return _scattered("ScatterElements", x, index, updates, reduction)


@operator("ScatterND", host=(1,))
def scatter_nd(x: Value, indices: np.ndarray, updates: Value, *, reduction: str = "none") -> Value:
    return _scattered("ScatterND", x, _nd_index(x, indices), updates, reduction)


_AT: dict[str, Any] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scattered(what: str, x: Value, index: tuple[Any, ...], updates: Value, reduction: str) -> Value:
    """A copy of x with `updates` put, or added and so on, at `index`; repeated places are added in their order."""
    if is_tensor(x) and reduction == "none":
        return SetItem.apply(x, updates, index)
    if is_tensor(x) and reduction == "add":
        return x + PutItem.apply(updates, index, tuple(x.shape))
    places = tuple(map(host, index))

    def run(array: np.ndarray, values: np.ndarray) -> np.ndarray:
        result = array.copy()
        if reduction == "none":
            result[places] = values
        else:
            _AT[reduction].at(result, places, values)
        return result

    return on_host(what, run, x, updates)


@operator("TensorScatter", host=(2,))
def tensor_scatter(
    x: Value, update: Value, start: np.ndarray | None = None, *, axis: int = -2, mode: str = "linear"
) -> Value:
    axis, count = axis_of(axis, x.ndim), update.shape[axis_of(axis, x.ndim)]
    first = np.zeros(x.shape[0], np.int64) if start is None else start
    along = first[:, None] + np.arange(count)
    if mode == "circular":
        along %= x.shape[axis]
    shape = [1] * x.ndim
    shape[0], shape[axis] = along.shape
    index = np.broadcast_to(along.reshape(shape), update.shape)
    return _scattered("TensorScatter", x, _elements_index(x, index, axis), update, "none")


def _extreme_index(x: Value, largest: bool, axis: int, keepdims: int, last: int) -> np.ndarray:
    array = host(x)
    axis = axis_of(axis, array.ndim)
    find = np.argmax if largest else np.argmin
    if last:
        found = array.shape[axis] - 1 - find(np.flip(array, axis), axis=axis, keepdims=bool(keepdims))
    else:
        found = find(array, axis=axis, keepdims=bool(keepdims))
    return np.asarray(found, np.int64)


@operator("ArgMax")
def arg_max(x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> np.ndarray:
    return _extreme_index(x, True, axis, keepdims, select_last_index)


@operator("ArgMin")
def arg_min(x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> np.ndarray:
    return _extreme_index(x, False, axis, keepdims, select_last_index)


@operator("TopK")
def top_k_by_attribute(x: Value, *, k: int, axis: int = -1) -> tuple[Value, np.ndarray]:
    return _top_k(x, k, axis, True)


@operator("TopK", since=10, host=(1,))
def top_k(x: Value, k: np.ndarray, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Value, np.ndarray]:
    return _top_k(x, int(k.reshape(-1)[0]), axis, bool(largest))


def _top_k(x: Value, k: int, axis: int, largest: bool) -> tuple[Value, np.ndarray]:
    """Always in order; of equal ones the first ones."""
    axis = axis_of(axis, x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(f"k = {k} of a dimension of {x.shape[axis]}")
    array = host(x)
    if largest:  # the last ones of the reversed order, for unsigned integers have no negative
        order = np.flip(array.shape[axis] - 1 - np.argsort(np.flip(array, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(array, axis, kind="stable")
    index = np.take(order, np.arange(k), axis).astype(np.int64)
    values = TakeAlong.apply(x, like_index(index, x), axis) if is_tensor(x) else np.take_along_axis(x, index, axis)
    return values, index
