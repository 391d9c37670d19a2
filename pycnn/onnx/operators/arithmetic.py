"""Arithmetic, comparison, logic and conversion, element by element."""

from __future__ import annotations

import functools
import operator as python
from collections.abc import Callable
from typing import Any

import numpy as np

from pycnn._extras import extra
from pycnn.arithmetic import Where
from pycnn.arrays import beside
from pycnn.onnx.graph import dtype_of
from pycnn.onnx.operators._common import Value, host, is_tensor, on_host, tensor_of
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor

with extra("onnx", "onnx"):
    from onnx import numpy_helper


def _aligned(a: Value, b: Value, broadcast: int, axis: int | None) -> Value:
    """b with dimensions of size 1 behind its own: before opset 7 it was laid to `axis` of a, not to the end of it."""
    if not broadcast or axis is None:
        return b
    behind = a.ndim - axis % max(a.ndim, 1) - b.ndim
    return b.reshape((*b.shape, *(1,) * behind))


def _binary(name: str, function: Callable[[Value, Value], Value], since: int = 1) -> None:
    def old(a: Value, b: Value, *, broadcast: int = 0, axis: int | None = None) -> Value:
        return function(a, _aligned(a, b, broadcast, axis))

    if since == 1:
        operator(name, since=1)(old)
    operator(name, since=max(since, 7))(function)


def _div(a: Value, b: Value) -> Value:
    if is_tensor(a):
        return a / b
    quotient = a // b
    return quotient + ((a % b != 0) & ((a < 0) != (b < 0)))  # Python rounds down, ONNX to zero


def _pow(a: Value, b: Value) -> Value:
    if is_tensor(a):
        if is_tensor(b) and b.dtype == a.dtype:
            return a**b
        return a ** (b.to(a.dtype) if is_tensor(b) else tensor_of(b.astype(a.dtype), a))
    if not is_tensor(b) and (b >= 0).all():
        return np.power(a, b).astype(a.dtype)
    return np.power(a.astype(np.float64), host(b)).astype(a.dtype)


def _wrapped(function: Callable[..., Any]) -> Callable[[Value, Value], Value]:
    """A function of Tensors or arrays with the dtype of the first kept: NumPy widens small integers in places."""

    @functools.wraps(function)
    def kept(a: Value, b: Value) -> Value:
        result = function(a, b)
        return result if is_tensor(result) else np.asarray(result).astype(a.dtype, copy=False)

    return kept


for _name, _function in {
    "Add": _wrapped(python.add),
    "Sub": _wrapped(python.sub),
    "Mul": _wrapped(python.mul),
    "Div": _wrapped(_div),
    "Pow": _pow,
}.items():
    _binary(_name, _function)


def _compared(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Value, Value], np.ndarray]:
    def compared(a: Value, b: Value) -> np.ndarray:
        return np.asarray(function(host(a), host(b)))

    return compared


for _name, _ufunc, _since in (
    ("Equal", np.equal, 1),
    ("Greater", np.greater, 1),
    ("Less", np.less, 1),
    ("GreaterOrEqual", np.greater_equal, 12),
    ("LessOrEqual", np.less_equal, 12),
    ("And", np.logical_and, 1),
    ("Or", np.logical_or, 1),
    ("Xor", np.logical_xor, 1),
    ("BitwiseAnd", np.bitwise_and, 18),
    ("BitwiseOr", np.bitwise_or, 18),
    ("BitwiseXor", np.bitwise_xor, 18),
):
    _binary(_name, _compared(_ufunc), _since)


@operator("Not")
def logical_not(x: np.ndarray) -> np.ndarray:
    return ~x


@operator("BitwiseNot")
def bitwise_not(x: np.ndarray) -> np.ndarray:
    return np.bitwise_not(x)


@operator("BitShift")
def bit_shift(x: np.ndarray, y: np.ndarray, *, direction: str) -> np.ndarray:
    return (np.left_shift if direction == "LEFT" else np.right_shift)(x, y)


@operator("Mod")
def mod(a: Value, b: Value, *, fmod: int = 0) -> Value:
    function: Any = np.fmod if fmod else np.mod
    return on_host("Mod", lambda a, b: function(a, b).astype(a.dtype), a, b)


