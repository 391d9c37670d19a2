"""The differentiable operations behind Tensor's own methods that compute: arithmetic, reductions, choices.

Every `backward` is written with Tensor operations, so each of them can be differentiated as often as wanted.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from pycnn.arrays import is_half, module_of
from pycnn.graph import Function
from pycnn.large import by_element, cast, plus, product
from pycnn.movement import Expand, Reshape, as_array, sum_to, total

Array = Any


def _meta(operand: Array, result: Array) -> tuple[tuple[int, ...], Any] | None:
    """Shape and dtype of an operand that differs from the result in either."""
    if getattr(operand, "shape", None) == result.shape and operand.dtype == result.dtype:
        return None
    return (operand.shape, operand.dtype) if hasattr(operand, "shape") else None


class Add(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        y = as_array(plus(a, b))
        ctx.meta = _meta(a, y), _meta(b, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        da, db = ctx.needs_input_grad
        return sum_to(dy, ctx.meta[0]) if da else None, sum_to(dy, ctx.meta[1]) if db else None


class Sub(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        y = as_array(by_element(operator.sub, a, b))
        ctx.meta = _meta(a, y), _meta(b, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        da, db = ctx.needs_input_grad
        return sum_to(dy, ctx.meta[0]) if da else None, sum_to(-dy, ctx.meta[1]) if db else None


class Mul(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        y = as_array(by_element(operator.mul, a, b))
        ctx.meta = _meta(a, y), _meta(b, y)
        da, db = ctx.needs_input_grad
        ctx.save(b if da else None, a if db else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        b, a = ctx.saved
        da, db = ctx.needs_input_grad
        return sum_to(dy * b, ctx.meta[0]) if da else None, sum_to(dy * a, ctx.meta[1]) if db else None


class Div(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        y = as_array(by_element(operator.truediv, a, b))
        ctx.meta = _meta(a, y), _meta(b, y)
        ctx.save(b, a if ctx.needs_input_grad[1] else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        b, a = ctx.saved
        da, db = ctx.needs_input_grad
        return (
            sum_to(dy / b, ctx.meta[0]) if da else None,
            sum_to(-dy * a / (b * b), ctx.meta[1]) if db else None,
        )


class Neg(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        return as_array(by_element(operator.neg, x))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return -dy


class PowNumber(Function):
    """x ** exponent with a plain number: d/dx = exponent * x**(exponent - 1)."""

    @staticmethod
    def forward(ctx: Any, x: Array, exponent: float) -> Array:
        ctx.save(x)
        ctx.exponent = exponent
        y = as_array(by_element(operator.pow, x, exponent))
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
        y = as_array(by_element(operator.pow, a, b))
        ctx.meta = _meta(a, y), _meta(b, y)
        ctx.save(a, b)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        a, b = ctx.saved
        da = db = None
        if ctx.needs_input_grad[0]:
            power = where(b == 0, 0.0, b * a ** where(b == 0, 1.0, b - 1))
            da = sum_to(dy * power, ctx.meta[0])
        if ctx.needs_input_grad[1]:
            zero = a == 0
            db = sum_to(where(zero, 0.0, dy * a**b * where(zero, 1.0, a).log()), ctx.meta[1])
        return da, db


class Matmul(Function):
    """a @ b, the last two axes multiplied and the others broadcast."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        da, db = ctx.needs_input_grad
        ctx.save(b if da else None, a if db else None)
        ctx.shapes = a.shape, b.shape
        return as_array(product(a, b))

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
            da = sum_to(da, ((1, *shape_a) if len(shape_a) == 1 else shape_a, da.dtype)).reshape(shape_a)
        if ctx.needs_input_grad[1]:
            matrix = a if len(shape_a) > 1 else a.unsqueeze(0)
            db = matrix.transpose(-1, -2) @ (rows if len(shape_a) > 1 or len(shape_b) > 1 else rows.reshape(1, 1))
            db = sum_to(db, ((*shape_b, 1) if len(shape_b) == 1 else shape_b, db.dtype)).reshape(shape_b)
        return da, db


class Exp(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        y = as_array(by_element(module_of(x).exp, x))
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
            return as_array(by_element(module.log, x))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy / ctx.saved[0]


class Sqrt(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y = as_array(by_element(module_of(x).sqrt, x))
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy / (2.0 * ctx.saved[0])


class Abs(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        ctx.save(module_of(x).sign(x) if ctx.needs_input_grad[0] else None)
        return as_array(by_element(abs, x))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy * ctx.saved[0]


class Sum(Function):
    """Sum over `axes` (a tuple of non-negative ints)."""

    @staticmethod
    def forward(ctx: Any, x: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
        ctx.shape = x.shape
        ctx.kept = tuple([1 if i in axes else size for i, size in enumerate(x.shape)])
        return as_array(total(x, axes, keepdim))

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
            as_array(y) if keepdim else as_array(y.reshape([size for i, size in enumerate(y.shape) if i not in axes]))
        )

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return Reshape.apply(dy, ctx.kept) * ctx.saved[0], None, None, None


class Where(Function):
    """a where the condition holds, else b."""

    @staticmethod
    def forward(ctx: Any, condition: Array, a: Array, b: Array) -> Array:
        y = as_array(module_of(condition).where(condition, a, b))
        ctx.save(condition)
        ctx.meta = _meta(a, y), _meta(b, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (condition,) = ctx.saved
        _, da, db = ctx.needs_input_grad
        return (
            None,
            sum_to(Where.apply(condition, dy, _zero(dy)), ctx.meta[0]) if da else None,
            sum_to(Where.apply(condition, _zero(dy), dy), ctx.meta[1]) if db else None,
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
        y = as_array(module.maximum(a, b) if largest else module.minimum(a, b))
        if True in ctx.needs_input_grad:
            half = y.dtype.type(0.5)
            from_a = (a > b if largest else a < b).astype(y.dtype) + half * (a == b)
            ctx.save(as_array(from_a), as_array(1 - from_a))
        ctx.meta = _meta(a, y), _meta(b, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        from_a, from_b = ctx.saved
        da, db, _ = ctx.needs_input_grad
        return (
            sum_to(dy * from_a, ctx.meta[0]) if da else None,
            sum_to(dy * from_b, ctx.meta[1]) if db else None,
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
            return as_array(module.clip(x, low, high))
        y = x if low is None else module.maximum(x, x.dtype.type(low))  # clip does not know bfloat16
        return as_array(y if high is None else module.minimum(y, x.dtype.type(high)))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy * ctx.saved[0], None, None
