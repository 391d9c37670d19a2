"""The differentiable operations behind Tensor's own methods that move elements: shapes, parts, copies, broadcasting.

Every `backward` is written with Tensor operations, so each of them can be differentiated as often as wanted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.arrays import beside, copied, device_of, is_half, module_of, place
from pycnn.graph import Function
from pycnn.large import cast, concatenate
from pycnn.memory_format import new_array, wants_channels_last

__all__ = [
    "Cast",
    "Clone",
    "Concat",
    "Expand",
    "Full",
    "GetItem",
    "Move",
    "Permute",
    "PutAlong",
    "PutItem",
    "Reshape",
    "SetItem",
    "SumTo",
    "TakeAlong",
    "as_array",
    "sum_like",
    "sum_to",
    "total",
]

Array = Any


def as_array(result: Array) -> Array:
    """A 0-d array where NumPy made a scalar."""
    return np.asarray(result) if isinstance(result, np.generic) else result


def total(x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """The sum over `axes` in x's dtype; 16-bit floats are added up in float32, where sums do not stand still."""
    if is_half(x):
        with np.errstate(over="ignore"):
            return x.sum(axis=axes, keepdims=keepdims, dtype=np.float32).astype(x.dtype)
    return x.sum(axis=axes, keepdims=keepdims)


def sum_to(gradient: Any, meta: tuple[tuple[int, ...], Any] | None) -> Any:
    """`gradient` summed over the axes along which an operand of shape and dtype `meta` was broadcast."""
    if meta is None:
        return gradient
    shape, dtype = meta
    if gradient._data.shape != shape:
        gradient = SumTo.apply(gradient, shape)
    if gradient._data.dtype != dtype:
        gradient = Cast.apply(gradient, dtype)
    return gradient


def sum_like(gradient: Any, operand: Any) -> Any:
    """`gradient` summed over the axes along which the Tensor `operand` was broadcast, and in its dtype."""
    return sum_to(gradient, (operand.shape, operand.dtype))


class SumTo(Function):
    """Sum over broadcast axes; the opposite of `Expand`."""

    @staticmethod
    def forward(ctx: Any, x: Array, shape: tuple[int, ...]) -> Array:
        ctx.shape = x.shape
        lead = x.ndim - len(shape)
        axes = tuple(range(lead)) + tuple(
            i + lead for i, size in enumerate(shape) if size == 1 and x.shape[i + lead] != 1
        )
        return as_array(total(x, axes)).reshape(shape)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return Expand.apply(dy, ctx.shape), None


class Expand(Function):
    """Repeat along axes of size 1 and new leading axes (a read-only view)."""

    view = True

    @staticmethod
    def forward(ctx: Any, x: Array, shape: tuple[int, ...]) -> Array:
        ctx.shape = x.shape
        return module_of(x).broadcast_to(x, shape)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return SumTo.apply(dy, ctx.shape), None


class Cast(Function):
    """Another dtype; the gradient comes back in the old one."""

    @staticmethod
    def forward(ctx: Any, x: Array, dtype: Any) -> Array:
        ctx.dtype = x.dtype
        return cast(x, dtype)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return Cast.apply(dy, ctx.dtype), None


class Move(Function):
    """On another device, a full name; the gradient comes back to the old one."""

    @staticmethod
    def forward(ctx: Any, x: Array, device: str) -> Array:
        ctx.device = device_of(x)
        return place(x, device)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return Move.apply(dy, ctx.device), None


class Clone(Function):
    """A copy, channels-last or (not `last`) in C order."""

    @staticmethod
    def forward(ctx: Any, x: Array, last: bool) -> Array:
        return copied(x, last)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy, None


class Full(Function):
    """An array of `x`'s shape holding one number: what is left of `x` after fill_ or zero_; its gradient is 0."""

    @staticmethod
    def forward(ctx: Any, x: Array, value: float) -> Array:
        return module_of(x).full_like(x, value)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return Full.apply(dy, 0.0), None


class Reshape(Function):
    view = True

    @staticmethod
    def forward(ctx: Any, x: Array, shape: tuple[int, ...]) -> Array:
        ctx.shape = x.shape
        return x.reshape(shape)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return Reshape.apply(dy, ctx.shape), None