def _folded(tensor: str, array: Callable[[Any, Any], Any]) -> Callable[..., Value]:
    def folded(*values: Value) -> Value:
        return functools.reduce(lambda a, b: getattr(a, tensor)(b) if is_tensor(a) else array(a, b), values)

    return folded


for _name, _method, _array in (
    ("Max", "maximum", np.maximum),
    ("Min", "minimum", np.minimum),
    ("Sum", "__add__", np.add),
):
    operator(_name)(_folded(_method, _array))


@operator("Mean")
def mean(*values: Value) -> Value:
    return functools.reduce(python.add, values) / len(values)


@operator("Neg")
def neg(x: Value) -> Value:
    return -x


@operator("Abs")
def absolute(x: Value) -> Value:
    return abs(x)


@operator("Reciprocal")
def reciprocal(x: Tensor) -> Tensor:
    return 1.0 / x


@operator("Sqrt")
def sqrt(x: Tensor) -> Tensor:
    return x.sqrt()


@operator("Exp")
def exp(x: Tensor) -> Tensor:
    return x.exp()


@operator("Log")
def log(x: Tensor) -> Tensor:
    return x.log()


@operator("IsNaN")
def is_nan(x: Value) -> np.ndarray:
    array = host(x)
    return np.asarray(array != array)


@operator("IsInf")
def is_inf(x: Value, *, detect_negative: int = 1, detect_positive: int = 1) -> np.ndarray:
    array = host(x)
    infinite = np.isinf(array.astype(np.float32) if array.dtype.kind != "f" else array)
    return infinite & np.where(array < 0, bool(detect_negative), bool(detect_positive))


@operator("Clip")
def clip_by_attributes(x: Value, *, min: float | None = None, max: float | None = None) -> Value:
    return _clipped(x, min, max)


@operator("Clip", since=11, host=(1, 2))
def clip(x: Value, low: np.ndarray | None = None, high: np.ndarray | None = None) -> Value:
    return _clipped(x, None if low is None else low.item(), None if high is None else high.item())


def _clipped(x: Value, low: Any, high: Any) -> Value:
    if low is None and high is None:
        return x
    if is_tensor(x):
        return x.clamp(low, high)
    bounded = x if low is None else np.maximum(x, x.dtype.type(low))
    return bounded if high is None else np.minimum(bounded, x.dtype.type(high))


@operator("Where")
def where(condition: np.ndarray, a: Value, b: Value) -> Value:
    if is_tensor(a):
        return Where.apply(beside(condition, a._data), a, b)
    return np.where(condition, a, b)


@operator("Cast")
def cast_by_name(x: Value, *, to: str) -> Value:
    return converted(x, np.dtype({"FLOAT": "float32", "DOUBLE": "float64"}.get(to, to.lower())))


@operator("Cast", since=6)
def cast(x: Value, *, to: int, saturate: int = 1, round_mode: str = "up") -> Value:
    return converted(x, dtype_of(to), bool(saturate), round_mode)


@operator("CastLike")
def cast_like(x: Value, target: Value, *, saturate: int = 1, round_mode: str = "up") -> Value:
    return converted(x, target.dtype, bool(saturate), round_mode)


def converted(x: Value, dtype: np.dtype[Any], saturate: bool = True, round_mode: str = "up") -> Value:
    """x in another dtype; for the small floats, what is too large is the largest of them if `saturate`."""
    if is_tensor(x) and ((dtype.kind == "f" and dtype.itemsize > 1) or dtype.name == "bfloat16"):
        return x.to(dtype)
    array = host(x)
    if dtype.kind in "OUT":
        return np.asarray([str(one) for one in array.reshape(-1)], object).reshape(array.shape)
    if dtype.name == "float8_e8m0fnu":
        return numpy_helper.to_float8e8m0(array, saturate, round_mode).astype(dtype)
    if dtype.name.startswith("float8") and saturate:
        return numpy_helper.saturate_cast(array, dtype)
    return array.astype(dtype)


@operator("Identity")
def identity(x: Value) -> Value:
    return x
