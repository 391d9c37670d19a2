"""Functions of one element that neither Tensors nor `pycnn.functional` have, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pycnn.arrays import module_of
from pycnn.graph import Function
from pycnn.onnx.operators._common import Value, is_tensor
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor

Array = Any


class _Form(NamedTuple):
    """A function of an array, given its library; and its slope, of a Tensor: None for a function made of steps."""

    value: Callable[[Any, Array], Array]
    slope: Callable[[Tensor], Tensor] | None


class Pointwise(Function):
    """y = f(x), f by its name in `_FORMS`."""

    @staticmethod
    def forward(ctx: Any, x: Array, name: str) -> Array:
        ctx.save(x)
        ctx.name = name
        y = _FORMS[name].value(module_of(x), x)
        return np.asarray(y) if isinstance(y, np.generic) else y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        slope = _FORMS[ctx.name].slope
        return dy * 0.0 if slope is None else dy * slope(ctx.saved[0]), None


def pointwise(name: str, x: Value) -> Value:
    """The function `name` of a Tensor, or of an array of integers."""
    if is_tensor(x):
        return Pointwise.apply(x, name)
    return np.asarray(_FORMS[name].value(np, x)).astype(x.dtype, copy=False)


_FORMS = {
    "acos": _Form(lambda m, x: m.arccos(x), lambda x: -((1.0 - x * x) ** -0.5)),
    "acosh": _Form(lambda m, x: m.arccosh(x), lambda x: (x * x - 1.0) ** -0.5),
    "asin": _Form(lambda m, x: m.arcsin(x), lambda x: (1.0 - x * x) ** -0.5),
    "asinh": _Form(lambda m, x: m.arcsinh(x), lambda x: (x * x + 1.0) ** -0.5),
    "atan": _Form(lambda m, x: m.arctan(x), lambda x: 1.0 / (x * x + 1.0)),
    "atanh": _Form(lambda m, x: m.arctanh(x), lambda x: 1.0 / (1.0 - x * x)),
    "ceil": _Form(lambda m, x: m.ceil(x), None),
    "cos": _Form(lambda m, x: m.cos(x), lambda x: -pointwise("sin", x)),
    "cosh": _Form(lambda m, x: m.cosh(x), lambda x: pointwise("sinh", x)),
    "floor": _Form(lambda m, x: m.floor(x), None),
    "round": _Form(lambda m, x: m.rint(x), None),
    "sign": _Form(lambda m, x: m.sign(x), None),
    "sin": _Form(lambda m, x: m.sin(x), lambda x: pointwise("cos", x)),
    "sinh": _Form(lambda m, x: m.sinh(x), lambda x: pointwise("cosh", x)),
    "tan": _Form(lambda m, x: m.tan(x), lambda x: pointwise("cos", x) ** -2.0),
}


def _register(name: str) -> None:
    def function(x: Value) -> Value:
        return pointwise(name, x)

    operator(name.capitalize())(function)


for _name in _FORMS:
    _register(_name)