class Permute(Function):
    view = True

    @staticmethod
    def forward(ctx: Any, x: Array, axes: tuple[int, ...]) -> Array:
        ctx.axes = axes
        return x.transpose(axes)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        back = [0] * len(ctx.axes)
        for i, axis in enumerate(ctx.axes):
            back[axis] = i
        return Permute.apply(dy, tuple(back)), None


class Concat(Function):
    """Join along one axis."""

    @staticmethod
    def forward(ctx: Any, axis: int, *arrays: Array) -> Array:
        ctx.axis, ctx.sizes = axis, [array.shape[axis] for array in arrays]
        return concatenate(arrays, axis)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        results: list[Any] = [None]
        start = 0
        for size, needed in zip(ctx.sizes, ctx.needs_input_grad[1:], strict=True):
            index = (slice(None),) * ctx.axis + (slice(start, start + size),)
            results.append(GetItem.apply(dy, index) if needed else None)
            start += size
        return tuple(results)


class TakeAlong(Function):
    """y[..., j, ...] = x[..., index[..., j, ...], ...] along one axis."""

    @staticmethod
    def forward(ctx: Any, x: Array, index: Array, axis: int) -> Array:
        ctx.save(index)
        ctx.axis, ctx.shape = axis, x.shape
        return module_of(x).take_along_axis(x, index, axis)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return PutAlong.apply(dy, ctx.saved[0], ctx.axis, ctx.shape), None, None


class PutAlong(Function):
    """Zeros with dy added at `index` along one axis: the backward of `TakeAlong`.  Indices may repeat."""

    @staticmethod
    def forward(ctx: Any, dy: Array, index: Array, axis: int, shape: tuple[int, ...]) -> Array:
        ctx.save(index)
        ctx.axis = axis
        module = module_of(dy)
        dx = module.zeros(shape, dy.dtype)
        where_to = list(module.ogrid[tuple(slice(size) for size in index.shape)])
        where_to[axis] = index
        module.add.at(dx, tuple(where_to), dy)
        return dx

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return TakeAlong.apply(g, ctx.saved[0], ctx.axis), None, None, None


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None or part is Ellipsis or (isinstance(part, (slice, int, np.integer)) and not isinstance(part, bool))
        for part in parts
    )


class GetItem(Function):
    """x[index]; a view for ints, slices, None and Ellipsis, a copy for arrays of ints or bools."""

    view = True

    @staticmethod
    def forward(ctx: Any, x: Array, index: Any) -> Array:
        ctx.index, ctx.shape = index, x.shape
        y = x[index]
        if isinstance(y, np.generic):  # indexed down to one element: still a view
            y = x[(*index, ...) if isinstance(index, tuple) else (index, ...)]
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return PutItem.apply(dy, ctx.index, ctx.shape), None


class PutItem(Function):
    """Zeros of `shape` with dy added at `index`: the backward of `GetItem`."""

    @staticmethod
    def forward(ctx: Any, dy: Array, index: Any, shape: tuple[int, ...]) -> Array:
        ctx.index = index
        module = module_of(dy)
        dx = new_array(module.zeros, shape, dy.dtype, len(shape) == 4 and wants_channels_last(dy))
        if _is_basic(index):
            dx[index] = dy
        else:
            module.add.at(dx, index, dy)
        return dx

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return GetItem.apply(g, ctx.index), None, None


class SetItem(Function):
    """A copy of x with `value` written at `index`."""

    @staticmethod
    def forward(ctx: Any, x: Array, value: Array, index: Any) -> Array:
        y = x.copy()
        y[index] = beside(value, y)
        ctx.index = index
        ctx.meta = (value.shape, value.dtype) if hasattr(value, "shape") else None
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        dx = SetItem.apply(dy, 0.0, ctx.index) if ctx.needs_input_grad[0] else None
        dvalue = None
        if ctx.needs_input_grad[1]:
            part = GetItem.apply(dy, ctx.index)
            shape, dtype = ctx.meta
            lead = len(shape) - part.ndim  # NumPy lets a value have leading axes of size 1
            if lead > 0:
                part = Reshape.apply(part, (1,) * lead + part.shape)
            dvalue = sum_to(part, (shape, dtype))
        return dx, dvalue, None
