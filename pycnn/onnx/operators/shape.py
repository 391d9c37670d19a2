"""Shapes: what changes them, tells them, or makes tensors of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.arithmetic import Where
from pycnn.onnx.graph import dtype_of
from pycnn.onnx.operators._common import Value, axes_of, axis_of, host, ints, is_tensor, like, on_host, permute
from pycnn.onnx.registry import operator


@operator("Reshape")
def reshape_by_attribute(x: Value, *, shape: tuple[int, ...]) -> Value:
    return _reshaped(x, shape, False)


@operator("Reshape", since=5, host=(1,))
def reshape(x: Value, shape: np.ndarray, *, allowzero: int = 0) -> Value:
    return _reshaped(x, ints(shape), bool(allowzero))


def _reshaped(x: Value, shape: tuple[int, ...], allowzero: bool) -> Value:
    if not allowzero:
        shape = tuple(x.shape[i] if size == 0 else size for i, size in enumerate(shape))
    if -1 in shape and math.prod(x.shape) == 0:
        shape = tuple(0 if size == -1 else size for size in shape)  # NumPy cannot divide nothing by nothing
    return x.reshape(shape)


@operator("Flatten")
def flatten(x: Value, *, axis: int = 1) -> Value:
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@operator("Transpose")
def transpose(x: Value, *, perm: tuple[int, ...] | None = None) -> Value:
    return permute(x, perm if perm is not None else tuple(reversed(range(x.ndim))))


@operator("Squeeze")
def squeeze_by_attribute(x: Value, *, axes: tuple[int, ...] | None = None) -> Value:
    return _squeezed(x, axes)


@operator("Squeeze", since=13, host=(1,))
def squeeze(x: Value, axes: np.ndarray | None = None) -> Value:
    return _squeezed(x, None if axes is None else ints(axes))


def _squeezed(x: Value, axes: tuple[int, ...] | None) -> Value:
    gone = [i for i, size in enumerate(x.shape) if size == 1] if axes is None else axes_of(axes, x.ndim)
    for axis in gone:
        if x.shape[axis] != 1:
            raise ValueError(f"dimension {axis} has size {x.shape[axis]}, not 1")
    return x.reshape(tuple(size for i, size in enumerate(x.shape) if i not in gone))


@operator("Unsqueeze")
def unsqueeze_by_attribute(x: Value, *, axes: tuple[int, ...]) -> Value:
    return _unsqueezed(x, axes)


@operator("Unsqueeze", since=13, host=(1,))
def unsqueeze(x: Value, axes: np.ndarray) -> Value:
    return _unsqueezed(x, ints(axes))


def _unsqueezed(x: Value, axes: tuple[int, ...]) -> Value:
    rank = x.ndim + len(axes)
    new = axes_of(axes, rank)
    sizes = iter(x.shape)
    return x.reshape(tuple(1 if i in new else next(sizes) for i in range(rank)))


@operator("Concat")
def concat(*values: Value, axis: int = 1) -> Value:
    if is_tensor(values[0]):
        return F.cat(list(values), axis)
    return np.concatenate(values, axis)


@operator("Split")
def split_by_attribute(
    x: Value, sizes: np.ndarray | None = None, *, axis: int = 0, split: tuple[int, ...] = (), outputs: int
) -> Value:
    return _split(x, split or ints(sizes), axis, outputs)


@operator("Split", since=13, host=(1,))
def split(
    x: Value, sizes: np.ndarray | None = None, *, axis: int = 0, num_outputs: int | None = None, outputs: int
) -> Value:
    return _split(x, ints(sizes), axis, num_outputs or outputs)


def _split(x: Value, sizes: tuple[int, ...], axis: int, parts: int) -> tuple[Value, ...]:
    axis = axis_of(axis, x.ndim)
    whole = x.shape[axis]
    if not sizes:
        each = -(-whole // parts)  # the last one is smaller where they cannot all be equal
        sizes = (*(each,) * (parts - 1), whole - each * (parts - 1))
    if sum(sizes) != whole or min(sizes) < 0:
        raise ValueError(f"dimension {axis} has size {whole}, which does not split into {sizes}")
    ends = np.cumsum(sizes)
    lead = (slice(None),) * axis
    return tuple(x[(*lead, slice(end - size, end))] for size, end in zip(sizes, map(int, ends), strict=True))


@operator("Slice")
def slice_by_attributes(
    x: Value, *, starts: tuple[int, ...], ends: tuple[int, ...], axes: tuple[int, ...] | None = None
) -> Value:
    return _sliced(x, starts, ends, axes, None)


@operator("Slice", since=10, host=(1, 2, 3, 4))
def slice_(
    x: Value, starts: np.ndarray, ends: np.ndarray, axes: np.ndarray | None = None, steps: np.ndarray | None = None
) -> Value:
    return _sliced(
        x, ints(starts), ints(ends), None if axes is None else ints(axes), None if steps is None else ints(steps)
    )


def _sliced(
    x: Value,
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    axes: tuple[int, ...] | None,
    steps: tuple[int, ...] | None,
) -> Value:
    index = [slice(None)] * x.ndim
    axes = tuple(range(len(starts))) if axes is None else axes_of(axes, x.ndim)
    for axis, start, end, step in zip(axes, starts, ends, steps or (1,) * len(starts), strict=True):
        if step == 0:
            raise ValueError("a step is 0")
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


@operator("Shape")
def shape_of(x: Value, *, start: int = 0, end: int | None = None) -> np.ndarray:
    return np.array(x.shape[start:end], np.int64)


@operator("Size")
def size_of(x: Value) -> np.ndarray:
    return np.array(math.prod(x.shape), np.int64)


@operator("Constant")
def constant(
    *,
    value: np.ndarray | None = None,
    value_float: float | None = None,
    value_floats: tuple[float, ...] | None = None,
    value_int: int | None = None,
    value_ints: tuple[int, ...] | None = None,
    value_string: str | None = None,
    value_strings: tuple[str, ...] | None = None,
) -> np.ndarray:
    for given, dtype in (
        (value_float, np.float32),
        (value_floats, np.float32),
        (value_int, np.int64),
        (value_ints, np.int64),
        (value_string, object),
        (value_strings, object),
    ):
        if given is not None:
            return np.array(given, dtype)
    if value is None:
        raise ValueError("a constant without a value")
    return value


@operator("ConstantOfShape", host=(0,))
def constant_of_shape(shape: np.ndarray, *, value: np.ndarray | None = None) -> np.ndarray:
    fill = np.zeros(1, np.float32) if value is None else value.reshape(-1)
    return np.full(ints(shape), fill[0], fill.dtype)


@operator("EyeLike")
def eye_like(x: Value, *, dtype: int | None = None, k: int = 0) -> np.ndarray:
    return np.eye(x.shape[0], x.shape[1], k).astype(x.dtype if dtype is None else dtype_of(dtype))


@operator("Range", host=(0, 1, 2))
def arange(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    count = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    return (start.item() + np.arange(count) * delta.item()).astype(start.dtype)


@operator("Expand", host=(1,))
def expand(x: Value, shape: np.ndarray) -> Value:
    wanted = np.broadcast_shapes(x.shape, ints(shape))
    return x.expand(*wanted) if is_tensor(x) else np.broadcast_to(x, wanted)


@operator("Tile", host=(1, 2))
def tile_one_axis(x: Value, tiles: np.ndarray, axis: np.ndarray) -> Value:
    repeats = [1] * x.ndim
    repeats[axis_of(int(axis.item()), x.ndim)] = int(tiles.item())
    return _tiled(x, repeats)


@operator("Tile", since=6, host=(1,))
def tile(x: Value, repeats: np.ndarray) -> Value:
    return _tiled(x, list(ints(repeats)))


def _tiled(x: Value, repeats: list[int]) -> Value:
    if not is_tensor(x):
        return np.tile(x, repeats)
    apart = x.reshape(tuple(size for one in x.shape for size in (1, one)))
    wide = apart.expand(*[size for pair in zip(repeats, x.shape, strict=True) for size in pair])
    return wide.reshape(tuple(count * size for count, size in zip(repeats, x.shape, strict=True)))


_MODES = ("constant", "reflect", "edge", "wrap")  # NumPy's words too


@operator("Pad")
def pad_by_attributes(
    x: Value,
    *,
    paddings: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    mode: str = "constant",
    value: float = 0.0,
) -> Value:
    return padded(x, pads if paddings is None else paddings, mode, value)


@operator("Pad", since=11, host=(1, 2, 3))
def pad(
    x: Value,
    pads: np.ndarray,
    value: np.ndarray | None = None,
    axes: np.ndarray | None = None,
    *,
    mode: str = "constant",
) -> Value:
    amounts = ints(pads)
    if axes is not None:
        places = axes_of(axes, x.ndim)
        spread = [0] * (2 * x.ndim)
        for i, axis in enumerate(places):
            spread[axis], spread[x.ndim + axis] = amounts[i], amounts[len(places) + i]
        amounts = tuple(spread)
    return padded(x, amounts, mode, 0 if value is None or not value.size else value.item())


def padded(x: Value, pads: Any, mode: str = "constant", value: Any = 0) -> Value:
    """`pads` elements before each axis, then after each; negative ones are cut off."""
    if mode not in _MODES or len(pads) != 2 * x.ndim:
        raise ValueError(f"mode {mode!r} and {len(pads)} amounts for {x.ndim} dimensions")
    sides = list(zip(pads[: x.ndim], pads[x.ndim :], strict=True))
    cut = tuple(
        slice(max(-before, 0), size - max(-after, 0)) for (before, after), size in zip(sides, x.shape, strict=True)
    )
    x = x[cut]
    sides = [(max(before, 0), max(after, 0)) for before, after in sides]
    if not any(map(any, sides)):
        return x
    if mode != "constant":
        for axis, side in enumerate(sides):
            if any(side):
                order = np.pad(np.arange(x.shape[axis]), side, mode=mode)  # type: ignore[call-overload]
                x = taken(x, order, axis)
        return x
    if is_tensor(x):
        return F.pad(x, [amount for side in reversed(sides) for amount in side], value=float(value))
    return np.pad(x, sides, constant_values=value)


def taken(x: Value, index: np.ndarray, axis: int) -> Value:
    """x[..., index, ...] along one axis; `index` may have any shape."""
    whole = (slice(None),) * axis
    return x[(*whole, like_index(index, x))]


def like_index(index: np.ndarray, x: Value) -> Any:
    """An index where x lies."""
    return like(index, x)._data if is_tensor(x) else index


@operator("DepthToSpace")
def depth_to_space(x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        apart = permute(x.reshape((n, b, b, c // (b * b), h, w)), (0, 3, 4, 1, 5, 2))
    else:
        apart = permute(x.reshape((n, c // (b * b), b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return apart.reshape((n, c // (b * b), h * b, w * b))


@operator("SpaceToDepth")
def space_to_depth(x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    n, c, h, w = x.shape
    b = blocksize
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    apart = permute(x.reshape((n, c, h // b, b, w // b, b)), order)
    return apart.reshape((n, c * b * b, h // b, w // b))


@operator("Trilu", host=(1,))
def trilu(x: Value, k: np.ndarray | None = None, *, upper: int = 1) -> Value:
    offset = 0 if k is None else int(k.item())
    rows, columns = x.shape[-2:]
    kept = np.tri(rows, columns, offset - 1 if upper else offset, dtype=bool) ^ bool(upper)
    if is_tensor(x):
        return Where.apply(like_index(kept, x), x, x.dtype.type(0))
    return np.where(kept, x, x.dtype.type(0))


@operator("CenterCropPad", host=(1,))
def center_crop_pad(x: Value, shape: np.ndarray, *, axes: tuple[int, ...] | None = None) -> Value:
    pads = [0] * (2 * x.ndim)
    places = range(x.ndim) if axes is None else axes_of(axes, x.ndim)
    for axis, wanted in zip(places, ints(shape), strict=True):
        missing = wanted - x.shape[axis]
        before = abs(missing) // 2
        pads[axis] = before if missing > 0 else -before
        pads[x.ndim + axis] = missing - pads[axis]
    return padded(x, pads)


@operator("CumSum", host=(1,))
def cum_sum(x: Value, axis: np.ndarray, *, exclusive: int = 0, reverse: int = 0) -> Value:
    place = axis_of(int(axis.item()), x.ndim)
    return _cumulated(x, place, "CumSum", np.cumsum, 0, bool(exclusive), bool(reverse))


@operator("CumProd", host=(1,))
def cum_prod(x: Value, axis: np.ndarray, *, exclusive: int = 0, reverse: int = 0) -> Value:
    place = axis_of(int(axis.item()), x.ndim)
    return _cumulated(x, place, "CumProd", np.cumprod, 1, bool(exclusive), bool(reverse))


def _cumulated(x: Value, axis: int, what: str, function: Any, first: int, exclusive: bool, reverse: bool) -> Value:
    def run(array: np.ndarray) -> np.ndarray:
        array = np.flip(array, axis) if reverse else array
        if exclusive:
            array = np.roll(array, 1, axis)
            array[(slice(None),) * axis + (slice(0, 1),)] = first
        result = function(array, axis).astype(array.dtype)
        return np.flip(result, axis) if reverse else result

    return on_host(what, run, x)


@operator("ReverseSequence", host=(1,))
def reverse_sequence(x: Value, lengths: np.ndarray, *, batch_axis: int = 1, time_axis: int = 0) -> Value:
    times, batch = x.shape[time_axis], x.shape[batch_axis]
    step = np.arange(times)[:, None]
    order = np.where(step < lengths, lengths - 1 - step, step)  # (time, batch)
    column = np.broadcast_to(np.arange(batch), order.shape)
    if time_axis == 0:
        return x[(like_index(order, x), like_index(column, x))]
    return x[(like_index(column.T, x), like_index(order.T, x))]


@operator("NonZero")
def non_zero(x: Value) -> np.ndarray:
    array = host(x)
    return np.array(np.nonzero(array if array.ndim else array.reshape(1)), np.int64).reshape(max(array.ndim, 1), -1)


@operator("OneHot", host=(0, 1, 2))
def one_hot(indices: np.ndarray, depth: np.ndarray, values: np.ndarray, *, axis: int = -1) -> np.ndarray:
    count = int(depth.reshape(-1)[0])
    index = indices.astype(np.int64)
    index = np.where(index < 0, index + count, index)
    axis = axis % (indices.ndim + 1)
    classes = np.arange(count).reshape((-1, *(1,) * (indices.ndim - axis)))
    hot = np.expand_dims(index, axis) == classes
    return np.where(hot, values[1], values[0]).astype(values.dtype)


@operator("Unique")
def unique(x: Value, *, axis: int | None = None, sorted: int = 1) -> tuple[Any, ...]:
    values, first, inverse, counts = np.unique(host(x), True, True, True, axis=axis)
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first, kind="stable")
        values = np.take(values, order, 0 if axis is None else axis)
        rank = np.argsort(order, kind="stable")
        first, inverse, counts = first[order], rank[inverse], counts[order]
    return values, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


@operator("Compress", host=(1,))
def compress(x: Value, condition: np.ndarray, *, axis: int | None = None) -> Value:
    if axis is None:
        x, axis = x.reshape((-1,)), 0
    return taken(x, np.flatnonzero(condition), axis_of(axis, x.ndim))
