"""The differentiable operations behind Tensor's own methods: arithmetic, reductions, indexing and shapes.

Every `backward` is written with Tensor operations, so each of them can be differentiated as often as wanted.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from pycnn.arrays import beside, copied, device_of, is_half, module_of, place
from pycnn.graph import Function
from pycnn.large import by_element, cast, concatenate, plus, product
from pycnn.memory_format import new_array, wants_channels_last

Array = Any


def _as_array(result: Array) -> Array:
    """A 0-d array where NumPy made a scalar."""
    return np.asarray(result) if isinstance(result, np.generic) else result


def _sum(x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """The sum over `axes` in x's dtype; 16-bit floats are added up in float32, where sums do not stand still."""
    if is_half(x):
        with np.errstate(over="ignore"):
            return x.sum(axis=axes, keepdims=keepdims, dtype=np.float32).astype(x.dtype)
    return x.sum(axis=axes, keepdims=keepdims)


def _sum_to(gradient: Any, meta: tuple[tuple[int, ...], Any] | None) -> Any:
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
    return _sum_to(gradient, (operand.shape, operand.dtype))


def _meta(operand: Array, result: Array) -> tuple[tuple[int, ...], Any] | None:
    """Shape and dtype of an operand that differs from the result in either."""
    if getattr(operand, "shape", None) == result.shape and operand.dtype == result.dtype:
        return None
    return (operand.shape, operand.dtype) if hasattr(operand, "shape") else None


class SumTo(Function):
    """Sum over broadcast axes; the opposite of `Expand`."""

    @staticmethod
    def forward(ctx: Any, x: Array, shape: tuple[int, ...]) -> Array:
        ctx.shape = x.shape
        lead = x.ndim - len(shape)
        axes = tuple(range(lead)) + tuple(
            i + lead for i, size in enumerate(shape) if size == 1 and x.shape[i + lead] != 1
        )
        return _as_array(_sum(x, axes)).reshape(shape)

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


class Add(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        y = _as_array(plus(a, b))
        ctx.meta = _meta(a, y), _meta(b, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        da, db = ctx.needs_input_grad
        return _sum_to(dy, ctx.meta[0]) if da else None, _sum_to(dy, ctx.meta[1]) if db else None


class Sub(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        y = _as_array(by_element(operator.sub, a, b))
        ctx.meta = _meta(a, y), _meta(b, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        da, db = ctx.needs_input_grad
        return _sum_to(dy, ctx.meta[0]) if da else None, _sum_to(-dy, ctx.meta[1]) if db else None


class Mul(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        y = _as_array(by_element(operator.mul, a, b))
        ctx.meta = _meta(a, y), _meta(b, y)
        da, db = ctx.needs_input_grad
        ctx.save(b if da else None, a if db else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        b, a = ctx.saved
        da, db = ctx.needs_input_grad
        return _sum_to(dy * b, ctx.meta[0]) if da else None, _sum_to(dy * a, ctx.meta[1]) if db else None


class Div(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        y = _as_array(by_element(operator.truediv, a, b))
        ctx.meta = _meta(a, y), _meta(b, y)
        ctx.save(b, a if ctx.needs_input_grad[1] else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        b, a = ctx.saved
        da, db = ctx.needs_input_grad
        return (
            _sum_to(dy / b, ctx.meta[0]) if da else None,
            _sum_to(-dy * a / (b * b), ctx.meta[1]) if db else None,
        )


class Neg(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        return _as_array(by_element(operator.neg, x))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return -dy


class PowNumber(Function):
    """x ** exponent with a plain number: d/dx = exponent * x**(exponent - 1)."""

    @staticmethod
    def forward(ctx: Any, x: Array, exponent: float) -> Array:
        ctx.save(x)
        ctx.exponent = exponent
        y = _as_array(by_element(operator.pow, x, exponent))
        return y if y.dtype == x.dtype else cast(y, x.dtype)  # bfloat16 to the power of a number is float32 to NumPy

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (x,) = ctx.saved
        exponent = ctx.exponent
        if exponent == 0:
            return dy * 0.0, None
        return dy * (exponent * x ** (exponent - 1)), None


class Pow(Function):
    """a ** b: d/da = b * a**(b - 1), d/db = a**b * ln a (0 where a is 0, as PyTorch)."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        y = _as_array(by_element(operator.pow, a, b))
        ctx.meta = _meta(a, y), _meta(b, y)
        ctx.save(a, b)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        a, b = ctx.saved
        da = db = None
        if ctx.needs_input_grad[0]:
            power = where(b == 0, 0.0, b * a ** where(b == 0, 1.0, b - 1))
            da = _sum_to(dy * power, ctx.meta[0])
        if ctx.needs_input_grad[1]:
            zero = a == 0
            db = _sum_to(where(zero, 0.0, dy * a**b * where(zero, 1.0, a).log()), ctx.meta[1])
        return da, db


class Matmul(Function):
    """a @ b, the last two axes multiplied and the others broadcast."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        da, db = ctx.needs_input_grad
        ctx.save(b if da else None, a if db else None)
        ctx.shapes = a.shape, b.shape
        return _as_array(product(a, b))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        b, a = ctx.saved
        shape_a, shape_b = ctx.shapes
        da = db = None
        rows = dy if len(shape_a) > 1 else dy.unsqueeze(-1 if len(shape_b) == 1 else -2)
        rows = rows if len(shape_b) > 1 else rows.unsqueeze(-1)  # dy as (..., m, n) with m or n of 1 put back
        if ctx.needs_input_grad[0]:
            matrix = b if len(shape_b) > 1 else b.unsqueeze(-1)
            da = (rows if len(shape_a) > 1 or len(shape_b) > 1 else rows.reshape(1, 1)) @ matrix.transpose(-1, -2)
            da = _sum_to(da, ((1, *shape_a) if len(shape_a) == 1 else shape_a, da.dtype)).reshape(shape_a)
        if ctx.needs_input_grad[1]:
            matrix = a if len(shape_a) > 1 else a.unsqueeze(0)
            db = matrix.transpose(-1, -2) @ (rows if len(shape_a) > 1 or len(shape_b) > 1 else rows.reshape(1, 1))
            db = _sum_to(db, ((*shape_b, 1) if len(shape_b) == 1 else shape_b, db.dtype)).reshape(shape_b)
        return da, db


class Exp(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        y = _as_array(by_element(module_of(x).exp, x))
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy * ctx.saved[0]


class Log(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        ctx.save(x)
        module = module_of(x)
        with np.errstate(divide="ignore", invalid="ignore"):  # log(0) = -inf and log(-1) = nan, silently as PyTorch
            return _as_array(by_element(module.log, x))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy / ctx.saved[0]


class Sqrt(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y = _as_array(by_element(module_of(x).sqrt, x))
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy / (2.0 * ctx.saved[0])


class Abs(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        ctx.save(module_of(x).sign(x) if ctx.needs_input_grad[0] else None)
        return _as_array(by_element(abs, x))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy * ctx.saved[0]


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


class Sum(Function):
    """Sum over `axes` (a tuple of non-negative ints)."""

    @staticmethod
    def forward(ctx: Any, x: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
        ctx.shape = x.shape
        ctx.kept = tuple([1 if i in axes else size for i, size in enumerate(x.shape)])
        return _as_array(_sum(x, axes, keepdim))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        if dy._data.shape != ctx.kept:
            dy = Reshape.apply(dy, ctx.kept)
        return Expand.apply(dy, ctx.shape), None, None


class Extreme(Function):
    """Largest (or smallest) element over `axes`; elements that tie share the gradient equally, as PyTorch's amax."""

    @staticmethod
    def forward(ctx: Any, x: Array, axes: tuple[int, ...], keepdim: bool, largest: bool) -> Array:
        y = x.max(axis=axes, keepdims=True) if largest else x.min(axis=axes, keepdims=True)
        if ctx.needs_input_grad[0]:
            ties = (x == y) | (x != x)  # a NaN wins, and x != x finds it
            share = ties.astype(x.dtype)
            ctx.save(share / share.sum(axis=axes, keepdims=True))
        ctx.kept = y.shape
        return (
            _as_array(y) if keepdim else _as_array(y.reshape([size for i, size in enumerate(y.shape) if i not in axes]))
        )

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return Reshape.apply(dy, ctx.kept) * ctx.saved[0], None, None, None


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
            dvalue = _sum_to(part, (shape, dtype))
        return dx, dvalue, None


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


class Where(Function):
    """a where the condition holds, else b."""

    @staticmethod
    def forward(ctx: Any, condition: Array, a: Array, b: Array) -> Array:
        y = _as_array(module_of(condition).where(condition, a, b))
        ctx.save(condition)
        ctx.meta = _meta(a, y), _meta(b, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (condition,) = ctx.saved
        _, da, db = ctx.needs_input_grad
        return (
            None,
            _sum_to(Where.apply(condition, dy, _zero(dy)), ctx.meta[0]) if da else None,
            _sum_to(Where.apply(condition, _zero(dy), dy), ctx.meta[1]) if db else None,
        )


def _zero(like: Any) -> Array:
    return like._data.dtype.type(0)


def where(condition: Any, a: Any, b: Any) -> Any:
    """`Where` with numbers taken to the dtype of the tensor beside them."""
    number = (int, float)
    if isinstance(a, number) and not isinstance(b, number):
        a = b.dtype.type(a)
    elif isinstance(b, number) and not isinstance(a, number):
        b = a.dtype.type(b)
    return Where.apply(condition, a, b)


class Bigger(Function):
    """Elementwise maximum (or minimum) of a and b; where they tie, each gets half of the gradient, as PyTorch."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array, largest: bool) -> Array:
        module = module_of(a)
        y = _as_array(module.maximum(a, b) if largest else module.minimum(a, b))
        if True in ctx.needs_input_grad:
            half = y.dtype.type(0.5)
            from_a = (a > b if largest else a < b).astype(y.dtype) + half * (a == b)
            ctx.save(_as_array(from_a), _as_array(1 - from_a))
        ctx.meta = _meta(a, y), _meta(b, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        from_a, from_b = ctx.saved
        da, db, _ = ctx.needs_input_grad
        return (
            _sum_to(dy * from_a, ctx.meta[0]) if da else None,
            _sum_to(dy * from_b, ctx.meta[1]) if db else None,
            None,
        )


class Clamp(Function):
    """x limited to [low, high] (either may be None); the gradient passes where low <= x <= high, as PyTorch."""

    @staticmethod
    def forward(ctx: Any, x: Array, low: float | None, high: float | None) -> Array:
        if ctx.needs_input_grad[0]:
            inside = np.True_ if low is None else x >= low
            ctx.save((inside if high is None else inside & (x <= high)).astype(x.dtype))
        module = module_of(x)
        if not is_half(x):
            return _as_array(module.clip(x, low, high))
        y = x if low is None else module.maximum(x, x.dtype.type(low))  # clip does not know bfloat16
        return _as_array(y if high is None else module.minimum(y, x.dtype.type(high)))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy * ctx.saved[0], None, None
